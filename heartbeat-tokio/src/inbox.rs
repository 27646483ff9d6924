//! Events that wait for a busy application.
//!
//! This module decides in which order they are handed out, which of them replace an earlier
//! one, and what happens when messages are too many. Only messages count: all other events
//! have a bounded number of places.

use std::{collections::VecDeque, mem::discriminant};

use heartbeat_core::{Config, Instant};

use crate::PeerEvent;

/// The most bytes of messages that wait. Beyond that, reading pauses until the application
/// reads.
pub(crate) const READ_AHEAD: usize = 256 * 1024;

/// Events in the order in which they are handed out.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    queue: Option<Box<Queue<M>>>,
    /// The application took a Suspect and no Recovered since.
    suspects: bool,
    excess: Excess,
    /// If the waiting time of messages is limited: since when.
    limited_from: Option<Instant>,
}

/// What happens to messages for which the inbox has no room. `Open` and `Paused` alternate;
/// all other changes go down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Excess {
    /// A full inbox pauses reading, so they stay with the peer. If we leave, and it has paused
    /// before, it pauses until the given time at most.
    Open { until: Option<Instant> },
    /// Reading is paused.
    Paused { until: Option<Instant> },
    /// They are kept. No more bytes can arrive: the connection has ended, writing has failed, or
    /// the kernel reports that the peer is gone.
    Kept,
    /// They are discarded because we leave, and the peer's goodbye isn't confirmed.
    Discarded,
    /// The receiver is gone: messages are discarded.
    Unheard,
}

/// A queue with at least one event.
#[derive(Debug)]
struct Queue<M> {
    /// Ahead of all messages, one of each kind: Connected, and then the others in the
    /// order of their last occurrence.
    news: Vec<PeerEvent<M>>,
    messages: VecDeque<Kept<M>>,
    /// Of all messages.
    weight: usize,
    /// Behind all messages: Finished, and the terminal event.
    last: VecDeque<PeerEvent<M>>,
}

#[derive(Debug)]
struct Kept<M> {
    message: M,
    weight: usize,
    /// When it began to wait, if that is limited.
    since: Option<Instant>,
}

impl<M> Inbox<M> {
    pub(crate) const fn new() -> Self {
        Self {
            queue: None,
            suspects: false,
            excess: Excess::Open { until: None },
            limited_from: None,
        }
    }

    /// Takes all waiting events out.
    pub(crate) fn take(&mut self) -> Self {
        let queue = self.queue.take();
        Self {
            queue,
            ..Self::new()
        }
    }

    /// Adds an event. `message` is the heap size of its payload, and `since` the start of its
    /// wait.
    pub(crate) fn push(&mut self, event: PeerEvent<M>, message: usize, since: Option<Instant>) {
        let queue = self.queue.get_or_insert_with(|| Box::new(Queue::new()));
        match event {
            PeerEvent::Message(payload) => queue.keep(payload, message, since),
            PeerEvent::Finished | PeerEvent::Closed { .. } | PeerEvent::Dead(_) => {
                queue.last.push_back(event);
            }
            event => queue.note(event, self.suspects),
        }
        self.tidy();
    }

    pub(crate) fn pop(&mut self) -> Option<PeerEvent<M>> {
        let event = self.queue.as_mut()?.pop()?;
        self.tidy();
        self.note_taken(&event);
        Some(event)
    }

    /// The application took this event, from the inbox or directly.
    pub(crate) const fn note_taken(&mut self, event: &PeerEvent<M>) {
        match event {
            PeerEvent::Suspect { .. } => self.suspects = true,
            PeerEvent::Recovered { .. } => self.suspects = false,
            _ => {}
        }
    }

    /// An empty queue isn't kept.
    fn tidy(&mut self) {
        if self.queue.as_ref().is_some_and(|queue| queue.is_empty()) {
            self.queue = None;
        }
    }

    // ---- how long messages wait ------------------------------------------

    /// Limits the waiting time from now on, or starts it again.
    pub(crate) fn limit_from(&mut self, now: Instant) {
        self.limited_from = Some(now);
        for kept in self.queue.iter_mut().flat_map(|queue| &mut queue.messages) {
            kept.since = Some(now);
        }
    }

    /// The start of the wait of a message that came then, if that is limited.
    pub(crate) fn since(&self, came: Instant) -> Option<Instant> {
        Some(came.max(self.limited_from?))
    }

    /// When the oldest message will have waited too long.
    pub(crate) fn wait_ends(&self, config: &Config) -> Option<Instant> {
        let oldest = self.queue.as_ref()?.messages.front()?;
        Some(oldest.since? + config.max_pause()?)
    }

    // ---- a full inbox ------------------------------------------------------

    /// Whether reading is paused.
    #[inline]
    pub(crate) const fn is_paused(&self) -> bool {
        matches!(self.excess, Excess::Paused { .. })
    }

