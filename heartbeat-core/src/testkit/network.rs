//! What a link does to the segments on it.
//!
//! This module decides when a segment arrives, and when its sender learns
//! that. It knows bytes only by their number; what they mean is `peer`'s.

use std::vec::Vec;

use super::{Direction, Link, Side};
use crate::time::micros;

/// Later than everything.
pub(super) const NEVER: u64 = u64::MAX;

/// The shortest retransmission timeout above the round trip, microseconds:
/// Linux's `TCP_RTO_MIN`.
const RTO_MIN: u64 = 200_000;

/// A repeatable source of chance: `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From zero to `most`, both included.
    pub(super) const fn up_to(&mut self, most: u64) -> u64 {
        match most.checked_add(1) {
            Some(count) => self.roll() % count,
            None => self.roll(),
        }
    }

    /// Whether something happens that has this probability.
    fn happens(&mut self, probability: f64) -> bool {
        // 53 bits are what an `f64` holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let drawn = (self.roll() >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < probability
    }
}

/// What became of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    /// When it is there for the receiver to read, or `NEVER`.
    pub(super) arrives: u64,
    /// When its sender knows that, or `NEVER`.
    pub(super) acknowledged: u64,
}

/// Both directions of one link.
#[derive(Clone, Debug)]
pub(super) struct Network {
    one_way: u64,
    jitter: u64,
    loss: f64,
    first_timeout: u64,
    longest_timeout: u64,
    dice: Dice,
    cuts: Cuts,
    towards: [Way; 2],
}

/// One direction.
#[derive(Clone, Debug, Default)]
struct Way {
    /// Segments arrive in order.
    last_arrival: u64,
    /// While the head of the line is retransmitted, nothing behind it is
    /// sent: the congestion window is one segment.
    recovered_at: u64,
}

impl Network {
    pub(super) fn new(link: &Link, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let rtt = micros(link.rtt);
        let first_timeout = RTO_MIN + rtt;
        Self {
            one_way: rtt / 2,
            jitter: micros(link.jitter),
            loss: link.loss,
            first_timeout,
            longest_timeout: micros(link.retransmit_within).max(first_timeout),
            cuts: Cuts::new(link, dice.roll()),
            dice,
            towards: [Way::default(), Way::default()],
        }
    }

    /// Nothing gets through from `from` until before `until`.
    pub(super) fn cut(&mut self, direction: Direction, from: u64, until: u64) {
        self.cuts.planned.push(Cut {
            direction,
            from,
            until,
        });
    }

    /// How long a window update takes, after the receiver has read.
    pub(super) const fn one_way(&self) -> u64 {
        self.one_way
    }

    /// Carries one segment that `sender` wrote at `now`. Calls come in the
    /// order of time.
    pub(super) fn carry(&mut self, sender: Side, now: u64) -> Delivery {
        let [to_b, to_a] = &self.towards;
        let way = match sender {
            Side::A => to_b,
            Side::B => to_a,
        };
        let (last_arrival, recovered_at) = (way.last_arrival, way.recovered_at);

        self.cuts.forget_before(now);
        let mut sent_at = now.max(recovered_at);
        let mut timeout = self.first_timeout;
        let mut arrived = NEVER;
        let mut acknowledged = NEVER;
        let mut first_attempt = true;
        while sent_at < NEVER {
            let mut hopeless_until = self.cuts.until(sender, sent_at);
            if hopeless_until.is_none() && !self.dice.happens(self.loss) {
                let here = sent_at.saturating_add(self.delay());
                arrived = arrived.min(here);
                // Acknowledgements are cumulative, so that a lost one hardly
                // matters; a cut way back does.
                hopeless_until = self.cuts.until(sender.other(), here);
                if hopeless_until.is_none() {
                    acknowledged = here.saturating_add(self.delay());
                    break;
                }
            }
            if hopeless_until == Some(NEVER) {
                break;
            }
            first_attempt = false;
            sent_at = sent_at.saturating_add(timeout);
            if timeout == self.longest_timeout {
                // The steps are even from here on: skip those in vain.
                let vain = hopeless_until.unwrap_or(0).saturating_sub(sent_at);
                sent_at = sent_at.saturating_add(vain.div_ceil(timeout).saturating_mul(timeout));
            }
            timeout = timeout.saturating_mul(2).min(self.longest_timeout);
        }

        let delivery = Delivery {
            arrives: arrived.max(last_arrival),
            acknowledged,
        };
        let [to_b, to_a] = &mut self.towards;
        let way = match sender {
            Side::A => to_b,
            Side::B => to_a,
        };
        way.last_arrival = delivery.arrives;
        if !first_attempt || acknowledged == NEVER {
            way.recovered_at = acknowledged;
        }
        delivery
    }

