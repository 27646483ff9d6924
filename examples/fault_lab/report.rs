//! What was found: the table, the judgement of the heartbeat, and the file for
//! other programs.

use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{Duration, Instant},
};

use heartbeat_tokio::Config;
use serde::Serialize;

use crate::{
    detectors::{Alarm, Detector},
    scenarios::{Expected, Fault},
};

/// How late a verdict may be that was promised in time.
pub const TOLERANCE: Duration = Duration::from_millis(100);

/// One alarm.
#[derive(Clone, Debug)]
pub struct Finding {
    /// After the fault. Below zero if nothing had happened yet.
    pub seconds: f64,
    pub verdict: String,
    pub diagnosis: Option<String>,
}

/// What the detectors found of one fault.
#[derive(Clone, Debug)]
pub struct Row {
    pub fault: Fault,
    budget: Duration,
    findings: BTreeMap<Detector, Finding>,
    /// So that what isn't found any more will never be.
    is_over: bool,
}

/// One detector on one fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A death, found within the budget.
    InTime,
    Late,
    /// A death without a goodbye.
    Missed,
    /// An alarm, and the peer lives.
    FalseAlarm,
    /// No alarm, and the peer lives.
    Quiet,
    /// Whatever it said, it is right.
    Open,
}

impl Finding {
    pub fn new(alarm: Alarm, began: Instant) -> Self {
        let seconds = match alarm.at.checked_duration_since(began) {
            Some(after) => after.as_secs_f64(),
            None => -(began - alarm.at).as_secs_f64(),
        };
        Self {
            // The rest is chance.
            seconds: (seconds * 1000.0).round() / 1000.0,
            verdict: alarm.verdict,
            diagnosis: alarm.diagnosis,
        }
    }
}

impl Row {
    pub fn new(fault: Fault, budget: Duration) -> Self {
        Self {
            fault,
            budget,
            findings: BTreeMap::new(),
            is_over: false,
        }
    }

    pub fn note(&mut self, detector: Detector, finding: Finding) {
        self.findings.insert(detector, finding);
    }

    pub fn end(&mut self) {
        self.is_over = true;
    }

    pub fn finding(&self, detector: Detector) -> Option<&Finding> {
        self.findings.get(&detector)
    }

    /// `late` is by how much this machine was.
    pub fn mark(&self, detector: Detector, late: Duration) -> Mark {
        let limit = self.budget + TOLERANCE + late;
        let finding = self.finding(detector);
        match (self.fault.expected(self.budget), finding) {
            (Expected::Either, _) => Mark::Open,
            (Expected::Alive, None) => Mark::Quiet,
            (Expected::Alive, Some(_)) => Mark::FalseAlarm,
            (Expected::End(..), None) => Mark::Missed,
            (Expected::End(..), Some(finding)) if finding.seconds > limit.as_secs_f64() => {
                Mark::Late
            }
            // Scheduling: the alarm may overtake the maker of the fault.
            (Expected::End(..), Some(finding)) if finding.seconds < -TOLERANCE.as_secs_f64() => {
                Mark::FalseAlarm
            }
            (Expected::End(..), Some(_)) => Mark::InTime,
        }
    }

    /// What is wrong with what the heartbeat said, if anything is.
    pub fn complaint(&self, late: Duration) -> Option<String> {
        let found = self.finding(Detector::Heartbeat);
        let problem = match (self.mark(Detector::Heartbeat, late), found) {
            (Mark::Missed, _) => "missed".into(),
            (Mark::Late, Some(found)) => format!("late, after {:.3} s", found.seconds),
            (Mark::FalseAlarm, Some(found)) => {
                format!("false alarm after {:.3} s: {}", found.seconds, said(found))
            }
            (Mark::InTime, Some(found)) if !self.is_right(found) => {
                format!("found in time, and misjudged: {}", said(found))
            }
            _ => return None,
        };
        Some(format!("{}: {problem}", self.fault.name()))
    }

    pub fn is_a_death(&self) -> bool {
        matches!(self.fault.expected(self.budget), Expected::End(..))
    }

    fn is_right(&self, found: &Finding) -> bool {
        let Expected::End(verdicts, diagnosis) = self.fault.expected(self.budget) else {
            return true;
        };
        let silent = matches!(found.verdict.as_str(), "Silent" | "WriteStalled");
        verdicts.contains(&found.verdict.as_str())
            && (!silent || diagnosis.is_none_or(|right| found.diagnosis.as_deref() == Some(right)))
    }

