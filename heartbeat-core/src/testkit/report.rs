//! The result of a simulation.
//!
//! This module decides which verdicts were mistakes and which were in time.

use core::{fmt, time::Duration};
use std::{borrow::ToOwned, boxed::Box, format, string::String, vec::Vec};

use super::{Link, Side, Timeline, peer::Outcome};
use crate::{
    event::{Cause, Death, Event},
    status::Status,
};

/// Something after which a verdict is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) at: u64,
    /// Whose; the link's otherwise.
    pub(super) side: Option<Side>,
}

impl Fault {
    /// Whether `side` is right to give up its peer because of this.
    fn justifies(&self, side: Side) -> bool {
        self.side != Some(side)
    }
}

/// The result of a [`Simulation`](super::Simulation).
///
/// Where a method takes a [`Side`], it is the one that judges: `death(Side::A)`
/// is what A said of B.
#[derive(Clone, Debug)]
pub struct Report {
    link: Link,
    seed: u64,
    a: Outcome,
    b: Outcome,
    faults: Vec<Fault>,
    timeline: Timeline,
    lasted: u64,
}

impl Report {
    pub(super) fn new(
        link: Link,
        seed: u64,
        [a, b]: [Outcome; 2],
        faults: Vec<Fault>,
        timeline: Timeline,
        lasted: u64,
    ) -> Self {
        Self {
            link,
            seed,
            a,
            b,
            faults,
            timeline,
            lasted,
        }
    }

    /// Asserts that no side gave up a live peer.
    ///
    /// A peer is alive until it hangs, is killed or floods, and as long as
    /// the link isn't cut for good. An outage, a partition that ends, a stall
    /// and a pause are no reason to give a peer up. A side that was given up by mistake,
    /// and learns it or reads the end of the stream, isn't a second mistake.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with the timeline, if [`mistake`](Self::mistake) finds
    /// one.
    pub fn assert_no_false_alarm(&self) -> Result<(), Failure> {
        let Some((side, death)) = self.mistake() else {
            return Ok(());
        };
        let (judge, peer) = match side {
            Side::A => ("a", "b"),
            Side::B => ("b", "a"),
        };
        Err(self.failure(format!(
            "{judge} gave {peer} up, but {peer} was alive: {death}"
        )))
    }

    /// Asserts that each survivor of a fault detected it within `bound`.
    ///
    /// Choose the bound as the [`detection_time`](crate::Config::detection_time)
    /// plus the time that bytes can be under way when the fault happens, plus
    /// the lateness that was asked for. Where timings differ, that of
    /// [`status`](Self::status) holds: a peer may have asked for a longer
    /// interval.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with the timeline, if a side knew later or not at all;
    /// also if there was no fault, or if the run ended before the bound had
    /// passed: then nothing was shown.
    pub fn assert_detects_within(&self, bound: Duration) -> Result<(), Failure> {
        let mut shown = false;
        for (side, name) in [(Side::A, "a"), (Side::B, "b")] {
            let Some(fault) = self.fault_for(side) else {
                continue;
            };
            let fault_at = Duration::from_micros(fault);
            match self.detection_time(side) {
                Some(took) if took <= bound => shown = true,
                Some(took) => {
                    let text = format!(
                        "{name} knew after {took:?} of the fault at {fault_at:?}, not within {bound:?}"
                    );
                    return Err(self.failure(text));
                }
                // It didn't live to see it.
                None if self.ended_at(side).is_some() || self.was_faulty(side) => {}
                None if Duration::from_micros(self.lasted - fault.min(self.lasted)) < bound => {
                    let text = format!(
                        "the run ended before {bound:?} had passed since the fault at {fault_at:?}"
                    );
                    return Err(self.failure(text));
                }
                None => {
                    let text = format!("{name} never knew of the fault at {fault_at:?}");
                    return Err(self.failure(text));
                }
            }
        }
        if shown {
            Ok(())
        } else {
            Err(self.failure("there was no fault that anybody could have detected".to_owned()))
        }
    }

