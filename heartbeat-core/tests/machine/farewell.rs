//! Leaving in order: goodbyes and their answers, half-closes, and what bounds them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use core::time::Duration;

use crate::common::{GOODBYE, LEFT, MICRO, RECEIVED, Run, at, leave, ms, secs};
use heartbeat_core::{
    Cause, CloseReason, Config, ConfigBuilder, Control, End, Event, GoodbyeCode, Instant, Monitor,
    Nonce, State,
};

/// Dead after 16 s; a peer that lives has 30 s to confirm.
fn timings() -> ConfigBuilder {
    Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
}

fn start() -> Run {
    Run::new(timings().build().unwrap())
}

/// In a protocol without Hello, and so without answers to goodbyes.
fn foreign() -> Run {
    Run::foreign(timings().build().unwrap(), 1)
}

/// We left at one second.
fn leaving() -> Run {
    let mut run = start();
    run.at(secs(1), leave);
    assert_eq!(run.sent.last(), Some(&(secs(1), GOODBYE)));
    assert_eq!(run.monitor.status().state, State::Closing);
    run
}

/// We left at one second, and the goodbye can't leave.
fn stuck() -> Run {
    let mut run = start();
    run.writable = false;
    run.at(secs(1), leave);
    run
}

fn arrives(control: Control) -> impl Fn(&mut Monitor, Instant) {
    move |monitor, now| monitor.handle_frame(control, now)
}

fn ends(end: End) -> impl Fn(&mut Monitor, Instant) {
    move |monitor, now| monitor.handle_end(end, now)
}

fn closed(reason: CloseReason) -> Event {
    Event::Closed { reason }
}

/// The peer sends a message each 5 s, until and including `until`.
fn chat(run: &mut Run, until: u64) {
    for second in (5..=until).step_by(5) {
        run.at(secs(second), Monitor::handle_message);
    }
}

/// Each goodbye that was sent.
fn goodbyes(run: &Run) -> Vec<u8> {
    let sent = run.sent.iter();
    sent.filter_map(|&(_, control)| match control {
        Control::Goodbye(code) => Some(code.0),
        _ => None,
    })
    .collect()
}

fn frames(monitor: &mut Monitor) -> Vec<Control> {
    core::iter::from_fn(|| monitor.poll_transmit()).collect()
}

#[track_caller]
fn assert_told(run: &Run, told: &[(Duration, Event)]) {
    assert_eq!(run.told, told);
}

/// The one thing that was told is the end.
#[track_caller]
fn assert_closed(run: &Run, when: Duration, reason: CloseReason) {
    assert_told(run, &[(when, closed(reason))]);
    assert_eq!(run.monitor.status().state, State::Closed);
}

// ---- we leave ---------------------------------------------------------------

#[test]
fn it_ends_when_the_goodbye_is_confirmed() {
    let mut run = leaving();
    assert_told(&run, &[]);
    run.at(secs(2), arrives(RECEIVED));
    assert_closed(&run, secs(2), CloseReason::Local);
    assert!(run.monitor.has_ended());
    assert_eq!(run.monitor.poll_timeout(), None);
    run.until(secs(3_600));
    assert_eq!(run.told.len(), 1);
    assert_eq!(goodbyes(&run), [0]);
}

/// The peer may have read what the driver hasn't reported.
#[test]
fn a_confirmation_may_come_before_the_flush_is_reported() {
    let mut run = stuck();
    run.at(secs(2), arrives(RECEIVED));
    assert_closed(&run, secs(2), CloseReason::Local);
}

#[test]
fn a_peer_that_lives_has_linger_to_confirm_it() {
    let mut run = leaving();
    chat(&mut run, 30);
    run.just_before(secs(31));
    assert_told(&run, &[]);
    run.until(secs(31));
    assert_closed(&run, secs(31), CloseReason::Unconfirmed);
    // Nothing is told to the peer: it is no verdict.
    assert_eq!(goodbyes(&run), [0]);
}

#[test]
fn linger_is_what_the_configuration_says() {
    for linger in [MICRO, ms(1_500), secs(5)] {
        let mut run = Run::new(timings().linger(linger).build().unwrap());
        run.at(secs(1), leave);
        run.just_before(secs(1) + linger);
        assert_told(&run, &[]);
        run.until(secs(1) + linger);
        assert_closed(&run, secs(1) + linger, CloseReason::Unconfirmed);
    }
}

