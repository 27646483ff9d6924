//! Senders that wait.
//!
//! This module decides which wakers are called when a condition holds: all that wait for
//! it. A waiting future holds a ticket and returns it when it is dropped, so a dropped
//! future leaves nothing here.

use std::{collections::BTreeMap, task::Waker};

/// The conditions that a sender may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Room for a message.
    Room,
    /// Everything was written.
    Flushed,
    /// Everything was written, and the Fin behind it.
    Finished,
    /// Nothing is left to do.
    Over,
}

impl Wanted {
    const ALL: [Self; 4] = [Self::Room, Self::Flushed, Self::Finished, Self::Over];
}

/// A place among the waiting callers; `None` without one.
#[derive(Debug, Default)]
pub(super) struct Ticket(Option<u64>);

impl Ticket {
    pub(super) const fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

/// The waiting callers, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    tickets: u64,
    places: BTreeMap<u64, (Wanted, Waker)>,
}

impl Waiting {
    /// The ticket's holder waits. Returns the waker that this one replaces.
    #[must_use = "no waker is dropped while the lock is held"]
    pub(super) fn enter(
        &mut self,
        wanted: Wanted,
        ticket: &mut Ticket,
        waker: Waker,
    ) -> Option<Waker> {
        let ticket = *ticket.0.get_or_insert_with(|| {
            self.tickets += 1;
            self.tickets
        });
        let before = self.places.insert(ticket, (wanted, waker));
        before.map(|(_, waker)| waker)
    }

    #[must_use = "no waker is dropped while the lock is held"]
    pub(super) fn leave(&mut self, ticket: &mut Ticket) -> Option<Waker> {
        let place = self.places.remove(&ticket.0.take()?);
        place.map(|(_, waker)| waker)
    }

    /// Takes out the callers whose condition `is_so`.
    pub(super) fn satisfied(&mut self, is_so: impl Fn(Wanted) -> bool) -> Vec<Waker> {
        let mut woken = Vec::new();
        if !self.places.is_empty() && Wanted::ALL.into_iter().any(&is_so) {
            self.places.retain(|_, (wanted, waker)| {
                let stays = !is_so(*wanted);
                if !stays {
                    woken.push(waker.clone());
                }
                stays
            });
        }
        woken
    }
}
