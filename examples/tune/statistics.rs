//! How certain a count is, and where a distribution lies.

use std::time::Duration;

use serde::Serialize;
use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};

/// What is outside on both sides together.
const ERROR: f64 = 0.05;

/// Beyond this many events the distribution is approximated.
const MANY: f64 = 1000.0;

/// Events a day, and within which limits the true rate lies with a confidence of
/// 95 %: Garwood's interval, exact for a Poisson process. Of nothing in n days
/// it makes 0 to 3.7/n.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rate {
    pub a_day: f64,
    pub low: f64,
    pub high: f64,
}

impl Rate {
    /// From the number of events in a number of days.
    pub fn of(count: u64, days: f64) -> Self {
        let count = count as f64;
        Self {
            a_day: count / days,
            low: expected(count, ERROR / 2.0) / days,
            high: expected(count + 1.0, 1.0 - ERROR / 2.0) / days,
        }
    }

    /// Of several at once, each with this rate.
    pub fn times(self, many: u64) -> Self {
        let many = many as f64;
        Self {
            a_day: self.a_day * many,
            low: self.low * many,
            high: self.high * many,
        }
    }
}

/// How many events are expected if this part of what happens has fewer.
fn expected(count: f64, part: f64) -> f64 {
    if count > MANY {
        // Wilson and Hilferty 1931: the cube root is nearly normal. By then it
        // is right to seven digits, where the iteration may fail.
        let ninth = 1.0 / (9.0 * count);
        let normal = Normal::standard().inverse_cdf(part);
        return count * (1.0 - ninth + normal * ninth.sqrt()).powi(3);
    }
    match ChiSquared::new(2.0 * count) {
        Ok(distribution) => distribution.inverse_cdf(part) / 2.0,
        // Nothing was seen, so that there may be nothing.
        Err(_) => 0.0,
    }
}

/// Where detection times lie.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub deaths: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    /// Of what is in order. Seconds.
    pub fn of(ordered: &[Duration]) -> Self {
        let at = |part: f64| {
            // The smallest that this many don't exceed.
            let rank = (part * ordered.len() as f64).ceil() as usize;
            let index = rank.saturating_sub(1);
            ordered
                .get(index)
                .copied()
                .unwrap_or_default()
                .as_secs_f64()
        };
        Self {
            deaths: ordered.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}