#[test]
fn linger_is_counted_from_the_call_whatever_the_writes_do() {
    let mut run = stuck();
    chat(&mut run, 20);
    run.at(secs(21), Monitor::handle_progress);
    run.writable = true;
    run.at(secs(22), Monitor::handle_flushed);
    chat(&mut run, 30);
    run.just_before(secs(31));
    assert_told(&run, &[]);
    run.until(secs(31));
    assert_closed(&run, secs(31), CloseReason::Unconfirmed);
}

#[test]
fn a_confirmation_at_the_end_of_linger_counts() {
    let mut run = leaving();
    chat(&mut run, 30);
    run.at(secs(31), arrives(RECEIVED));
    assert_closed(&run, secs(31), CloseReason::Local);
}

#[test]
fn saying_it_again_changes_nothing() {
    let mut run = leaving();
    run.at(secs(3), |monitor, now| {
        monitor.close(GoodbyeCode::RESTARTING, now);
    });
    chat(&mut run, 30);
    run.until(secs(31));
    assert_closed(&run, secs(31), CloseReason::Unconfirmed);
    assert_eq!(goodbyes(&run), [0]);
}

#[test]
fn a_clock_that_has_run_out_does_not_make_it_endless() {
    let mut run = stuck();
    chat(&mut run, 30);
    run.monitor.handle_bytes(Instant::MAX);
    run.monitor.handle_timeout(Instant::MAX);
    let told: Vec<_> = core::iter::from_fn(|| run.monitor.poll_event()).collect();
    assert_eq!(told.last(), Some(&closed(CloseReason::Unconfirmed)));
}

#[test]
fn a_goodbye_is_said_behind_all_that_is_owed() {
    let config = timings().build().unwrap();
    let mut monitor = Monitor::new(config, 1, Instant::ORIGIN);
    leave(&mut monitor, Instant::ORIGIN);
    monitor.handle_frame(Control::Ping(Nonce([1; 8])), Instant::ORIGIN);
    monitor.handle_backlog(Instant::ORIGIN);
    let sent = frames(&mut monitor);
    assert!(matches!(
        sent[..],
        [
            Control::Hello(_),
            Control::Pong(Nonce([1, ..])),
            Control::Ping(_),
            Control::Alive,
            GOODBYE
        ]
    ));
}

/// They wait until the driver's messages have left.
#[test]
fn a_goodbye_and_a_fin_go_ahead_of_no_message() {
    for says in [leave, Monitor::finish] {
        let mut monitor = start().monitor;
        says(&mut monitor, at(secs(1)));
        monitor.handle_frame(Control::Ping(Nonce([1; 8])), at(secs(1)));
        assert!(monitor.has_transmit_ahead());
        let ahead: Vec<_> = core::iter::from_fn(|| monitor.poll_transmit_ahead()).collect();
        assert!(matches!(ahead[..], [Control::Pong(_), Control::Ping(_)]));
        assert!(!monitor.has_transmit_ahead());
        assert!(monitor.has_transmit());
        assert!(matches!(frames(&mut monitor)[..], [GOODBYE | Control::Fin]));
        assert!(!monitor.has_transmit());
    }
}

// ---- while we leave ---------------------------------------------------------

#[test]
fn a_peer_that_is_silent_while_we_leave_is_dead_in_time() {
    let mut run = leaving();
    let death = run.assert_dies_at(secs(16));
    assert_eq!(death.cause, Cause::Silent);
    // It is told of the verdict, as ever.
    assert_eq!(goodbyes(&run), [0, 2]);
}

#[test]
fn only_who_leaves_has_a_time_by_which_it_is_confirmed() {
    assert_eq!(start().monitor.leaves_until(), None);
    let mut run = leaving();
    assert_eq!(run.monitor.leaves_until(), Some(at(secs(31))));
    run.at(secs(2), |monitor, now| monitor.handle_frame(RECEIVED, now));
    assert!(run.monitor.has_ended());
    assert_eq!(run.monitor.leaves_until(), Some(at(secs(31))));
}

#[test]
fn a_goodbye_that_cannot_leave_is_a_write_that_stalls() {
    let mut run = stuck();
    let death = run.assert_dies_at(secs(16));
    assert_eq!(death.cause, Cause::WriteStalled);

    let mut run = Run::new(timings().write_stall(secs(4)).build().unwrap());
    run.writable = false;
    run.at(secs(1), |monitor, now| {
        leave(monitor, now);
        monitor.handle_blocked(now);
    });
    let death = run.assert_dies_at(secs(5));
    assert_eq!(death.cause, Cause::WriteStalled);
}

