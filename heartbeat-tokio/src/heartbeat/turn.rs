//! The turns of a connection.
//!
//! This module decides the order in which a connection is served: the monitor's frames and
//! events, frames that were read, the verdict, the terminal event, reading, writing, and the
//! timer last. The clock is compared with the deadline before the timer is polled, and the
//! peer is judged after everything that had arrived was read. The module has no state.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use futures_core::{FusedStream, Stream};
use heartbeat_core::Event;
use tokio::task::yield_now;

use super::{Heartbeat, READS_AT_ONCE};
use crate::{PeerEvent, transport::Transport};

/// The result of one turn.
enum Turn<M> {
    /// An event to hand out.
    Give(PeerEvent<M>),
    /// Bytes were read, and no frame was taken out yet.
    Read,
    /// The state has changed, and another turn follows.
    Again,
    /// There is nothing to do until the stream or the timer wakes the task.
    Wait,
    /// Every event was handed out.
    Done,
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// The most frequent case: a message is ready, and nothing else is due.
    #[inline(always)] // so that the message is moved once
    pub(crate) fn next_message(&mut self) -> Option<C::Message> {
        if !self.has_unseen() || !self.judge.is_quiet() || self.has_events() {
            return None;
        }
        let message = self.transport.next_message()?;
        self.note_dialogue();
        self.note_message(message)
    }

    /// The next event from any source. The rare cases are in a large function that isn't
    /// inlined, so that the compiler can inline the frequent one.
    #[inline(never)]
    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<C::Message>>> {
        if self.is_overdue() {
            self.take_in(cx, Self::is_overdue);
        }
        if self.has_events() {
            return Poll::Ready(self.take_from_inbox());
        }
        let event = self.poll_event(cx);
        if self.has_events() {
            if let Poll::Ready(Some(event)) = event {
                self.keep(event);
            }
            return Poll::Ready(self.take_from_inbox());
        }
        match &event {
            Poll::Ready(Some(event)) => self.inbox.note_taken(event),
            Poll::Ready(None) => {}
            Poll::Pending => self.wakers.note_reader(cx),
        }
        event
    }

    /// The next event, straight from the connection.
    pub(super) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<PeerEvent<C::Message>>> {
        let is_refused = self.budget.is_refused();
        let event = self.poll_turns(cx);
        if event.is_pending() {
            if self.budget.end_turn() {
                self.adapt_net();
            }
            if is_refused {
                // Other futures of this task used up its budget, so nothing could be read
                // or written. The runtime's deferred wake-up bypasses this waker, so a
                // task that polls many connections would poll all others in vain.
                cx.waker().wake_by_ref();
            }
        }
        event
    }

    #[inline]
    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<C::Message>>> {
        for _ in 0..READS_AT_ONCE {
            // Due work is done before the next message is handed out.
            if !self.is_overdue() && self.budget.poll_charge_frames(cx).is_pending() {
                break;
            }
            // Usually there is nothing to do until bytes arrive, and they are a message.
            if self.is_at_rest() {
                if self.poll_read(cx).is_ready() {
                    if let Some(message) = self.next_message() {
                        self.write_before_giving(cx);
                        return Poll::Ready(Some(PeerEvent::Message(message)));
                    }
                } else if self.wait(cx) {
                    return Poll::Pending;
                }
            }
            loop {
                match self.turn(cx) {
                    Turn::Give(event) => return Poll::Ready(Some(event)),
                    Turn::Read => break,
                    Turn::Again => {}
                    Turn::Wait => return Poll::Pending,
                    Turn::Done => return Poll::Ready(None),
                }
            }
        }
        self.yield_to_others(cx);
        Poll::Pending
    }

    /// Whether there is nothing to do until bytes arrive.
    #[inline(always)]
    fn is_at_rest(&self) -> bool {
        self.judge.is_quiet()
            && self.sending.is_idle()
            && self.receiving.is_idle()
            && self.ending.is_open()
            && !self.inbox.is_paused()
    }

    /// A message is about to be handed out, and the application may be busy with it for long.
    /// Answers to earlier frames are written first.
    #[inline]
    fn write_before_giving(&mut self, cx: &mut Context<'_>) {
        if self.has_outputs() {
            self.write_outputs(cx);
        }
    }

