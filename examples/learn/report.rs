//! One line for each attempt, and what is known at the end.

use std::{error::Error, path::Path, time::Duration};

use heartbeat_tokio::heartbeat_core::{IntervalSearch, SearchOutcome};

use crate::picture;

/// One attempt, and what is known after it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// When it ended, since the start.
    pub ended_at: Duration,
    /// What was tried.
    pub interval: Duration,
    pub outcome: SearchOutcome,
    /// The search after it.
    pub search: IntervalSearch,
}

/// All attempts so far.
#[derive(Debug)]
pub struct Report {
    attempts: Vec<Attempt>,
    search: IntervalSearch,
}

impl Report {
    pub fn new(search: IntervalSearch) -> Self {
        println!(
            "{:>10}  {:>8}  {:<24}  {:>8}  lost",
            "at", "tried", "outcome", "safe"
        );
        Self {
            attempts: Vec::new(),
            search,
        }
    }

    /// Prints its line.
    pub fn add(&mut self, attempt: Attempt) {
        let outcome = match attempt.outcome {
            SearchOutcome::Answered { idle } => format!("answered after {}", short(idle)),
            SearchOutcome::Lost { idle } => format!("lost after {}", short(idle)),
            _ => "nothing learned".into(),
        };
        let lost = attempt.search.lost().map_or("-".into(), short);
        println!(
            "{:>10}  {:>8}  {outcome:<24}  {:>8}  {lost}",
            short(attempt.ended_at),
            short(attempt.interval),
            short(attempt.search.safe()),
        );
        self.search = attempt.search;
        self.attempts.push(attempt);
    }

    /// Says what was found, and draws it if it is to be.
    pub fn end(&self, svg: Option<&Path>, timeout: Option<Duration>) -> Result<(), Box<dyn Error>> {
        let is_lost = |attempt: &&Attempt| matches!(attempt.outcome, SearchOutcome::Lost { .. });
        println!(
            "\nAn interval of {} is safe: {} attempts, {} of which lost their connection.",
            short(self.search.safe()),
            self.attempts.len(),
            self.attempts.iter().filter(is_lost).count(),
        );
        match svg {
            Some(path) => picture::draw(path, &self.attempts, timeout)
                .map_err(|error| format!("{}: {error}", path.display()).into()),
            None => Ok(()),
        }
    }
}

/// "1h 2m", "17m 30s", "2.5s".
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) => format!("{:.1}s", time.as_secs_f64()),
        (0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h {minutes:02}m"),
    }
}