/// Where both fall together the verdict comes first.
#[test]
fn a_verdict_at_the_end_of_linger_is_a_verdict() {
    for (linger, is_dead) in [(secs(15) - MICRO, false), (secs(15), true)] {
        let mut run = Run::new(timings().linger(linger).build().unwrap());
        run.at(secs(1), leave);
        run.until(secs(16));
        assert_eq!(run.death().is_some(), is_dead);
        assert!(run.monitor.has_ended());
    }
}

#[test]
fn beats_go_on_behind_the_goodbye() {
    let mut run = leaving();
    run.at(secs(3), arrives(Control::Ping(Nonce([7; 8]))));
    let [.., (pong, Control::Pong(nonce)), (ping, Control::Ping(_))] = run.sent[..] else {
        panic!("{:?}", run.sent);
    };
    assert_eq!((pong, ping, nonce), (secs(3), secs(3), Nonce([7; 8])));
    run.at(ms(3_200), arrives(run.answer()));
    assert_told(&run, &[(ms(3_200), Event::Beat { rtt: ms(200) })]);
    run.until(ms(13_200));
    assert_eq!(run.pings(), [secs(3), ms(13_200)]);
    run.until(ms(15_200));
    assert_eq!(run.suspicions(), 1);
    // It says that we leave, whatever the peer counts as.
    assert_eq!(run.monitor.status().state, State::Closing);
    run.monitor.probe(at(ms(15_300)));
    run.at(ms(15_300), Monitor::handle_message);
    run.at(ms(15_400), arrives(RECEIVED));
    assert_eq!(
        run.told.last(),
        Some(&(ms(15_400), closed(CloseReason::Local)))
    );
}

#[test]
fn a_pause_while_we_leave_holds_back_the_verdict_and_not_the_end_of_linger() {
    for pauses_first in [false, true] {
        let mut run = start();
        if pauses_first {
            run.at(secs(1), Monitor::handle_paused);
            run.at(secs(1), leave);
        } else {
            run.at(secs(1), leave);
            run.at(secs(1), Monitor::handle_paused);
        }
        assert_eq!(run.monitor.status().state, State::Closing);
        run.just_before(secs(31));
        assert_told(&run, &[]);
        assert_eq!(run.signs(), [secs(1), secs(11), secs(21)]);
        run.until(secs(31));
        assert_closed(&run, secs(31), CloseReason::Unconfirmed);
    }
    let mut run = leaving();
    run.at(secs(2), Monitor::handle_paused);
    run.at(secs(4), Monitor::handle_resumed);
    assert_eq!(run.monitor.status().state, State::Closing);
    run.assert_dies_at(secs(20));
}

#[test]
fn a_stall_of_ours_while_we_leave_kills_nobody() {
    let mut run = leaving();
    run.asleep_until(secs(20));
    run.wake();
    assert_told(&run, &[(secs(20), Event::LocalStall { late: secs(10) })]);
    assert_eq!(run.pings(), [secs(20)]);
    run.at(secs(21), arrives(RECEIVED));
    assert_eq!(
        run.told.last(),
        Some(&(secs(21), closed(CloseReason::Local)))
    );
}

#[test]
fn a_stall_beyond_linger_ends_it_unless_the_confirmation_lies_there() {
    for (is_confirmed, reason) in [
        (false, CloseReason::Unconfirmed),
        (true, CloseReason::Local),
    ] {
        let mut run = leaving();
        run.asleep_until(secs(40));
        if is_confirmed {
            run.monitor.handle_frame(RECEIVED, at(secs(40)));
        }
        run.wake();
        let stall = Event::LocalStall { late: secs(30) };
        assert_told(&run, &[(secs(40), stall), (secs(40), closed(reason))]);
    }
}

/// Each frame that lay in the buffer was late for the end of linger: a stall, and
/// a ping for it, each time.
#[test]
fn a_stall_beyond_linger_is_told_once() {
    let config = timings().linger(secs(1)).min_interval(MICRO);
    let mut run = Run::new(config.build().unwrap());
    run.at(secs(1), leave);
    run.asleep_until(secs(40));
    for _ in 0..3 {
        run.monitor.handle_message(at(secs(40)));
        while let Some(control) = run.monitor.poll_transmit() {
            run.sent.push((secs(40), control));
        }
        run.monitor.handle_flushed(at(secs(40)));
        run.told.extend(
            core::iter::from_fn(|| run.monitor.poll_event()).map(|event| (secs(40), event)),
        );
    }
    let stall = Event::LocalStall { late: secs(38) };
    assert_told(&run, &[(secs(40), stall)]);
    assert_eq!(run.pings(), [secs(40)]);
    run.wake();
    let end = closed(CloseReason::Unconfirmed);
    assert_told(&run, &[(secs(40), stall), (secs(40), end)]);
}