    /// One turn, with all cases.
    #[inline(never)]
    fn turn(&mut self, cx: &mut Context<'_>) -> Turn<C::Message> {
        if self.has_finished() {
            return Turn::Done;
        }
        if self.has_outputs() {
            self.write_outputs(cx);
            if let Some(event) = self.next_event() {
                return Turn::Give(event);
            }
        }
        if self.is_time_to_judge() {
            self.read_before_judging(cx);
            return Turn::Again;
        }
        if self.has_unseen() {
            if let Some(message) = self.take_message() {
                self.write_before_giving(cx);
                return Turn::Give(PeerEvent::Message(message));
            }
            // There may always be more to read.
            if self.has_outputs() || self.is_time_to_judge() {
                return Turn::Again;
            }
        }
        if self.judge_if_due(cx) {
            return Turn::Again;
        }
        if self.has_ended() {
            return self.turn_to_the_end(cx);
        }
        if !self.inbox.is_paused() && self.poll_read(cx).is_ready() {
            return Turn::Read;
        }
        if self.sending.is_due() {
            self.write_regardless(cx);
        }
        self.end_after_reading(cx);
        if self.has_unseen() {
            return Turn::Read;
        }
        match !self.has_outputs() && self.wait(cx) {
            true => Turn::Wait,
            false => Turn::Again,
        }
    }

    /// The connection has ended. The terminal event follows when parting is done.
    fn turn_to_the_end(&mut self, cx: &mut Context<'_>) -> Turn<C::Message> {
        if self.poll_part(cx).is_pending() {
            return Turn::Wait;
        }
        if C::CLOSES {
            self.stream = None;
        }
        match self.ending.tell() {
            Some(ended) => Turn::Give(ended.into()),
            None => Turn::Done,
        }
    }

    /// The monitor's next event. A terminal one is kept until the messages that arrived before
    /// it are handed out.
    pub(super) fn next_event(&mut self) -> Option<PeerEvent<C::Message>> {
        while let Some(event) = self.judge.next_event(&self.net, self.stream.as_ref()) {
            match (event, &self.stream) {
                (Event::Closed { .. } | Event::Dead(_), _) => {
                    self.note_end(event);
                    continue;
                }
                (Event::Connected { .. }, _) => self.follow_timings(),
                (Event::Beat { .. }, stream) => {
                    if let (Some(stream), 0) = (stream, self.transport.unread()) {
                        self.net.acknowledge(stream);
                    }
                    if self.judge.is_quiet_about_beats() {
                        continue;
                    }
                }
                (Event::Suspect { .. }, Some(stream)) => self.net.note_suspicion(stream),
                (Event::Recovered { .. }, Some(stream)) => self.net.forget_suspicion(stream),
                _ => {}
            }
            if let Some(event) = PeerEvent::from_core(event) {
                return Some(event);
            }
        }
        None
    }

    /// The peer has announced its timings.
    fn follow_timings(&mut self) {
        if self.budget.note_timings() {
            self.adapt_net();
        }
    }

    /// The safety net follows the negotiated timings.
    pub(super) fn adapt_net(&mut self) {
        if let Some(stream) = &self.stream {
            let monitor = self.judge.monitor();
            let interval = monitor.status().interval;
            self.net.adapt(stream, monitor.config(), interval);
        }
    }

    /// There was always more to do. Queued bytes leave all the same.
    #[cold]
    pub(super) fn yield_to_others(&mut self, cx: &mut Context<'_>) {
        if self.sending.is_due() {
            self.write_regardless(cx);
        }
        if !self.has_ended() {
            // If that has passed, this task is polled again anyway.
            self.arm(cx);
        }
        // Wakes this task when all others had a turn.
        let _ = pin!(yield_now()).poll(cx);
    }

    /// Whether bytes are buffered that may be a message.
    pub(crate) fn has_unread(&self) -> bool {
        self.transport.unread() > 0
    }

    /// Serves the connection while a sender waits; events are queued for the reader.
    pub(super) fn serve(&mut self, cx: &mut Context<'_>) {
        self.take_in(cx, |_| true);
        let has_events = self.has_events();
        self.wakers.hand_over(has_events, cx);
    }

    /// Messages wait that were read, and the timer has fired: due work is done before the next
    /// message is handed out.
    #[inline]
    pub(crate) fn is_overdue(&self) -> bool {
        self.judge.has_fired()
            && !self.has_ended()
            && (self.has_events() || self.receiving.has_unseen())
    }
}

impl<S, C> Stream for Heartbeat<S, C>
where
    C: Transport<S>,
{
    type Item = PeerEvent<C::Message>;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        match this.next_message() {
            Some(message) => {
                this.write_before_giving(cx);
                Poll::Ready(Some(PeerEvent::Message(message)))
            }
            None => this.poll_any(cx),
        }
    }
}

impl<S, C> FusedStream for Heartbeat<S, C>
where
    C: Transport<S>,
{
    fn is_terminated(&self) -> bool {
        self.has_finished() && !self.has_events()
    }
}
