//! The promises of the machine, kept by the real adapter: hosts and a network
//! in virtual time, in which links are held, cut in one direction or both, and
//! hosts crash, restart and come back under another boot.
//!
//! ```text
//!   client --- Tap --- turmoil's TCP, 1 to 60 ms --- Tap --- server
//!                hold ... release | partition | crash, bounce
//! ```
//!
//! What is promised is measured between what a [`Tap`] saw on the stream and
//! what the application was told, to the millisecond (a step of the network).
//! A held link is an outage that TCP survives: everything arrives afterwards.
//! A cut one loses what is sent, and turmoil sends nothing twice.
//!
//! 100 networks, the same each time, 400 with `HEARTBEAT_FULL`, or as many others
//! as `HEARTBEAT_CASES` says. What isn't the same each time is the adapter's own jitter, which is
//! seeded by the operating system; half of the configurations have none.

use std::{
    env, io,
    ops::RangeInclusive,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use heartbeat_core::{Control, GoodbyeCode};
use heartbeat_tests::{
    drive::{Command, Drive, Inline, Spawned},
    few_or_all, for_each, ms,
};
use heartbeat_tokio::{Cause, CloseReason, Config, Death, Hello, PeerEvent, Role};
use proptest::{option, prelude::*};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    task::spawn_local,
    time::{sleep, timeout},
};
use turmoil::{
    Sim,
    net::{TcpListener, TcpStream},
};

#[test]
fn whatever_the_network_does_inline() {
    whatever_the_network_does(Inline);
}

#[test]
fn whatever_the_network_does_spawned() {
    whatever_the_network_does(Spawned);
}

#[test]
fn a_short_outage_is_no_death_inline() {
    a_short_outage_is_no_death(Inline);
}

#[test]
fn a_short_outage_is_no_death_spawned() {
    a_short_outage_is_no_death(Spawned);
}

#[test]
fn a_cut_is_found_at_the_detection_time_to_the_millisecond_inline() {
    a_cut_is_found_at_the_detection_time_to_the_millisecond(Inline);
}

#[test]
fn a_cut_is_found_at_the_detection_time_to_the_millisecond_spawned() {
    a_cut_is_found_at_the_detection_time_to_the_millisecond(Spawned);
}

#[test]
fn the_last_millisecond_of_an_outage_decides_inline() {
    the_last_millisecond_of_an_outage_decides(Inline);
}

#[test]
fn the_last_millisecond_of_an_outage_decides_spawned() {
    the_last_millisecond_of_an_outage_decides(Spawned);
}

#[test]
fn a_host_that_comes_back_after_a_reboot_resets_inline() {
    a_host_that_comes_back_after_a_reboot_resets(Inline);
}

#[test]
fn a_host_that_comes_back_after_a_reboot_resets_spawned() {
    a_host_that_comes_back_after_a_reboot_resets(Spawned);
}

// ---- what is promised ------------------------------------------------------

/// Every connection that a random network saw keeps the promises.
fn whatever_the_network_does(drive: impl Drive) {
    let mut seen = Seen::default();
    let networks = few_or_all(100, 400);
    for_each(networks, scenario(), |scenario| {
        let sessions = scenario.run(drive);
        let cut_at = scenario.end.is_a_cut().then(|| scenario.end_at());
        for session in &sessions {
            session.assert_promises();
            session.assert_found_after(cut_at, &scenario);
            seen.count(session);
        }
        assert_nothing_lost(&sessions);
    });
    // It would show nothing if these didn't happen.
    println!("{seen:?}");
    if env::var_os("HEARTBEAT_CASES").is_none() {
        let often = |count: u32, each| count * each > networks;
        assert!(
            often(seen.silent, 2) && often(seen.write_stalled, 80),
            "{seen:?}"
        );
        assert!(
            often(seen.given_up, 20) && often(seen.reset, 80) && often(seen.closed, 20),
            "{seen:?}"
        );
        assert!(often(seen.recovered, 4), "{seen:?}");
        assert!(seen.messages > 12 * networks as usize, "{seen:?}");
    }
}

