//! One end of a connection as a kernel sees it: what to send again, and when.
//!
//! This module decides what Linux decides: when a segment counts as lost (RFC
//! 6298 for the timer, RFC 8985 for the tail loss probe and for losses that
//! later arrivals tell of), how timers back off, and what may be sent while a
//! loss is repaired; `receiver` decides when the other end acknowledges. It leaves
//! out what sparse
//! and small segments never meet: congestion windows beyond the one after a
//! timeout, undoing of spurious repairs, and giving up.

use core::ops::Range;
use std::collections::VecDeque;

use super::network::NEVER;

mod receiver;
mod round_trips;

pub(super) use receiver::{Acknowledgement, Receiver};
use round_trips::RoundTrips;

/// `TCP_RTO_MIN`: the least that the timer adds to the smoothed round trip, in
/// microseconds.
const RTO_MIN: u64 = 200_000;

/// The most that one packet holds, in bytes.
const PACKET: u32 = 1448;

/// `TCP_TIMEOUT_MIN`, two ticks of 1 ms.
const TWO_TICKS: u64 = 2_000;

/// A segment that is on its way, as far as its sender knows.
#[derive(Clone, Copy, Debug)]
struct Flight {
    bytes: u32,
    /// For the last time.
    sent_at: u64,
    repeated: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flying,
    /// It has arrived, but not all before it.
    Arrived,
    /// To be sent again.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Something was found lost by what arrived after it. Until all before this
    /// one has arrived.
    Recovery(u64),
    /// The timer has fired.
    Loss(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    Retransmission,
    /// Of the last segment, whose loss no later segment would reveal.
    Probe,
    /// Something was sent before what has arrived, by so little that it may
    /// still be on its way.
    Reordering,
}

/// What an acknowledgement tells of for the first time.
#[derive(Debug, Default)]
struct Arrivals {
    count: usize,
    /// Whether the first that was on its way is among them.
    advanced: bool,
    /// The round trip of a segment that was sent once (Karn's algorithm).
    certain: Option<u64>,
    /// That of one that was sent again.
    doubtful: Option<u64>,
}

impl Arrivals {
    fn note(&mut self, flight: &Flight, shortest: u64, latest: &mut (u64, u64), now: u64) {
        self.count += 1;
        let round_trip = now.saturating_sub(flight.sent_at);
        if flight.repeated && round_trip < shortest {
            // That of an earlier copy.
            return;
        }
        let sample = match flight.repeated {
            true => &mut self.doubtful,
            false => &mut self.certain,
        };
        sample.get_or_insert(round_trip);
        if flight.sent_at >= latest.0 {
            *latest = (flight.sent_at, round_trip);
        }
    }
}

/// The sending half of one direction.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    /// The number of the first in `flights`.
    first: u64,
    flights: VecDeque<Flight>,
    /// The sizes of those that were written, but not sent yet.
    waiting: VecDeque<u32>,
    phase: Phase,
    /// How many may be on their way after a timeout.
    window: usize,
    /// Until this one has arrived there is no other probe.
    probed: Option<u64>,
    timer: Timer,
    pub(super) fires_at: u64,
    round_trips: RoundTrips,
    /// Doubles each time.
    timeout: u64,
    longest_timeout: u64,
    /// When the latest of those that arrived was sent, and its round trip.
    latest: (u64, u64),
}

impl Sender {
    /// After a handshake that took this long.
    pub(super) fn new(round_trip: u64, longest_timeout: u64) -> Self {
        let mut round_trips = RoundTrips::default();
        round_trips.sample(round_trip, 0, 0);
        let longest_timeout = longest_timeout.max(RTO_MIN);
        Self {
            first: 0,
            flights: VecDeque::new(),
            waiting: VecDeque::new(),
            phase: Phase::Open,
            window: usize::MAX,
            probed: None,
            timer: Timer::Retransmission,
            fires_at: NEVER,
            timeout: round_trips.timeout().min(longest_timeout),
            round_trips,
            longest_timeout,
            latest: (0, round_trip),
        }
    }

    /// Whether these are more than one packet holds.
    pub(super) fn are_large(&self, numbers: &Range<u64>) -> bool {
        let flights = self.flights.iter().zip(self.first..);
        let theirs = flights.filter(|(_, number)| numbers.contains(number));
        theirs.map(|(flight, _)| flight.bytes).max() > Some(PACKET)
    }

