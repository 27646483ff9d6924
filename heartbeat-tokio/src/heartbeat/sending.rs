//! Sending to the peer.
//!
//! This module decides when the transport writes and how much, and tells the monitor what
//! has left. It touches no field of another module. The transport decides the order of
//! frames. Waiting for events never waits for a write.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
};

use heartbeat_core::{Control, Instant, Monitor};
use tokio::task::{coop, unconstrained};

use super::Heartbeat;
use crate::{
    SendError,
    transport::{Scope, Transport},
};

/// The state of our direction.
#[derive(Debug)]
pub(super) struct Sending {
    flush: Flush,
    owed: Owed,
    /// When the stream last took bytes, if it doesn't take the queued ones.
    blocked_since: Option<Instant>,
    /// A message of ours was accepted.
    has_sent: bool,
    /// No more messages are accepted: a Fin or a goodbye has left or will.
    is_finished: bool,
}

/// Whether queued messages should be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// Not until a flush is requested: several messages leave together.
    Unwanted,
    Wanted,
    /// The stream took as much as it could in this poll.
    Tried,
}

/// The input that the monitor gets when everything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Nothing,
    /// Progress: it was told that a write is blocked.
    Unblocked,
    /// Its frames have left: the transport has them.
    Flushed,
}

impl Sending {
    pub(super) const fn new() -> Self {
        Self {
            flush: Flush::Unwanted,
            owed: Owed::Nothing,
            blocked_since: None,
            has_sent: false,
            is_finished: false,
        }
    }

