//! How long round trips take, and so how long to wait for an acknowledgement.

use super::{super::network::NEVER, RTO_MIN};

/// The round trips' average and variation, as Linux keeps them: the smoothed
/// one times 8, the variation times 4, and its maximum over a round trip, which
/// decays by a quarter each.
#[derive(Clone, Debug)]
pub(super) struct RoundTrips {
    smoothed_by_8: u64,
    deviation_by_4: u64,
    variation: u64,
    largest: u64,
    /// The first segment of the next round trip.
    round: u64,
    shortest: u64,
}

impl Default for RoundTrips {
    fn default() -> Self {
        Self {
            smoothed_by_8: 0,
            deviation_by_4: 0,
            variation: 0,
            largest: RTO_MIN,
            round: 0,
            shortest: NEVER,
        }
    }
}

impl RoundTrips {
    /// `NEVER` before the first.
    pub(super) const fn shortest(&self) -> u64 {
        self.shortest
    }

    pub(super) const fn smoothed(&self) -> u64 {
        self.smoothed_by_8 / 8
    }

    pub(super) const fn timeout(&self) -> u64 {
        self.smoothed().saturating_add(self.variation)
    }

    pub(super) fn sample(&mut self, took: u64, first: u64, next: u64) {
        let is_first = self.shortest == NEVER;
        self.shortest = self.shortest.min(took);
        if is_first {
            self.smoothed_by_8 = took.saturating_mul(8);
            // So that the first timeout is three round trips.
            self.deviation_by_4 = took.saturating_mul(2);
            self.variation = self.deviation_by_4.max(RTO_MIN);
            self.largest = self.variation;
            return;
        }
        let smoothed = self.smoothed();
        self.smoothed_by_8 = (self.smoothed_by_8 - smoothed).saturating_add(took);
        let error = took.abs_diff(smoothed);
        let quarter = self.deviation_by_4 / 4;
        // A round trip that is shorter than usual raises the variation little.
        self.deviation_by_4 = match error.checked_sub(quarter) {
            Some(more) if took < smoothed => self.deviation_by_4.saturating_add(more / 8),
            Some(more) => self.deviation_by_4.saturating_add(more),
            None => self.deviation_by_4 - (quarter - error),
        };
        if self.deviation_by_4 > self.largest {
            self.largest = self.deviation_by_4;
            self.variation = self.variation.max(self.largest);
        }
        if first > self.round {
            let excess = self.variation.saturating_sub(self.largest);
            self.variation -= excess / 4;
            self.round = next;
            self.largest = RTO_MIN;
        }
    }
}
