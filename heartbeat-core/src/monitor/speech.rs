//! When something must leave so that the peer hears us.
//!
//! This module decides since when nothing of ours has left, and that an Alive or a ping
//! then leaves. It doesn't decide which other frames are due.

use super::{Monitor, life::Life, outbox::Purpose};
use crate::{config::Config, packed::Span, time::Instant};

/// Our own side's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// It may last, for there is no `speak_within`.
    Unlimited,
    /// When something of ours last left, or the start: so long after the origin.
    Since(Span),
}

impl Speech {
    pub(super) const fn new(config: &Config, now: Instant) -> Self {
        match config.speak_within() {
            Some(_) => Self::Since(Span::from_micros(now.as_micros())),
            None => Self::Unlimited,
        }
    }

    #[inline]
    pub(super) const fn is_limited(self) -> bool {
        matches!(self, Self::Since(_))
    }

    /// Something of ours left at `now`.
    #[inline]
    pub(super) const fn spoke(&mut self, now: Instant) {
        if let Self::Since(last) = self {
            *last = Span::from_micros(now.as_micros());
        }
    }

    /// When it has lasted as long as it may.
    fn limit_at(self, config: &Config) -> Instant {
        match (self, config.speak_within()) {
            (Self::Since(last), Some(within)) => Instant::from_micros(last.get()) + within,
            (Self::Since(_), None) | (Self::Unlimited, _) => Instant::MAX,
        }
    }
}

impl Monitor {
    /// When something of ours must leave; never while a sign of life or a ping is on its
    /// way.
    pub(super) fn next_speech(&self) -> Instant {
        let is_on_its_way = !self.outbox.has_no_ping() || !self.outbox.has_no_alive();
        let speaks = matches!(self.life, Life::Idle(_) | Life::Round(_) | Life::Paused(_));
        let due = self.speech.limit_at(self.timing.config());
        match speaks && !is_on_its_way {
            true if self.has_alive() => due,
            true => due.max(self.next_accepted()),
            false => Instant::MAX,
        }
    }

    /// Sends a sign of life if nothing of ours has left for too long.
    #[inline]
    pub(super) fn speak(&mut self, now: Instant) {
        if self.speech.is_limited() && self.next_speech().is_due(now) {
            self.want_speech();
        }
    }

    #[cold]
    fn want_speech(&mut self) {
        match self.has_alive() {
            true => self.outbox.want_alive(),
            false => self.outbox.want(Purpose::Speech),
        }
        if let Life::Paused(paused) = &mut self.life {
            // It is planned again when this has left.
            paused.plan(Instant::MAX);
        }
    }
}

#[cfg(feature = "testkit")]
impl Speech {
    pub(super) fn describe(self, facts: &mut crate::testkit::Facts) {
        if let Self::Since(last) = self {
            facts.instant(Instant::from_micros(last.get()));
        }
    }
}