    /// The first verdict on a live peer: the side that gave it, and its death.
    #[must_use]
    pub fn mistake(&self) -> Option<(Side, Death)> {
        [Side::A, Side::B]
            .into_iter()
            .filter_map(|side| {
                let (at, death) = self.death_at(side)?;
                let follows = matches!(death.cause, Cause::GivenUp { .. } | Cause::Eof);
                let justified = self.fault_for(side).is_some_and(|fault| fault <= at)
                    || self
                        .ended_at(side.other())
                        .is_some_and(|ended| ended < at || follows && ended == at);
                (!justified).then_some((at, side, death))
            })
            .min_by_key(|&(at, ..)| at)
            .map(|(_, side, death)| (side, death))
    }

    /// The verdict of `side`, if it gave its peer up.
    #[must_use]
    pub fn death(&self, side: Side) -> Option<Death> {
        self.death_at(side).map(|(_, death)| death)
    }

    /// From the first fault that `side` could notice to its verdict.
    #[must_use]
    pub fn detection_time(&self, side: Side) -> Option<Duration> {
        let fault = self.fault_for(side)?;
        let (at, _) = self.death_at(side)?;
        at.checked_sub(fault).map(Duration::from_micros)
    }

    /// The events of `side`, with offsets from the start. Beats are only
    /// [counted](Self::beats).
    pub fn events(&self, side: Side) -> impl Iterator<Item = (Duration, Event)> + '_ {
        let events = self.outcome(side).events.iter();
        events.map(|&(at, event)| (Duration::from_micros(at), event))
    }

    /// How often `side` suspected its peer. In a run without faults, each of
    /// these was a mistake, though a harmless one.
    #[must_use]
    pub fn suspicions(&self, side: Side) -> usize {
        self.events(side)
            .filter(|(_, event)| matches!(event, Event::Suspect { .. }))
            .count()
    }

    /// How many pongs `side` reported.
    #[must_use]
    pub fn beats(&self, side: Side) -> u32 {
        self.outcome(side).beats
    }

    /// How many pings the monitor of `side` sent.
    #[must_use]
    pub fn pings_sent(&self, side: Side) -> u32 {
        self.status(side).pings
    }

    /// The status of `side` at the end.
    #[must_use]
    pub fn status(&self, side: Side) -> Status {
        self.outcome(side).status
    }

    /// The simulated time: less than requested if both sides ended before.
    #[must_use]
    pub const fn lasted(&self) -> Duration {
        Duration::from_micros(self.lasted)
    }

    /// The last actions of both sides, to be printed.
    #[must_use]
    pub const fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    const fn outcome(&self, side: Side) -> &Outcome {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    fn ended_at(&self, side: Side) -> Option<u64> {
        let mut events = self.outcome(side).events.iter();
        events
            .find(|(_, event)| event.is_terminal())
            .map(|&(at, _)| at)
    }

    fn death_at(&self, side: Side) -> Option<(u64, Death)> {
        let mut events = self.outcome(side).events.iter();
        events.find_map(|&(at, event)| match event {
            Event::Dead(death) => Some((at, death)),
            _ => None,
        })
    }

    fn fault_for(&self, side: Side) -> Option<u64> {
        let faults = self.faults.iter().filter(|fault| fault.justifies(side));
        faults.map(|fault| fault.at).min()
    }

    /// Hung or killed itself, so that nothing can be asked of it.
    fn was_faulty(&self, side: Side) -> bool {
        self.faults.iter().any(|fault| fault.side == Some(side))
    }

    fn failure(&self, message: String) -> Failure {
        Failure(Box::new(Details {
            message,
            link: self.link.clone(),
            seed: self.seed,
            timeline: self.timeline.clone(),
        }))
    }
}

/// A simulation violated an assertion. Displays the violation, the link, the seed and the
/// timeline.
///
/// Any error becomes a failed case by `?` in a property of proptest.
#[derive(Clone)]
pub struct Failure(Box<Details>);

#[derive(Clone)]
struct Details {
    message: String,
    link: Link,
    seed: u64,
    timeline: Timeline,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details {
            message,
            link,
            seed,
            timeline,
        } = &*self.0;
        writeln!(f, "{message}\n  {link:?}, seed {seed}\n\n{timeline}")
    }
}

impl fmt::Debug for Failure {
    /// As displayed, so that an `unwrap` can be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Failure {}
