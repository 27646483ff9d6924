//! Events that wait for an application that doesn't read at the moment.
//!
//! This module decides when that is too much to go on reading.

use std::collections::VecDeque;

use heartbeat_core::Instant;

use crate::PeerEvent;

/// Up to so many bytes are taken in for later. Beyond that nothing is read
/// until the application does.
pub(crate) const READ_AHEAD: usize = 256 * 1024;

/// Events in their order. Without any it takes no more room than a pointer.
#[derive(Debug)]
pub(crate) struct Inbox<M>(Option<Box<Queue<M>>>);

/// There is at least one event in it.
#[derive(Debug)]
struct Queue<M> {
    /// With what each weighs.
    events: VecDeque<(usize, PeerEvent<M>)>,
    weight: usize,
    /// Since when the messages among them wait, where that is limited.
    since: VecDeque<Instant>,
}

impl<M> Inbox<M> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Adds an event. Its message keeps `message` bytes of memory besides itself, and
    /// waits from `since` on.
    pub(crate) fn push(&mut self, event: PeerEvent<M>, message: usize, since: Option<Instant>) {
        // What has no bytes of its own isn't free either.
        let weight = size_of::<(usize, PeerEvent<M>)>() + message;
        let queue = self.0.get_or_insert_with(|| {
            Box::new(Queue {
                events: VecDeque::new(),
                weight: 0,
                since: VecDeque::new(),
            })
        });
        queue.weight += weight;
        queue.events.push_back((weight, event));
        queue.since.extend(since);
    }

    pub(crate) fn pop(&mut self) -> Option<PeerEvent<M>> {
        let queue = self.0.as_mut()?;
        let (weight, event) = queue.events.pop_front()?;
        queue.weight -= weight;
        if let PeerEvent::Message(_) = event {
            queue.since.pop_front();
        }
        if queue.events.is_empty() {
            self.0 = None;
        }
        Some(event)
    }

    /// Since when the oldest message waits, where that is limited.
    #[inline]
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.0.as_ref()?.since.front().copied()
    }

    /// From `now` on it is limited, or counted anew, how long messages wait.
    pub(crate) fn wait_from(&mut self, now: Instant) {
        if let Some(queue) = &mut self.0 {
            let messages = queue.events.iter();
            let messages = messages.filter(|(_, event)| matches!(event, PeerEvent::Message(_)));
            queue.since = messages.map(|_| now).collect();
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn is_full(&self) -> bool {
        let queue = self.0.as_ref();
        queue.is_some_and(|queue| queue.weight > READ_AHEAD)
    }

    pub(crate) fn into_events(self) -> impl Iterator<Item = PeerEvent<M>> {
        let events = self.0.map(|queue| queue.events).unwrap_or_default();
        events.into_iter().map(|(_, event)| event)
    }
}
