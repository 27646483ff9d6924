//! What goes over the wire: promises 7, 8 and 9.

use std::time::Duration;

use crate::common::INSTANCE;
use heartbeat_core::{
    Cause, Config, Control, Evidence, Hello, Instant, Monitor, Nonce, testkit::us,
};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};

use super::support::{
    MICROSECOND, Rig, Script, What, cases, hello, history, is_accepted, lenient, micros, part,
    share, shortest, start, steady, step, tolerated,
};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn promise_07_no_echo_storms(
        config: Config, seed: u64, start: Instant, steps in vec(step(), 0..60),
    ) {
        let mut script = Script::new(config, seed, start);
        let mut pinged = 0;
        let mut ponged = 0;
        let mut latest = None;
        for &step in &steps {
            if let What::Frame(Control::Ping(nonce)) = step.what {
                pinged += 1;
                latest = Some(nonce);
            }
            script.perform(step);
            for control in script.out.drain(..) {
                if let Control::Pong(nonce) = control {
                    ponged += 1;
                    prop_assert_eq!(Some(nonce), latest, "not the latest ping's");
                }
            }
            prop_assert!(ponged <= pinged, "{} pongs for {} pings", ponged, pinged);
        }
        script.drain();
        let pongs = script.out.iter().filter(|control| matches!(control, Control::Pong(_)));
        prop_assert!(pongs.count() <= 1, "more than one was pending");
    }

    #[test]
    fn promise_07_a_pong_is_never_answered(
        config: Config, seed: u64, start: Instant, steps in vec(step(), 0..30),
        pongs in vec(any::<Option<Nonce>>(), 1..4),
    ) {
        let mut script = Script::new(config, seed, start);
        for &step in &steps {
            script.perform(step);
        }
        script.drain();
        script.out.clear();
        for pong in pongs {
            let what = pong.map_or(What::Answer(0), |nonce| What::Frame(Control::Pong(nonce)));
            script.call(what);
            script.drain();
        }
        // At most our own ping, after a stall.
        let ours = |control: &Control| matches!(control, Control::Ping(_));
        prop_assert!(script.out.iter().all(ours) && script.out.len() <= 1, "{:?}", script.out);
    }

    // Our ping leaves along with the answer once it was due soon, and no sooner.
    #[test]
    fn promise_07_a_ping_triggers_a_ping_only_if_ours_was_due_soon(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        waits in vec((part(), any::<bool>()), 1..12),
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        for (wait, answers) in waits {
            let deadline = rig.monitor.poll_timeout().unwrap();
            rig.now = rig.now + share(deadline.saturating_duration_since(rig.now), wait);
            if answers && rig.answered < rig.pings.len() {
                rig.pong();
                rig.settle();
            }
            let silent_since = rig.last_heard();
            let sent = rig.pings.len();
            let is_idle = rig.monitor.is_idle();
            rig.monitor.handle_frame(Control::Ping(Nonce([7; 8])), rig.now);
            let answer = rig.monitor.clone().poll_transmit();
            rig.settle();
            if rig.monitor.has_ended() {
                return Ok(());
            }
            prop_assert_eq!(answer, Some(Control::Pong(Nonce([7; 8]))));
            prop_assert_eq!(rig.last_heard(), silent_since, "a ping is no evidence");
            let gap = match &rig.pings[..sent] {
                [.., (last, _)] => rig.now.saturating_duration_since(*last),
                [] => Duration::MAX,
            };
            if is_idle {
                prop_assert_eq!(rig.pings.len() > sent, gap >= spacing(&rig), "{:?}", gap);
            } else if rig.pings.len() > sent {
                prop_assert!(gap >= spacing(&rig).max(config.timeout()), "{gap:?}");
            }
        }
    }

    #[test]
    fn promise_07_two_monitors_fall_silent(
        a in any::<Config>(), b in any::<Config>(), seed: u64, start in start(),
        a_steps in vec(step(), 0..20), b_steps in vec(step(), 0..20),
    ) {
        let mut a = Script::new(a, seed, start);
        let mut b = Script::new(b, !seed, start);
        a_steps.iter().for_each(|&step| a.perform(step));
        b_steps.iter().for_each(|&step| b.perform(step));
        let mut frames = 0;
        // Both may have a Hello, a pong, a ping, an Alive and a goodbye; each ping
        // is answered, and so is the one that leaves with an answer; and late news
        // may make one ask once more.
        loop {
            let from_a = a.transmit();
            let from_b = b.transmit();
            a.call(What::Flushed);
            b.call(What::Flushed);
            if from_a.is_none() && from_b.is_none() {
                break;
            }
            frames += 1;
            prop_assert!(frames <= 20, "an echo storm: {:?} {:?}", a.out, b.out);
            if let Some(control) = from_a {
                b.call(What::Frame(control));
            }
            if let Some(control) = from_b {
                a.call(What::Frame(control));
            }
        }
    }

    #[test]
    fn promise_08_rate(
        config: Config, seed: u64, start in start(), hello in hello(),
        doings in vec((part(), 0..11_u8), 1..24),
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        let mut watch = Watch::new(&rig);
        for (part, what) in doings {
            let Some(deadline) = rig.monitor.poll_timeout() else { break };
            match what {
                // Evidence, after some silence.
                0..4 => {
                    let until = rig.now + share(rig.detection_time(), part);
                    while rig.monitor.poll_timeout().is_some_and(|deadline| deadline <= until) {
                        rig.wake_on_time();
                        watch.look(&rig, false)?;
                    }
                    rig.now = rig.now.max(until);
                    if !rig.monitor.has_ended() && rig.can_live() {
                        rig.live();
                        watch.heard();
                        watch.look(&rig, false)?;
                    }
                }
                // The peer asks.
                8.. => {
                    rig.now = rig.now + share(deadline.saturating_duration_since(rig.now), part);
                    rig.monitor.handle_frame(Control::Ping(Nonce([what; 8])), rig.now);
                    rig.settle();
                    watch.look(&rig, false)?;
                }
                // Late, but not too late.
                4..6 => {
                    rig.wake(deadline.max(rig.now) + share(tolerated(&config), part));
                    watch.look(&rig, false)?;
                }
                // A stall, sometimes with evidence in the buffer.
                _ => {
                    let late = tolerated(&config) + MICROSECOND + share(config.timeout(), part);
                    rig.now = deadline.max(rig.now) + late;
                    if what == 7 && rig.can_live() {
                        rig.live();
                    }
                    rig.wake(rig.now);
                    watch.look(&rig, true)?;
                }
            }
        }
    }

    // In a pause, or while a backlog delays the peer's pings.
    #[test]
    fn promise_08_signs_of_life_are_as_frequent_as_the_peer_needs_and_20_ms_apart(
        config: Config, seed: u64, start in start(), hello in hello(), pauses: bool, foreign: bool,
        parts in vec(part(), 1..16),
    ) {
        let config = config.to_builder().evidence(Evidence::AnyBytes).write_stall(None).build().unwrap();
        let monitor = Monitor::new(config, seed, start);
        let mut rig = Rig::of(if foreign { monitor.without_hello() } else { monitor }, start);
        rig.meet(hello);
        let needed = rig.monitor.status().peer.map_or(config.interval(), |peer| {
            peer.interval.min(peer.detection_time - peer.interval)
        });
        let every = config.interval().min(needed).max(Duration::from_millis(20));
        if pauses {
            rig.monitor.handle_paused(rig.now);
            rig.settle();
        }
        // Where there is no Alive pings are that.
        let earlier = rig.pings.len() - usize::from(pauses && foreign);
        for part in parts {
            if pauses {
                rig.wake_on_time();
            } else {
                // One byte after another, faster than we would ask for.
                let next = rig.monitor.poll_timeout().unwrap().saturating_duration_since(rig.now);
                let until = rig.now + share(next.min(every), part);
                rig.now = until;
                rig.monitor.handle_bytes(rig.now);
                rig.monitor.handle_backlog(rig.now);
                rig.settle();
            }
        }
        let pings: Vec<_> = rig.pings[earlier..].iter().map(|&(at, _)| at).collect();
        prop_assert!(!foreign || rig.signs.is_empty());
        for pair in if foreign { &pings } else { &rig.signs }.windows(2) {
            let gap = pair[1].saturating_duration_since(pair[0]);
            prop_assert!(if pauses { gap == every } else { gap >= every }, "{gap:?}, not {every:?}");
        }
    }

    #[test]
    fn promise_08_while_probing_pings_are_exactly_a_timeout_apart(
        config in steady(), seed: u64, start in start(), hello in hello(), history in history(),
    ) {
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        let before = rig.pings.len();
        rig.run_until(rig.last_heard() + rig.detection_time());
        let first = rig.last_heard() + rig.monitor.status().interval;
        let expected: Vec<_> = (0..config.max_missed())
            .map(|missed| first + config.timeout() * missed)
            .collect();
        // A prelude may have ended in the middle of a round.
        let pings: Vec<_> = rig.pings[before..].iter().map(|&(at, _)| at).collect();
        prop_assert!(expected.ends_with(&pings), "{pings:?} {expected:?}");
        if rig.last_heard() == rig.now || history.is_empty() {
            prop_assert_eq!(pings, expected);
        }
    }

    #[test]
    fn promise_08_probing_at_will_keeps_to_what_the_peer_accepts(
        config: Config, seed: u64, start in start(), peer in any::<Config>(),
        waits in vec(part(), 1..24),
    ) {
        if !is_accepted(&config, &peer.hello(INSTANCE)) {
            return Ok(());
        }
        let mut rig = Rig::new(config, seed, start);
        let accepted = peer.min_interval();
        rig.meet(Some(peer.hello(INSTANCE)));
        for wait in waits {
            // Each ping is answered at once, so that none is a repetition.
            let answer = |rig: &mut Rig| {
                if rig.answered < rig.pings.len() {
                    rig.pong();
                    rig.settle();
                }
            };
            rig.monitor.probe(rig.now);
            rig.settle();
            answer(&mut rig);
            let until = rig.now + share(accepted, wait);
            while rig.monitor.poll_timeout().is_some_and(|deadline| deadline <= until) {
                rig.wake_on_time();
                answer(&mut rig);
            }
            rig.now = rig.now.max(until);
            prop_assert!(!rig.monitor.has_ended());
        }
        for pair in rig.pings.windows(2) {
            let gap = pair[1].0.saturating_duration_since(pair[0].0);
            prop_assert!(gap >= accepted, "{gap:?}");
        }
    }

    #[test]
    fn promise_09_a_compliant_peer_never_trips_the_limiter(
        sender in any::<Config>(), receiver in any::<Config>(), seed: u64, start in start(),
        doings in vec((part(), 0..10_u8), 1..10), repeat in 1..30_usize,
        held in part(), phase in part(),
    ) {
        if !is_accepted(&sender, &receiver.hello(INSTANCE)) || !is_accepted(&receiver, &sender.hello(INSTANCE)) {
            return Ok(());
        }
        let pings = pings_of(lenient(sender), receiver, seed, start, doings.repeat(repeat));
        let whole = pings.last().map_or(Duration::ZERO, |last| last.saturating_duration_since(start));

        let mut judge = paused(receiver, seed, start);
        judge.meet(Some(sender.hello(INSTANCE)));
        // The network, or a receiver that doesn't read, holds everything back and
        // lets it go in bunches; all at once, perhaps.
        let held = micros(share(whole, held)).max(1);
        let phase = micros(share(us(held), phase));
        for ping in pings {
            let age = micros(ping.saturating_duration_since(start));
            let bunch = (age + phase).div_ceil(held) * held - phase;
            judge.now = judge.now.max(start + us(bunch.max(age)));
            judge.monitor.handle_frame(Control::Ping(Nonce([7; 8])), judge.now);
        }
        judge.settle();
        prop_assert!(!judge.monitor.has_ended(), "{:?}", judge.death());
    }

    //   start        the first Hello     the last Hello    a burst
    //   |<- 255 each ->|<-- N1 each ---->|<-- N2 each ---->|
    #[test]
    fn promise_09_a_burst_is_cut_off_at_an_exact_number(
        config: Config, seed: u64, start in start(), first in hello(), last in hello(),
        waits in [part(), part(), part()],
    ) {
        let accepted = config.min_interval();
        let [unknown, before, after] = waits;
        let mut judge = paused(config, seed, start);
        let mut credit = Credit::new(accepted);
        for (hello, wait) in [(None, unknown / 8.0), (first, before * 3.0), (last, after * 3.0)] {
            if let Some(hello) = hello.filter(|hello| is_accepted(&config, hello)) {
                judge.meet(Some(hello));
                credit.announce(hello.max_missed);
            }
            let wait = share(accepted * 3, wait / 3.0);
            judge.now = judge.now + wait;
            credit.pass(wait);
        }
        let room = credit.room();
        for count in 1..=room {
            judge.monitor.handle_frame(Control::Ping(Nonce([7; 8])), judge.now);
            prop_assert!(!judge.monitor.has_ended(), "after {count} of {room}");
        }
        judge.monitor.handle_frame(Control::Ping(Nonce([7; 8])), judge.now);
        judge.settle();
        let (_, death) = judge.death().expect("a flood");
        prop_assert_eq!(death.cause, Cause::PingFlood);
    }

    #[test]
    fn promise_09_an_abuser_is_cut_off_after_a_bounded_number(
        config: Config, seed: u64, start in start(), hello: Hello, times in 2..10_u64,
    ) {
        if !is_accepted(&config, &hello) {
            return Ok(());
        }
        let mut judge = paused(config, seed, start);
        judge.meet(Some(hello));
        let mut credit = Credit::new(config.min_interval());
        credit.announce(hello.max_missed);
        // The factor by which it exceeds the long-run rate.
        let every = us(micros(config.min_interval()) / (2 * u64::from(hello.max_missed) * times));
        let mut sent = 0;
        while !judge.monitor.has_ended() {
            prop_assert!(sent <= credit.room(), "{sent} of {}", credit.room());
            judge.now = judge.now + every;
            credit.pass(every);
            judge.monitor.handle_frame(Control::Ping(Nonce([7; 8])), judge.now);
            sent += 1;
        }
        prop_assert_eq!(sent, credit.room() + 1);
        prop_assert!(sent <= 8 * u64::from(hello.max_missed) + 2, "{sent}");
        judge.settle();
        let (_, death) = judge.death().expect("a flood");
        prop_assert_eq!(death.cause, Cause::PingFlood);
    }
}

