//! Chance that can be repeated.
//!
//! This module decides one sequence of numbers for each seed.

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
    pub(super) fn happens(&mut self, probability: f64) -> bool {
        // 53 bits are what an `f64` holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let drawn = (self.roll() >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < probability
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

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
}
