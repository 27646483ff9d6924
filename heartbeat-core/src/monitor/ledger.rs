//! The pings that were sent, which of them were answered, and round trips.
//!
//! This module decides which pong answers which ping, and whether its round
//! trip is measured. It doesn't decide what an answer means for the peer.

use crate::{
    frame::Nonce,
    packed::{Packed, PackedInstant},
    random::Random,
    rtt::RoundTrip,
    time::Instant,
};

/// Pings by their indices, which wrap at 2³².
#[derive(Clone, Copy, Debug)]
pub(super) struct Ledger {
    /// The latest ping that was handed out.
    sent: u32,
    /// The latest ping that was answered.
    answered: u32,
    /// Pongs that matched.
    pongs: u32,
    /// Whether the latest ping was handed out and hasn't left.
    in_flight: bool,
    left: Left,
    rtt: RoundTrip,
}

/// When the latest ping left, and which pings can measure a round trip: none that left
/// before a stall or a pause of ours.
#[derive(Clone, Copy, Debug)]
enum Left {
    Never,
    /// No ping can.
    Untimed {
        last_left: PackedInstant,
    },
    /// The latest ping that left can.
    Last {
        last_left: PackedInstant,
    },
    /// The first ping of the round can too: when round trips exceed the timeout, its pong is
    /// the first to come back.
    FirstAndLast {
        first_left: PackedInstant,
        last_left: PackedInstant,
        /// How many pings before the last the first was. A round has at most 2·255.
        back: Packed<2>,
    },
}

/// A pong that answers one of our pings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Microseconds, if it could be measured.
    pub(super) round_trip: Option<u64>,
    /// Whether it answers the latest ping.
    pub(super) is_latest: bool,
}

impl Ledger {
    pub(super) const fn new() -> Self {
        Self {
            sent: 0,
            answered: 0,
            pongs: 0,
            in_flight: false,
            left: Left::Never,
            rtt: RoundTrip::new(),
        }
    }

    pub(super) const fn sent(&self) -> u32 {
        self.sent
    }

    pub(super) const fn pongs(&self) -> u32 {
        self.pongs
    }

    pub(super) const fn rtt(&self) -> &RoundTrip {
        &self.rtt
    }

    /// When the latest ping left.
    pub(super) const fn last_left(&self) -> Option<Instant> {
        match self.left {
            Left::Never => None,
            Left::Untimed { last_left }
            | Left::Last { last_left }
            | Left::FirstAndLast { last_left, .. } => Some(last_left.instant()),
        }
    }

    /// Whether the latest ping was answered.
    pub(super) const fn is_settled(&self) -> bool {
        self.sent == self.answered
    }

    /// Whether a ping that has left is unanswered.
    pub(super) const fn awaits_answer(&self) -> bool {
        self.last() != self.answered
    }

    /// One more ping is handed out. Gives its index.
    pub(super) const fn send(&mut self) -> u32 {
        self.sent = self.sent.wrapping_add(1);
        self.in_flight = true;
        self.sent
    }

    /// The ping that was handed out last left at `now`.
    pub(super) fn left(&mut self, is_first_of_round: bool, now: Instant) {
        debug_assert!(self.in_flight, "no ping leaves twice");
        self.in_flight = false;
        let last_left = PackedInstant::from_instant(now);
        let (first_left, back) = match self.left {
            Left::Last { last_left } if !is_first_of_round => (last_left, 1),
            Left::FirstAndLast {
                first_left, back, ..
            } if !is_first_of_round => (first_left, back.get() + 1),
            _ => {
                self.left = Left::Last { last_left };
                return;
            }
        };
        self.left = Left::FirstAndLast {
            first_left,
            last_left,
            back: Packed::new(back),
        };
    }

    /// The ping that was handed out last had left by `now`, as its answer shows.
    pub(super) const fn left_by(&mut self, now: Instant) {
        self.in_flight = false;
        self.left = Left::Untimed {
            last_left: PackedInstant::from_instant(now),
        };
    }

    /// The latest ping that left.
    const fn last(&self) -> u32 {
        self.sent.wrapping_sub(self.in_flight as u32)
    }

    /// Matches a pong with the unanswered pings, of which the latest `window` are remembered.
    /// It answers earlier pings too.
    #[inline]
    pub(super) fn answer(
        &mut self,
        nonce: Nonce,
        random: Random,
        window: u32,
        now: Instant,
    ) -> Option<Answer> {
        let index = (0..self.unanswered(window))
            .map(|back| self.sent.wrapping_sub(back))
            .find(|&index| random.nonce(index) == nonce)?;
        self.answered = index;
        self.pongs = self.pongs.wrapping_add(1);
        let behind = self.last().wrapping_sub(index);
        let left = match self.left {
            Left::Last { last_left } | Left::FirstAndLast { last_left, .. } if behind == 0 => {
                Some(last_left)
            }
            Left::FirstAndLast {
                first_left, back, ..
            } if back.get() == u64::from(behind) => Some(first_left),
            _ => None,
        };
        let round_trip = left.map(|left| now.micros_since(left.instant()));
        if let Some(micros) = round_trip {
            self.rtt.sample(micros);
        }
        Some(Answer {
            round_trip,
            is_latest: index == self.sent,
        })
    }

    /// The nonce of the oldest ping that is unanswered, within `window`.
    pub(super) fn oldest_unanswered(&self, random: Random, window: u32) -> Option<Nonce> {
        let unanswered = self.unanswered(window).checked_sub(1)?;
        Some(random.nonce(self.sent.wrapping_sub(unanswered)))
    }

    /// We slept or didn't read: a pong for an earlier ping measures no round trip.
    pub(super) fn forget_times(&mut self) {
        if let Some(last_left) = self.last_left() {
            self.left = Left::Untimed {
                last_left: PackedInstant::from_instant(last_left),
            };
        }
    }

    fn unanswered(&self, window: u32) -> u32 {
        self.sent.wrapping_sub(self.answered).min(window)
    }

    /// As if this number of pings had been sent and answered.
    #[cfg(feature = "testkit")]
    pub(super) const fn set_sent(&mut self, pings: u32) {
        self.sent = pings;
        self.answered = pings;
    }
}

#[cfg(feature = "testkit")]
impl Ledger {
    /// The latest `window` pings may be answered. Round trips matter if
    /// `is_adaptive`.
    pub(super) fn describe(
        &self,
        window: u32,
        is_adaptive: bool,
        facts: &mut crate::testkit::Facts,
    ) {
        let Self {
            sent,
            answered,
            pongs: _,
            in_flight,
            left,
            rtt,
        } = *self;
        facts.ping(answered, sent, window);
        facts.number(in_flight);
        match left {
            Left::Never => facts.number(0),
            Left::Untimed { last_left } => {
                facts.number(1);
                facts.instant(last_left.instant());
            }
            Left::Last { last_left } => {
                facts.number(2);
                facts.instant(last_left.instant());
            }
            Left::FirstAndLast {
                first_left,
                last_left,
                back,
            } => {
                facts.number(3);
                facts.instant(first_left.instant());
                facts.instant(last_left.instant());
                facts.large(back.get());
            }
        }
        if is_adaptive {
            rtt.describe(facts);
        }
    }
}
