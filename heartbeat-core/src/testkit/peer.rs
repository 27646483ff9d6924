//! One side of a simulation: a monitor, its driver, and the bytes it wrote.
//!
//! This module decides what a driver does and when. It decides nothing about
//! the peer at the other end: that is the monitor's.

use core::time::Duration;
use std::{collections::VecDeque, vec::Vec};

use super::{
    Side,
    dice::Dice,
    network::{NEVER, Network},
    pipe::{Ends, Pipe},
    pop_front_if,
    simulation::Plan,
    timeline::{Timeline, What},
};
use crate::{
    event::{End, Event},
    frame::{Control, GoodbyeCode, Nonce},
    monitor::Monitor,
    status::Status,
    time::Instant,
};

/// What a side does, or what befalls it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Hang,
    Kill,
    Stall(u64),
    Ask(Wish),
}

/// What a side does by itself, when it isn't stalled.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    Pause(u64),
    Probe,
    Close,
    Write { every: u64, bytes: u32 },
    Flood { every: u64 },
}

/// A side that is being simulated.
#[derive(Debug)]
pub(super) struct Peer {
    side: Side,
    monitor: Monitor,
    acts: VecDeque<(u64, Act)>,
    dice: Dice,
    /// The most that a timer is late.
    lateness: u64,
    /// The deadline that is armed, and when it fires.
    armed: (u64, u64),
    stalled_until: u64,
    /// While we don't read.
    paused_until: Option<u64>,
    writes: Repeated<u32>,
    floods: Repeated<()>,
    /// The first step was made, which sends the Hello.
    started: bool,
    /// Frames were handed to the driver since the last flush.
    unflushed: bool,
    /// Hung, killed, or ended: nothing happens any more.
    over: bool,
    events: Vec<(u64, Event)>,
    beats: u32,
}

#[derive(Debug)]
struct Repeated<T> {
    at: u64,
    every: u64,
    what: T,
}

impl<T> Repeated<T> {
    const fn never(what: T) -> Self {
        Self {
            at: NEVER,
            every: NEVER,
            what,
        }
    }

    /// From `now` on.
    const fn every(every: u64, what: T, now: u64) -> Self {
        Self {
            at: now,
            every,
            what,
        }
    }

    /// Whether it is time; what was missed isn't made up for.
    const fn is_due(&mut self, now: u64) -> bool {
        let due = self.at <= now;
        if due {
            self.at = now.saturating_add(self.every);
        }
        due
    }
}

/// What is left of a side.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) events: Vec<(u64, Event)>,
    pub(super) beats: u32,
    pub(super) status: Status,
    /// Nothing more would have come of it.
    pub(super) over: bool,
}

impl Peer {
    pub(super) fn new(side: Side, plan: Plan, seed: u64, dice: u64) -> Self {
        Self {
            side,
            monitor: Monitor::new(plan.config, seed, Instant::ORIGIN),
            acts: plan.acts.into(),
            dice: Dice::new(dice),
            lateness: plan.lateness,
            armed: (NEVER, NEVER),
            stalled_until: 0,
            paused_until: None,
            writes: Repeated::never(0),
            floods: Repeated::never(()),
            started: false,
            unflushed: false,
            over: false,
            events: Vec::new(),
            beats: 0,
        }
    }