#[test]
fn a_transport_that_ends_before_the_confirmation_is_a_death() {
    for end in [End::Eof, End::Reset, End::TimedOut, End::Io] {
        for mut run in [leaving(), stuck()] {
            run.at(secs(2), ends(end));
            let (when, death) = run.death().unwrap();
            assert_eq!((when, death.cause), (secs(2), end.into()));
            // The peer is gone, so no goodbye is sent.
            assert_eq!(goodbyes(&run), [0]);
        }
    }
}

// ---- the peer leaves --------------------------------------------------------

#[test]
fn the_peers_goodbye_is_answered_as_the_last_word() {
    let mut run = start();
    run.at(secs(1), arrives(GOODBYE));
    assert_closed(&run, secs(1), LEFT);
    assert_eq!(run.sent.last(), Some(&(secs(1), RECEIVED)));
    run.at(secs(2), ends(End::Reset));
    run.until(secs(3_600));
    assert_eq!((run.told.len(), goodbyes(&run)), (1, vec![8]));
}

/// Verdicts and answers aren't.
#[test]
fn each_code_with_which_a_peer_leaves_is_answered() {
    for code in 0..=u8::MAX {
        let mut run = start();
        run.at(secs(1), arrives(Control::Goodbye(GoodbyeCode(code))));
        let answered: &[u8] = if (2..=8).contains(&code) { &[] } else { &[8] };
        assert_eq!(goodbyes(&run), answered, "{code}");
        assert_eq!(run.death().is_some(), (2..=7).contains(&code), "{code}");
    }
}

#[test]
fn what_is_owed_besides_is_not_sent_with_the_answer() {
    let mut run = start();
    run.just_before(secs(10));
    let now = at(secs(10));
    run.monitor.handle_timeout(now);
    run.monitor.handle_frame(Control::Ping(Nonce([1; 8])), now);
    run.monitor.finish(now);
    run.monitor.handle_frame(GOODBYE, now);
    assert!(run.monitor.has_transmit_ahead());
    assert_eq!(frames(&mut run.monitor), [RECEIVED]);
    assert_eq!(run.monitor.poll_event(), Some(closed(LEFT)));
}

#[test]
fn an_answer_comes_behind_the_hello_and_before_the_event() {
    let mut monitor = Monitor::new(Config::default(), 1, Instant::ORIGIN);
    monitor.handle_frame(GOODBYE, Instant::ORIGIN);
    let mut late = monitor.clone();
    let sent = frames(&mut monitor);
    assert!(matches!(sent[..], [Control::Hello(_), RECEIVED]));
    assert_eq!(monitor.poll_event(), Some(closed(LEFT)));
    // A driver that has the event has dropped the stream.
    assert_eq!(late.poll_event(), Some(closed(LEFT)));
    assert!(!late.has_transmit());
    assert_eq!(frames(&mut late), []);
}

#[test]
fn a_peer_whose_messages_were_thrown_away_is_not_told_that_they_were_received() {
    let discards = |run: &mut Run| run.monitor.handle_discarded();
    let mut run = start();
    discards(&mut run);
    run.at(secs(1), arrives(GOODBYE));
    assert_eq!(goodbyes(&run), [0]);
    assert_closed(&run, secs(1), LEFT);

    // Where both leave; also if they are thrown away before it is handed out.
    for after in [false, true] {
        let mut run = start();
        run.writable = false;
        run.at(secs(1), |monitor, now| {
            monitor.close(GoodbyeCode::RESTARTING, now);
            if after {
                monitor.handle_frame(GOODBYE, now);
            }
            monitor.handle_discarded();
            if !after {
                monitor.handle_frame(GOODBYE, now);
            }
        });
        assert_eq!(goodbyes(&run), [1, 0]);
    }
}

// ---- both leave -------------------------------------------------------------

