//! Round trips: RFC 6298, section 2, in whole microseconds, however they are
//! rounded.

use std::time::Duration;

use crate::{
    span::Span,
    terms::{Terms, micros},
};

/// A round trip beyond this may be told as this: 2³² microseconds, less a few.
const LONGEST: u64 = u32::MAX as u64 - 1;

/// What the round trips so far allow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrips {
    pub(crate) last: Option<u64>,
    estimate: Option<(Span, Span)>,
}

/// Whether `told` is the round trip `exact`.
pub(crate) fn is(exact: u64, told: Duration) -> bool {
    let told = micros(told);
    told == exact || exact >= LONGEST && (LONGEST..=LONGEST + 1).contains(&told)
}

impl RoundTrips {
    pub(crate) fn sample(&mut self, rtt: u64) {
        self.last = Some(rtt);
        // Longer ones make no difference any more: W is a year at most.
        let rtt = Span::new(rtt.min(LONGEST), rtt.min(1 << 56));
        self.estimate = Some(match self.estimate {
            None => (rtt, Span::new(rtt.lo / 2, rtt.hi.div_ceil(2))),
            Some((smoothed, variation)) => {
                // SRTT − R in absolute value, for all that are possible.
                let far = smoothed
                    .lo
                    .abs_diff(rtt.hi)
                    .max(smoothed.hi.abs_diff(rtt.lo));
                let apart = smoothed.lo.saturating_sub(rtt.hi);
                let near = apart.max(rtt.lo.saturating_sub(smoothed.hi));
                let variation = Span::new(
                    (3 * variation.lo + near).saturating_sub(4) / 4,
                    (3 * variation.hi + far).div_ceil(4) + 1,
                );
                let smoothed = Span::new(
                    (7 * smoothed.lo + rtt.lo).saturating_sub(8) / 8,
                    (7 * smoothed.hi + rtt.hi).div_ceil(8) + 1,
                );
                (smoothed, variation)
            }
        });
    }

    /// The smoothed round trip was told. False: it can't be.
    pub(crate) fn smoothed_is(&mut self, told: Option<Duration>) -> bool {
        match (&mut self.estimate, told) {
            (None, None) => true,
            (Some((smoothed, _)), Some(told)) if smoothed.contains(micros(told)) => {
                // One that is kept with more digits is rounded for showing.
                let told = micros(told);
                *smoothed = Span::new(
                    smoothed.lo.max(told.saturating_sub(1)),
                    smoothed.hi.min(told + 1),
                );
                true
            }
            _ => false,
        }
    }

    /// The retransmission timeout, or `patience` if that is longer, from the floor to W.
    /// `None`: nothing was measured, or it isn't wanted.
    pub(crate) fn timeout(&self, terms: &Terms, patience: u64) -> Option<Span> {
        let (smoothed, variation) = self.estimate?;
        if !terms.adaptive {
            return None;
        }
        let lo = smoothed.lo + (4 * variation.lo).max(1);
        let hi = smoothed.hi + (4 * variation.hi).max(1);
        Some(
            Span::new(lo.saturating_sub(1), hi)
                .at_least(patience)
                .at_least(terms.floor)
                .at_most(terms.timeout),
        )
    }
}
