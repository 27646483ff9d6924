//! The link between two simulated peers.
//!
//! This module decides how a link is described, and how a property draws one.
//! What a link does to a segment is decided in `network`.

use core::{
    ops::{Bound, RangeBounds},
    time::Duration,
};
use std::boxed::Box;

use proptest::{
    strategy::{NewTree, Strategy, ValueTree},
    test_runner::TestRunner,
};

use crate::time::micros;

/// The longest time that a link takes for anything: one day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The largest loss: beyond it hardly anything ever arrives, and
/// retransmissions would have to be simulated without end.
const WORST_LOSS: f64 = 0.9;

const MILLION: u32 = 1_000_000;

/// A network path that carries TCP: bytes arrive in order or not at all, and
/// what is lost is sent again, when Linux would send it again.
///
/// [`new`](Self::new) gives a perfect one; each method makes it worse. Times
/// are limited to one day, and have a resolution of one microsecond.
///
/// ```
/// use heartbeat_core::testkit::{Link, minutes, ms, secs};
///
/// let mobile = Link::new()
///     .rtt(ms(120))
///     .jitter(ms(80))
///     .loss(0.02)
///     .outage(secs(3))
///     .outage_every(minutes(5));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub(super) rtt: Duration,
    pub(super) jitter: Duration,
    pub(super) loss: f64,
    pub(super) outage: Duration,
    pub(super) outage_every: Duration,
    pub(super) retransmit_within: Duration,
    pub(super) window: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// A link without delay, loss or outages.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rtt: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            outage: Duration::ZERO,
            outage_every: Duration::from_secs(600),
            retransmit_within: Duration::from_secs(120),
            window: 65_536,
        }
    }

    /// Draws links for a property. Starts with a perfect one: what isn't
    /// named stays so.
    pub const fn strategy() -> LinkStrategy {
        LinkStrategy::new()
    }

    /// The round trip of a segment and its acknowledgement, half of it in
    /// each direction. Default zero.
    #[must_use]
    pub fn rtt(mut self, rtt: Duration) -> Self {
        self.rtt = whole(rtt);
        self
    }

    /// A random part of this delays each segment further. Default zero.
    ///
    /// Order is kept: a slow segment delays those behind it.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = whole(jitter);
        self
    }

    /// The part of segments that is lost, in each direction. Default zero; at
    /// most 0.9.
    ///
    /// What is lost is sent again when the timer of RFC 6298 fires (at least
    /// 200 ms above the round trip), once more after the same time (the probe of
    /// RFC 8985 came first), then after twice that, and so on up to
    /// [`retransmit_within`](Self::retransmit_within); or as soon as something
    /// arrives that was sent later. After a timeout what is new waits until the
    /// lost has arrived. Acknowledgements are lost like everything else; then
    /// what they were for is sent again. Small segments don't wait for
    /// acknowledgements: sockets are assumed to have `TCP_NODELAY`.
    #[must_use]
    pub fn loss(mut self, loss: f64) -> Self {
        self.loss = probability(loss);
        self
    }

    /// From time to time nothing gets through for this long: half of the times in both
    /// directions, else in one of them. Default zero: never.
    ///
    /// The silence that peers see is up to twice as long, because
    /// retransmissions have backed off by then.
    #[must_use]
    pub fn outage(mut self, outage: Duration) -> Self {
        self.outage = whole(outage);
        self
    }

    /// The mean time between two outages. Default 10 minutes.
    #[must_use]
    pub fn outage_every(mut self, mean: Duration) -> Self {
        self.outage_every = whole(mean).max(Duration::from_millis(1));
        self
    }

    /// The longest time between two retransmissions. Default 120 s, as in
    /// most kernels; at least 200 ms. (Linux from 6.15 on can lower it for a
    /// socket: `TCP_RTO_MAX_MS`.)
    #[must_use]
    pub fn retransmit_within(mut self, longest: Duration) -> Self {
        self.retransmit_within = whole(longest).max(Duration::from_millis(200));
        self
    }

    /// How many bytes one side may have on the way and unread by the other,
    /// before its writes stall. Default 64 KiB; at least 1 KiB.
    #[must_use]
    pub fn window(mut self, bytes: u32) -> Self {
        self.window = bytes.max(1024);
        self
    }
}