#[test]
fn where_both_leave_it_ends_when_both_goodbyes_are_answered() {
    let mut run = leaving();
    run.at(secs(2), arrives(GOODBYE));
    assert_eq!(goodbyes(&run), [0, 8]);
    assert_told(&run, &[]);
    assert_eq!(run.monitor.status().state, State::Closing);
    run.at(secs(3), arrives(RECEIVED));
    assert_closed(&run, secs(3), CloseReason::Local);
    assert_eq!(goodbyes(&run), [0, 8]);
}

#[test]
fn the_answer_waits_behind_our_own_goodbye_and_the_end_for_the_answer() {
    let mut monitor = start().monitor;
    let now = at(secs(1));
    leave(&mut monitor, now);
    monitor.handle_frame(GOODBYE, now);
    assert_eq!(monitor.poll_transmit_ahead(), None);
    assert_eq!(monitor.poll_transmit(), Some(GOODBYE));
    monitor.handle_flushed(now);
    monitor.handle_frame(RECEIVED, now);
    assert_eq!(monitor.poll_event(), None);
    assert_eq!(monitor.poll_transmit(), Some(RECEIVED));
    assert_eq!(monitor.poll_event(), None);
    monitor.handle_flushed(now);
    assert_eq!(monitor.poll_event(), Some(closed(CloseReason::Local)));
}

#[test]
fn a_goodbye_that_comes_twice_is_answered_once() {
    let mut run = leaving();
    for second in 2..5 {
        run.at(secs(second), arrives(GOODBYE));
    }
    assert_eq!(goodbyes(&run), [0, 8]);
    // The first of them counts.
    run.at(secs(5), arrives(Control::Goodbye(GoodbyeCode::RESTARTING)));
    run.at(secs(6), ends(End::Eof));
    assert_closed(&run, secs(6), LEFT);
}

#[test]
fn an_end_behind_the_peers_goodbye_is_no_death() {
    let ending: [&dyn Fn(&mut Run); 5] = [
        &|run| run.at(secs(3), ends(End::Eof)),
        &|run| run.at(secs(3), ends(End::Reset)),
        &|run| run.at(secs(3), arrives(Control::Goodbye(GoodbyeCode::SILENT))),
        // Silence.
        &|run| run.until(secs(18)),
        // No confirmation.
        &|run| {
            chat(run, 30);
            run.until(secs(31));
        },
    ];
    for end in ending {
        let mut run = leaving();
        run.at(secs(2), arrives(GOODBYE));
        end(&mut run);
        assert_eq!(run.death(), None);
        assert_eq!(run.told.last().unwrap().1, closed(LEFT));
        // It said goodbye: nothing more is said to it.
        assert_eq!(goodbyes(&run), [0, 8]);
    }
}

/// It knows that the peer has everything, though its own answer can't leave.
#[test]
fn an_end_behind_the_confirmation_is_none_of_ours() {
    for at_linger in [false, true] {
        let mut run = leaving();
        run.writable = false;
        run.at(secs(2), arrives(GOODBYE));
        run.at(secs(3), arrives(RECEIVED));
        assert_told(&run, &[]);
        if at_linger {
            chat(&mut run, 30);
            run.until(secs(31));
        } else {
            run.at(secs(4), ends(End::Reset));
        }
        let when = if at_linger { secs(31) } else { secs(4) };
        assert_closed(&run, when, CloseReason::Local);
    }
}

/// A confirmation of nothing confirms nothing, and isn't answered.
#[test]
fn a_stray_confirmation_is_a_goodbye() {
    let mut run = start();
    run.at(secs(1), arrives(RECEIVED));
    let told = run.told[0].1;
    assert!(
        matches!(told, Event::Closed { reason: CloseReason::Peer { code, .. } } if code.0 == 8)
    );
    assert!(goodbyes(&run).is_empty());

    // Before our goodbye was handed out.
    let mut monitor = start().monitor;
    let now = at(secs(1));
    leave(&mut monitor, now);
    monitor.handle_frame(RECEIVED, now);
    assert_eq!(monitor.poll_event(), None);
    assert_eq!(frames(&mut monitor), [GOODBYE]);
    monitor.handle_frame(RECEIVED, now);
    assert_eq!(monitor.poll_event(), Some(closed(CloseReason::Local)));
}

/// Two monitors, and frames on their way.
#[derive(Clone)]
struct Two {
    monitors: [Monitor; 2],
    wires: [Vec<Control>; 2],
    /// Whether each may still leave.
    may_leave: [bool; 2],
    ends: [Option<CloseReason>; 2],
    /// Each that left before it ended.
    left: [bool; 2],
}