/// What `docs/protocol.md` says of how many pings are accepted:
/// 4·N + 2·∫N/m dt.
struct Credit {
    accepted: u128,
    /// The most that was announced.
    most: Option<u32>,
    passed: u128,
}

impl Credit {
    fn new(accepted: Duration) -> Self {
        Self {
            accepted: accepted.as_micros(),
            most: None,
            passed: 0,
        }
    }

    fn announce(&mut self, max_missed: u32) {
        self.most = self.most.max(Some(max_missed));
    }

    fn pass(&mut self, time: Duration) {
        self.passed += time.as_micros();
    }

    fn room(&self) -> u64 {
        let each = 2 * u128::from(self.most.unwrap_or(255));
        let room = each * (self.passed + 2 * self.accepted) / self.accepted;
        u64::try_from(room).unwrap()
    }
}

/// A receiver that judges nothing but floods, however long nothing comes.
fn paused(config: Config, seed: u64, start: Instant) -> Rig {
    let mut rig = Rig::new(config, seed, start);
    rig.monitor.handle_paused(start);
    rig.settle();
    rig
}

/// So far apart are idle pings: max(m, I·(1 − max(J, ¼))).
fn spacing(rig: &Rig) -> Duration {
    let status = rig.monitor.status();
    let accepted = status.peer.map(|peer| peer.min_interval);
    let least = shortest(status.interval, &rig.config());
    let least = least.min(status.interval - status.interval / 4);
    least.max(accepted.unwrap_or_default()).max(MICROSECOND)
}

