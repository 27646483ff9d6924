//! Events that are kept for an application that is busy.
//!
//! This module decides when events are kept, and tells the monitor and the safety net when
//! reading pauses and resumes. It has no state: [`Inbox`] decides the order of events, and
//! what a full inbox means.

use std::task::{Context, Poll};

use heartbeat_core::{Instant, Monitor};

use super::{Heartbeat, judge::Judge};
use crate::{
    PeerEvent,
    inbox::{Excess, Inbox, READ_AHEAD},
    transport::Transport,
};

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Whether something waits in the inbox.
    #[inline]
    pub(crate) fn has_events(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Serves the connection and queues its events while `goes_on` holds.
    pub(crate) fn take_in(&mut self, cx: &mut Context<'_>, goes_on: impl Fn(&Self) -> bool) {
        // After `READ_AHEAD` discarded bytes other tasks have a turn.
        let mut thrown_away = 0;
        while goes_on(self) {
            if thrown_away >= READ_AHEAD {
                return self.yield_to_others(cx);
            }
            self.pause_if_full();
            let Poll::Ready(Some(event)) = self.poll_event(cx) else {
                return;
            };
            thrown_away += self.keep(event);
        }
    }

    /// Queues an event behind the others, or discards it. Returns the number of discarded bytes.
    pub(super) fn keep(&mut self, event: PeerEvent<C::Message>) -> usize {
        let is_message = matches!(event, PeerEvent::Message(_));
        let weight = if is_message {
            self.transport.weight()
        } else {
            0
        };
        if self.inbox.keeps(&event) {
            let came = self.arrivals.last_came(self.judge.config());
            // Or reading has resumed since.
            let since = self
                .inbox
                .since(came.max(self.judge.monitor().last_heard()));
            self.inbox.push(event, weight, since);
        } else if is_message {
            self.judge.tell(|monitor, _| monitor.handle_discarded());
            return size_of::<PeerEvent<C::Message>>() + weight;
        }
        0
    }

    /// Keeps a message behind the pending events, which it may have caused.
    #[cold]
    pub(super) fn keep_behind_events(&mut self, message: C::Message) {
        while let Some(event) = self.next_event() {
            self.keep(event);
        }
        self.keep(PeerEvent::Message(message));
    }

    /// Whether reading is paused because the inbox is full.
    pub(crate) const fn is_paused(&self) -> bool {
        self.inbox.is_paused()
    }

    /// The next event out of the inbox. Reading resumes when it is empty.
    pub(crate) fn take_from_inbox(&mut self) -> Option<PeerEvent<C::Message>> {
        let event = self.inbox.pop();
        if self.inbox.is_empty() {
            self.go_on(None);
        }
        event
    }

    /// The receiver is gone: returns the inbox, and discards later events.
    pub(crate) fn discard(&mut self) -> Inbox<C::Message> {
        let waiting = self.inbox.take();
        if waiting.has_messages() {
            self.judge.tell(|monitor, _| monitor.handle_discarded());
        }
        self.go_on(Some(Excess::Unheard));
        waiting
    }

    /// Nothing can follow what has arrived: all of it is kept.
    pub(super) fn read_the_rest(&mut self) {
        self.go_on(Some(Excess::Kept));
    }

    /// From now on messages for which the inbox has no room are discarded.
    pub(super) fn discard_excess(&mut self) {
        self.go_on(Some(Excess::Discarded));
    }

    fn pause_if_full(&mut self) {
        let judge = &self.judge;
        if self.inbox.pause_if_full(|| room_until(judge)) {
            self.judge.note_news();
            self.settle_arrivals();
            self.judge.tell(Monitor::handle_paused);
            if let Some(stream) = &self.stream {
                self.net.begin_looking(stream, self.judge.now());
            }
            self.observe_state();
        }
    }

    fn go_on(&mut self, excess: Option<Excess>) {
        if self.inbox.go_on(excess) {
            self.judge.note_news();
            if !self.receiving.is_read_out() {
                self.judge.tell(Monitor::handle_resumed);
                self.observe_state();
                self.count_incomplete();
            }
            self.judge.probe_again();
            self.net.end_looking();
        }
    }

    /// We leave: a full inbox can't stop reading forever.
    pub(super) fn limit_pause(&mut self) {
        if let Some(until) = room_until(&self.judge) {
            self.inbox.limit_pause(until);
        }
    }

    /// Stops waiting for our application.
    pub(super) fn judge_patience(&mut self) {
        let now = self.judge.now();
        let config = self.judge.config();
        let ends = self.inbox.wait_ends(config).filter(|&end| end <= now);
        if let Some(end) = ends {
            if now.saturating_duration_since(end) > config.stall_tolerance() {
                // We slept, and so did our application.
                self.inbox.limit_from(now);
            } else {
                self.judge.tell_at(now, Monitor::handle_not_reading);
            }
        }
        if self.inbox.room_until().is_some_and(|until| until <= now) {
            self.discard_excess();
        }
    }
}

/// The time until which a full inbox may pause reading, if it does so now. If we leave, this
/// is half of the time for which the peer waits for our end.
fn room_until(judge: &Judge) -> Option<Instant> {
    judge.monitor().leaves_until()?;
    let own = judge.config().timeout() * judge.config().max_missed();
    let peer = judge.monitor().status().peer;
    let patience = peer.map(|hello| hello.detection_time.saturating_sub(hello.interval));
    Some(judge.now() + patience.unwrap_or(own) / 2)
}