    /// As a line of the table.
    pub fn line(&self, late: Duration) -> String {
        let mut line = format!("{:<15}", self.fault.name());
        for detector in Detector::ALL {
            let seconds = self.finding(detector).map_or(0.0, |found| found.seconds);
            let cell = match self.mark(detector, late) {
                Mark::Missed | Mark::Quiet if !self.is_over => "...".into(),
                Mark::Missed => "never".into(),
                Mark::Quiet => "-".into(),
                Mark::InTime => format!("{:.2}", seconds.max(0.0)),
                Mark::Late => format!("{seconds:.2} late"),
                Mark::FalseAlarm => format!("{seconds:.2} FALSE"),
                Mark::Open if self.finding(detector).is_some() => format!("{seconds:.2}"),
                Mark::Open => "-".into(),
            };
            let _ = write!(line, "{cell:<12}");
        }
        line.push_str(&match self.finding(Detector::Heartbeat) {
            Some(found) => said(found),
            None if self.is_over && !self.is_a_death() => "(alive)".into(),
            None => String::new(),
        });
        line.trim_end().to_owned()
    }
}

fn said(found: &Finding) -> String {
    match found.diagnosis.as_deref() {
        None | Some("Unknown") => found.verdict.clone(),
        Some(diagnosis) => format!("{}, {diagnosis}", found.verdict),
    }
}

/// Above the lines.
pub fn heading() -> String {
    let mut line = format!("{:<15}", "");
    for detector in Detector::ALL {
        let name = match detector {
            Detector::HandWritten => "by hand",
            Detector::UserTimeout => "user tmo",
            detector => detector.name(),
        };
        let _ = write!(line, "{name:<12}");
    }
    line.push_str("the heartbeat says");
    line
}

/// Below the lines: how each detector did.
pub fn summary(rows: &[Row], late: Duration) -> String {
    let counts = |name: &str, good: Mark, of: &[Mark]| {
        let mut line = format!("{name:<15}");
        for detector in Detector::ALL {
            let marks = rows.iter().map(|row| row.mark(detector, late));
            let of: Vec<_> = marks.filter(|mark| of.contains(mark)).collect();
            let count = of.iter().filter(|mark| **mark == good).count();
            let _ = write!(line, "{:<12}", format!("{count} of {}", of.len()));
        }
        line.trim_end().to_owned()
    };
    let dead = [Mark::InTime, Mark::Late, Mark::Missed];
    let alive = [Mark::FalseAlarm, Mark::Quiet];
    let found = counts("found in time", Mark::InTime, &dead);
    let alarms = counts("false alarms", Mark::FalseAlarm, &alive);
    format!("{found}\n{alarms}")
}

/// For other programs.
#[derive(Debug, Serialize)]
pub struct Report {
    config: Settings,
    network: &'static str,
    faults: Vec<FaultReport>,
}

/// All times in seconds.
#[derive(Debug, Serialize)]
struct Settings {
    detect_within: f64,
    interval: f64,
    timeout: f64,
    max_missed: u32,
    /// What may be added to `detect_within`.
    tolerance: f64,
    /// By how much this machine was late meanwhile, at worst.
    machine_late: f64,
}

#[derive(Debug, Serialize)]
struct FaultReport {
    fault: Fault,
    alive: bool,
    /// After this many seconds without an alarm the entry is "never".
    observed_for: f64,
    detectors: BTreeMap<&'static str, DetectorReport>,
}

#[derive(Debug, Serialize)]
struct DetectorReport {
    seconds: Option<f64>,
    verdict: Option<String>,
    /// Only the heartbeat has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    diagnosis: Option<Option<String>>,
}

impl Report {
    pub fn new(rows: &[Row], config: &Config, network: &'static str, late: Duration) -> Self {
        let settings = Settings {
            detect_within: config.detection_time().as_secs_f64(),
            interval: config.interval().as_secs_f64(),
            timeout: config.timeout().as_secs_f64(),
            max_missed: config.max_missed(),
            tolerance: TOLERANCE.as_secs_f64(),
            machine_late: late.as_secs_f64(),
        };
        Self {
            config: settings,
            network,
            faults: rows.iter().map(FaultReport::new).collect(),
        }
    }
}

impl FaultReport {
    fn new(row: &Row) -> Self {
        let report = |detector| {
            let found = row.finding(detector);
            let diagnosis = found.and_then(|found| found.diagnosis.clone());
            DetectorReport {
                seconds: found.map(|found| found.seconds),
                verdict: found.map(|found| found.verdict.clone()),
                diagnosis: (detector == Detector::Heartbeat).then_some(diagnosis),
            }
        };
        Self {
            fault: row.fault,
            alive: !row.is_a_death(),
            observed_for: row.fault.observe_for(row.budget).as_secs_f64(),
            detectors: Detector::ALL
                .map(|detector| (detector.name(), report(detector)))
                .into(),
        }
    }
}