impl Two {
    fn new() -> Self {
        let config = timings().build().unwrap();
        Self {
            monitors: [1, 2].map(|seed| Monitor::new(config, seed, Instant::ORIGIN)),
            wires: [Vec::new(), Vec::new()],
            may_leave: [true; 2],
            ends: [None; 2],
            left: [false; 2],
        }
    }

    /// Tries every order of what may happen from here on. Says how many ends it
    /// came to.
    fn go_on(&self) -> u32 {
        let mut ends = 0;
        for who in 0..2 {
            let mut next = self.clone();
            if next.leaves(who) {
                ends += next.go_on();
            }
            let mut next = self.clone();
            if next.writes(who) {
                ends += next.go_on();
            }
            let mut next = self.clone();
            if next.reads(who) {
                ends += next.go_on();
            }
        }
        if ends == 0 {
            self.assert_ended();
        }
        ends.max(1)
    }

    fn leaves(&mut self, who: usize) -> bool {
        let may = core::mem::take(&mut self.may_leave[who]);
        if may && !self.monitors[who].has_ended() {
            self.left[who] = true;
            leave(&mut self.monitors[who], Instant::ORIGIN);
        }
        may
    }

    /// One frame leaves, and is reported.
    fn writes(&mut self, who: usize) -> bool {
        let Some(control) = self.monitors[who].poll_transmit() else {
            return false;
        };
        self.monitors[who].handle_flushed(Instant::ORIGIN);
        self.wires[who].push(control);
        self.looks(who);
        true
    }

    fn reads(&mut self, who: usize) -> bool {
        let wire = &mut self.wires[1 - who];
        if wire.is_empty() {
            return false;
        }
        let control = wire.remove(0);
        self.monitors[who].handle_frame(control, Instant::ORIGIN);
        self.looks(who);
        true
    }

    /// Its driver takes the end once the last word has left.
    fn looks(&mut self, who: usize) {
        while !self.monitors[who].has_transmit() {
            match self.monitors[who].poll_event() {
                Some(Event::Closed { reason }) => self.ends[who] = Some(reason),
                Some(Event::Dead(death)) => panic!("{death}"),
                Some(_) => {}
                None => return,
            }
        }
    }

    fn assert_ended(&self) {
        let expected = match self.left {
            [true, true] => [CloseReason::Local; 2],
            [true, false] => [CloseReason::Local, LEFT],
            [false, true] => [LEFT, CloseReason::Local],
            [false, false] => panic!("nobody left"),
        };
        assert_eq!(self.ends, expected.map(Some));
    }
}

#[test]
fn everything_is_confirmed_whichever_side_leaves_first() {
    let mut two = Two::new();
    // The Hellos are over.
    for who in 0..2 {
        assert!(two.writes(who));
    }
    for who in 0..2 {
        assert!(two.reads(who));
    }
    assert!(two.go_on() > 50);
}

// ---- half-closes ------------------------------------------------------------

#[test]
fn a_finished_side_goes_on_receiving_and_judging() {
    let mut run = start();
    run.at(secs(1), Monitor::finish);
    run.at(secs(2), Monitor::finish);
    assert_eq!(run.sent[1..], [(secs(1), Control::Fin)]);
    assert_eq!(run.monitor.status().state, State::Alive);
    run.at(secs(3), Monitor::handle_message);
    run.at(secs(4), arrives(Control::Ping(Nonce([7; 8]))));
    let pong = (secs(4), Control::Pong(Nonce([7; 8])));
    assert!(run.sent.contains(&pong));
    assert_told(&run, &[]);
    run.assert_dies_at(secs(19));
}

#[test]
fn a_peer_that_finishes_is_told_once_and_judged_as_before() {
    let mut run = start();
    run.at(secs(1), arrives(Control::Fin));
    run.at(secs(2), arrives(Control::Fin));
    assert_told(&run, &[(secs(1), Event::Finished)]);
    assert!(goodbyes(&run).is_empty());
    run.assert_dies_at(secs(18));
}

