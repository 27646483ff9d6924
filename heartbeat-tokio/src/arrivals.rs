//! When bytes arrived.
//!
//! This module decides when a read is timed. On a quiet connection each read is. On a busy
//! one reading the clock would be the largest cost: an echo of 16 bytes in memory takes
//! 0.64 µs of processor time with this module, and 0.92 µs when each read is timed (`cargo
//! bench -p heartbeat-tokio --bench throughput -- --only "echo duplex 16" --alone inline`,
//! 2 cores under load). So a busy connection reads the clock once and arms a timer for
//! [`Config::arrival_slack`] later. Until it fires, reads count as arriving at that reading:
//! too early by no more than the monitor allows for, and too late only by the timer's own
//! lateness. The meaning of an arrival is decided elsewhere.

use heartbeat_core::{Config, Instant};

/// Reads in a row, close to each other, that make a connection busy.
const BUSY: u8 = 16;

/// Reads are close to each other if this number of them fits into the slack. The timer then
/// fires at most once in that number of reads.
const FIT: u32 = 16;

/// The latest arrival.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    /// The earliest time that it can have had.
    at: Instant,
    /// The number of consecutive reads that came soon after the one before.
    in_a_row: u8,
    /// The timer fires before `at` is too old: reads needn't be timed.
    relaxed: bool,
    /// A message came that wasn't timed.
    untimed: bool,
    /// The bytes of an incomplete message that were there at the last evidence.
    counted: u32,
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        Self {
            at: Instant::ORIGIN,
            in_a_row: 0,
            relaxed: false,
            untimed: false,
            counted: 0,
        }
    }

    /// When the last bytes came.
    #[inline]
    pub(crate) fn last(&self) -> Instant {
        self.at
    }

    /// A message was among what was read last.
    #[inline]
    pub(crate) fn note_message(&mut self) {
        self.untimed |= self.relaxed;
    }

    /// A message is whole: later bytes belong to another one.
    #[inline]
    pub(crate) fn begin_message(&mut self) {
        self.counted = 0;
    }

    /// Evidence came, with `incomplete` bytes of an incomplete message there.
    pub(crate) fn count(&mut self, incomplete: usize) {
        self.counted = u32::try_from(incomplete).unwrap_or(u32::MAX);
    }

    /// The bytes of an incomplete message that came since the last evidence, if
    /// `incomplete` of them are there.
    pub(crate) fn since_evidence(&self, incomplete: usize) -> u64 {
        let incomplete = u64::try_from(incomplete).unwrap_or(u64::MAX);
        match incomplete.checked_sub(self.counted.into()) {
            Some(since) => since,
            None => incomplete, // of another message
        }
    }

    /// The last read came at `now`.
    pub(crate) fn time(&mut self, config: &Config, now: Instant) {
        let since = now.saturating_duration_since(self.at);
        self.in_a_row = match since * FIT < config.arrival_slack() {
            true => self.in_a_row.saturating_add(1),
            false => 0,
        };
        self.at = now;
    }

    /// Whether reads come close enough to each other that a timer is cheaper.
    #[inline]
    pub(crate) fn are_many(&self) -> bool {
        self.in_a_row >= BUSY
    }

    /// Whether reads aren't timed, because the timer is armed.
    #[inline]
    pub(crate) fn are_relaxed(&self) -> bool {
        self.relaxed
    }

    /// When the timer has to fire for reads to stay untimed until then.
    pub(crate) fn deadline(&self, config: &Config) -> Instant {
        self.at + config.arrival_slack()
    }

    /// The latest time at which the frame that was taken out last can have come.
    pub(crate) fn last_came(&self, config: &Config) -> Instant {
        match self.relaxed {
            true => self.deadline(config),
            false => self.at,
        }
    }

    /// The timer has fired: reads are rare again.
    pub(crate) fn calm(&mut self) {
        self.in_a_row = 0;
    }

    /// The timer is armed for the deadline or for something earlier.
    pub(crate) fn relax(&mut self) {
        self.relaxed = true;
    }

    /// The timer has fired, or an exact time is needed: the next read is timed. Returns the
    /// time of a message that came untimed.
    pub(crate) fn settle(&mut self, config: &Config, now: Instant) -> Option<Instant> {
        self.relaxed = false;
        self.in_a_row = 0;
        // Within the slack if the timer was on time. If it was late, so were we.
        self.at = self.at.max(now - config.arrival_slack());
        std::mem::take(&mut self.untimed).then_some(self.at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "how a test fails")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn busy(config: &Config) -> Arrivals {
        let mut arrivals = Arrivals::new();
        for micros in 0..u64::from(BUSY) {
            assert!(!arrivals.are_many());
            arrivals.time(config, at(micros));
            arrivals.note_message();
        }
        assert!(arrivals.are_many());
        assert!(!arrivals.are_relaxed(), "the timer isn't armed yet");
        arrivals
    }

    #[test]
    fn a_busy_connection_is_timed_once_within_the_slack() {
        let config = Config::default();
        let slack = config.arrival_slack();
        let mut arrivals = busy(&config);
        let deadline = arrivals.deadline(&config);
        assert_eq!(deadline, arrivals.last() + slack);
        assert_eq!(arrivals.last_came(&config), arrivals.last(), "it is exact");
        arrivals.relax();
        assert!(arrivals.are_relaxed());

        arrivals.note_message();
        assert_eq!(arrivals.last_came(&config), deadline, "at the latest");
        assert_eq!(arrivals.settle(&config, deadline), Some(deadline - slack));
        assert!(!arrivals.are_relaxed());
        assert_eq!(arrivals.settle(&config, deadline), None, "it is known");
    }

    #[test]
    fn if_the_timer_is_late_so_are_the_arrivals() {
        let config = Config::default();
        let mut arrivals = busy(&config);
        arrivals.relax();
        assert_eq!(
            arrivals.clone().settle(&config, at(0)),
            None,
            "no message came"
        );
        arrivals.note_message();
        let late = at(0) + Duration::from_secs(10);
        let said = arrivals.settle(&config, late);
        assert_eq!(said, Some(late - config.arrival_slack()));
    }

    #[test]
    fn a_quiet_connection_has_few_and_without_jitter_none_counts() {
        let config = Config::default();
        let mut arrivals = Arrivals::new();
        let apart = config.arrival_slack() / FIT;
        for nth in 0..1000 {
            arrivals.time(&config, at(0) + apart * nth);
            assert!(!arrivals.are_many());
        }
        let exact = Config::builder().jitter(0.0).build().unwrap();
        for _ in 0..1000 {
            arrivals.time(&exact, at(0));
            assert!(!arrivals.are_many());
        }
    }
}
