//! What both sides did, to be read by people.
//!
//! This module decides how a run is shown, and how much of it.

use core::{fmt, time::Duration};
use std::{collections::VecDeque, format, string::String};

use super::{Direction, Side, pop_front_if};
use crate::{event::Event, frame::Control};

/// How many of the last entries are kept. The end of a run is what tells why
/// it ended.
const KEPT: usize = 120;

/// The last things that happened in a simulation, in two columns: time as an
/// offset from the start, A to the left and B to the right.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Not reached yet, in the order of time.
    planned: VecDeque<Entry>,
    entries: VecDeque<Entry>,
    left_out: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    /// Neither: the link.
    side: Option<Side>,
    what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Sends(Control),
    Receives(Control),
    ReadsTheEnd,
    Tells(Event),
    Hangs,
    IsKilled,
    Stalls(Duration),
    Pauses(Duration),
    Resumes,
    Probes,
    Closes,
    Floods(Duration),
    Cut(Direction, Option<Duration>),
}

impl Timeline {
    pub(super) const fn new() -> Self {
        Self {
            planned: VecDeque::new(),
            entries: VecDeque::new(),
            left_out: 0,
        }
    }

    /// Something that will happen to the link.
    pub(super) fn plan(&mut self, at: u64, what: What) {
        let side = None;
        self.planned.push_back(Entry { at, side, what });
        self.planned.make_contiguous().sort_by_key(|entry| entry.at);
    }

    pub(super) fn note(&mut self, at: u64, side: Side, what: What) {
        while let Some(entry) = pop_front_if(&mut self.planned, |entry| entry.at <= at) {
            self.push(entry);
        }
        let side = Some(side);
        self.push(Entry { at, side, what });
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
            self.left_out = self.left_out.saturating_add(1);
        }
        self.entries.push_back(entry);
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.left_out > 0 {
            writeln!(f, "  ... {} earlier entries", self.left_out)?;
        }
        for Entry { at, side, what } in &self.entries {
            let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
            write!(f, "{seconds:>7}.{micros:06}s  ")?;
            match side {
                Some(Side::A) => writeln!(f, "a {what}")?,
                Some(Side::B) => writeln!(f, "{:44}b {what}", "")?,
                None => writeln!(f, "--- {what} ---")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sends(control) => write!(f, "sends {}", name(control)),
            Self::Receives(control) => write!(f, "receives {}", name(control)),
            Self::ReadsTheEnd => f.write_str("reads the end of the stream"),
            Self::Tells(event) => tells(event, f),
            Self::Hangs => f.write_str("hangs"),
            Self::IsKilled => f.write_str("is killed"),
            Self::Stalls(lasting) => write!(f, "stalls for {lasting:?}"),
            Self::Pauses(lasting) => write!(f, "stops reading for {lasting:?}"),
            Self::Resumes => f.write_str("reads again"),
            Self::Probes => f.write_str("probes"),
            Self::Closes => f.write_str("closes"),
            Self::Floods(every) => write!(f, "floods, a ping each {every:?}"),
            Self::Cut(direction, lasting) => {
                let direction = match direction {
                    Direction::AToB => "a to b",
                    Direction::BToA => "b to a",
                    Direction::Both => "a and b",
                };
                match lasting {
                    Some(lasting) => write!(f, "{direction} partitioned for {lasting:?}"),
                    None => write!(f, "{direction} cut"),
                }
            }
        }
    }
}

/// An event in one line: `** Suspect, 1 missed, silent for 8s`.
fn tells(event: &Event, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match event {
        Event::Connected { .. } => f.write_str("** Connected"),
        Event::Beat { rtt } => write!(f, "** Beat, round trip {rtt:?}"),
        Event::Suspect { missed, silent_for } => {
            write!(f, "** Suspect, {missed} missed, silent for {silent_for:?}")
        }
        Event::Recovered { silent_for } => write!(f, "** Recovered, silent for {silent_for:?}"),
        Event::LocalStall { late } => write!(f, "** LocalStall, late by {late:?}"),
        Event::Finished => f.write_str("** Finished"),
        Event::Closed { reason } => write!(f, "** Closed, {reason}"),
        Event::Dead(death) => write!(f, "** Dead, {death}"),
    }
}

fn name(control: &Control) -> String {
    match control {
        Control::Hello(_) => "Hello".into(),
        Control::Ping(nonce) => format!("Ping {}", short(nonce.0)),
        Control::Pong(nonce) => format!("Pong {}", short(nonce.0)),
        Control::Goodbye(code) => format!("Goodbye, {code}"),
        Control::Alive => "Alive".into(),
        Control::Fin => "Fin".into(),
        Control::Reserved => "a reserved frame".into(),
    }
}

/// Enough of a nonce to tell it from its neighbours.
fn short(nonce: [u8; 8]) -> String {
    let [first, second, ..] = nonce;
    format!("{first:02x}{second:02x}")
}