/// While no outage leaves a gap of I·(1 − J) + N·W, however often it happens
/// and whatever is sent meanwhile, no side dies.
fn a_short_outage_is_no_death(drive: impl Drive) {
    for_each(few_or_all(100, 400), healthy(), |mut scenario| {
        let round_trip = scenario.round_trip();
        let interval = scenario.slowest_interval();
        let mut tolerated = Duration::MAX;
        for config in &mut scenario.configs {
            // An idle side asks after I, and the answer is heard a round trip
            // and the outage later. A passive one waits W for the other's ping.
            let passive = config.role() == Role::Passive;
            let waits = config.timeout() * u32::from(passive);
            let needed = interval.mul_f64(config.jitter()) + waits + round_trip + ms(2);
            while budget(config) < needed + ms(50) {
                let missed = config.max_missed() + 1;
                *config = config.to_builder().max_missed(missed).build().unwrap();
            }
            tolerated = tolerated.min(budget(config) - needed);
        }
        for (after, outage) in &mut scenario.holds {
            *outage = (*outage).min(tolerated);
            // Long enough for a ping and its answer.
            *after = (*after).max(round_trip + ms(2));
        }
        for session in scenario.run(drive) {
            session.assert_promises();
            let end = session.terminal();
            assert!(end.is_none(), "{end:?} in spite of {tolerated:?}");
        }
    });
}

/// Both ends are dead one detection time after the last sign of life that each of
/// them got, also if only one direction is cut. One may be told sooner.
fn a_cut_is_found_at_the_detection_time_to_the_millisecond(drive: impl Drive) {
    for (end, hears_nothing) in [
        (End::Cut, [true, true]),
        (End::CutFrom(CLIENT), [false, true]),
        (End::CutFrom(SERVER), [true, false]),
    ] {
        let mut scenario = Scenario::quiet(ms(5));
        scenario.end = end;
        scenario.end_after = ms(1_234);
        let sessions = scenario.run(drive);
        for session in &sessions[..2] {
            session.assert_promises();
            let (at, death) = session.death().unwrap();
            let after = at - scenario.end_at();
            if death.cause == Cause::Silent {
                assert_eq!(death.silent_for, ms(800));
                assert_eq!(at, session.last_arrival_before(at) + ms(800));
                // At the cut it had been silent for an interval and a round
                // trip at most.
                assert!((ms(590)..=ms(800)).contains(&after), "{after:?}");
            } else {
                // It was told by the other, which was silent for as long.
                assert!(!hears_nothing[session.side], "{death}");
                assert!(is_silence_told(&death), "{death}");
                assert!((ms(590)..=ms(805)).contains(&after), "{after:?}");
            }
        }
    }
}

/// The same outage, a millisecond shorter and a millisecond longer. What ends the
/// silence is the answer to a ping that the outage held, one way after it.
fn the_last_millisecond_of_an_outage_decides(drive: impl Drive) {
    let scenario = |outage| {
        let mut scenario = Scenario::quiet(ms(5));
        scenario.holds = vec![(ms(1_000), outage)];
        scenario.end_after = ms(500);
        scenario.run(drive)
    };
    // When each side would die of an outage that doesn't end.
    let endless = scenario(secs(5));
    for session in &endless[..2] {
        let (at, death) = session.death().unwrap();
        assert_eq!(death.cause, Cause::Silent);
        let began = Scenario::START + ms(1_000) + ms(5);
        if endless[..2]
            .iter()
            .any(|other| other.death().unwrap().0 < at)
        {
            continue; // the other side decides
        }

        let in_time = scenario(at - began - ms(1));
        let same = &in_time[session.side];
        let recovered = |(at, record): &(Duration, Record)| match record {
            Record::Event(PeerEvent::Recovered { silent_for }) => Some((*at, *silent_for)),
            _ => None,
        };
        let recovered: Vec<_> = same.records.iter().filter_map(recovered).collect();
        assert_eq!(recovered, [(at - ms(1), ms(799))], "{same:#?}");

        let too_late = scenario(at - began + ms(1));
        assert_eq!(too_late[session.side].death(), Some((at, death)));
    }
}

/// Power fails silently. The host is back before the verdict, and knows nothing of the
/// connection.
fn a_host_that_comes_back_after_a_reboot_resets(drive: impl Drive) {
    let mut scenario = Scenario::quiet(ms(5));
    scenario.end = End::PowerFails {
        back_after: ms(300),
    };
    scenario.end_after = ms(1_000);
    let sessions = scenario.run(drive);
    let mut client = sessions.iter().filter(|session| session.side == CLIENT);
    let (client, next) = (client.next().unwrap(), client.next().unwrap());
    client.assert_promises();
    let (at, death) = client.death().unwrap();
    assert_eq!(death.cause, Cause::Reset);
    // The first ping that gets through to it is answered so.
    let back = scenario.end_at() + ms(300);
    assert!((back..=back + ms(210)).contains(&at), "{at:?}");
    // And the next connection lives.
    assert_eq!(next.terminal(), None);
}

