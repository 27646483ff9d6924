//! A point in time as the caller counts it.
//!
//! This module decides how time is represented and added. Nothing in this crate reads a
//! clock.

use core::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

/// Microseconds since an origin that the caller picks.
///
/// The origin can be anything that stays the same for the life of one
/// [`Monitor`](crate::Monitor): the moment it was made, the start of the
/// process, zero in a simulation. All arithmetic saturates, so no value of an
/// `Instant` can make this crate panic. [`Instant::MAX`] (some 584,000 years)
/// means *never*.
///
/// ```
/// use core::time::Duration;
/// use heartbeat_core::Instant;
///
/// let start = Instant::ORIGIN;
/// let later = start + Duration::from_millis(5);
/// assert_eq!(later.as_micros(), 5_000);
/// assert_eq!(later.saturating_duration_since(start), Duration::from_millis(5));
/// assert_eq!(start.saturating_duration_since(later), Duration::ZERO);
/// assert_eq!(Instant::MAX + Duration::from_secs(1), Instant::MAX);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Zero: the origin itself.
    pub const ORIGIN: Self = Self(0);

    /// The end of time. As a deadline it means *never*.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `micros` microseconds after the origin.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was, or zero if it is later than `self`.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Whether this deadline has come. [`Instant::MAX`] never does.
    pub(crate) const fn is_due(self, now: Self) -> bool {
        self.0 <= now.0 && self.0 < u64::MAX
    }

    pub(crate) const fn is_before(self, other: Self) -> bool {
        self.0 < other.0
    }

    pub(crate) const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// What `mask` leaves of it. [`Instant::MAX`] stays what it is.
    #[inline]
    pub(crate) const fn masked(self, mask: u64) -> Self {
        if self.0 == u64::MAX {
            return Self::MAX;
        }
        Self(self.0 & mask)
    }

    pub(crate) const fn plus(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

/// The whole microseconds of a duration; `u64::MAX` if there are more.
#[inline]
pub(crate) const fn micros(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000);
    seconds.saturating_add(duration.subsec_micros() as u64)
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at [`Instant::MAX`].
    fn add(self, duration: Duration) -> Self {
        self.plus(micros(duration))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    /// Saturates at [`Instant::ORIGIN`].
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

impl fmt::Debug for Instant {
    /// Seconds since the origin, as in `Instant(1.500000s)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Instant({}.{:06}s)",
            self.0 / 1_000_000,
            self.0 % 1_000_000
        )
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn a_deadline_has_come_at_its_own_time_and_never_never_does() {
        let deadline = Instant::from_micros(5);
        assert!(!deadline.is_due(Instant::from_micros(4)));
        assert!(deadline.is_due(deadline));
        assert!(deadline.is_due(Instant::MAX));
        assert!(!Instant::MAX.is_due(Instant::MAX));
    }

    #[test]
    fn time_is_added_up_to_the_microsecond_between_origin_and_end() {
        let start = Instant::from_micros(5_000_000);
        let second = Duration::from_secs(1);
        assert_eq!((start + second).as_micros(), 6_000_000);
        assert_eq!((start - second).as_micros(), 4_000_000);
        assert_eq!(start - Duration::from_nanos(1_999), Instant(4_999_999));
        assert_eq!(start - Duration::MAX, Instant::ORIGIN);
        assert_eq!(start + Duration::MAX, Instant::MAX);
        assert_eq!((start + second).micros_since(start), 1_000_000);
        assert_eq!(start.micros_since(start + second), 0);
    }

    #[test]
    fn an_instant_is_shown_in_seconds() {
        let instant = Instant::from_micros(61_500_007);
        assert_eq!(format!("{instant:?}"), "Instant(61.500007s)");
    }
}
