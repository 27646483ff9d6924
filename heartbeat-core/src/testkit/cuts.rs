//! When nothing gets through a link, and in which direction.
//!
//! This module decides when outages happen by themselves, and keeps those that a
//! simulation's user planned. `network` decides their effects.

use std::vec::Vec;

use super::{Direction, Link, Side, dice::Dice, network::NEVER};
use crate::time::micros;

/// When nothing gets through.
#[derive(Clone, Debug)]
pub(super) struct Cuts {
    /// What the simulation's user asked for.
    planned: Vec<Cut>,
    /// The random outages of the link, in the order of time, as far as they were drawn.
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
    pub(super) fn new(link: &Link, seed: u64) -> Self {
        Self {
            planned: Vec::new(),
            random: Vec::new(),
            drawn_until: if link.outage.is_zero() { NEVER } else { 0 },
            outage: micros(link.outage),
            every: micros(link.outage_every),
            dice: Dice::new(seed),
        }
    }

    /// Nothing gets through from `from` until before `until`.
    pub(super) fn plan(&mut self, direction: Direction, from: u64, until: u64) {
        self.planned.push(Cut {
            direction,
            from,
            until,
        });
    }

    /// Until when what `sender` sends at `at` is lost, if it is.
    pub(super) fn until(&mut self, sender: Side, at: u64) -> Option<u64> {
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

    pub(super) fn forget_before(&mut self, now: u64) {
        self.random.retain(|cut| cut.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::secs;

    const SECOND: u64 = 1_000_000;

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
}
