//! One side of a simulation: a monitor, its driver, and the bytes it wrote.
//!
//! This module decides what a driver does and when. It decides nothing about
//! the peer at the other end: that is the monitor's.

use core::time::Duration;
use std::{collections::VecDeque, vec::Vec};

use super::{
    Side,
    network::{Dice, NEVER, Network},
    pop_front_if,
    simulation::Plan,
    timeline::{Timeline, What},
};
use crate::{
    event::{End, Event},
    frame::{Control, Nonce},
    monitor::Monitor,
    status::Status,
    time::Instant,
};

/// The size of a control frame with the length in front of it: all are about
/// this large.
const CONTROL_BYTES: u32 = 13;

/// How many messages may wait before the application waits too.
const MESSAGES_QUEUED: usize = 4;

/// What a side does, or what befalls it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Hang,
    Kill,
    Stall(u64),
    Pause(u64),
    Probe,
    Close,
    Write { every: u64, bytes: u32 },
    Flood { every: u64 },
}

/// What one side has on its way to the other.
#[derive(Debug)]
pub(super) struct Pipe {
    // The driver's: not written yet.
    control: VecDeque<Control>,
    /// Bytes to go of each message.
    messages: VecDeque<u32>,
    /// The first message is partly written: nothing may come between.
    begun: bool,

    // The kernels'.
    window: u32,
    used: u32,
    /// When how many bytes of the window are free again, if all segments up to
    /// this one are known to have arrived.
    freed: VecDeque<(u64, u32, u64)>,
    segments: VecDeque<Segment>,
    /// How many were read by the other side.
    taken: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    bytes: u32,
    ends: Ends,
}

/// What is complete with the last byte of a segment.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Nothing,
    Message,
    Control(Control),
    Stream,
}

