//! Senders that wait.
//!
//! This module decides who is woken when something has become so: all that wait for it.
//! Whoever waits holds a ticket, and whoever doesn't wait any longer gives it back, so
//! that nothing of a future that was dropped stays here.

use std::{collections::BTreeMap, task::Waker};

/// What a sender may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Room for a message.
    Room,
    /// Everything was written.
    Flushed,
    /// The same, and that no message follows, which is then said.
    Finished,
    /// Nothing is left to do.
    Over,
}

impl Wanted {
    const ALL: [Self; 4] = [Self::Room, Self::Flushed, Self::Finished, Self::Over];
}

/// A place among those who wait; `None` without.
#[derive(Debug, Default)]
pub(super) struct Ticket(Option<u64>);

impl Ticket {
    pub(super) const fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

/// Those who wait, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    tickets: u64,
    places: BTreeMap<u64, (Wanted, Waker)>,
}

impl Waiting {
    /// Whoever holds the ticket waits. Gives the waker that is in the way.
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

    /// Takes out those who wait for what `is_so`.
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