    /// Nothing more comes of it.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn into_outcome(self) -> Outcome {
        Outcome {
            status: self.monitor.status(),
            events: self.events,
            beats: self.beats,
            over: self.over,
        }
    }

    /// When this side has something to do.
    pub(super) fn wakes_at(
        &mut self,
        now: u64,
        written: &Pipe,
        coming: &Pipe,
        network: &Network,
    ) -> u64 {
        if self.over {
            return NEVER;
        }
        let deadline = self
            .monitor
            .poll_timeout()
            .map_or(NEVER, Instant::as_micros);
        if deadline != self.armed.0 {
            let late = self.dice.up_to(self.lateness);
            self.armed = (deadline, deadline.saturating_add(late));
        }
        let readable = match self.paused_until {
            Some(until) => until,
            None if coming.is_readable(network.delivered(self.side.other())) => now,
            None => NEVER,
        };
        let writable = if written.is_empty() {
            NEVER
        } else {
            written.next_freed(network.acknowledged(self.side))
        };
        let fires = if self.started { self.armed.1 } else { now };
        let wakes = fires
            .min(readable)
            .min(writable)
            .min(self.writes.at)
            .min(self.floods.at)
            .max(self.stalled_until);
        let acts = self.acts.front().map_or(NEVER, |&(at, _)| at);
        wakes.min(acts)
    }

    /// What a driver does when it wakes up.
    pub(super) fn step(
        &mut self,
        now: u64,
        written: &mut Pipe,
        coming: &mut Pipe,
        network: &mut Network,
        timeline: &mut Timeline,
    ) {
        self.act(now, written, network, timeline);
        if self.over || now < self.stalled_until {
            return;
        }
        self.started = true;
        let at = Instant::from_micros(now);
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            timeline.note(now, self.side, What::Resumes);
            self.monitor.handle_resumed(at);
        }
        if self.paused_until.is_none() {
            self.read(now, coming, network, timeline);
        }
        if self.monitor.poll_timeout().is_some_and(|due| due <= at) && self.armed.1 <= now {
            self.monitor.handle_timeout(at);
        }
        self.write(now, written, network, timeline);
        self.tell(now, written, network, timeline);
    }

    /// What the simulation's user asked for.
    fn act(
        &mut self,
        now: u64,
        written: &mut Pipe,
        network: &mut Network,
        timeline: &mut Timeline,
    ) {
        let mut asleep = Vec::new();
        while let Some((_, act)) = pop_front_if(&mut self.acts, |&(at, _)| at <= now) {
            match act {
                Act::Hang => {
                    timeline.note(now, self.side, What::Hangs);
                    self.over = true;
                    return;
                }
                Act::Kill => {
                    timeline.note(now, self.side, What::IsKilled);
                    return self.hang_up(now, written, network);
                }
                Act::Stall(lasting) => {
                    let lasts = Duration::from_micros(lasting);
                    timeline.note(now, self.side, What::Stalls(lasts));
                    self.stalled_until = self.stalled_until.max(now.saturating_add(lasting));
                }
                Act::Ask(wish) if now < self.stalled_until => {
                    asleep.push((self.stalled_until, Act::Ask(wish)));
                }
                Act::Ask(wish) => self.ask(wish, now, timeline),
            }
        }
        // What a sleeper was asked to do, it does when it wakes up.
        self.acts.extend(asleep);
        self.acts.make_contiguous().sort_by_key(|&(at, _)| at);
    }

    /// What an application asks of its driver.
    fn ask(&mut self, wish: Wish, now: u64, timeline: &mut Timeline) {
        let (side, at) = (self.side, Instant::from_micros(now));
        match wish {
            Wish::Pause(lasting) => {
                timeline.note(now, side, What::Pauses(Duration::from_micros(lasting)));
                let until = now.saturating_add(lasting);
                self.paused_until = Some(self.paused_until.map_or(until, |old| old.max(until)));
                self.monitor.handle_paused(at);
            }
            Wish::Probe => {
                timeline.note(now, side, What::Probes);
                self.monitor.probe(at);
            }
            Wish::Close => {
                timeline.note(now, side, What::Closes);
                self.monitor.close(GoodbyeCode::LEAVING, at);
                self.writes = Repeated::never(self.writes.what);
            }
            Wish::Write { every, bytes } => self.writes = Repeated::every(every, bytes, now),
            Wish::Flood { every } => {
                timeline.note(now, side, What::Floods(Duration::from_micros(every)));
                self.floods = Repeated::every(every, (), now);
            }
        }
    }

    fn read(&mut self, now: u64, coming: &mut Pipe, network: &Network, timeline: &mut Timeline) {
        let at = Instant::from_micros(now);
        let delivered = network.delivered(self.side.other());
        while let Some(segment) = coming.arrived(delivered) {
            coming.read(&segment, now, network.one_way());
            match segment.ends {
                Ends::Nothing => {
                    self.monitor.handle_bytes(at);
                    self.monitor.handle_backlog(at);
                }
                Ends::Part => {
                    self.monitor.handle_message(at);
                    self.monitor.handle_backlog(at);
                }
                Ends::Message => self.monitor.handle_message(at),
                Ends::Control(control) => {
                    timeline.note(now, self.side, What::Receives(control));
                    self.monitor.handle_frame(control, at);
                }
                Ends::Stream => {
                    timeline.note(now, self.side, What::ReadsTheEnd);
                    self.monitor.handle_end(End::Eof, at);
                }
            }
        }
    }

    fn write(
        &mut self,
        now: u64,
        written: &mut Pipe,
        network: &mut Network,
        timeline: &mut Timeline,
    ) {
        let at = Instant::from_micros(now);
        let acknowledged = network.acknowledged(self.side);
        written.free(now, acknowledged);
        if self.writes.is_due(now) {
            written.offer_message(self.writes.what);
        }
        if self.floods.is_due(now) && written.has_room_for_control() {
            let nonce = Nonce(self.dice.roll().to_be_bytes());
            written.push_control(Control::Ping(nonce));
        }
        let mut progress = false;
        loop {
            // A goodbye comes when the last message has left.
            self.write_control(now, written, timeline);
            let Some((bytes, ends)) = written.take() else {
                break;
            };
            progress = true;
            self.send(now, bytes, ends, written, network);
        }
        let flushed = written.has_no_control() && self.unflushed;
        // Whatever was blocked isn't any more, if nothing is left.
        if flushed || progress && written.is_empty() {
            self.unflushed = false;
            self.monitor.handle_flushed(at);
        }
        if !written.is_empty() {
            if progress {
                self.monitor.handle_progress(at);
            }
            // What is left was offered too.
            self.monitor.handle_blocked(at);
        }
    }

    fn write_control(&mut self, now: u64, written: &mut Pipe, timeline: &mut Timeline) {
        if self.monitor.has_ended() && self.monitor.has_transmit() {
            // The last word takes the place of what wasn't begun.
            written.drop_messages();
        }
        loop {
            let control = match written.has_no_messages() {
                true => self.monitor.poll_transmit(),
                false => self.monitor.poll_transmit_ahead(),
            };
            let Some(control) = control else { break };
            timeline.note(now, self.side, What::Sends(control));
            written.push_control(control);
            self.unflushed = true;
        }
    }

    fn send(&self, now: u64, bytes: u32, ends: Ends, written: &mut Pipe, network: &mut Network) {
        network.write(self.side, bytes, now);
        written.send(bytes, ends);
    }

    fn tell(
        &mut self,
        now: u64,
        written: &mut Pipe,
        network: &mut Network,
        timeline: &mut Timeline,
    ) {
        while let Some(event) = self.monitor.poll_event() {
            timeline.note(now, self.side, What::Tells(event));
            if matches!(event, Event::Beat { .. }) {
                self.beats = self.beats.saturating_add(1);
            } else {
                self.events.push((now, event));
            }
            if event.is_terminal() {
                self.hang_up(now, written, network);
            }
        }
    }

    /// The process goes, and its kernel closes the connection.
    fn hang_up(&mut self, now: u64, written: &mut Pipe, network: &mut Network) {
        self.over = true;
        self.send(now, 0, Ends::Stream, written, network);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        testkit::{Link, us},
    };

    #[test]
    fn what_repeats_does_not_make_up_for_what_it_missed() {
        let mut beat = Repeated::every(5, (), 10);
        let due = [9, 10, 11, 14, 15, 40, 41, 44, 45].map(|now| beat.is_due(now));
        let expected = [false, true, false, false, true, true, false, false, true];
        assert_eq!(due, expected);
        assert!(!Repeated::never(()).is_due(NEVER - 1));
    }

    #[test]
    fn an_application_that_cannot_write_soon_waits() {
        let plan = Plan {
            config: Config::default(),
            acts: Vec::new(),
            lateness: 0,
        };
        let mut peer = Peer::new(Side::A, plan, 1, 1);
        peer.writes = Repeated::every(1, 10, 0);
        peer.floods = Repeated::every(1, (), 0);
        let mut network = Network::new(&Link::new().rtt(us(1)), 1);
        let mut full = Pipe::new(0);
        for now in 0..20 {
            peer.write(now, &mut full, &mut network, &mut Timeline::new());
        }
        // Messages; pings of its own, and the Hello; nothing was sent.
        assert_eq!(full.lengths(), [4, 4, 0]);
    }
}
