//! The events that nobody took yet.
//!
//! This module decides in which order events are given and how they merge
//! while nobody asks. Each of them has values of its own. It doesn't decide
//! what is worth an event.

use core::{num::NonZeroU64, time::Duration};

use crate::event::{Cause, CloseReason, Death, Diagnosis, Event};

use super::timing::Timing;

/// At most one pending event of each kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notices {
    connected: bool,
    /// A `Suspect` was given, and evidence hasn't come since.
    suspect_given: bool,
    /// How late we were.
    stall: Option<Span>,
    /// The silence that evidence ended.
    recovered: Option<Span>,
    /// The round trip.
    beat: Option<Span>,
    suspect: Option<Suspect>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    silence: Span,
    missed: u8,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Closed(CloseReason),
    Dead {
        cause: Cause,
        silence: Span,
        missed: u8,
        last_rtt: Option<Span>,
    },
}

/// A number of microseconds, of which an `Option` takes no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span(NonZeroU64);

impl Span {
    const fn from_micros(micros: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(micros))
    }

    const fn to_duration(self) -> Duration {
        Duration::from_micros(self.0.get() - 1)
    }
}

impl Notices {
    pub(super) const fn new() -> Self {
        Self {
            connected: false,
            suspect_given: false,
            stall: None,
            recovered: None,
            beat: None,
            suspect: None,
            end: None,
        }
    }

    // ---- what happened; silences and times in microseconds -------------

    pub(super) const fn connected(&mut self) {
        self.connected = true;
    }

    /// Of several stalls the longest is told.
    pub(super) fn stalled(&mut self, late: u64) {
        self.stall = self.stall.max(Some(Span::from_micros(late)));
    }

    pub(super) const fn beat(&mut self, round_trip: u64) {
        self.beat = Some(Span::from_micros(round_trip));
    }

    pub(super) const fn suspect(&mut self, missed: u8, silence: u64) {
        self.suspect = Some(Suspect {
            silence: Span::from_micros(silence),
            missed,
        });
    }

    /// Evidence came after `silence`. Takes a suspicion back: one that was
    /// given with `Recovered`, one that wasn't by never giving it.
    #[inline]
    pub(super) const fn heard(&mut self, silence: u64) {
        self.suspect = None;
        if self.suspect_given {
            self.suspect_given = false;
            self.recovered = Some(Span::from_micros(silence));
        }
    }

    pub(super) fn closed(&mut self, reason: CloseReason) {
        self.end_with(End::Closed(reason));
    }

    pub(super) fn dead(
        &mut self,
        cause: Cause,
        silence: u64,
        missed: u8,
        last_rtt: Option<Duration>,
    ) {
        self.end_with(End::Dead {
            cause,
            silence: Span::from_micros(silence),
            missed,
            last_rtt: last_rtt.map(|rtt| Span::from_micros(crate::time::micros(rtt))),
        });
    }

    fn end_with(&mut self, end: End) {
        debug_assert!(self.end.is_none(), "a monitor ends once");
        // The terminal event says it all.
        self.suspect = None;
        self.suspect_given = false;
        self.end = Some(end);
    }

    // ---- what is told --------------------------------------------------

    /// Whether a suspicion was reported that evidence hasn't taken back.
    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect_given || self.suspect.is_some()
    }

    pub(super) const fn has_event(&self) -> bool {
        self.connected
            || self.stall.is_some()
            || self.recovered.is_some()
            || self.beat.is_some()
            || self.suspect.is_some()
            || self.end.is_some()
    }

    /// The next event. `timing` knows what the peer announced.
    pub(super) fn poll(&mut self, timing: &Timing) -> Option<Event> {
        if core::mem::take(&mut self.connected) {
            if let Some(peer) = timing.peer() {
                return Some(Event::Connected { peer });
            }
        }
        if let Some(late) = self.stall.take() {
            let late = late.to_duration();
            return Some(Event::LocalStall { late });
        }
        if let Some(silence) = self.recovered.take() {
            let silent_for = silence.to_duration();
            return Some(Event::Recovered { silent_for });
        }
        if let Some(round_trip) = self.beat.take() {
            let rtt = round_trip.to_duration();
            return Some(Event::Beat { rtt });
        }
        if let Some(suspect) = self.suspect.take() {
            self.suspect_given = true;
            return Some(Event::Suspect {
                missed: suspect.missed.into(),
                silent_for: suspect.silence.to_duration(),
            });
        }
        self.end.take().map(Event::from)
    }
}

impl From<End> for Event {
    fn from(end: End) -> Self {
        match end {
            End::Closed(reason) => Self::Closed { reason },
            End::Dead {
                cause,
                silence,
                missed,
                last_rtt,
            } => Self::Dead(Death {
                cause,
                silent_for: silence.to_duration(),
                missed: missed.into(),
                last_rtt: last_rtt.map(Span::to_duration),
                diagnosis: Diagnosis::Unknown,
            }),
        }
    }
}
