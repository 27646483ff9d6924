//! A search in a file.
//!
//! This module decides the names of the fields, and refuses states that no search can
//! have. The number of answers since it settled isn't stored.

use core::time::Duration;

use super::{FIRST_REST, IntervalSearch, LONGEST_REST, Phase, SearchMethod, Settings};
use crate::config::{ConfigError, MILLION};

/// Microseconds and millionths.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "an interval search")]
pub(super) struct Saved {
    method: SearchMethod,
    smallest: u64,
    largest: u64,
    margin: u32,
    resolution: u32,
    answered: u64,
    lost: Option<u64>,
    rest: u32,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Range(#[from] ConfigError),
    #[error("no search can be in this state")]
    State,
}

impl From<IntervalSearch> for Saved {
    fn from(search: IntervalSearch) -> Self {
        let Settings {
            method,
            smallest,
            largest,
            margin,
            resolution,
        } = search.settings;
        Self {
            method,
            smallest,
            largest,
            margin,
            resolution,
            answered: search.answered,
            lost: search.lost,
            rest: search.rest,
        }
    }
}

impl TryFrom<Saved> for IntervalSearch {
    type Error = Refused;

    fn try_from(saved: Saved) -> Result<Self, Refused> {
        let range = Duration::from_micros(saved.smallest)..=Duration::from_micros(saved.largest);
        let mut search = Self::new(range)?;
        let within = saved.smallest..=saved.largest;
        let is_lost_possible = |lost| {
            let is_floor = lost == saved.smallest && saved.answered == saved.smallest;
            within.contains(&lost) && (lost > saved.answered || is_floor)
        };
        let is_possible = within.contains(&saved.answered)
            && saved.lost.is_none_or(is_lost_possible)
            && saved.margin <= MILLION
            && saved.resolution <= MILLION
            && (FIRST_REST..=LONGEST_REST).contains(&saved.rest);
        if !is_possible {
            return Err(Refused::State);
        }
        search.settings.method = saved.method;
        search.settings.margin = saved.margin;
        search.settings.resolution = saved.resolution;
        search.answered = saved.answered;
        search.lost = saved.lost;
        search.rest = saved.rest;
        if search.candidate().is_none() {
            search.phase = Phase::Resting {
                answers: saved.rest,
            };
        }
        search.assert_invariants();
        Ok(search)
    }
}