    /// How long it waits for an acknowledgement now.
    pub(super) const fn timeout(&self) -> u64 {
        self.timeout
    }

    /// How many have been acknowledged, with all before them.
    pub(super) const fn acknowledged(&self) -> u64 {
        self.first
    }

    /// One more is to be sent. What may be sent now goes to `send`, by numbers:
    /// those of one packet.
    pub(super) fn write(&mut self, bytes: u32, now: u64, send: impl FnMut(Range<u64>)) {
        self.waiting.push_back(bytes);
        self.send_what_waits(now, send);
    }

    /// The timer's time has come. Returns whether it was the one that backs off.
    pub(super) fn fire(&mut self, now: u64, mut send: impl FnMut(Range<u64>)) -> bool {
        self.fires_at = NEVER;
        match self.timer {
            Timer::Probe => {
                let last = self
                    .flights
                    .iter()
                    .rposition(|flight| flight.state != State::Arrived);
                if let Some(last) = last {
                    self.repeat(last, now, &mut send);
                }
                self.probed = Some(self.next());
                self.arm(now);
                false
            }
            Timer::Reordering => {
                self.find_lost(now);
                self.repeat_lost(now, &mut send);
                if self.fires_at == NEVER {
                    self.arm(now);
                }
                false
            }
            Timer::Retransmission => {
                self.timeout = self.timeout.saturating_mul(2).min(self.longest_timeout);
                self.phase = Phase::Loss(self.next());
                self.probed = None;
                let overdue = self.overdue(0);
                for (index, flight) in self.flights.iter_mut().enumerate() {
                    let is_lost = index == 0 || flight.sent_at.saturating_add(overdue) <= now;
                    if flight.state == State::Flying && is_lost {
                        flight.state = State::Lost;
                    }
                }
                self.window = self.flying() + 1;
                self.repeat_lost(now, &mut send);
                self.arm(now);
                true
            }
        }
    }

    /// The other end says what it has.
    pub(super) fn acknowledge(
        &mut self,
        said: &Acknowledgement,
        now: u64,
        mut send: impl FnMut(Range<u64>),
    ) {
        let arrivals = self.take_arrivals(said, now);
        if arrivals.count == 0 {
            return;
        }
        if let Some(sample) = arrivals.certain.or(arrivals.doubtful) {
            self.round_trips.sample(sample, self.first, self.next());
            self.timeout = self.round_trips.timeout().min(self.longest_timeout);
        }
        if self.probed.is_some_and(|probed| self.first >= probed) {
            self.probed = None;
        }
        match self.phase {
            Phase::Recovery(until) | Phase::Loss(until) if self.first >= until => {
                self.phase = Phase::Open;
                self.window = usize::MAX;
            }
            Phase::Loss(_) => self.window = self.window.saturating_add(arrivals.count),
            _ => {}
        }
        if arrivals.advanced {
            self.arm(now);
        }
        self.find_lost(now);
        self.repeat_lost(now, &mut send);
        self.send_what_waits(now, send);
    }

    /// Takes what has arrived out of what is on its way.
    fn take_arrivals(&mut self, said: &Acknowledgement, now: u64) -> Arrivals {
        let mut arrivals = Arrivals::default();
        let shortest = self.round_trips.shortest();
        while self.first < said.next {
            let Some(flight) = self.flights.pop_front() else {
                break;
            };
            self.first += 1;
            arrivals.advanced = true;
            if flight.state != State::Arrived {
                arrivals.note(&flight, shortest, &mut self.latest, now);
            }
        }
        for number in &said.beyond {
            let index = number.checked_sub(self.first);
            let index = index.and_then(|index| usize::try_from(index).ok());
            if let Some(flight) = index.and_then(|index| self.flights.get_mut(index)) {
                if flight.state != State::Arrived {
                    flight.state = State::Arrived;
                    arrivals.note(flight, shortest, &mut self.latest, now);
                }
            }
        }
        arrivals
    }

