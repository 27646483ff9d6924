//! Events that wait for an application that doesn't read at the moment.
//!
//! This module decides when that is too much to go on reading.

use std::collections::VecDeque;

use crate::PeerEvent;

/// Up to so many bytes are taken in for later. Beyond that nothing is read
/// until the application does.
pub(crate) const READ_AHEAD: usize = 256 * 1024;

/// Events in their order, with what they weigh.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    events: VecDeque<(usize, PeerEvent<M>)>,
    weight: usize,
}

impl<M> Inbox<M> {
    pub(crate) fn new() -> Self {
        Self {
            events: VecDeque::new(),
            weight: 0,
        }
    }

    /// Puts an event in whose message keeps so many bytes besides itself.
    pub(crate) fn push(&mut self, event: PeerEvent<M>, message: usize) {
        // What has no bytes of its own isn't free either.
        let weight = size_of::<(usize, PeerEvent<M>)>() + message;
        self.weight += weight;
        self.events.push_back((weight, event));
    }

    pub(crate) fn pop(&mut self) -> Option<PeerEvent<M>> {
        let (weight, event) = self.events.pop_front()?;
        self.weight -= weight;
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        Some(event)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.weight > READ_AHEAD
    }

    pub(crate) fn into_events(self) -> impl Iterator<Item = PeerEvent<M>> {
        self.events.into_iter().map(|(_, event)| event)
    }
}