    /// Pauses reading if it is full and may pause, until `until` at most. Returns whether
    /// reading went on before.
    pub(crate) fn pause_if_full(&mut self, until: impl FnOnce() -> Option<Instant>) -> bool {
        match self.excess {
            Excess::Open { until: former } if self.is_full() => {
                let until = former.or_else(until);
                self.excess = Excess::Paused { until };
                true
            }
            _ => false,
        }
    }

    /// If reading is paused, it pauses until then at most.
    pub(crate) fn limit_pause(&mut self, until: Instant) {
        if let Excess::Paused { until: former } = &mut self.excess {
            former.get_or_insert(until);
        }
    }

    /// Until when reading may pause, if it is paused.
    pub(crate) const fn room_until(&self) -> Option<Instant> {
        match self.excess {
            Excess::Paused { until } => until,
            _ => None,
        }
    }

    /// Resumes reading, with this for messages that come then. Returns whether it was paused.
    pub(crate) fn go_on(&mut self, excess: Option<Excess>) -> bool {
        let was_paused = self.is_paused();
        self.excess = match (self.excess, excess) {
            (before, Some(excess)) => before.max(excess),
            (Excess::Paused { until }, None) => Excess::Open { until },
            (before, None) => before,
        };
        debug_assert!(!self.is_paused(), "reading goes on");
        was_paused
    }

    /// Whether this event is kept.
    pub(crate) fn keeps(&self, event: &PeerEvent<M>) -> bool {
        match self.excess {
            Excess::Open { .. } | Excess::Paused { .. } | Excess::Kept => true,
            Excess::Discarded => !matches!(event, PeerEvent::Message(_)) || !self.is_full(),
            Excess::Unheard => event.is_terminal(),
        }
    }

    /// The deadline: the end of a pause, or of the wait of the oldest message.
    #[inline]
    pub(crate) fn deadline(&self, config: &Config) -> Option<Instant> {
        let ends = [self.room_until(), self.wait_ends(config)];
        ends.into_iter().flatten().min()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    pub(crate) fn has_messages(&self) -> bool {
        let queue = self.queue.as_ref();
        queue.is_some_and(|queue| !queue.messages.is_empty())
    }

    /// Whether too many messages wait to continue reading.
    pub(crate) fn is_full(&self) -> bool {
        let queue = self.queue.as_ref();
        queue.is_some_and(|queue| queue.weight > READ_AHEAD)
    }

    pub(crate) fn into_events(mut self) -> impl Iterator<Item = PeerEvent<M>> {
        std::iter::from_fn(move || self.pop())
    }
}

impl<M> Queue<M> {
    const fn new() -> Self {
        Self {
            news: Vec::new(),
            messages: VecDeque::new(),
            weight: 0,
            last: VecDeque::new(),
        }
    }

    fn keep(&mut self, message: M, bytes: usize, since: Option<Instant>) {
        debug_assert!(self.last.is_empty(), "no message follows the last one");
        // A message without bytes has a cost too.
        let weight = size_of::<Kept<M>>() + bytes;
        self.weight += weight;
        self.messages.push_back(Kept {
            message,
            weight,
            since,
        });
    }

    /// Keeps the latest event of each kind. A suspicion that the application hasn't taken
    /// vanishes with its Recovered, unless the application `suspects` the peer for an earlier
    /// beat.
    fn note(&mut self, event: PeerEvent<M>, suspects: bool) {
        if let PeerEvent::Recovered { .. } = event {
            let before = self.news.len();
            self.news
                .retain(|waiting| !matches!(waiting, PeerEvent::Suspect { .. }));
            let ended = self.news.iter();
            let mut ended = ended.filter(|waiting| matches!(waiting, PeerEvent::Recovered { .. }));
            // A waiting Recovered ends the suspicion that the application has taken.
            if self.news.len() < before && (!suspects || ended.next().is_some()) {
                return;
            }
        }
        let kind = discriminant(&event);
        self.news.retain(|waiting| discriminant(waiting) != kind);
        match event {
            PeerEvent::Connected { .. } => self.news.insert(0, event),
            event => self.news.push(event),
        }
        debug_assert!(self.news.len() <= 5, "one of each kind");
    }

    fn pop(&mut self) -> Option<PeerEvent<M>> {
        if !self.news.is_empty() {
            return Some(self.news.remove(0));
        }
        let Some(kept) = self.messages.pop_front() else {
            return self.last.pop_front();
        };
        debug_assert!(self.weight >= kept.weight, "the sum of all weights");
        self.weight -= kept.weight;
        Some(PeerEvent::Message(kept.message))
    }

    fn is_empty(&self) -> bool {
        self.news.is_empty() && self.messages.is_empty() && self.last.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "how a test fails")]
mod tests;
