//! What is known of ping-after: the interval that is in force.
//!
//! Its length is random, so this keeps the lengths that are possible. Each
//! deadline that shows its end narrows them, and later answers must agree.

use crate::{
    span::{NEVER, Span},
    terms::Terms,
};

/// The lengths that the interval in force may have, before m′ lengthens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct After {
    first: bool,
    lo: u64,
    hi: u64,
    /// Its end, once it was shown, and since when the peer was silent then.
    shown: Option<(u64, u64)>,
}

impl After {
    /// A new draw.
    pub(crate) fn draw(terms: &Terms, first: bool) -> Self {
        let star = terms.star();
        let lo = if terms.passive || terms.jitter == 0 {
            star
        } else if first {
            1
        } else {
            terms.shortest_drawn()
        };
        Self {
            first,
            lo,
            hi: star,
            shown: None,
        }
    }

    /// The same random part of another I*.
    pub(crate) fn rescale(&mut self, before: &Terms, after: &Terms) {
        let (old, new) = (before.star(), after.star());
        if old == new {
            if self.grid(before) != self.grid(after) {
                self.shown = None;
            }
            // It stays, unless m′ lengthened it or kept it off the grid, or does now.
            let least = self.least(before).max(self.least(after)) + self.grid(after) - 1;
            let longer = |&(since, end): &(u64, u64)| end.saturating_sub(since) > least;
            self.shown = self.shown.filter(longer);
            return;
        }
        let scaled = |length: u64| {
            u64::try_from(u128::from(length) * u128::from(new) / u128::from(old)).unwrap_or(NEVER)
        };
        self.shown = None;
        let fresh = Self::draw(after, self.first);
        // What rounding hides of the random part grows with the interval.
        let hidden = new / old * 2 + 2;
        self.lo = scaled(self.lo)
            .saturating_sub(hidden)
            .clamp(fresh.lo, fresh.hi);
        self.hi = scaled(self.hi)
            .saturating_add(hidden)
            .clamp(fresh.lo, fresh.hi);
    }

    pub(crate) const fn is_first(&self) -> bool {
        self.first
    }

    fn grid(&self, terms: &Terms) -> u64 {
        if self.first || terms.passive {
            1
        } else {
            terms.grid()
        }
    }

    fn least(&self, terms: &Terms) -> u64 {
        if self.first { 1 } else { terms.peers_min() }
    }

    /// When it may end, counted from `last`.
    pub(crate) fn ends(&self, terms: &Terms, last: u64) -> Span {
        if let Some((_, end)) = self.shown.filter(|&(since, _)| since == last) {
            return Span::exactly(end);
        }
        let least = self.least(terms);
        let latest = last.saturating_add(self.hi.max(least));
        let earliest = last.saturating_add(self.lo.max(least));
        let rounded = earliest
            .saturating_sub(self.grid(terms) - 1)
            .max(last.saturating_add(least).saturating_add(1))
            .min(earliest);
        Span::new(rounded, latest)
    }

    /// It ends at `end`. False: it can't.
    pub(crate) fn ended_at(&mut self, terms: &Terms, last: u64, end: u64) -> bool {
        if !self.ends(terms, last).contains(end) {
            return false;
        }
        if end == NEVER {
            return true;
        }
        let least = self.least(terms);
        let length = end - last;
        // Any power of two up to the grid may be the one that is used.
        let width = match self.grid(terms) {
            _ if length <= least => 1,
            grid => grid.min(1 << end.trailing_zeros().min(62)),
        };
        let hi = self.hi.min(length + width - 1);
        let lo = if length <= least {
            self.lo
        } else {
            self.lo.max(length)
        };
        if lo > hi {
            return false;
        }
        (self.lo, self.hi) = (lo, hi);
        self.shown = Some((last, end));
        true
    }

    /// It doesn't end before `at`. False: it must.
    pub(crate) fn not_before(&mut self, terms: &Terms, last: u64, at: u64) -> bool {
        if self.ends(terms, last).hi < at {
            return false;
        }
        let length = at.saturating_sub(last);
        if length > self.least(terms) {
            self.lo = self.lo.max(length).min(self.hi);
        }
        true
    }

    /// It ends at `at` or before. False: it can't.
    pub(crate) fn not_after(&mut self, terms: &Terms, last: u64, at: u64) -> bool {
        if self.ends(terms, last).lo > at {
            return false;
        }
        let most = at.saturating_sub(last).saturating_add(self.grid(terms) - 1);
        self.hi = self.hi.min(most).max(self.lo);
        true
    }
}
