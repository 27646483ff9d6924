//! The connections to this gateway, and what of them the store hasn't been told.
//!
//! This module decides what is told in which order, and what is told again in a new epoch.
//! It does no I/O; the tests try it in every order of faults.

use std::collections::{BTreeMap, BTreeSet};

/// The most orders in a batch. The store serves others in between.
const BATCH: usize = 500;

/// An entry is told before any end, so a user who moves within this gateway is never
/// absent. Takes no more than the connections that there are, and those whose end the
/// store doesn't know yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Local {
    next: u64,
    connections: BTreeMap<u64, Connection>,
    /// Those whose entry has to be told.
    entering: BTreeSet<u64>,
    /// Those whose end has to be told. They stay among the connections until it is.
    leaving: BTreeSet<u64>,
    /// The number of the store that knows whatever a store has ever confirmed.
    store: Option<String>,
    /// The store is new: what it confirms it may announce later.
    is_quiet: bool,
    closing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Connection {
    user: String,
    known: Known,
    /// If it has ended.
    ending: Option<Ending>,
}

/// Whether a store has announced the user for this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Known {
    /// It wasn't told.
    No,
    /// It was told, and hasn't replied, or was new.
    Perhaps,
    Yes,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ending {
    /// The user said goodbye, and has no grace period.
    pub(crate) at_once: bool,
    /// For people.
    pub(crate) why: String,
}

/// Something to tell the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    /// `again`: another store has announced the user, and has lost its data.
    Enter {
        connection: u64,
        user: String,
        again: bool,
    },
    Leave {
        connection: u64,
        ending: Ending,
    },
}

/// What is told at once.
pub(crate) type Batch = Vec<Order>;

impl Local {
    /// A new connection of this user.
    pub(crate) fn enter(&mut self, user: &str) -> u64 {
        let connection = self.next;
        self.next += 1;
        let new = Connection {
            user: user.to_owned(),
            known: Known::No,
            ending: None,
        };
        self.connections.insert(connection, new);
        self.entering.insert(connection);
        connection
    }

    /// A connection has ended. One that no store ever knew needn't be mentioned.
    pub(crate) fn end(&mut self, connection: u64, ending: &Ending) {
        match self.connections.get_mut(&connection) {
            Some(ended) if ended.known != Known::No => {
                ended.ending = Some(ending.clone());
                self.leaving.insert(connection);
            }
            _ => {
                self.connections.remove(&connection);
                self.entering.remove(&connection);
            }
        }
    }

    /// A new epoch has begun, in the store of this number, which has removed our entries:
    /// all are told again. An end needn't be, the store has seen to it; but one that has
    /// lost its data never knew of the entry, and nobody would announce the end.
    pub(crate) fn begin(&mut self, store: &str, is_quiet: bool) {
        self.is_quiet = is_quiet;
        let known = self.store.get_or_insert_with(|| store.to_owned());
        if known == store {
            self.leaving.clear();
            self.connections.retain(|_, it| it.ending.is_none());
        }
        self.entering = self.connections.keys().copied().collect();
    }

    /// What has to be told next.
    pub(crate) fn tell(&mut self, store: &str) -> Batch {
        let is_another = self.is_another(store);
        let mut batch = Batch::new();
        for connection in self.entering.iter().take(BATCH) {
            let Some(entered) = self.connections.get_mut(connection) else {
                continue;
            };
            batch.push(Order::Enter {
                connection: *connection,
                user: entered.user.clone(),
                again: is_another && entered.known == Known::Yes,
            });
            if entered.known == Known::No {
                entered.known = Known::Perhaps;
            }
        }
        if batch.len() < self.entering.len() {
            return batch;
        }
        for connection in self.leaving.iter().take(BATCH) {
            let ended = self.connections.get(connection);
            if let Some(ending) = ended.and_then(|ended| ended.ending.clone()) {
                let connection = *connection;
                batch.push(Order::Leave { connection, ending });
            }
        }
        batch
    }

    /// The store has done all of this.
    pub(crate) fn confirm(&mut self, store: &str, batch: &[Order]) {
        for order in batch {
            match order {
                Order::Enter { connection, .. } => {
                    self.entering.remove(connection);
                    let entered = self.connections.get_mut(connection);
                    if let Some(entered) = entered.filter(|_| !self.is_quiet) {
                        entered.known = Known::Yes;
                    }
                }
                Order::Leave { connection, .. } => {
                    self.leaving.remove(connection);
                    self.connections.remove(connection);
                }
            }
        }
        let is_known = |connection: &u64| {
            let it = self.connections.get(connection);
            it.is_some_and(|it| it.known != Known::No)
        };
        if self.is_another(store) && !self.entering.iter().any(is_known) {
            // What that one knew has been told again.
            self.store = Some(store.to_owned());
        }
    }

    /// Whether the store has announced all that it was told.
    pub(crate) fn hear(&mut self, is_quiet: bool) {
        if std::mem::replace(&mut self.is_quiet, is_quiet) && !is_quiet {
            for (connection, it) in &mut self.connections {
                if !self.entering.contains(connection) {
                    it.known = Known::Yes;
                }
            }
        }
    }

    /// The connections that have an entry once everything has been told.
    pub(crate) fn entries(&self) -> usize {
        self.connections.len() - self.entering.len()
    }

    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether what was confirmed was confirmed by another store, which has lost it.
    fn is_another(&self, store: &str) -> bool {
        self.store.as_deref().is_some_and(|known| known != store)
    }
}