/// Whether the peer gave us up because it heard nothing.
fn is_silence_told(death: &Death) -> bool {
    match &death.cause {
        Cause::GivenUp { code, .. } => *code == GoodbyeCode::SILENT,
        _ => false,
    }
}

impl Session {
    /// What holds for any connection, whatever happened to it.
    fn assert_promises(&self) {
        self.assert_events_in_order();
        if !self.was_full() {
            self.assert_every_silence_is_judged();
        }
        self.assert_the_end_is_told_at_once();
        self.assert_what_was_read_was_delivered();
    }

    /// One terminal event and then nothing; `Recovered` after `Suspect` and
    /// before anything else that shows life; no side here was ever late.
    fn assert_events_in_order(&self) {
        let mut suspect = false;
        let mut ended = false;
        for (at, event) in self.events() {
            assert!(!ended, "{event:?} after the end: {self:#?}");
            match event {
                PeerEvent::Suspect { .. } => suspect = true,
                PeerEvent::Recovered { .. } => {
                    assert!(suspect, "recovered from nothing at {at:?}: {self:#?}");
                    suspect = false;
                }
                PeerEvent::LocalStall { .. } => panic!("nobody stalled: {self:#?}"),
                PeerEvent::Closed { .. } | PeerEvent::Dead(_) => ended = true,
                // The Hello that ends a silence is told before that.
                PeerEvent::Connected { .. } => {}
                PeerEvent::Beat { .. } | PeerEvent::Message(_) => {
                    assert!(!suspect, "alive and still suspect at {at:?}: {self:#?}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.finished, ended, "{self:#?}");
    }

    /// Completeness and accuracy, of each gap between two arrivals and of the
    /// one at the end.
    fn assert_every_silence_is_judged(&self) {
        let ended_at = self.terminal().map(|(at, _)| at);
        let watched_until = ended_at.unwrap_or(self.watched_until);
        let mut peer = None;
        let mut heard = self.began;
        for (at, record) in &self.records {
            if matches!(record, Record::Arrival) {
                let gap = *at - heard;
                // What comes in the very step of the verdict comes too late, or in
                // time.
                let limit = self.detection_time(peer);
                assert!(gap <= limit, "{gap:?} survived, not {limit:?}: {self:#?}");
                heard = *at;
                // `Connected` is reported while no caller waits to send.
                peer = self.peer();
            }
        }
        let gap = watched_until - heard;
        let mut limit = self.detection_time(peer);
        if let Some((_, PeerEvent::Closed { .. })) = self.terminal() {
            // An end in order is told when the peer has ended the stream too.
            limit += budget(&self.config) + ms(1);
        }
        assert!(
            gap <= limit,
            "alive after {gap:?}, not {limit:?}: {self:#?}"
        );
        if let Some((_, death)) = self.death() {
            if matches!(death.cause, Cause::Silent | Cause::WriteStalled) {
                let least = self.tolerated_silence(peer);
                assert!(gap >= least, "dead after {gap:?}, not {least:?}: {self:#?}");
                // A busy connection doesn't time each read.
                let told = gap..=gap + self.config.arrival_slack() + ms(1);
                assert!(told.contains(&death.silent_for), "{told:?}: {self:#?}");
            }
        }
    }

    /// What the stream said about its end is told when it was said, and as
    /// what it is.
    fn assert_the_end_is_told_at_once(&self) {
        let said = self.records.iter().find_map(|(at, record)| match record {
            Record::Eof => Some((*at, Cause::Eof)),
            Record::Reset => Some((*at, Cause::Reset)),
            _ => None,
        });
        let Some((at, end)) = self.terminal() else {
            assert_eq!(said, None, "{self:#?}");
            return;
        };
        let said_to_us = |codes: RangeInclusive<u8>| {
            let mut frames = self.inbound.frames();
            frames.any(|frame| matches!(frame, [4, code, ..] if codes.contains(code)))
        };
        let goodbye = said_to_us(0..=1);
        match end {
            PeerEvent::Closed {
                reason: CloseReason::Peer { .. },
            } => assert!(goodbye, "{self:#?}"),
            PeerEvent::Closed {
                reason: CloseReason::Local,
            } => assert!(said_to_us(8..=8), "{self:#?}"),
            PeerEvent::Closed { .. } => {
                let left = at.saturating_sub(self.config.linger());
                assert!(self.said_goodbye(left), "{self:#?}");
            }
            PeerEvent::Dead(death) => {
                assert!(!goodbye, "a goodbye turned into {death}: {self:#?}");
                match death.cause.clone() {
                    Cause::Silent | Cause::WriteStalled => assert_eq!(said, None, "{self:#?}"),
                    Cause::GivenUp { code, .. } => {
                        assert!(said_to_us(code.0..=code.0), "{self:#?}");
                        assert!(code.is_verdict(), "{self:#?}");
                    }
                    cause => assert_eq!(said, Some((at, cause)), "{self:#?}"),
                }
            }
            event => panic!("{event:?}"),
        }
    }

    /// Every message that lay whole in the bytes that were read was handed
    /// out before the end, in order and once; and it is what the peer sent.
    fn assert_what_was_read_was_delivered(&self) {
        let read = self.inbound.frames().filter_map(|frame| match frame {
            [0, message @ ..] => Some(message),
            _ => None,
        });
        let read: Vec<_> = read.collect();
        let told: Vec<_> = self.messages().collect();
        // While a `send` waits, received messages are kept for the reader.
        assert!(told.len() <= read.len(), "{self:#?}");
        if self.finished {
            // After our own goodbye not everything can be kept.
            let expected = match self.said_goodbye {
                Some(_) => {
                    let before = Inbound(self.inbound.0[..self.read_before_goodbye].to_vec());
                    before.frames().filter(|frame| frame[0] == 0).count()..=read.len()
                }
                None => read.len()..=read.len(),
            };
            assert!(
                expected.contains(&told.len()),
                "not {expected:?}: {self:#?}"
            );
        }
        for (number, told) in told.iter().enumerate() {
            assert_eq!(*told, read[number], "{self:#?}");
            let (session, index) = parse_message(told);
            assert_eq!(index, number, "lost, repeated or reordered: {self:#?}");
            assert_eq!(session, parse_message(read[0]).0, "{self:#?}");
        }
    }

    /// Nothing gets through a cable that was cut for good: a side that hadn't detected it yet
    /// does one detection time later.
    fn assert_found_after(&self, cut_at: Option<Duration>, scenario: &Scenario) {
        let Some(cut_at) = cut_at else { return };
        let judged = !self.crashed && !self.was_full();
        if self.began >= cut_at || !judged {
            return;
        }
        let (at, end) = self
            .terminal()
            .unwrap_or_else(|| panic!("never found: {self:#?}"));
        let mut limit = cut_at + self.detection_time(self.peer());
        if !scenario.end.silences(self.side) {
            // A side that hears the other is told by it, unless it detected the fault first.
            let peer = scenario.configs[1 - self.side];
            let interval = peer.interval().max(self.config.min_interval());
            limit = limit.max(cut_at + interval + budget(&peer) + scenario.round_trip() + ms(2));
            // Unless its word couldn't leave, because nothing acknowledges what it sent: then
            // silence tells it. If our ping couldn't leave either, that is a stalled write.
            let by_silence = [Cause::Silent, Cause::WriteStalled];
            if matches!(end, PeerEvent::Dead(death) if by_silence.contains(&death.cause)) {
                let arrivals = self
                    .records
                    .iter()
                    .filter(|(_, what)| matches!(what, Record::Arrival));
                let last = arrivals.map(|(at, _)| *at).max().unwrap_or(self.began);
                limit = limit.max(last + self.detection_time(self.peer()));
            }
        }
        assert!(at <= limit, "found at {at:?}, not {limit:?}: {self:#?}");
    }
}

/// After a goodbye that arrived, everything that was sent before it did.
fn assert_nothing_lost(sessions: &[Session]) {
    for session in sessions {
        let Some((
            _,
            PeerEvent::Closed {
                reason: CloseReason::Peer { .. },
            },
        )) = session.terminal()
        else {
            continue;
        };
        let messages: Vec<_> = session.messages().collect();
        if let Some(first) = messages.first() {
            let (sender, _) = parse_message(first);
            let sender = sessions
                .iter()
                .find(|session| session.id == sender)
                .unwrap();
            assert_eq!(sender.sent, messages.len(), "{session:#?}");
        }
    }
}

/// So that a run that shows nothing is noticed.
#[derive(Debug, Default)]
struct Seen {
    silent: u32,
    write_stalled: u32,
    eof: u32,
    given_up: u32,
    reset: u32,
    closed: u32,
    alive: u32,
    recovered: u32,
    messages: usize,
}

impl Seen {
    fn count(&mut self, session: &Session) {
        *match session.terminal() {
            None => &mut self.alive,
            Some((_, PeerEvent::Dead(death))) => match &death.cause {
                Cause::Silent => &mut self.silent,
                Cause::WriteStalled => &mut self.write_stalled,
                Cause::Eof => &mut self.eof,
                Cause::GivenUp { .. } => &mut self.given_up,
                Cause::Reset => &mut self.reset,
                cause => panic!("{cause:?}: {session:#?}"),
            },
            Some(_) => &mut self.closed,
        } += 1;
        self.messages += session.messages().count();
        for (_, event) in session.events() {
            self.recovered += u32::from(matches!(event, PeerEvent::Recovered { .. }));
        }
    }
}

// ---- what is drawn ---------------------------------------------------------

fn scenario() -> impl Strategy<Value = Scenario> {
    let end = prop_oneof![
        1 => Just(End::None),
        2 => Just(End::Cut),
        2 => (0..2_usize).prop_map(End::CutFrom),
        2 => (0..2_usize).prop_map(End::Goodbye),
        1 => Just(End::Crash),
        1 => Just(End::Bounce),
        1 => (1..1_500_u64).prop_map(|back| End::PowerFails { back_after: ms(back) }),
    ];
    (healthy(), end).prop_map(|(scenario, end)| Scenario { end, ..scenario })
}

/// Outages of any length, and no other fault.
fn healthy() -> impl Strategy<Value = Scenario> {
    let span = |longest: u64| (0..longest).prop_map(ms);
    let latency = (1..30_u64, 0..30_u64).prop_map(|(least, more)| ms(least)..=ms(least + more));
    let traffic = || option::of((1..300_u64, 0..3_000_usize));
    (
        any::<u64>(),
        [config(), config()],
        latency,
        [traffic(), traffic()],
        // As many connections may wait to be accepted. With few, writes stall.
        prop_oneof![6..=10_usize, 6..=64_usize],
        prop::collection::vec((span(1_000), span(1_500)), 0..4),
        span(1_500),
    )
        .prop_map(
            |(seed, configs, latency, traffic, segments, holds, end_after)| Scenario {
                seed,
                configs,
                latency,
                traffic,
                segments,
                holds,
                end_after,
                end: End::None,
            },
        )
}

fn config() -> impl Strategy<Value = Config> {
    let roles = prop_oneof![4 => Just(Role::Both), 1 => Just(Role::Passive)];
    (
        20..300_u64,
        20..150_u64,
        1..=4_u32,
        prop_oneof![Just(0.0), 0.0..0.6_f64],
        option::of(1..300_u64),
        any::<bool>(),
        roles,
    )
        .prop_map(
            |(interval, timeout, missed, jitter, least, adaptive, role)| {
                let probe_budget = timeout * u64::from(missed);
                // With less than 100 ms in all the other side may refuse it.
                let interval = interval.max(100_u64.saturating_sub(probe_budget));
                let builder = Config::builder()
                    .interval(ms(interval))
                    .timeout(ms(timeout))
                    .max_missed(missed)
                    .jitter(jitter)
                    .adaptive(adaptive)
                    .role(role);
                let builder = match least {
                    Some(least) => builder.min_interval(ms(least.min(interval).min(probe_budget))),
                    None => builder,
                };
                builder.build().unwrap()
            },
        )
}

// ---- a network and what happens to it --------------------------------------

const CLIENT: usize = 0;
const SERVER: usize = 1;
const NAMES: [&str; 2] = ["client", "server"];

#[derive(Clone, Debug)]
struct Scenario {
    seed: u64,
    configs: [Config; 2],
    latency: RangeInclusive<Duration>,
    /// How long a side waits at most between two messages, in milliseconds,
    /// and how long they are at most.
    traffic: [Option<(u64, usize)>; 2],
    /// Writes that a direction holds until they are read.
    segments: usize,
    /// The time after the one before, and the duration.
    holds: Vec<(Duration, Duration)>,
    /// The time after the last outage.
    end_after: Duration,
    end: End,
}

/// What happens at last.
#[derive(Clone, Copy, Debug)]
enum End {
    None,
    Cut,
    CutFrom(usize),
    Goodbye(usize),
    /// The server's process ends; its kernel lives on.
    Crash,
    /// And is started again at once.
    Bounce,
    /// The server's host vanishes, and comes back without any connection.
    PowerFails {
        back_after: Duration,
    },
}

impl End {
    fn is_a_cut(self) -> bool {
        matches!(self, Self::Cut | Self::CutFrom(_) | Self::PowerFails { .. })
    }

    /// Whether nothing arrives at this side any more, or a reset at most.
    fn silences(self, side: usize) -> bool {
        match self {
            Self::Cut | Self::PowerFails { .. } => true,
            Self::CutFrom(from) => from != side,
            _ => false,
        }
    }
}

impl Scenario {
    /// When the first outage is counted from; the first connection is open by
    /// then.
    const START: Duration = ms(200);

    /// 200/200/3 without jitter on both sides, which have nothing to say.
    fn quiet(latency: Duration) -> Self {
        Self {
            seed: 1,
            configs: [heartbeat_tests::quick(); 2],
            latency: latency..=latency,
            traffic: [None; 2],
            segments: 64,
            holds: Vec::new(),
            end_after: ms(0),
            end: End::None,
        }
    }

    fn end_at(&self) -> Duration {
        let holds = self.holds.iter().map(|&(after, outage)| after + outage);
        Self::START + holds.sum::<Duration>() + self.end_after
    }

    fn round_trip(&self) -> Duration {
        *self.latency.end() * 2
    }

    /// What either side may have to slow down to.
    fn slowest_interval(&self) -> Duration {
        let both = self.configs.iter();
        let slowest = both.map(|config| config.interval().max(config.min_interval()));
        slowest.max().unwrap_or_default()
    }

    /// Plays it; says what each connection saw, in the order in which they
    /// were opened. The first two are the two ends of the first one.
    fn run(&self, drive: impl Drive) -> Vec<Session> {
        let scenario = Rc::new(self.clone());
        let logs = Logs::default();
        let mut sim = turmoil::Builder::new()
            .tick_duration(ms(1))
            .simulation_duration(secs(3600))
            .min_message_latency(*self.latency.start())
            .max_message_latency(*self.latency.end())
            .tcp_capacity(self.segments)
            .rng_seed(self.seed)
            .build();
        let shared = (Rc::clone(&scenario), logs.clone());
        sim.host(NAMES[SERVER], move || {
            let (scenario, logs) = shared.clone();
            async move {
                let listener = TcpListener::bind("0.0.0.0:9").await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    spawn_local(Rc::clone(&scenario).serve(SERVER, stream, logs.clone(), drive));
                }
            }
        });
        let shared = (scenario, logs.clone());
        sim.host(NAMES[CLIENT], move || {
            let (scenario, logs) = shared.clone();
            async move {
                loop {
                    let connecting = TcpStream::connect((NAMES[SERVER], 9));
                    if let Ok(Ok(stream)) = timeout(ms(500), connecting).await {
                        Rc::clone(&scenario)
                            .serve(CLIENT, stream, logs.clone(), drive)
                            .await;
                    }
                    sleep(ms(20)).await;
                }
            }
        });
        self.play(&mut sim, &logs);
        drop(sim);
        logs.into_sessions()
    }

    fn play(&self, sim: &mut Sim<'_>, logs: &Logs) {
        let [client, server] = NAMES;
        let run_to = |sim: &mut Sim<'_>, until| {
            while sim.elapsed() < until {
                sim.step().unwrap();
            }
        };
        let mut now = Self::START;
        for &(after, outage) in &self.holds {
            now += after;
            run_to(sim, now);
            sim.hold(client, server);
            now += outage;
            run_to(sim, now);
            sim.release(client, server);
        }
        now = self.end_at();
        run_to(sim, now);
        match self.end {
            End::None => {}
            End::Cut => sim.partition(client, server),
            End::CutFrom(side) => sim.partition_oneway(NAMES[side], NAMES[1 - side]),
            End::Goodbye(side) => logs.say_goodbye(side, now),
            End::Crash => {
                sim.crash(server);
                logs.crashed(SERVER, now);
            }
            End::Bounce => {
                sim.bounce(server);
                logs.crashed(SERVER, now);
            }
            End::PowerFails { back_after } => {
                sim.partition(client, server);
                sim.crash(server);
                logs.crashed(SERVER, now);
                run_to(sim, now + back_after);
                sim.bounce(server);
                sim.repair(client, server);
            }
        }
        // Twice the longest detection time that can be drawn.
        run_to(sim, now + secs(3));
        logs.watched_until(sim.elapsed());
    }

    async fn serve(self: Rc<Self>, side: usize, stream: TcpStream, logs: Logs, drive: impl Drive) {
        let config = self.configs[side];
        let (commands, inbox) = mpsc::channel(4);
        let (session, log) = logs.open(side, config, commands.clone());
        let talking = spawn_local(talk(
            session,
            self.seed,
            self.traffic[side],
            commands,
            log.clone(),
        ));
        let told = log.clone();
        let tell = move |event| told.note(Record::Event(event));
        drive
            .drive(
                Tap {
                    stream,
                    log: log.clone(),
                },
                config,
                inbox,
                tell,
            )
            .await;
        talking.abort();
        log.finish();
    }
}

/// Sends messages that say whose they are and which, at random times.
async fn talk(
    session: u32,
    seed: u64,
    traffic: Option<(u64, usize)>,
    commands: mpsc::Sender<Command>,
    log: Log,
) {
    let Some((longest_gap, longest)) = traffic else {
        return;
    };
    let mut rng = SmallRng::seed_from_u64(seed ^ u64::from(session));
    for index in 0.. {
        sleep(ms(rng.random_range(0..=longest_gap))).await;
        let Ok(room) = commands.reserve().await else {
            return;
        };
        if !log.may_send() {
            return;
        }
        room.send(Command::Send(message(
            session,
            index,
            rng.random_range(0..=longest),
        )));
    }
}

fn message(session: u32, index: u32, filler: usize) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u32(session);
    message.put_u32(index);
    message.put_bytes((session ^ index) as u8, filler);
    message.freeze()
}

/// Whose message it is, and which.
fn parse_message(message: &[u8]) -> (u32, usize) {
    let number = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
    let (session, index) = (number(0), number(4));
    let filler = &message[8..];
    assert!(filler == vec![(session ^ index) as u8; filler.len()]);
    (session, index as usize)
}

// ---- what was seen ---------------------------------------------------------

/// One connection as one side saw it. Times are the network's.
#[derive(Clone, Debug)]
struct Session {
    id: u32,
    side: usize,
    config: Config,
    began: Duration,
    records: Vec<(Duration, Record)>,
    inbound: Inbound,
    /// Messages that its application sent.
    sent: usize,
    said_goodbye: Option<Duration>,
    /// Bytes that had been read when it was told to say it.
    read_before_goodbye: usize,
    watched_until: Duration,
    /// The stream of events has ended.
    finished: bool,
    crashed: bool,
}

/// Something that the stream gave or that the application was told.
#[derive(Clone, Debug)]
enum Record {
    /// The size in bytes.
    Read(usize),
    /// Some of them were a sign of life.
    Arrival,
    Eof,
    Reset,
    Event(PeerEvent<Bytes>),
}

/// Every byte that was read.
#[derive(Clone, Default)]
struct Inbound(Vec<u8>);

impl Inbound {
    /// Tag and body of each whole frame.
    fn frames(&self) -> impl Iterator<Item = &[u8]> {
        Frames(&self.0)
    }

    /// Takes these bytes too. Says whether they are a sign of life: the end of a
    /// frame that is no ping, or some of a message.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let mut known = Frames(&self.0);
        known.by_ref().for_each(drop);
        let begun = self.0.len() - known.0.len();
        self.0.extend(bytes);
        let mut new = Frames(&self.0[begun..]);
        let answers = new.by_ref().filter(|frame| frame.first() != Some(&2));
        answers.count() > 0 || matches!(new.0.get(4), Some(0 | 7))
    }
}

/// Tag and body of each whole frame; then, what is left.
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, behind) = self.0.split_first_chunk()?;
        let frame = behind.get(..u32::from_be_bytes(*length) as usize)?;
        self.0 = &behind[frame.len()..];
        Some(frame)
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Session {
    fn events(&self) -> impl Iterator<Item = (Duration, &PeerEvent<Bytes>)> {
        self.records.iter().filter_map(|(at, record)| match record {
            Record::Event(event) => Some((*at, event)),
            _ => None,
        })
    }

    fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.events().filter_map(|(_, event)| match event {
            PeerEvent::Message(message) => Some(&message[..]),
            _ => None,
        })
    }

    fn terminal(&self) -> Option<(Duration, &PeerEvent<Bytes>)> {
        self.events().find(|(_, event)| event.is_terminal())
    }

    fn death(&self) -> Option<(Duration, Death)> {
        match self.terminal() {
            Some((at, PeerEvent::Dead(death))) => Some((at, death.clone())),
            _ => None,
        }
    }

    /// What the peer said first, if that was read.
    fn peer(&self) -> Option<Hello> {
        match Control::decode(self.inbound.frames().next()?) {
            Ok(Control::Hello(hello)) => Some(hello),
            other => panic!("{other:?}: {self:#?}"),
        }
    }

    /// A `send` waited until 256 KiB had arrived: from then on nothing is read, and no peer is
    /// judged.
    fn was_full(&self) -> bool {
        let mut waiting = 0_usize;
        self.records.iter().any(|(_, record)| {
            match record {
                Record::Read(bytes) => waiting += bytes,
                Record::Event(PeerEvent::Message(message)) => {
                    waiting = waiting.saturating_sub(5 + message.len());
                }
                _ => {}
            }
            waiting > 256 * 1024
        })
    }

    fn last_arrival_before(&self, at: Duration) -> Duration {
        let arrivals = self
            .records
            .iter()
            .filter(|(arrived, record)| matches!(record, Record::Arrival) && *arrived <= at);
        arrivals
            .map(|(at, _)| *at)
            .next_back()
            .unwrap_or(self.began)
    }

    fn said_goodbye(&self, by: Duration) -> bool {
        self.said_goodbye.is_some_and(|at| at <= by)
    }

    /// Ours, or what the peer slowed us down to.
    fn interval(&self, peer: Option<Hello>) -> Duration {
        let own = self.config.interval();
        peer.map_or(own, |peer| own.max(peer.min_interval))
    }

    fn detection_time(&self, peer: Option<Hello>) -> Duration {
        let exact = self.interval(peer) + budget(&self.config);
        // The runtime's timer counts milliseconds.
        ms(exact.as_micros().div_ceil(1000).try_into().unwrap())
    }

    fn tolerated_silence(&self, peer: Option<Hello>) -> Duration {
        let shortest = self.interval(peer).mul_f64(1.0 - self.config.jitter());
        // The product is rounded, and the clock counts milliseconds.
        (shortest + budget(&self.config)).saturating_sub(Duration::from_micros(1))
    }
}