fn whole(time: Duration) -> Duration {
    Duration::from_micros(micros(time.min(LONGEST)))
}

/// Not a number counts as nothing.
fn probability(loss: f64) -> f64 {
    if loss > 0.0 {
        loss.min(WORST_LOSS)
    } else {
        0.0
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 900,000"
)]
fn millionths(loss: f64) -> u32 {
    (probability(loss) * f64::from(MILLION)).round() as u32
}

/// Draws [`Link`]s: made by [`Link::strategy`], its methods take ranges.
///
/// Ranges without a start begin at zero; ranges without an end go up to the
/// most that the method of [`Link`] with the same name accepts. A range that
/// is empty counts as its start.
#[derive(Clone, Debug)]
#[must_use = "a strategy draws nothing until a property uses it"]
pub struct LinkStrategy {
    rtt: Times,
    jitter: Times,
    /// Millionths: they can be drawn from a range of one value, and shrink to
    /// round numbers.
    loss: (u32, u32),
    outage: Times,
    outage_every: Times,
    retransmit_within: Times,
}

/// Microseconds, both bounds included.
type Times = (u64, u64);

impl LinkStrategy {
    const fn new() -> Self {
        const fn only(micros: u64) -> Times {
            (micros, micros)
        }
        Self {
            rtt: only(0),
            jitter: only(0),
            loss: (0, 0),
            outage: only(0),
            outage_every: only(600_000_000),
            retransmit_within: only(120_000_000),
        }
    }

    /// See [`Link::rtt`].
    pub fn rtt(mut self, range: impl RangeBounds<Duration>) -> Self {
        self.rtt = times(&range);
        self
    }

    /// See [`Link::jitter`].
    pub fn jitter(mut self, range: impl RangeBounds<Duration>) -> Self {
        self.jitter = times(&range);
        self
    }

    /// See [`Link::loss`]. From 0 to 0.9, in steps of a millionth; an end that
    /// is excluded is taken for included.
    pub fn loss(mut self, range: impl RangeBounds<f64>) -> Self {
        let bound = |bound: Bound<&f64>, open: f64| match bound {
            Bound::Included(&loss) | Bound::Excluded(&loss) => millionths(loss),
            Bound::Unbounded => millionths(open),
        };
        let start = bound(range.start_bound(), 0.0);
        let end = bound(range.end_bound(), WORST_LOSS);
        self.loss = (start, end.max(start));
        self
    }

    /// See [`Link::outage`].
    pub fn outage(mut self, range: impl RangeBounds<Duration>) -> Self {
        self.outage = times(&range);
        self
    }

    /// See [`Link::outage_every`].
    pub fn outage_every(mut self, range: impl RangeBounds<Duration>) -> Self {
        self.outage_every = times(&range);
        self
    }

    /// See [`Link::retransmit_within`].
    pub fn retransmit_within(mut self, range: impl RangeBounds<Duration>) -> Self {
        self.retransmit_within = times(&range);
        self
    }

    fn drawn(&self) -> impl Strategy<Value = Link> + use<> {
        let time = |(start, end): Times| (start..=end).prop_map(Duration::from_micros);
        let (least, most) = self.loss;
        (
            time(self.rtt),
            time(self.jitter),
            least..=most,
            time(self.outage),
            time(self.outage_every),
            time(self.retransmit_within),
        )
            .prop_map(|(rtt, jitter, loss, outage, outage_every, longest)| {
                Link::new()
                    .rtt(rtt)
                    .jitter(jitter)
                    .loss(f64::from(loss) / f64::from(MILLION))
                    .outage(outage)
                    .outage_every(outage_every)
                    .retransmit_within(longest)
            })
    }
}

impl Strategy for LinkStrategy {
    type Tree = Box<dyn ValueTree<Value = Link>>;
    type Value = Link;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        self.drawn().boxed().new_tree(runner)
    }
}

fn times(range: &impl RangeBounds<Duration>) -> Times {
    let longest = micros(LONGEST);
    let start = match range.start_bound() {
        Bound::Included(&start) => micros(start),
        Bound::Excluded(&start) => micros(start).saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => micros(end),
        Bound::Excluded(&end) => micros(end).saturating_sub(1),
        Bound::Unbounded => longest,
    };
    let start = start.min(longest);
    (start, end.min(longest).max(start))
}
