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
    use std::collections::BTreeSet;

    use super::*;
    use crate::testkit::{ms, secs, us};

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
        // After 0.2, 0.6 and 1.4 s, and each second from there on.
        let arrives = network.carry(Side::A, 0).arrives;
        assert_eq!(arrives, year + 400_000);
    }

    #[test]
    fn without_a_way_back_the_first_segment_arrives_and_the_next_one_waits() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        network.cut(Direction::BToA, 0, 5 * SECOND);
        assert_eq!(network.carry(Side::A, 0).arrives, 5_000);
        assert!(network.carry(Side::A, 0).arrives > 5 * SECOND);
    }

    #[test]
    fn a_segment_takes_half_of_the_round_trip_and_its_acknowledgement_the_other() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        assert_eq!(network.one_way(), 5_000);
        for sender in [Side::A, Side::B] {
            // None waits for the acknowledgement of the one before it.
            for now in [0, 0, 3, SECOND] {
                let delivery = network.carry(sender, now);
                assert_eq!(delivery.arrives, now + 5_000);
                assert_eq!(delivery.acknowledged, now + 10_000);
            }
        }
    }

    #[test]
    fn jitter_delays_by_up_to_what_it_says_and_keeps_the_order() {
        let mut network = Network::new(&Link::new().rtt(ms(10)).jitter(us(3)), 1);
        let delays = (0..1000).map(|at| network.carry(Side::A, at * SECOND).arrives - at * SECOND);
        let delays: BTreeSet<_> = delays.collect();
        assert_eq!(delays, BTreeSet::from([5_000, 5_001, 5_002, 5_003]));

        let mut network = Network::new(&Link::new().jitter(secs(1)), 1);
        let arrivals: Vec<_> = (0..1000).map(|at| network.carry(Side::A, at)).collect();
        assert!(arrivals.is_sorted_by_key(|delivery| delivery.arrives));
    }

    #[test]
    fn what_is_lost_is_sent_again_after_a_timeout_that_doubles() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        network.cut(Direction::AToB, 0, SECOND);
        // Sent after 0, 210, 630 and 1470 ms.
        let lost = network.carry(Side::A, 0);
        assert_eq!(lost.arrives, 1_475_000);
        assert_eq!(lost.acknowledged, 1_480_000);
        // What is behind it waits for the acknowledgement.
        assert_eq!(network.carry(Side::A, 100_000).arrives, 1_485_000);
        // What comes later doesn't, and nor does the other direction.
        assert_eq!(network.carry(Side::A, 2 * SECOND).arrives, 2_005_000);
        assert_eq!(network.carry(Side::B, 2 * SECOND).arrives, 2_005_000);
    }

    #[test]
    fn a_cut_holds_from_its_start_until_before_its_end() {
        for (at, arrives) in [(9, 9), (10, 200_010), (999, 200_999), (1_000, 1_000)] {
            let mut network = Network::new(&Link::new(), 1);
            network.cut(Direction::AToB, 10, 1_000);
            assert_eq!(network.carry(Side::B, at).arrives, at);
            assert_eq!(network.carry(Side::A, at).arrives, arrives, "{at}");
        }
    }

    #[test]
    fn a_segment_that_is_never_acknowledged_is_the_last_one() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        network.cut(Direction::BToA, 0, NEVER);
        let last = network.carry(Side::A, 0);
        assert_eq!(last.arrives, 5_000);
        assert_eq!(last.acknowledged, NEVER);
        assert_eq!(network.carry(Side::A, 1).arrives, NEVER);
    }

    #[test]
    fn nothing_is_left_to_chance_where_nothing_gets_through() {
        let link = Link::new().jitter(secs(1)).loss(0.5);
        let mut idle = Network::new(&link, 1);
        let mut busy = idle.clone();
        for network in [&mut idle, &mut busy] {
            network.cut(Direction::AToB, 0, NEVER);
        }
        for now in 0..3 {
            assert_eq!(busy.carry(Side::A, now).arrives, NEVER);
        }
        assert_eq!(
            busy.carry(Side::B, 5).arrives,
            idle.carry(Side::B, 5).arrives
        );
    }

    #[test]
    fn time_has_an_end() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        assert_eq!(network.carry(Side::A, NEVER - 1).arrives, NEVER);
    }

    #[test]
    fn a_part_of_the_segments_is_lost() {
        let mut network = Network::new(&Link::new().loss(0.25), 1);
        // An hour apart, so that each is on its own.
        let hours = (0..10_000).map(|hour| hour * 3_600 * SECOND);
        let late = hours.filter(|&at| network.carry(Side::A, at).arrives > at);
        let late = late.count();
        assert!((2_300..2_700).contains(&late), "{late}");
    }

    #[test]
    fn outages_are_as_long_and_as_frequent_as_the_link_says() {
        let link = Link::new().outage(secs(5)).outage_every(secs(60));
        let mut cuts = Cuts::new(&link, 1);
        let days = 10 * 86_400 * SECOND;
        assert_eq!(cuts.until(Side::A, 0), None);
        cuts.until(Side::A, days);

        let mut ended_at = 0;
        for cut in &cuts.random {
            assert_eq!(cut.until - cut.from, 5 * SECOND);
            assert!((1..=120 * SECOND).contains(&(cut.from - ended_at)));
            ended_at = cut.until;
        }
        // As many as have room, and none beyond what was asked.
        assert!((days..days + 125 * SECOND).contains(&ended_at));
        let count = cuts.random.len();
        assert!((12_600..14_000).contains(&count), "{count}");
        for (direction, parts) in [
            (Direction::Both, 45..55),
            (Direction::AToB, 20..30),
            (Direction::BToA, 20..30),
        ] {
            let those = cuts.random.iter().filter(|cut| cut.direction == direction);
            let part = those.count() * 100 / count;
            assert!(parts.contains(&part), "{direction:?}: {part} %");
        }
    }

    #[test]
    fn an_outage_is_forgotten_when_it_is_over_and_not_before() {
        let mut cuts = Cuts::new(&Link::new().outage(secs(5)), 1);
        cuts.until(Side::A, 0);
        let [cut] = cuts.random[..] else {
            panic!("one outage was drawn: {cuts:?}");
        };
        cuts.forget_before(cut.until - 1);
        assert_eq!(cuts.random.len(), 1);
        cuts.forget_before(cut.until);
        assert!(cuts.random.is_empty());
    }

    #[test]
    fn the_dice_are_those_of_the_reference() {
        // What Vigna's `splitmix64.c` gives for 0.
        let mut dice = Dice::new(0);
        assert_eq!(dice.roll(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(dice.roll(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(dice.roll(), 0x06c4_5d18_8009_454f);
    }

    #[test]
    fn every_number_up_to_the_most_is_drawn() {
        let mut dice = Dice::new(1);
        let drawn: BTreeSet<_> = (0..1000).map(|_| dice.up_to(2)).collect();
        assert_eq!(drawn, BTreeSet::from([0, 1, 2]));
        assert_eq!(dice.up_to(0), 0);
        assert!((0..10).any(|_| dice.up_to(u64::MAX) > u64::MAX / 2));
    }

    #[test]
    fn what_cannot_be_never_happens_and_what_must_be_always_does() {
        // The seed before the one roll that is zero.
        let mut lowest = Dice::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_neg());
        assert_eq!(lowest.clone().roll(), 0);
        assert!(!lowest.happens(0.0));

        let mut dice = Dice::new(1);
        assert!((0..1000).all(|_| dice.happens(1.0)));
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