/// Checks each ping against the last one.
struct Watch {
    seen: usize,
    last: Option<Instant>,
    unanswered: u32,
    stalls: u32,
    /// Evidence came since the last ping, or no round depends on that.
    is_idle: bool,
    heard_at: Instant,
}

impl Watch {
    fn new(rig: &Rig) -> Self {
        Self {
            seen: rig.pings.len(),
            last: None,
            unanswered: 0,
            stalls: 0,
            is_idle: true,
            heard_at: rig.last_heard(),
        }
    }

    /// Evidence came, perhaps at the very time of the last one.
    fn heard(&mut self) {
        self.unanswered = 0;
        self.stalls = 0;
        self.is_idle = true;
    }

    /// To be called after each wake-up.
    fn look(&mut self, rig: &Rig, stalled: bool) -> Result<(), TestCaseError> {
        let config = rig.config();
        let is_heard = rig.last_heard() > self.heard_at;
        if is_heard {
            self.heard_at = rig.last_heard();
            self.heard();
        }
        self.stalls += u32::from(stalled);
        let new = &rig.pings[self.seen..];
        self.seen = rig.pings.len();
        prop_assert!(new.len() <= 1, "a burst: {:?}", new);
        let Some(&(at, _)) = new.first() else {
            return Ok(());
        };
        self.unanswered += 1;
        prop_assert!(
            self.unanswered <= config.max_missed() + self.stalls,
            "{} unanswered, {} stalls",
            self.unanswered,
            self.stalls
        );
        // The ping that follows evidence after a stall begins no round.
        let is_idle = self.is_idle;
        self.is_idle = is_heard && stalled;
        if let Some(last) = self.last.replace(at).filter(|_| !stalled) {
            let gap = at.saturating_duration_since(last);
            if is_idle {
                let least = spacing(rig);
                prop_assert!(gap >= least, "idle pings {:?} apart, not {:?}", gap, least);
            } else {
                prop_assert!(gap >= config.timeout(), "probes {:?} apart", gap);
            }
        }
        Ok(())
    }
}