fn budget(config: &Config) -> Duration {
    config.timeout() * config.max_missed()
}

/// Every connection so far, and how to tell it to do something.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<Connection>>>);

type Connection = (Log, mpsc::Sender<Command>);

#[derive(Clone)]
struct Log(Arc<Mutex<Session>>);

impl Logs {
    fn open(&self, side: usize, config: Config, commands: mpsc::Sender<Command>) -> (u32, Log) {
        let mut logs = self.0.lock().unwrap();
        let id = u32::try_from(logs.len()).unwrap();
        let log = Log(Arc::new(Mutex::new(Session {
            id,
            side,
            config,
            began: turmoil::sim_elapsed().unwrap(),
            records: Vec::new(),
            inbound: Inbound::default(),
            sent: 0,
            said_goodbye: None,
            read_before_goodbye: 0,
            watched_until: Duration::MAX,
            finished: false,
            crashed: false,
        })));
        logs.push((log.clone(), commands));
        (id, log)
    }

    /// Tells the open connections of this side to.
    fn say_goodbye(&self, side: usize, now: Duration) {
        for (log, commands) in self.0.lock().unwrap().iter() {
            let mut session = log.0.lock().unwrap();
            // A connection that can't take the command is stuck in a `send`.
            if session.side == side
                && !session.finished
                && commands.try_send(Command::Close).is_ok()
            {
                session.said_goodbye = Some(now);
                session.read_before_goodbye = session.inbound.0.len();
            }
        }
    }