#[test]
fn where_both_have_finished_it_is_closed() {
    // The peer's Fin comes last.
    let mut run = start();
    run.at(secs(1), Monitor::finish);
    run.at(secs(2), arrives(Control::Fin));
    let end = [Event::Finished, closed(CloseReason::Finished)];
    assert_told(&run, &end.map(|event| (secs(2), event)));
    assert_eq!(run.monitor.status().state, State::Closed);
    assert_eq!(run.monitor.poll_timeout(), None);

    // Or ours does, and not before it has left.
    let mut run = start();
    run.at(secs(1), arrives(Control::Fin));
    run.writable = false;
    run.at(secs(2), Monitor::finish);
    assert!(!run.monitor.has_ended());
    run.writable = true;
    run.at(secs(3), |_, _| {});
    assert_told(
        &run,
        &[
            (secs(1), Event::Finished),
            (secs(3), closed(CloseReason::Finished)),
        ],
    );
    // No goodbye is needed.
    assert!(goodbyes(&run).is_empty());
}

/// The peer closes with our Fin, and reads no goodbye behind it.
#[test]
fn where_both_have_finished_it_is_closed_although_we_leave() {
    let mut run = start();
    run.at(secs(1), Monitor::finish);
    run.at(secs(2), leave);
    run.at(secs(3), arrives(Control::Fin));
    let end = [Event::Finished, closed(CloseReason::Finished)];
    assert_told(&run, &end.map(|event| (secs(3), event)));

    // Once our Fin has left.
    let mut run = start();
    run.writable = false;
    run.at(secs(1), Monitor::finish);
    run.at(secs(2), leave);
    run.at(secs(3), arrives(Control::Fin));
    assert_told(&run, &[(secs(3), Event::Finished)]);
    run.writable = true;
    run.at(secs(4), |_, _| {});
    assert_eq!(
        run.told.last(),
        Some(&(secs(4), closed(CloseReason::Finished)))
    );
}

#[test]
fn a_finished_side_may_leave() {
    let mut run = start();
    run.at(secs(1), Monitor::finish);
    run.at(secs(2), leave);
    let said = [(secs(1), Control::Fin), (secs(2), GOODBYE)];
    assert_eq!(run.sent[1..], said);
    run.at(secs(3), arrives(RECEIVED));
    assert_closed(&run, secs(3), CloseReason::Local);

    // A Fin that wasn't handed out isn't needed.
    let mut monitor = start().monitor;
    monitor.finish(at(secs(1)));
    leave(&mut monitor, at(secs(1)));
    monitor.finish(at(secs(1)));
    assert_eq!(frames(&mut monitor), [GOODBYE]);
}

#[test]
fn a_peer_that_finishes_while_we_leave_has_confirmed_nothing() {
    let mut run = leaving();
    run.at(secs(2), arrives(Control::Fin));
    run.at(secs(3), arrives(RECEIVED));
    assert_told(
        &run,
        &[
            (secs(2), Event::Finished),
            (secs(3), closed(CloseReason::Local)),
        ],
    );
    // Behind its goodbye it is no news.
    let mut run = leaving();
    run.at(secs(2), arrives(GOODBYE));
    run.at(secs(3), arrives(Control::Fin));
    assert_told(&run, &[]);
}

#[test]
fn a_finished_peer_may_leave() {
    let mut run = start();
    run.at(secs(1), arrives(Control::Fin));
    run.at(secs(2), arrives(GOODBYE));
    assert_told(&run, &[(secs(1), Event::Finished), (secs(2), closed(LEFT))]);
    assert_eq!(goodbyes(&run), [8]);
    // Both in one batch.
    let mut run = start();
    run.at(secs(1), |monitor, now| {
        monitor.handle_frame(Control::Fin, now);
        monitor.handle_frame(GOODBYE, now);
    });
    let end = [Event::Finished, closed(LEFT)];
    assert_told(&run, &end.map(|event| (secs(1), event)));
}

// ---- a protocol of its own --------------------------------------------------

#[test]
fn without_a_hello_it_ends_when_the_goodbye_has_left() {
    let mut run = foreign();
    run.writable = false;
    run.at(secs(1), leave);
    assert_told(&run, &[]);
    run.writable = true;
    run.at(secs(2), |_, _| {});
    assert_closed(&run, secs(2), CloseReason::Local);
    // And at linger if it can't leave.
    let mut run = foreign();
    run.writable = false;
    run.at(secs(1), leave);
    chat(&mut run, 30);
    run.until(secs(31));
    assert_closed(&run, secs(31), CloseReason::Unconfirmed);
}

