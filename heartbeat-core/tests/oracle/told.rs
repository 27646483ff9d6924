//! The pending events, merged as docs/state-machine.md specifies.

use std::time::Duration;

use heartbeat_core::{Cause, CloseReason, Event, Hello};

use crate::{facts::Facts, life::Mismatch, rtt, span::LAST};

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pending {
    pub(crate) connected: Option<Hello>,
    pub(crate) stall: Option<u64>,
    pub(crate) recovered: Option<u64>,
    pub(crate) beat: Option<u64>,
    pub(crate) finished: bool,
    /// Misses and silence.
    pub(crate) suspect: Option<(u32, u64)>,
    pub(crate) end: Option<Ending>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ending {
    Closed(CloseReason),
    Dead {
        /// `None`: a Hello was refused.
        cause: Option<Cause>,
        missed: u32,
        silence: u64,
    },
}

impl Pending {
    /// Compares with what would be told, from the first to the last.
    pub(crate) fn fits(&self, facts: &Facts, told: &[Event]) -> Result<(), Mismatch> {
        let mut events = told.iter().copied();
        if let Some(peer) = self.connected {
            if events.next() != Some(Event::Connected { peer }) {
                return Err(Mismatch::Events("Connected"));
            }
        }
        if let Some(late) = self.stall {
            let late = duration(late);
            if events.next() != Some(Event::LocalStall { late }) {
                return Err(Mismatch::Events("LocalStall"));
            }
        }
        if let Some(silence) = self.recovered {
            let silent_for = duration(silence);
            if events.next() != Some(Event::Recovered { silent_for }) {
                return Err(Mismatch::Events("Recovered"));
            }
        }
        if let Some(exact) = self.beat {
            match events.next() {
                Some(Event::Beat { rtt }) if rtt::is(exact, rtt) => {}
                _ => return Err(Mismatch::Events("Beat")),
            }
        }
        if self.finished && events.next() != Some(Event::Finished) {
            return Err(Mismatch::Events("Finished"));
        }
        if let Some((missed, silence)) = self.suspect {
            let silent_for = duration(silence);
            if events.next() != Some(Event::Suspect { missed, silent_for }) {
                return Err(Mismatch::Events("Suspect"));
            }
        }
        if let Some(end) = self.end {
            end.fits(facts, events.next())?;
        }
        match events.next() {
            None => Ok(()),
            Some(Event::Connected { .. }) => Err(Mismatch::Events("unexpected Connected")),
            Some(Event::LocalStall { .. }) => Err(Mismatch::Events("unexpected LocalStall")),
            Some(Event::Recovered { .. }) => Err(Mismatch::Events("unexpected Recovered")),
            Some(Event::Beat { .. }) => Err(Mismatch::Events("unexpected Beat")),
            Some(Event::Finished) => Err(Mismatch::Events("unexpected Finished")),
            Some(Event::Suspect { .. }) => Err(Mismatch::Events("unexpected Suspect")),
            Some(_) => Err(Mismatch::Events("unexpected end")),
        }
    }

    /// The first of them was given. True: that was the suspicion.
    pub(crate) fn drained(&mut self) -> bool {
        if self.connected.take().is_some()
            || self.stall.take().is_some()
            || self.recovered.take().is_some()
            || self.beat.take().is_some()
            || std::mem::take(&mut self.finished)
        {
            return false;
        }
        let suspected = self.suspect.take().is_some();
        if !suspected {
            self.end = None;
        }
        suspected
    }
}

/// What is told is at most the time of the last deadline.
fn duration(micros: u64) -> Duration {
    Duration::from_micros(micros.min(LAST))
}

impl Ending {
    fn fits(self, facts: &Facts, event: Option<Event>) -> Result<(), Mismatch> {
        let fits = match (self, event) {
            (Self::Closed(reason), Some(Event::Closed { reason: told })) => reason == told,
            (
                Self::Dead {
                    cause,
                    missed,
                    silence,
                },
                Some(Event::Dead(death)),
            ) => {
                let caused = match cause {
                    Some(cause) => death.cause == cause,
                    None => crate::api::is_refusal(death.cause),
                };
                if !caused {
                    return Err(Mismatch::Events("the cause of death"));
                }
                if death.silent_for != duration(silence) {
                    return Err(Mismatch::Events("the silence before death"));
                }
                if missed != death.missed {
                    return Err(Mismatch::Events("the misses before death"));
                }
                match (facts.rtt.last, death.last_rtt) {
                    (None, None) => true,
                    (Some(exact), Some(told)) => rtt::is(exact, told),
                    _ => return Err(Mismatch::Events("the last round trip before death")),
                }
            }
            _ => return Err(Mismatch::Events("the terminal event")),
        };
        if fits {
            Ok(())
        } else {
            Err(Mismatch::Events("the terminal event"))
        }
    }
}
