//! Random numbers that come again with the same seed, and configurations and
//! Hellos that are drawn with them: small numbers that coincide, and extremes.

use std::time::Duration;

use heartbeat_core::{Config, Evidence, Hello, Role};

use crate::{api, ops::announced, terms::micros};

pub(crate) const YEAR: u64 = 365 * 24 * 60 * 60 * 1_000_000;

/// `SplitMix64` (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    pub(crate) fn within(&mut self, lo: u64, hi: u64) -> u64 {
        lo + self.below((hi - lo).saturating_add(1))
    }

    /// True in `percent` of all cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap_or(0)]
    }
}

/// How large the times of a script are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scale {
    Few,
    Millis,
    Any,
}

pub(crate) fn time(dice: &mut Dice, scale: Scale) -> u64 {
    match scale {
        Scale::Few => dice.one(&[1, 2, 3, 4, 5, 7, 10, 10, 30]),
        Scale::Millis => dice.one(&[1, 2, 3, 10, 20, 40, 100]) * dice.one(&[1_000, 10_000]),
        Scale::Any => match dice.below(4) {
            0 => dice.one(&[1, 2, YEAR, YEAR - 1, 1_000_000]),
            1 => 1 << dice.below(44),
            _ => {
                let bits = dice.within(1, 44);
                dice.within(1, 1 << bits)
            }
        },
    }
}

pub(crate) fn scale(dice: &mut Dice) -> Scale {
    dice.one(&[
        Scale::Few,
        Scale::Few,
        Scale::Few,
        Scale::Millis,
        Scale::Any,
    ])
}

pub(crate) fn config(dice: &mut Dice, scale: Scale) -> Config {
    let draw = |dice: &mut Dice| Duration::from_micros(time(dice, scale));
    let timeout = draw(dice);
    let misses = match dice.below(8) {
        0 => 255,
        1 => u32::try_from(dice.within(1, 255)).unwrap_or(1),
        2 | 3 => 1,
        _ => u32::try_from(dice.within(2, 4)).unwrap_or(1),
    };
    let jitter = dice.one(&[0.0, 0.0, 0.0, 0.25, 0.25, 1.0, 0.5, 0.01, 0.7]);
    let evidence = dice.one(&[
        Evidence::AnyBytes,
        Evidence::AnyBytes,
        Evidence::Frame,
        Evidence::Echo,
        Evidence::Echo,
        Evidence::Acknowledgement,
    ]);
    let mut builder = Config::builder()
        .interval(draw(dice))
        .timeout(timeout)
        .max_missed(misses)
        .jitter(jitter)
        .adaptive(dice.chance(60))
        .evidence(evidence)
        .role(if dice.chance(20) {
            Role::Passive
        } else {
            Role::Both
        })
        .beat_events(dice.chance(80))
        .min_rate(dice.one(&[100, 0, 1, 3_000_000]))
        .max_stretch(dice.one(&[1, 2, 4, 4, 255]));
    if dice.chance(60) {
        builder = builder.min_interval(draw(dice));
    }
    if dice.chance(50) {
        let floor = dice.within(1, micros(timeout));
        builder = builder.adaptive_floor(Duration::from_micros(floor));
    }
    if dice.chance(60) {
        let tolerance = if dice.chance(15) {
            YEAR
        } else {
            micros(draw(dice))
        };
        builder = builder.stall_tolerance(Duration::from_micros(tolerance));
    }
    if dice.chance(35) {
        builder = builder.write_stall((draw(dice) * 2).min(Duration::from_micros(YEAR)));
    }
    if dice.chance(80) {
        let linger = draw(dice) * dice.one(&[1, 5, 20]);
        builder = builder.linger(linger.min(Duration::from_micros(YEAR)));
    }
    if dice.chance(40) {
        let speech = micros(draw(dice)).clamp(20_000, YEAR);
        builder = builder.speak_within(Duration::from_micros(speech));
    }
    api::build(builder)
}

/// A Hello that can be decoded.
pub(crate) fn hello(dice: &mut Dice, scale: Scale) -> Hello {
    let scale = if dice.chance(15) { Scale::Any } else { scale };
    let misses: u32 = dice.one(&[1, 1, 2, 3, 3, 10, 40, 255]);
    let interval = time(dice, scale).min(YEAR);
    let longest = YEAR * (u64::from(misses) + 1);
    let budget = time(dice, scale).saturating_mul(dice.within(1, misses.into()));
    // Most Hellos are of those that aren't refused.
    let least = if dice.chance(60) { 100_000 } else { 0 };
    let detection = (interval + budget)
        .max(interval + 1)
        .max(least)
        .min(longest);
    announced([
        interval,
        detection,
        time(dice, scale).min(YEAR),
        misses.into(),
    ])
}