#[test]
fn without_a_hello_nobody_confirms() {
    let mut run = foreign();
    run.at(secs(1), arrives(GOODBYE));
    assert_closed(&run, secs(1), LEFT);
    assert!(goodbyes(&run).is_empty());
    // Both leave.
    let mut run = foreign();
    run.writable = false;
    run.at(secs(1), leave);
    run.at(secs(2), arrives(GOODBYE));
    assert_told(&run, &[]);
    run.writable = true;
    run.at(secs(3), |_, _| {});
    assert_closed(&run, secs(3), CloseReason::Local);
    assert_eq!(goodbyes(&run), [0]);
    // Finishing is as anywhere.
    let mut run = foreign();
    run.at(secs(1), Monitor::finish);
    run.at(secs(2), arrives(Control::Fin));
    let end = [Event::Finished, closed(CloseReason::Finished)];
    assert_told(&run, &end.map(|event| (secs(2), event)));
}

// ---- how it stands ----------------------------------------------------------

#[test]
fn a_status_says_how_it_ended() {
    let mut run = start();
    assert_eq!(run.monitor.status().state, State::Alive);
    run.until(secs(12));
    assert_eq!(run.monitor.status().state, State::Suspect);
    run.until(secs(16));
    assert_eq!(run.monitor.status().state, State::Dead);
    assert!(run.monitor.has_ended());

    let mut run = start();
    run.at(secs(1), arrives(GOODBYE));
    assert_eq!(run.monitor.status().state, State::Closed);
}

#[test]
fn after_the_end_nothing_is_said_any_more() {
    for mut run in [leaving(), start()] {
        run.at(secs(2), arrives(RECEIVED));
        let (told, sent) = (run.told.len(), run.sent.len());
        run.at(secs(3), leave);
        run.at(secs(3), Monitor::finish);
        run.at(secs(3), |monitor, _| monitor.handle_discarded());
        run.at(secs(3), arrives(Control::Fin));
        run.at(secs(3), arrives(GOODBYE));
        run.until(secs(3_600));
        assert_eq!((run.told.len(), run.sent.len()), (told, sent));
    }
}

/// A peer that has half-closed can't answer, whatever of ours was on its way.
#[test]
fn a_peer_that_has_half_closed_is_asked_no_more() {
    let is_ping = |&(_, control): &(_, Control)| matches!(control, Control::Ping(_));
    for halfway in [secs(5), secs(10), secs(11)] {
        let mut run = foreign();
        run.at(halfway, Monitor::handle_half_close);
        run.at(halfway + secs(1), Monitor::handle_flushed);
        let asked = run.sent.iter().filter(|sent| is_ping(sent)).count();
        run.at(halfway + secs(2), Monitor::probe);
        run.at(halfway + secs(3), Monitor::handle_backlog);
        run.until(secs(1_000));
        assert_eq!(run.monitor.poll_timeout(), None, "{halfway:?}");
        assert_eq!(run.monitor.status().state, State::HalfClosed);
        assert_eq!(run.sent.iter().filter(|sent| is_ping(sent)).count(), asked);
        assert_told(&run, &[(halfway, Event::Finished)]);
    }
}

/// Otherwise it would never be judged again.
#[test]
fn in_our_own_protocol_a_direction_that_ends_is_an_end() {
    for finishes in [false, true] {
        let mut run = Run::new(timings().build().unwrap());
        if finishes {
            run.at(secs(1), arrives(Control::Fin));
        }
        run.at(secs(2), Monitor::handle_half_close);
        let death = run.told.last().and_then(|(_, event)| match event {
            Event::Dead(death) => Some(death.cause),
            _ => None,
        });
        assert_eq!(death, Some(Cause::Eof), "finishes: {finishes}");
    }
}

/// No ping can leave behind the end of our direction, and no pong.
#[test]
fn behind_a_fin_that_ends_our_direction_nothing_leaves() {
    for pause in [false, true] {
        let mut run = foreign();
        if pause {
            run.at(secs(3), Monitor::handle_paused);
        }
        run.at(secs(4), Monitor::finish);
        assert_eq!(run.sent.last(), Some(&(secs(4), Control::Fin)));
        let sent = run.sent.len();
        run.at(secs(5), Monitor::handle_resumed);
        run.at(secs(6), arrives(Control::Ping(Nonce([1; 8]))));
        run.at(secs(7), Monitor::handle_message);
        run.until(secs(1_000));
        assert_eq!(run.monitor.status().state, State::HalfClosed);
        assert_eq!(run.sent.len(), sent, "paused: {pause}");
        assert_told(&run, &[]);
        run.at(secs(1_000), Monitor::handle_half_close);
        let told = run.told.last().map(|&(_, event)| event);
        assert_eq!(told, Some(closed(CloseReason::Finished)));
    }
}
