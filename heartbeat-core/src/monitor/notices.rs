//! The events that weren't taken yet.
//!
//! This module decides in which order events are given and how they merge
//! until they are taken. Each of them has values of its own. It doesn't decide
//! what is worth an event.

use core::{num::NonZeroU32, time::Duration};

use crate::{
    event::{Cause, CloseReason, Death, Diagnosis, Event},
    packed::Span,
};

/// At most one pending event of each kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notices {
    connected: bool,
    /// How late we were.
    stall: Option<Span>,
    /// The silence that evidence ended.
    recovered: Option<Span>,
    beat: Option<RoundTrip>,
    finished: bool,
    standing: Standing,
}

/// Whether the peer is suspect, and whether that was reported.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// It is heard, or its end was told.
    Good,
    /// `Suspect` was reported, and no evidence has followed.
    Suspect,
    /// `Suspect` is pending, perhaps not for the first time.
    SuspectPending {
        silence: Span,
        missed: u8,
        given_before: bool,
    },
    /// The terminal event is pending. It replaces a pending suspicion.
    Closed(CloseReason),
    /// The same.
    Dead {
        cause: Cause,
        silence: Span,
        missed: u8,
    },
}

/// A round trip in microseconds, at most 71 minutes.
#[derive(Clone, Copy, Debug)]
struct RoundTrip(NonZeroU32);

impl RoundTrip {
    fn from_micros(micros: u64) -> Self {
        let micros = u32::try_from(micros).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(micros))
    }

    fn to_duration(self) -> Duration {
        Duration::from_micros(u64::from(self.0.get()) - 1)
    }
}

impl Notices {
    pub(super) const fn new() -> Self {
        Self {
            connected: false,
            stall: None,
            recovered: None,
            beat: None,
            finished: false,
            standing: Standing::Good,
        }
    }

    // ---- what happened; silences and times in microseconds -------------

    pub(super) const fn connected(&mut self) {
        self.connected = true;
    }

    /// Of several stalls the longest is reported.
    pub(super) fn stalled(&mut self, late: u64) {
        self.stall = self.stall.max(Some(Span::from_micros(late)));
    }

    /// Of several beats the latest is reported.
    pub(super) fn beat(&mut self, round_trip: u64) {
        self.beat = Some(RoundTrip::from_micros(round_trip));
    }

    pub(super) const fn finished(&mut self) {
        self.finished = true;
    }

    /// Of several suspicions the latest is reported.
    pub(super) const fn suspect(&mut self, missed: u8, silence: u64) {
        self.standing = Standing::SuspectPending {
            silence: Span::from_micros(silence),
            missed,
            given_before: self.was_suspect_given(),
        };
    }

    /// Evidence came after `silence`. A reported suspicion ends with `Recovered`; one that is
    /// still pending is dropped.
    #[inline]
    pub(super) const fn heard(&mut self, silence: u64) {
        if self.is_suspect() {
            self.recover(silence);
        }
    }

    const fn recover(&mut self, silence: u64) {
        if self.was_suspect_given() {
            self.recovered = Some(Span::from_micros(silence));
        }
        self.standing = Standing::Good;
    }

    pub(super) fn closed(&mut self, reason: CloseReason) {
        self.end_with(Standing::Closed(reason));
    }

    pub(super) fn dead(&mut self, cause: Cause, silence: u64, missed: u8) {
        self.end_with(Standing::Dead {
            cause,
            silence: Span::from_micros(silence),
            missed,
        });
    }

    fn end_with(&mut self, end: Standing) {
        debug_assert!(!self.is_end_pending(), "a monitor ends once");
        self.standing = end;
    }

    const fn was_suspect_given(&self) -> bool {
        match self.standing {
            Standing::Suspect => true,
            Standing::SuspectPending { given_before, .. } => given_before,
            Standing::Good | Standing::Closed(_) | Standing::Dead { .. } => false,
        }
    }

    const fn is_end_pending(&self) -> bool {
        matches!(self.standing, Standing::Closed(_) | Standing::Dead { .. })
    }

    // ---- outputs -------------------------------------------------------

    /// Whether a suspicion was reported that evidence hasn't taken back.
    pub(super) const fn is_suspect(&self) -> bool {
        matches!(
            self.standing,
            Standing::Suspect | Standing::SuspectPending { .. }
        )
    }

    pub(super) const fn has_event(&self) -> bool {
        self.connected
            || self.stall.is_some()
            || self.recovered.is_some()
            || self.beat.is_some()
            || self.finished
            || !matches!(self.standing, Standing::Good | Standing::Suspect)
    }

    /// Whether `Connected` is to be given, once. It comes before all other events.
    pub(super) const fn take_connected(&mut self) -> bool {
        core::mem::replace(&mut self.connected, false)
    }

    /// The next other event. `last_rtt` is the last round trip; it is what it was when the
    /// event became pending.
    #[inline]
    pub(super) fn poll(&mut self, last_rtt: impl FnOnce() -> Option<Duration>) -> Option<Event> {
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
        if core::mem::take(&mut self.finished) {
            return Some(Event::Finished);
        }
        self.poll_standing(last_rtt)
    }

    fn poll_standing(&mut self, last_rtt: impl FnOnce() -> Option<Duration>) -> Option<Event> {
        let (event, told) = match self.standing {
            Standing::Good | Standing::Suspect => return None,
            Standing::SuspectPending {
                silence, missed, ..
            } => {
                let silent_for = silence.to_duration();
                let missed = missed.into();
                (Event::Suspect { missed, silent_for }, Standing::Suspect)
            }
            Standing::Closed(reason) => (Event::Closed { reason }, Standing::Good),
            Standing::Dead {
                cause,
                silence,
                missed,
            } => {
                let death = Death {
                    cause,
                    silent_for: silence.to_duration(),
                    missed: missed.into(),
                    last_rtt: last_rtt(),
                    diagnosis: Diagnosis::Unknown,
                    was_heard: true,
                };
                (Event::Dead(death), Standing::Good)
            }
        };
        self.standing = told;
        Some(event)
    }
}

#[cfg(feature = "testkit")]
impl Notices {
    pub(super) fn describe(&self, facts: &mut crate::testkit::Facts) {
        let Self {
            connected,
            stall,
            recovered,
            beat,
            finished,
            standing,
        } = *self;
        facts.number(connected);
        for span in [stall, recovered] {
            facts.span(span.map_or(0, |span| span.get().saturating_add(1)));
        }
        facts.number(beat.map_or(0, |beat| beat.0.get()));
        facts.number(finished);
        standing.describe(facts);
    }
}

#[cfg(feature = "testkit")]
impl Standing {
    fn describe(self, facts: &mut crate::testkit::Facts) {
        match self {
            Self::Good => facts.number(0),
            Self::Suspect => facts.number(1),
            Self::SuspectPending {
                silence,
                missed,
                given_before,
            } => {
                facts.number(2);
                facts.span(silence.get());
                facts.number(missed);
                facts.number(given_before);
            }
            Self::Closed(reason) => {
                facts.number(3);
                facts.number(match reason {
                    CloseReason::Local => -1,
                    CloseReason::Unconfirmed => -2,
                    CloseReason::Finished => -3,
                    CloseReason::Peer { code, .. } => code.0.into(),
                });
            }
            Self::Dead {
                cause,
                silence,
                missed,
            } => {
                facts.number(4);
                facts.cause(cause);
                facts.span(silence.get());
                facts.number(missed);
            }
        }
    }
}