    fn delay(&mut self) -> u64 {
        self.one_way.saturating_add(self.dice.up_to(self.jitter))
    }
}

/// When nothing gets through.
#[derive(Clone, Debug)]
struct Cuts {
    /// What the simulation's user asked for.
    planned: Vec<Cut>,
    /// What befalls the link by itself, in the order of time, as far as
    /// anybody has looked.
    random: Vec<Cut>,
    drawn_until: u64,
    outage: u64,
    every: u64,
    dice: Dice,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    direction: Direction,
    from: u64,
    /// Not included.
    until: u64,
}

impl Cut {
    fn holds(&self, sender: Side, at: u64) -> bool {
        self.from <= at && at < self.until && self.direction.concerns(sender)
    }
}

impl Cuts {
    fn new(link: &Link, seed: u64) -> Self {
        Self {
            planned: Vec::new(),
            random: Vec::new(),
            drawn_until: if link.outage.is_zero() { NEVER } else { 0 },
            outage: micros(link.outage),
            every: micros(link.outage_every),
            dice: Dice::new(seed),
        }
    }

    /// Until when what `sender` sends at `at` is lost, if it is.
    fn until(&mut self, sender: Side, at: u64) -> Option<u64> {
        self.draw_until(at);
        let cuts = self.planned.iter().chain(&self.random);
        cuts.filter(|cut| cut.holds(sender, at))
            .map(|cut| cut.until)
            .max()
    }

    fn draw_until(&mut self, at: u64) {
        while self.drawn_until <= at && self.drawn_until < NEVER {
            // Uniform up to twice the mean, so that the mean is right.
            let pause = self.dice.up_to(self.every.saturating_mul(2)).max(1);
            let from = self.drawn_until.saturating_add(pause);
            let until = from.saturating_add(self.outage);
            let direction = match self.dice.up_to(3) {
                0 => Direction::AToB,
                1 => Direction::BToA,
                _ => Direction::Both,
            };
            self.random.push(Cut {
                direction,
                from,
                until,
            });
            self.drawn_until = until;
        }
    }

    fn forget_before(&mut self, now: u64) {
        self.random.retain(|cut| cut.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{ms, secs};

    const SECOND: u64 = 1_000_000;

    #[test]
    fn silence_lasts_longer_than_an_outage_because_retransmission_backs_off() {
        // What a kernel does with a write each second through an outage.
        for (outage, longest) in [(4, 8), (8, 16), (16, 32)] {
            let mut network = Network::new(&Link::new().rtt(ms(1)), 1);
            network.cut(Direction::Both, 10 * SECOND, (10 + outage) * SECOND);
            let arrivals = (0..60).map(|at| network.carry(Side::A, at * SECOND).arrives);
            let arrivals: Vec<_> = arrivals.collect();
            assert!(arrivals.is_sorted());
            let gaps = arrivals.windows(2).map(|pair| pair[1] - pair[0]);
            let silence = gaps.max().unwrap();
            assert!(silence > outage * SECOND, "{outage}: {silence}");
            assert!(silence < longest * SECOND, "{outage}: {silence}");
        }
    }

    #[test]
    fn the_staircase_ends_where_the_link_says() {
        let link = Link::new().retransmit_within(secs(1));
        let mut network = Network::new(&link, 1);
        let year = 365 * 86_400 * SECOND;
        network.cut(Direction::AToB, 0, year);
        let arrives = network.carry(Side::A, 0).arrives;
        assert!((year..year + SECOND).contains(&arrives), "{arrives}");
    }

    #[test]
    fn without_a_way_back_the_first_segment_arrives_and_the_next_one_waits() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        network.cut(Direction::BToA, 0, 5 * SECOND);
        assert_eq!(network.carry(Side::A, 0).arrives, 5_000);
        assert!(network.carry(Side::A, 0).arrives > 5 * SECOND);
    }

    #[test]
    fn a_cut_without_an_end_lets_nothing_through() {
        let mut network = Network::new(&Link::new(), 1);
        network.cut(Direction::AToB, 7, NEVER);
        assert_eq!(network.carry(Side::A, 6).arrives, 6);
        assert_eq!(network.carry(Side::A, 7).arrives, NEVER);
        assert_eq!(network.carry(Side::B, 7).arrives, 7);
    }
}