    /// Whether nothing waits to be written.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.flush == Flush::Unwanted && self.owed != Owed::Flushed
    }

    /// Whether bytes wait that weren't offered to the stream in this poll.
    pub(super) fn is_due(&self) -> bool {
        self.flush != Flush::Tried && !self.is_idle()
    }

    /// Everything is to be written.
    #[inline]
    pub(super) const fn want_flush(&mut self) {
        self.flush = Flush::Wanted;
    }

    /// If everything is to be written, sets whether the stream took as much as it could.
    fn set_tried(&mut self, is_tried: bool) {
        self.flush = match (self.flush, is_tried) {
            (Flush::Unwanted, _) => Flush::Unwanted,
            (_, true) => Flush::Tried,
            (_, false) => Flush::Wanted,
        };
    }

    /// No more messages are accepted. Says whether that is news.
    pub(super) const fn finish(&mut self) -> bool {
        let is_new = !self.is_finished;
        if is_new {
            self.is_finished = true;
            self.flush = Flush::Wanted;
        }
        is_new
    }

    pub(super) const fn is_finished(&self) -> bool {
        self.is_finished
    }

    pub(super) const fn has_sent(&self) -> bool {
        self.has_sent
    }

    pub(super) const fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// The stream took everything, or nothing more is written.
    pub(super) const fn note_unblocked(&mut self) {
        self.blocked_since = None;
    }
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    // ---- messages --------------------------------------------------------

    /// Queues a message, to be written at the next poll.
    pub(crate) fn post(&mut self, message: C::Message) -> Result<(), SendError> {
        self.queue(message)?;
        self.sending.want_flush();
        Ok(())
    }

    /// Queues a message.
    #[inline]
    pub(super) fn queue(&mut self, message: C::Message) -> Result<(), SendError> {
        self.check_sending()?;
        // Our Hello comes before any message.
        self.queue_outputs();
        let queued = self.transport.push(message);
        match queued {
            Ok(()) => self.sending.has_sent = true,
            // If the codec panicked, writing fails, and that is the end.
            Err(SendError::Unencodable(_)) => {
                self.sending.want_flush();
                self.wakers.wake_reader();
            }
            Err(_) => {}
        }
        self.note_dialogue();
        queued
    }

    /// Requests that everything in the transport is written at the next poll.
    pub(crate) const fn flush_soon(&mut self) {
        self.sending.want_flush();
    }

    /// Whether everything was written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.transport.unwritten() == 0 && self.sending.flush == Flush::Unwanted
    }

    /// Whether a message may be queued.
    pub(crate) fn has_room(&self) -> bool {
        self.transport.has_room()
    }

    /// No more messages are accepted. Says whether that is news.
    pub(crate) fn finish_sending(&mut self) -> Result<bool, SendError> {
        if !C::HELLO && !C::HALF_CLOSE {
            return Err(SendError::Unfinishable);
        }
        let is_new = self.sending.finish();
        if is_new {
            self.judge.tell(Monitor::finish);
            self.wakers.wake_reader();
        }
        Ok(is_new)
    }

    /// Whether everything was written, the Fin included.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_flushed()
            && !self.judge.monitor().has_transmit()
            && self.sending.owed != Owed::Flushed
    }

    // ---- control frames --------------------------------------------------

    /// Whether the monitor has an event, or a frame that can be queued now.
    pub(super) fn has_outputs(&self) -> bool {
        self.judge.is_due() && (self.judge.monitor().has_event() || self.has_control())
    }

    fn has_control(&self) -> bool {
        let has_frame = match self.transport.has_messages() {
            true => self.judge.monitor().has_transmit_ahead(),
            false => self.judge.monitor().has_transmit(),
        };
        has_frame && !self.transport.control_unwritten()
    }

    /// Writes the control frames that the monitor wants sent.
    pub(super) fn write_outputs(&mut self, cx: &mut Context<'_>) {
        if self.judge.monitor().has_ended() {
            return self.write_last_word(cx);
        }
        self.queue_outputs();
        if self.sending.owed == Owed::Flushed {
            self.write_regardless(cx);
        }
    }

    /// Writes, even if tokio's cooperative budget is used up: a peer that floods uses it up in
    /// each turn. A `send` that goes on without a pause is refused by the budget first.
    pub(super) fn write_regardless(&mut self, cx: &mut Context<'_>) {
        if coop::has_budget_remaining() {
            return self.write(cx);
        }
        let write = poll_fn(|cx| {
            self.write(cx);
            Poll::Ready(())
        });
        let _ = pin!(unconstrained(write)).poll(cx);
    }

    #[inline]
    fn queue_outputs(&mut self) {
        if self.judge.is_due() && self.has_control() {
            self.queue_control();
        }
    }

    fn queue_control(&mut self) {
        // The last word has an order of its own.
        if self.judge.monitor().has_ended() {
            return;
        }
        loop {
            let is_settled = !self.judge.monitor().has_unanswered();
            let Some(control) = self.judge.next_control(self.transport.has_messages()) else {
                return;
            };
            if let (Control::Ping(_), false, Some(stream)) = (control, C::HELLO, &self.stream) {
                let answers = self.judge.monitor().status().pongs;
                let is_queued = self.transport.unwritten() > 0;
                self.net
                    .note_question(stream, is_settled, is_queued, answers);
            }
            match control {
                Control::Goodbye(code) => {
                    let detail = self.ending.take_farewell();
                    self.transport.push_goodbye(code, detail);
                }
                control => self.transport.push_control(control),
            }
            self.sending.owed = Owed::Flushed;
            // Its answer's round trip is measured.
            self.settle_arrivals();
        }
    }

    // ---- writing ---------------------------------------------------------

    /// Writes queued bytes, as far as the stream takes them.
    #[inline]
    pub(crate) fn write_now(&mut self, cx: &mut Context<'_>) {
        self.sending.want_flush();
        self.queue_outputs();
        self.write(cx);
    }

    /// Writes as much as the stream takes, and tells the monitor.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) {
        if !self.ending.is_open() {
            return;
        }
        let Some(stream) = &mut self.stream else {
            return;
        };
        let scope = match self.sending.flush {
            Flush::Unwanted => Scope::Control,
            Flush::Wanted | Flush::Tried => Scope::All,
        };
        let had_room = self.transport.has_room();
        let (taken, result) = self.transport.poll_write(stream, cx, scope);
        if taken > 0 && self.config().speak_within().is_some() {
            self.judge.tell(Monitor::handle_sent);
        }
        match result {
            Poll::Ready(Ok(())) => {
                self.sending.note_unblocked();
                if scope == Scope::All {
                    self.sending.flush = Flush::Unwanted;
                    self.wakers.wake_writer();
                }
                self.note_flushed();
            }
            Poll::Ready(Err(error)) => {
                self.ending.fail_writing(error);
                self.read_the_rest();
            }
            Poll::Pending => self.note_pending(taken, cx),
        }
        if !had_room && self.has_room() {
            self.wakers.wake_writer();
        }
    }

    /// All in scope has left.
    fn note_flushed(&mut self) {
        if self.sending.owed != Owed::Nothing {
            if let (Owed::Flushed, false, Some(stream)) =
                (self.sending.owed, C::HELLO, &self.stream)
            {
                self.net.note_asked(stream);
            }
            self.sending.owed = Owed::Nothing;
            self.judge.tell(Monitor::handle_flushed);
        }
    }

    /// Not everything was written.
    fn note_pending(&mut self, taken: usize, cx: &mut Context<'_>) {
        // If not, the stream may take more: this task has had its turn.
        let is_blocked = coop::has_budget_remaining() && !self.transport.is_resting();
        if taken > 0 || is_blocked && self.sending.blocked_since.is_none() {
            self.sending.blocked_since = is_blocked.then(|| self.judge.now());
        }
        if taken == 0 && !is_blocked {
            return;
        }
        if self.judge.monitor().is_idle() && self.config().write_stall().is_none() {
            // No ping of ours waits, and writes have no limit.
            return;
        }
        if taken > 0 {
            self.judge.tell(Monitor::handle_progress);
        }
        let only_messages_wait = !self.transport.control_unwritten();
        if let (true, Owed::Flushed, Some(stream)) =
            (only_messages_wait, self.sending.owed, &mut self.stream)
        {
            // The control frames have left, unless the stream has a buffer of its own.
            let (_, flushed) = self.transport.poll_write(stream, cx, Scope::Control);
            if let Poll::Ready(Ok(())) = flushed {
                self.note_flushed();
            }
        }
        if is_blocked {
            self.judge.tell(Monitor::handle_blocked);
            if self.sending.owed == Owed::Nothing {
                self.sending.owed = Owed::Unblocked;
            }
        }
    }

    // ---- waiting ---------------------------------------------------------

    /// Queues the Fin behind everything, and waits until it has left.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.finish_sending()?;
        self.poll_write_until(cx, Self::is_finished)
    }

    /// Writes until `enough`, and serves the connection meanwhile.
    #[inline]
    pub(super) fn poll_write_until(
        &mut self,
        cx: &mut Context<'_>,
        enough: impl Fn(&Self) -> bool,
    ) -> Poll<Result<(), SendError>> {
        self.wakers.set_writer(None);
        match enough(self) {
            true => Poll::Ready(self.check_open()),
            false => self.poll_write_more(cx, enough),
        }
    }

    fn poll_write_more(
        &mut self,
        cx: &mut Context<'_>,
        enough: impl Fn(&Self) -> bool,
    ) -> Poll<Result<(), SendError>> {
        if !self.has_ended() {
            self.write_now(cx);
            if !enough(self) {
                self.sending.set_tried(true);
                self.serve(cx);
                self.sending.set_tried(false);
                if !self.has_ended() && !enough(self) {
                    self.wakers.set_writer(Some(cx.waker()));
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(self.check_open())
    }
}
