//! Numbers that take fewer bytes than their type.
//!
//! This module decides how a number is stored without alignment. A monitor is one
//! of many, and most of its numbers are small or looked at rarely.

use core::{fmt, num::NonZeroU64, time::Duration};

use crate::time::Instant;

/// A number that is stored in `BYTES` bytes without alignment. A larger one
/// saturates.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Packed<const BYTES: usize>([u8; BYTES]);

/// Microseconds up to 365 days, and up to eight years.
pub(crate) type PackedMicros = Packed<6>;

/// An [`Instant`].
pub(crate) type PackedInstant = Packed<8>;

impl<const BYTES: usize> Packed<BYTES> {
    pub(crate) const fn new(number: u64) -> Self {
        let largest = u64::MAX >> (64 - 8 * BYTES);
        let number = if number < largest { number } else { largest };
        match number.to_le_bytes().first_chunk() {
            Some(bytes) => Self(*bytes),
            None => Self([u8::MAX; BYTES]),
        }
    }

    #[inline]
    pub(crate) const fn get(self) -> u64 {
        let mut bytes = [0; 8];
        if let Some(packed) = bytes.first_chunk_mut() {
            *packed = self.0;
        }
        u64::from_le_bytes(bytes)
    }
}

impl PackedInstant {
    pub(crate) const fn from_instant(instant: Instant) -> Self {
        Self::new(instant.as_micros())
    }

    #[inline]
    pub(crate) const fn instant(self) -> Instant {
        Instant::from_micros(self.get())
    }
}

/// A number of microseconds, of which an `Option` takes no more room. The largest counts
/// as one less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(NonZeroU64);

impl Span {
    pub(crate) const fn from_micros(micros: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(micros))
    }

    pub(crate) const fn get(self) -> u64 {
        self.0.get() - 1
    }

    pub(crate) const fn to_duration(self) -> Duration {
        Duration::from_micros(self.get())
    }
}

impl<const BYTES: usize> fmt::Debug for Packed<BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn a_number_is_shown_as_it_is() {
        assert_eq!(format!("{:?}", Packed::<3>::new(7)), "7");
    }

    #[test]
    fn a_number_comes_back_and_one_that_is_too_large_saturates() {
        for number in [0, 1, 255, 256, 0x0102_0304_0506, (1 << 48) - 1] {
            assert_eq!(Packed::<6>::new(number).get(), number);
        }
        assert_eq!(Packed::<6>::new(1 << 48).get(), (1 << 48) - 1);
        assert_eq!(Packed::<8>::new(u64::MAX).get(), u64::MAX);
        assert_eq!(Packed::<3>::new(u64::MAX).get(), (1 << 24) - 1);
    }
}