    /// The next time the timer fires, if it backs off, is at least this late:
    /// what comes before is in vain.
    pub(super) fn skip_until(&mut self, useful: u64) {
        if useful == NEVER {
            self.fires_at = NEVER;
        } else if self.timeout == self.longest_timeout && self.timer == Timer::Retransmission {
            // The steps are even from here on.
            let vain = useful.saturating_sub(self.fires_at).div_ceil(self.timeout);
            let skipped = vain.saturating_mul(self.timeout);
            self.fires_at = self.fires_at.saturating_add(skipped);
        }
    }

    fn next(&self) -> u64 {
        self.first + self.flights.len() as u64
    }

    fn flying(&self) -> usize {
        let flights = self.flights.iter();
        flights
            .filter(|flight| flight.state == State::Flying)
            .count()
    }

    fn send_what_waits(&mut self, now: u64, mut send: impl FnMut(Range<u64>)) {
        while self.flying() < self.window {
            let Some(bytes) = self.waiting.pop_front() else {
                return;
            };
            let number = self.next();
            self.flights.push_back(Flight {
                bytes,
                sent_at: now,
                repeated: false,
                state: State::Flying,
            });
            send(number..number + 1);
            if self.fires_at == NEVER || self.timer == Timer::Probe {
                self.arm(now);
            }
        }
    }

    /// Small ones behind it go with it, as far as there is room in a packet.
    fn repeat(&mut self, index: usize, now: u64, send: &mut impl FnMut(Range<u64>)) {
        let first = self.first + index as u64;
        let mut numbers = first..first;
        let mut room = PACKET;
        for flight in self.flights.range_mut(index..) {
            let fits = flight.bytes <= room || numbers.is_empty();
            if !fits || flight.state == State::Arrived {
                break;
            }
            room = room.saturating_sub(flight.bytes);
            numbers.end += 1;
            flight.sent_at = now;
            flight.repeated = true;
            flight.state = State::Flying;
        }
        send(numbers);
    }

    fn repeat_lost(&mut self, now: u64, send: &mut impl FnMut(Range<u64>)) {
        for index in 0..self.flights.len() {
            let is_lost = |flight: &Flight| flight.state == State::Lost;
            if !self.flights.get(index).is_some_and(is_lost) {
                continue;
            }
            if self.flying() >= self.window {
                break;
            }
            self.repeat(index, now, send);
            if index == 0 {
                self.timer = Timer::Retransmission;
                self.fires_at = now.saturating_add(self.timeout);
            }
        }
    }

    /// After which time one is lost that was sent before another that arrived.
    const fn overdue(&self, reordering: u64) -> u64 {
        self.latest.1.saturating_add(reordering)
    }

    fn find_lost(&mut self, now: u64) {
        let reordering = match self.phase {
            Phase::Open => self.round_trips.shortest() / 4,
            _ => 0,
        };
        let overdue = self.overdue(reordering);
        let mut wait = NEVER;
        let mut found = false;
        for flight in &mut self.flights {
            if flight.state == State::Flying && flight.sent_at < self.latest.0 {
                let lost_at = flight.sent_at.saturating_add(overdue);
                if lost_at <= now {
                    flight.state = State::Lost;
                    found = true;
                } else {
                    wait = wait.min(lost_at);
                }
            }
        }
        if found && self.phase == Phase::Open {
            self.phase = Phase::Recovery(self.next());
            self.probed = None;
        }
        if wait < self.fires_at {
            self.timer = Timer::Reordering;
            self.fires_at = wait;
        }
    }

    /// Sets the timer again.
    fn arm(&mut self, now: u64) {
        if self.flights.is_empty() {
            self.fires_at = NEVER;
            return;
        }
        let retransmission = now.saturating_add(self.timeout);
        if self.phase != Phase::Open || self.probed.is_some() {
            self.timer = Timer::Retransmission;
            self.fires_at = retransmission;
            return;
        }
        let more = match self.flights.len() {
            1 => RTO_MIN,
            _ => TWO_TICKS,
        };
        let probe = now
            .saturating_add(2 * self.round_trips.smoothed())
            .saturating_add(more);
        // Sending more doesn't keep the timer of the first one from firing.
        let first = self.flights.front().map_or(now, |flight| flight.sent_at);
        let latest = first.saturating_add(self.timeout);
        self.timer = Timer::Probe;
        self.fires_at = probe
            .min(retransmission)
            .min(latest.max(now.saturating_add(1)));
    }
}
