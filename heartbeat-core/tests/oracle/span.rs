//! Points in time that are known to lie between two others.

/// The end of time. As a deadline it never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// The last moment at which a deadline can come.
pub(crate) const LAST: u64 = NEVER - 1;

/// Whether a deadline has come.
pub(crate) const fn due(deadline: u64, now: u64) -> bool {
    deadline <= now && deadline < NEVER
}

/// From `lo` to `hi`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) lo: u64,
    pub(crate) hi: u64,
}

impl Span {
    pub(crate) const fn new(lo: u64, hi: u64) -> Self {
        Self { lo, hi }
    }

    pub(crate) const fn exactly(at: u64) -> Self {
        Self { lo: at, hi: at }
    }

    pub(crate) const fn contains(self, at: u64) -> bool {
        self.lo <= at && at <= self.hi
    }

    pub(crate) const fn plus(self, micros: u64) -> Self {
        Self::new(
            self.lo.saturating_add(micros),
            self.hi.saturating_add(micros),
        )
    }

    pub(crate) fn at_least(self, at: u64) -> Self {
        Self::new(self.lo.max(at), self.hi.max(at))
    }

    /// The later of both.
    pub(crate) fn later(self, other: Self) -> Self {
        Self::new(self.lo.max(other.lo), self.hi.max(other.hi))
    }

    /// The sooner of both.
    pub(crate) fn sooner(self, other: Self) -> Self {
        Self::new(self.lo.min(other.lo), self.hi.min(other.hi))
    }

    pub(crate) fn at_most(self, at: u64) -> Self {
        Self::new(self.lo.min(at), self.hi.min(at))
    }
}