    /// Nothing runs on this side any more.
    fn crashed(&self, side: usize, now: Duration) {
        for (log, _) in self.0.lock().unwrap().iter() {
            let mut session = log.0.lock().unwrap();
            if session.side == side && !session.finished {
                session.crashed = true;
                session.watched_until = now;
            }
        }
    }

    fn watched_until(&self, now: Duration) {
        for (log, _) in self.0.lock().unwrap().iter() {
            let mut session = log.0.lock().unwrap();
            session.watched_until = session.watched_until.min(now);
        }
    }

    fn into_sessions(self) -> Vec<Session> {
        let logs = self.0.lock().unwrap();
        logs.iter()
            .map(|(log, _)| log.0.lock().unwrap().clone())
            .collect()
    }
}

impl Log {
    fn note(&self, record: Record) {
        let now = turmoil::sim_elapsed().unwrap();
        self.0.lock().unwrap().records.push((now, record));
    }

    /// Counts one message more, unless goodbye was said.
    fn may_send(&self) -> bool {
        let mut session = self.0.lock().unwrap();
        let may = session.said_goodbye.is_none();
        session.sent += usize::from(may);
        may
    }

    fn finish(&self) {
        self.0.lock().unwrap().finished = true;
    }
}

/// A stream whose inbound bytes are noted as they are read.
struct Tap {
    stream: TcpStream,
    log: Log,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        match &result {
            Ok(()) if buf.filled().len() == before => self.log.note(Record::Eof),
            Ok(()) => {
                let read = &buf.filled()[before..];
                let is_arrival = self.log.0.lock().unwrap().inbound.take(read);
                self.log.note(Record::Read(read.len()));
                if is_arrival {
                    self.log.note(Record::Arrival);
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                self.log.note(Record::Reset);
            }
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
