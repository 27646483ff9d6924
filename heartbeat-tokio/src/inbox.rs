//! Events that wait for an application that doesn't read at the moment.
//!
//! This module decides in which order they are handed out, which of them replace an
//! earlier one, and when messages are too many to go on reading. Only messages count
//! for that: everything else has a bounded number of places.

use std::{collections::VecDeque, mem::discriminant};

use heartbeat_core::Instant;

use crate::PeerEvent;

/// Messages of this many bytes are taken in for later. Beyond that nothing is read
/// until the application does.
pub(crate) const READ_AHEAD: usize = 256 * 1024;

/// Events in the order in which they are handed out.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    queue: Option<Box<Queue<M>>>,
    /// The application took a Suspect, and no Recovered since.
    suspects: bool,
}

/// There is at least one event in it.
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
    /// Since when it waits, where that is limited.
    since: Option<Instant>,
}

impl<M> Inbox<M> {
    pub(crate) const fn new() -> Self {
        Self {
            queue: None,
            suspects: false,
        }
    }

    /// Adds an event. Its message keeps `message` bytes of memory besides itself, and
    /// waits from `since` on.
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

    /// The application took this, from here or past it.
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

    /// Since when the oldest message waits, where that is limited.
    #[inline]
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.queue.as_ref()?.messages.front()?.since
    }

    /// From `now` on it is limited, or counted anew, how long messages wait.
    pub(crate) fn wait_from(&mut self, now: Instant) {
        for kept in self.queue.iter_mut().flat_map(|queue| &mut queue.messages) {
            kept.since = Some(now);
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    pub(crate) fn has_messages(&self) -> bool {
        let queue = self.queue.as_ref();
        queue.is_some_and(|queue| !queue.messages.is_empty())
    }

    /// Whether messages are too many to go on reading.
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
        // What has no bytes of its own isn't free either.
        let weight = size_of::<Kept<M>>() + bytes;
        self.weight += weight;
        self.messages.push_back(Kept {
            message,
            weight,
            since,
        });
    }

    /// Keeps the latest of each kind. A suspicion that the application hasn't heard of is
    /// over when the peer has recovered, and then there is nothing to tell, unless it
    /// `suspects` the peer for an earlier beat.
    fn note(&mut self, event: PeerEvent<M>, suspects: bool) {
        if let PeerEvent::Recovered { .. } = event {
            let before = self.news.len();
            self.news
                .retain(|waiting| !matches!(waiting, PeerEvent::Suspect { .. }));
            let ended = self.news.iter();
            let mut ended = ended.filter(|waiting| matches!(waiting, PeerEvent::Recovered { .. }));
            // One that waits ends the suspicion of which the application has heard.
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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Cause, Config, Death};

    type Event = PeerEvent<u8>;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn connected(instance: u8) -> Event {
        let peer = Config::default().hello([instance; 8]);
        Event::Connected { peer }
    }

    const fn beat(millis: u64) -> Event {
        Event::Beat { rtt: ms(millis) }
    }

    const fn stall(millis: u64) -> Event {
        Event::LocalStall { late: ms(millis) }
    }

    const fn suspect(missed: u32) -> Event {
        Event::Suspect {
            missed,
            silent_for: ms(1),
        }
    }

    const fn recovered(millis: u64) -> Event {
        Event::Recovered {
            silent_for: ms(millis),
        }
    }

    fn dead() -> Event {
        Event::Dead(Death::new(Cause::Silent))
    }

    fn filled(events: impl IntoIterator<Item = Event>) -> Inbox<u8> {
        let mut inbox = Inbox::new();
        for event in events {
            inbox.push(event, 0, None);
        }
        inbox
    }

    fn order(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
        filled(events).into_events().collect()
    }

    #[test]
    fn of_each_news_the_last_waits_ahead_of_messages_in_the_order_of_their_last_occurrence() {
        let message = Event::Message;
        let events = [
            message(1),
            beat(1),
            stall(1),
            message(2),
            recovered(1),
            suspect(1),
            beat(2),
            message(3),
            stall(2),
            suspect(2),
        ];
        let expected = [recovered(1), beat(2), stall(2), suspect(2)];
        let expected = [&expected[..], &[message(1), message(2), message(3)]].concat();
        assert_eq!(order(events), expected);
    }

    #[test]
    fn connected_comes_first_and_a_later_one_replaces_one_that_was_not_taken() {
        let message = Event::Message;
        let events = [message(1), beat(1), connected(1), message(2), connected(2)];
        let expected = [connected(2), beat(1), message(1), message(2)];
        assert_eq!(order(events), expected);

        let mut inbox = filled([message(1), connected(1), message(2)]);
        assert_eq!(inbox.pop(), Some(connected(1)));
        inbox.push(connected(2), 0, None);
        let rest: Vec<_> = inbox.into_events().collect();
        assert_eq!(rest, [connected(2), message(1), message(2)]);
    }

    #[test]
    fn a_suspicion_that_nobody_heard_of_vanishes_with_its_recovery() {
        assert_eq!(order([suspect(1), suspect(2), recovered(1)]), []);
        // One that was heard of is ended.
        let mut inbox = filled([suspect(1)]);
        assert_eq!(inbox.pop(), Some(suspect(1)));
        for event in [recovered(1), suspect(2), suspect(3), recovered(2)] {
            inbox.push(event, 0, None);
        }
        assert_eq!(inbox.pop(), Some(recovered(1)));
        assert!(inbox.is_empty());

        // It may have been heard of for an earlier beat.
        inbox.push(suspect(1), 0, None);
        assert_eq!(inbox.pop(), Some(suspect(1)));
        inbox.push(suspect(2), 0, None);
        inbox.push(recovered(1), 0, None);
        assert_eq!(inbox.pop(), Some(recovered(1)));
        assert!(inbox.is_empty());
    }

    #[test]
    fn finished_and_the_terminal_event_come_behind_all_messages() {
        let message = Event::Message;
        let events = [message(1), message(2), Event::Finished, beat(1), dead()];
        let expected = [beat(1), message(1), message(2), Event::Finished, dead()];
        assert_eq!(order(events), expected);
    }

    #[test]
    fn only_messages_fill_it() {
        let news = (0..100_000).flat_map(|nth| [beat(nth), stall(nth), suspect(1), connected(1)]);
        let mut inbox = filled(news);
        assert!(!inbox.is_full());
        let mut messages = 0;
        while !inbox.is_full() {
            inbox.push(Event::Message(1), 1000, None);
            messages += 1;
        }
        assert!(
            (200..=READ_AHEAD / 1000 + 1).contains(&messages),
            "{messages}"
        );
        for _ in 0..4 {
            assert!(!matches!(inbox.pop(), Some(Event::Message(_))));
            assert!(inbox.is_full());
        }
        inbox.pop();
        assert!(!inbox.is_full());
        assert_eq!(inbox.into_events().count(), messages - 1);
    }

    #[test]
    fn the_oldest_message_says_since_when_they_wait() {
        let at = |micros| Some(Instant::from_micros(micros));
        let mut inbox = Inbox::new();
        inbox.push(beat(1), 0, at(1));
        assert_eq!(inbox.waits_since(), None);
        inbox.push(Event::Message(1), 0, at(2));
        inbox.push(Event::Message(2), 0, at(3));
        assert_eq!(inbox.waits_since(), at(2));
        inbox.pop().unwrap();
        inbox.pop().unwrap();
        assert_eq!(inbox.waits_since(), at(3));
        inbox.wait_from(Instant::from_micros(9));
        assert_eq!(inbox.waits_since(), at(9));
    }
}