/// When a monitor sends pings that hears now and then, is asked to probe, lags
/// behind, and is told to pause.
fn pings_of(
    sender: Config,
    receiver: Config,
    seed: u64,
    start: Instant,
    doings: Vec<(f64, u8)>,
) -> Vec<Instant> {
    let mut rig = Rig::new(sender, seed, start);
    let mut met = false;
    for (part, what) in doings {
        let Some(deadline) = rig.monitor.poll_timeout() else {
            break;
        };
        match what {
            0..3 => rig.run_until(rig.now + share(rig.detection_time(), part)),
            3 => rig.wake_on_time(),
            4 => rig.wake(deadline.max(rig.now) + share(tolerated(&sender), part)),
            5 => {
                let late = MICROSECOND + share(sender.timeout(), part);
                rig.wake(deadline.max(rig.now) + tolerated(&sender) + late);
                continue;
            }
            6..8 => {
                rig.monitor.probe(rig.now);
                rig.settle();
            }
            8 if met => {
                rig.monitor.handle_paused(rig.now);
                rig.settle();
                let end = rig.now + share(rig.monitor.status().interval * 10, part);
                // It beats as often as the peer accepts, if it wants to.
                for _ in 0..20 {
                    if rig
                        .monitor
                        .poll_timeout()
                        .is_none_or(|deadline| deadline > end)
                    {
                        rig.now = rig.now.max(end);
                        break;
                    }
                    rig.wake_on_time();
                }
                rig.monitor.handle_resumed(rig.now);
                rig.settle();
            }
            // The receiver asks.
            9 => {
                rig.monitor
                    .handle_frame(Control::Ping(Nonce([9; 8])), rig.now);
                rig.settle();
            }
            _ => {}
        }
        if what % 3 == 0 && !rig.monitor.has_ended() {
            // The receiver's first frame is its Hello.
            if !met {
                rig.meet(Some(receiver.hello(INSTANCE)));
                met = true;
            }
            if rig.can_live() {
                rig.live();
            }
        }
    }
    rig.pings.iter().map(|&(at, _)| at).collect()
}