impl Pipe {
    pub(super) const fn new(window: u32) -> Self {
        Self {
            control: VecDeque::new(),
            messages: VecDeque::new(),
            begun: false,
            window,
            used: 0,
            freed: VecDeque::new(),
            segments: VecDeque::new(),
            taken: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.control.is_empty() && self.messages.is_empty()
    }

    /// Whether there is something for the other side to read, of which the
    /// kernel has `delivered` so many segments.
    fn is_readable(&self, delivered: u64) -> bool {
        self.taken < delivered && !self.segments.is_empty()
    }

    /// When there is room again, if `acknowledged` so many segments are known
    /// to have arrived.
    fn next_freed(&self, acknowledged: u64) -> u64 {
        match self.freed.front() {
            Some(&(at, _, number)) if number <= acknowledged => at,
            _ => NEVER,
        }
    }

    fn arrived(&mut self, delivered: u64) -> Option<Segment> {
        if !self.is_readable(delivered) {
            return None;
        }
        self.taken += 1;
        self.segments.pop_front()
    }

    /// The receiver read `segment`: its sender learns of it.
    fn read(&mut self, segment: &Segment, now: u64, one_way: u64) {
        let told = now.saturating_add(one_way);
        self.freed.push_back((told, segment.bytes, self.taken));
    }

    /// The next piece that the kernel takes.
    fn take(&mut self) -> Option<(u32, Ends)> {
        let room = self.window - self.used;
        // A goodbye is said behind everything that was written before it.
        let leaving = self.control.front() == Some(&Control::Goodbye);
        let waits = self.begun || leaving && !self.messages.is_empty();
        if !waits && !self.control.is_empty() {
            if room < CONTROL_BYTES {
                return None;
            }
            let control = self.control.pop_front()?;
            return Some((CONTROL_BYTES, Ends::Control(control)));
        }
        let left = self.messages.front_mut()?;
        let piece = room.min(*left);
        if piece == 0 {
            return None;
        }
        *left -= piece;
        self.begun = *left > 0;
        if self.begun {
            return Some((piece, Ends::Nothing));
        }
        self.messages.pop_front();
        Some((piece, Ends::Message))
    }
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
        let at = Instant::from_micros(now);
        let mut asleep = Vec::new();
        while let Some((_, act)) = pop_front_if(&mut self.acts, |&(at, _)| at <= now) {
            let side = self.side;
            match act {
                Act::Hang => {
                    timeline.note(now, side, What::Hangs);
                    self.over = true;
                    return;
                }
                Act::Kill => {
                    timeline.note(now, side, What::IsKilled);
                    return self.hang_up(now, written, network);
                }
                Act::Stall(lasting) => {
                    timeline.note(now, side, What::Stalls(Duration::from_micros(lasting)));
                    self.stalled_until = self.stalled_until.max(now.saturating_add(lasting));
                }
                _ if now < self.stalled_until => asleep.push((self.stalled_until, act)),
                Act::Pause(lasting) => {
                    timeline.note(now, side, What::Pauses(Duration::from_micros(lasting)));
                    let until = now.saturating_add(lasting);
                    self.paused_until = Some(self.paused_until.map_or(until, |old| old.max(until)));
                    self.monitor.handle_paused(at);
                }
                Act::Probe => {
                    timeline.note(now, side, What::Probes);
                    self.monitor.probe(at);
                }
                Act::Close => {
                    timeline.note(now, side, What::Closes);
                    self.monitor.close(at);
                }
                Act::Write { every, bytes } => {
                    self.writes = Repeated {
                        at: now,
                        every,
                        what: bytes,
                    };
                }
                Act::Flood { every } => {
                    timeline.note(now, side, What::Floods(Duration::from_micros(every)));
                    self.floods = Repeated {
                        at: now,
                        every,
                        what: (),
                    };
                }
            }
        }
        // What a sleeper was asked to do, it does when it wakes up.
        self.acts.extend(asleep);
        self.acts.make_contiguous().sort_by_key(|&(at, _)| at);
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
                Ends::Message => {
                    self.monitor.handle_bytes(at);
                    self.monitor.handle_message(at);
                }
                Ends::Control(control) => {
                    timeline.note(now, self.side, What::Receives(control));
                    self.monitor.handle_bytes(at);
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
        while let Some((_, bytes, _)) = pop_front_if(&mut written.freed, |&(at, _, number)| {
            at <= now && number <= acknowledged
        }) {
            written.used -= bytes;
        }
        if self.writes.is_due(now) && written.messages.len() < MESSAGES_QUEUED {
            written.messages.push_back(self.writes.what);
        }
        if self.floods.is_due(now) && written.control.len() < MESSAGES_QUEUED {
            let nonce = Nonce(self.dice.roll().to_be_bytes());
            written.control.push_back(Control::Ping(nonce));
        }
        while let Some(control) = self.monitor.poll_transmit() {
            timeline.note(now, self.side, What::Sends(control));
            written.control.push_back(control);
            self.unflushed = true;
        }

        let mut progress = false;
        while let Some((bytes, ends)) = written.take() {
            progress = true;
            self.send(now, bytes, ends, written, network);
        }
        if written.control.is_empty() && self.unflushed {
            self.unflushed = false;
            self.monitor.handle_flushed(at);
        }
        if !written.is_empty() {
            if progress {
                self.monitor.handle_progress(at);
            } else {
                self.monitor.handle_blocked(at);
            }
        }
    }

    fn send(&self, now: u64, bytes: u32, ends: Ends, written: &mut Pipe, network: &mut Network) {
        written.used += bytes;
        network.write(self.side, bytes, now);
        written.segments.push_back(Segment { bytes, ends });
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

    const PING: Control = Control::Ping(Nonce([7; 8]));

    fn pipe(window: u32, messages: &[u32], control: &[Control]) -> Pipe {
        let mut pipe = Pipe::new(window);
        pipe.messages.extend(messages);
        pipe.control.extend(control);
        pipe
    }

    #[test]
    fn a_control_frame_overtakes_messages() {
        let mut pipe = pipe(1_000, &[10, 20], &[PING]);
        assert!(!pipe.is_empty());
        assert!(matches!(pipe.take(), Some((13, Ends::Control(PING)))));
        assert!(matches!(pipe.take(), Some((10, Ends::Message))));
        assert!(matches!(pipe.take(), Some((20, Ends::Message))));
        assert!(pipe.take().is_none());
        assert!(pipe.is_empty());
    }

    #[test]
    fn nothing_comes_between_the_pieces_of_a_message() {
        let mut pipe = pipe(100, &[150], &[]);
        assert!(matches!(pipe.take(), Some((100, Ends::Nothing))));
        pipe.control.push_back(PING);
        pipe.used = 100;
        assert!(pipe.take().is_none());
        pipe.used = 60;
        assert!(matches!(pipe.take(), Some((40, Ends::Nothing))));
        pipe.used = 0;
        assert!(matches!(pipe.take(), Some((10, Ends::Message))));
        assert!(matches!(pipe.take(), Some((13, Ends::Control(PING)))));
    }

    #[test]
    fn a_goodbye_is_said_behind_what_was_written_before() {
        let mut pipe = pipe(1_000, &[10, 20], &[Control::Goodbye]);
        assert!(matches!(pipe.take(), Some((10, Ends::Message))));
        assert!(matches!(pipe.take(), Some((20, Ends::Message))));
        let goodbye = pipe.take();
        assert!(matches!(
            goodbye,
            Some((13, Ends::Control(Control::Goodbye)))
        ));
    }

    #[test]
    fn a_control_frame_is_written_whole_or_not_at_all() {
        let mut pipe = pipe(13, &[10], &[PING]);
        for used in [13, 5, 1] {
            pipe.used = used;
            assert!(pipe.take().is_none(), "{used}");
        }
        pipe.used = 0;
        assert!(matches!(pipe.take(), Some((13, Ends::Control(PING)))));
    }

    #[test]
    fn a_segment_is_there_when_it_was_delivered_and_not_before() {
        let mut pipe = Pipe::new(1_000);
        assert!(!pipe.is_readable(1));
        for ends in [Ends::Message, Ends::Stream] {
            pipe.segments.push_back(Segment { bytes: 13, ends });
        }
        assert!(pipe.arrived(0).is_none());
        assert!(pipe.arrived(1).is_some());
        assert!(pipe.arrived(1).is_none());
        assert!(pipe.arrived(2).is_some());
    }

    #[test]
    fn the_window_opens_when_the_sender_knows_that_it_was_read() {
        let mut pipe = Pipe::new(1_000);
        assert_eq!(pipe.next_freed(9), NEVER);
        let segment = Segment {
            bytes: 13,
            ends: Ends::Message,
        };
        pipe.taken = 1;
        pipe.read(&segment, 5, 10);
        pipe.taken = 2;
        pipe.read(&segment, 6, 10);
        assert_eq!(pipe.freed, [(15, 13, 1), (16, 13, 2)]);
        assert_eq!(pipe.next_freed(0), NEVER);
        assert_eq!(pipe.next_freed(1), 15);
    }

    #[test]
    fn what_repeats_does_not_make_up_for_what_it_missed() {
        let mut beat = Repeated {
            at: 10,
            every: 5,
            what: (),
        };
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
        peer.writes = Repeated {
            at: 0,
            every: 1,
            what: 10,
        };
        peer.floods = Repeated {
            at: 0,
            every: 1,
            what: (),
        };
        let mut network = Network::new(&Link::new().rtt(us(1)), 1);
        let mut full = Pipe::new(0);
        for now in 0..20 {
            peer.write(now, &mut full, &mut network, &mut Timeline::new());
        }
        assert_eq!(full.messages.len(), 4);
        // Pings of its own, and the Hello.
        assert_eq!(full.control.len(), 4);
        assert!(full.segments.is_empty());
    }
}
