//! Leaving: promise 17.

use std::collections::VecDeque;

use crate::common::{YEAR, leave};
use heartbeat_core::{CloseReason, Config, Control, End, Event, Instant, Monitor, State};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};

use super::support::{MICROSECOND, Rig, cases, hello, history, part, share, start, steady};

proptest! {
    #![proptest_config(cases())]

    // D is counted from the last arrival, whatever the goodbye does.
    #[test]
    fn promise_17_leaving_a_dead_peer_ends_within_the_detection_time(
        config in steady(), seed: u64, start in start(), hello in hello(), history in history(),
        waits in part(), flushes: bool,
    ) {
        let config = config.to_builder().linger(YEAR).build().unwrap();
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        let dead_at = rig.last_heard() + rig.detection_time();
        rig.run_until(rig.last_heard() + share(rig.detection_time() - MICROSECOND, waits));
        if dead_at > rig.now + YEAR {
            // Linger comes first.
            return Ok(());
        }
        rig.flushes = flushes;
        leave(&mut rig.monitor, rig.now);
        rig.settle();
        rig.run_until(dead_at - MICROSECOND);
        prop_assert!(!rig.monitor.has_ended());
        prop_assert_eq!(rig.monitor.status().state, State::Closing);
        rig.run_until(dead_at);
        prop_assert_eq!(rig.death().map(|(at, _)| at), Some(dead_at));
    }

    #[test]
    fn promise_17_leaving_a_peer_that_lives_ends_at_the_end_of_linger(
        config: Config, seed: u64, start in start(), hello in hello(), history in history(),
        lingers in part(), flushes: bool,
    ) {
        let linger = share(config.detection_time().min(config.interval() * 20), lingers);
        let linger = linger.clamp(MICROSECOND, YEAR);
        let config = config.to_builder().linger(linger).build().unwrap();
        let mut rig = Rig::new(config, seed, start);
        rig.meet(hello);
        rig.prelude(&history);
        rig.live_if_possible();
        let until = rig.now + linger;
        rig.flushes = flushes;
        leave(&mut rig.monitor, rig.now);
        rig.settle();
        while let Some(deadline) = rig.monitor.poll_timeout().filter(|&at| at < until) {
            rig.wake(deadline);
            rig.live_if_possible();
        }
        rig.forget_events();
        rig.run_until(until - MICROSECOND);
        prop_assert!(!rig.monitor.has_ended(), "{:?}", rig.events);
        rig.run_until(until);
        let last = rig.events.back().map(|&(_, event)| event);
        let reason = CloseReason::Unconfirmed;
        prop_assert_eq!(last, Some(Event::Closed { reason }));
    }

    #[test]
    fn promise_17_what_was_confirmed_was_taken_in(
        config: Config, seed: u64, acts in vec(act(), 0..60),
    ) {
        let mut link = Link::new(config, seed);
        for act in acts {
            link.perform(act)?;
        }
        // Without a cut and without time nothing is lost.
        let is_whole = !link.was_cut && !link.woke && link.sides.iter().all(|side| !side.lossy);
        for who in 0..2 {
            link.perform(Act::Leave(who))?;
        }
        link.flow()?;
        if is_whole {
            for side in &link.sides {
                let is_right = match side.end {
                    Some(CloseReason::Local) => side.left_at.is_some(),
                    Some(CloseReason::Peer { .. }) => side.left_at.is_none(),
                    Some(CloseReason::Finished) => side.finished,
                    Some(CloseReason::Unconfirmed) | None => false,
                };
                prop_assert!(is_right, "{:?}: {:?}", side.end, side.monitor);
            }
        }
        link.wait()?;
    }
}

// ---- two monitors -----------------------------------------------------------

/// What happens to the side of that number.
#[derive(Clone, Copy, Debug)]
enum Act {
    Send(usize),
    /// A write leaves, and is reported.
    Write(usize),
    /// What arrived first is read.
    Read(usize),
    /// The same, and if it is a message it is thrown away.
    Discard(usize),
    Leave(usize),
    Finish(usize),
    /// Some time passes, at most to the next deadline.
    Wake(f64),
    /// Nothing that is on its way arrives, and nothing is sent any more.
    Cut,
}

