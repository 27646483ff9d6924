//! When something must leave so that the peer hears us.
//!
//! This module decides since when nothing of ours has left, and that an Alive or a ping
//! then leaves. It doesn't decide which other frames are due.

use core::time::Duration;

use super::{Monitor, life::Life, outbox::Purpose};
use crate::{packed::PackedInstant, time::Instant};

/// Our own side's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Speech {
    /// When something of ours last left, or the start.
    last: PackedInstant,
}

impl Speech {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            last: PackedInstant::from_instant(now),
        }
    }

    /// Something of ours left at `now`.
    #[inline]
    pub(super) const fn spoke(&mut self, now: Instant) {
        self.last = PackedInstant::from_instant(now);
    }

    /// When something of ours last left, or the start.
    pub(super) const fn last(self) -> Instant {
        self.last.instant()
    }
}

impl Monitor {
    /// When something of ours must leave; never while a sign of life or a ping is on its
    /// way.
    #[inline]
    pub(super) fn next_speech(&self) -> Instant {
        match self.timing.config().speak_within() {
            None => Instant::MAX,
            Some(within) => self.speech_after(within),
        }
    }

    fn speech_after(&self, within: Duration) -> Instant {
        let is_on_its_way = !self.outbox.has_no_ping() || !self.outbox.has_no_alive();
        let speaks = matches!(self.life, Life::Idle(_) | Life::Round(_) | Life::Paused(_));
        let due = self.speech.last() + within;
        match speaks && !is_on_its_way {
            true if self.has_alive() => due,
            true => due.max(self.next_accepted()),
            false => Instant::MAX,
        }
    }

    /// Sends a sign of life if nothing of ours has left for too long.
    #[inline]
    pub(super) fn speak(&mut self, now: Instant) {
        if self.timing.config().speak_within().is_none() || !self.next_speech().is_due(now) {
            return;
        }
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
        let Self { last } = self;
        facts.instant(last.instant());
    }
}