fn act() -> impl Strategy<Value = Act> {
    let who = || 0..2_usize;
    prop_oneof![
        10 => who().prop_map(Act::Send),
        14 => who().prop_map(Act::Write),
        14 => who().prop_map(Act::Read),
        1 => who().prop_map(Act::Discard),
        2 => who().prop_map(Act::Leave),
        1 => who().prop_map(Act::Finish),
        1 => part().prop_map(Act::Wake),
        1 => Just(Act::Cut),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Item {
    Message,
    Control(Control),
    Eof,
}

/// A monitor and its driver.
struct Side {
    monitor: Monitor,
    /// Messages that wait to be written.
    queue: u32,
    /// Messages that were accepted, and those of the peer's that were taken in.
    accepted: u32,
    taken: u32,
    /// A message of the peer's was thrown away.
    lossy: bool,
    finished: bool,
    left_at: Option<Instant>,
    /// It was told that it is over.
    is_over: bool,
    end: Option<CloseReason>,
}

struct Link {
    sides: [Side; 2],
    /// What is on its way to each side.
    wires: [VecDeque<Item>; 2],
    now: Instant,
    was_cut: bool,
    woke: bool,
}

impl Link {
    fn new(config: Config, seed: u64) -> Self {
        let now = Instant::ORIGIN;
        Self {
            sides: [seed, seed ^ 1].map(|seed| Side {
                monitor: Monitor::new(config, seed, now),
                queue: 0,
                accepted: 0,
                taken: 0,
                lossy: false,
                finished: false,
                left_at: None,
                is_over: false,
                end: None,
            }),
            wires: [VecDeque::new(), VecDeque::new()],
            now,
            was_cut: false,
            woke: false,
        }
    }

    fn perform(&mut self, act: Act) -> Result<(), TestCaseError> {
        let now = self.now;
        match act {
            Act::Send(who) => {
                let side = &mut self.sides[who];
                // It would be refused.
                let accepts = side.left_at.is_none() && !side.finished;
                if accepts && !side.monitor.has_ended() {
                    side.accepted += 1;
                    side.queue += 1;
                }
            }
            Act::Write(who) => self.write(who),
            Act::Read(who) => self.read(who, false),
            Act::Discard(who) => self.read(who, true),
            Act::Leave(who) => {
                let side = &mut self.sides[who];
                if !side.monitor.has_ended() {
                    side.left_at.get_or_insert(now);
                }
                leave(&mut side.monitor, now);
            }
            Act::Finish(who) => {
                let side = &mut self.sides[who];
                side.finished = true;
                side.monitor.finish(now);
            }
            Act::Wake(part) => self.wake(part),
            Act::Cut => {
                self.was_cut = true;
                self.wires = [VecDeque::new(), VecDeque::new()];
            }
        }
        for who in 0..2 {
            self.look(who)?;
        }
        Ok(())
    }

    fn send(&mut self, who: usize, item: Item) {
        if !self.was_cut {
            self.wires[1 - who].push_back(item);
        }
    }

    fn write(&mut self, who: usize) {
        let side = &mut self.sides[who];
        let control = match side.queue {
            0 => side.monitor.poll_transmit(),
            _ => side.monitor.poll_transmit_ahead(),
        };
        let item = match control {
            Some(control) => Item::Control(control),
            None if side.queue > 0 && !side.monitor.has_ended() => {
                side.queue -= 1;
                Item::Message
            }
            None => return,
        };
        side.monitor.handle_flushed(self.now);
        self.send(who, item);
    }

    fn read(&mut self, who: usize, discards: bool) {
        let Some(item) = self.wires[who].pop_front() else {
            return;
        };
        let side = &mut self.sides[who];
        let now = self.now;
        match item {
            Item::Message if side.monitor.has_ended() => {}
            Item::Message => {
                side.monitor.handle_message(now);
                if discards {
                    side.lossy = true;
                    side.monitor.handle_discarded();
                } else {
                    side.taken += 1;
                }
            }
            Item::Control(control) => side.monitor.handle_frame(control, now),
            Item::Eof => side.monitor.handle_end(End::Eof, now),
        }
    }

    /// The driver says its last word and takes the end.
    fn look(&mut self, who: usize) -> Result<(), TestCaseError> {
        if self.sides[who].monitor.has_ended() && !self.sides[who].is_over {
            self.write(who);
            self.write(who);
            self.send(who, Item::Eof);
        }
        while let Some(event) = self.sides[who].monitor.poll_event() {
            let Event::Closed { reason } = event else {
                self.sides[who].is_over |= event.is_terminal();
                continue;
            };
            self.sides[who].is_over = true;
            self.sides[who].end = Some(reason);
            if reason == CloseReason::Local {
                let peer = &self.sides[1 - who];
                prop_assert!(!peer.lossy);
                prop_assert_eq!(self.sides[who].accepted, peer.taken);
            }
        }
        Ok(())
    }

    /// Everything is written and read.
    fn flow(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..200 {
            for who in 0..2 {
                self.perform(Act::Write(who))?;
                self.perform(Act::Read(who))?;
            }
        }
        prop_assert!(self.wires.iter().all(VecDeque::is_empty));
        Ok(())
    }

    fn wake(&mut self, part: f64) {
        let monitors = self.sides.iter().map(|side| &side.monitor);
        let Some(next) = monitors.filter_map(Monitor::poll_timeout).min() else {
            return;
        };
        self.woke = true;
        let left = next.saturating_duration_since(self.now);
        self.now = self.now + share(left, part);
        for side in &mut self.sides {
            side.monitor.handle_timeout(self.now);
        }
    }

    /// Nothing more arrives: each side that left ends within linger.
    fn wait(&mut self) -> Result<(), TestCaseError> {
        self.perform(Act::Cut)?;
        for who in 0..2 {
            let side = &mut self.sides[who];
            let Some(left_at) = side.left_at else {
                continue;
            };
            let until = left_at + side.monitor.config().linger();
            side.monitor.handle_timeout(until.max(self.now));
            prop_assert!(side.monitor.has_ended());
        }
        for who in 0..2 {
            self.look(who)?;
        }
        Ok(())
    }
}
