//! What goes to the peer.
//!
//! This module decides when the transport writes and how much of it, and tells the
//! monitor what has left. In which order frames leave is the transport's to say. No
//! write is awaited by whoever waits for events.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use heartbeat_core::Control;
use tokio::task::coop;

use super::{Heartbeat, Keep, flags::Flag};
use crate::{
    SendError, safety_net,
    transport::{Scope, Transport},
};

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Queues a message, to be written as soon as somebody polls.
    pub(crate) fn post(&mut self, message: C::Message) -> Result<(), SendError> {
        self.queue(message)?;
        self.flags.raise(Flag::FlushWanted);
        Ok(())
    }

    /// Queues a message.
    #[inline]
    pub(super) fn queue(&mut self, message: C::Message) -> Result<(), SendError> {
        self.check_sending()?;
        if self.flags.has(Flag::Outputs) {
            // Our Hello comes before any message.
            self.queue_outputs();
        }
        let queued = self.transport.push(message);
        match queued {
            Ok(()) => self.flags.raise(Flag::Sent),
            // If the codec panicked, writing fails, and that is the end.
            Err(SendError::Unencodable(_)) => {
                self.flags.raise(Flag::FlushWanted);
                self.outputs_due();
            }
            Err(_) => {}
        }
        queued
    }

    /// The bytes that were queued and not written.
    pub(crate) fn queued(&self) -> usize {
        self.transport.unwritten()
    }

    /// Whether everything was written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.transport.unwritten() == 0 && !self.flags.has(Flag::FlushWanted)
    }

    /// Whether a message may be queued.
    pub(crate) fn has_room(&self) -> bool {
        self.transport.has_room()
    }

    /// Writes what is queued, as far as the stream takes it.
    #[inline]
    pub(crate) fn write_now(&mut self, cx: &mut Context<'_>) {
        self.flags.raise(Flag::FlushWanted);
        if self.flags.has(Flag::Outputs) {
            self.queue_outputs();
        }
        self.write(cx);
    }

    /// Writes the control frames that the monitor wants sent.
    pub(super) fn write_outputs(&mut self, cx: &mut Context<'_>) {
        if self.monitor.has_ended() {
            return self.write_last_word(cx);
        }
        self.queue_outputs();
        if self.flags.has(Flag::Flushing) {
            self.write(cx);
        }
    }

    /// The connection has ended. The peer gets our last word, if it is owed one.
    fn write_last_word(&mut self, cx: &mut Context<'_>) {
        while let Some(control) = self.monitor.poll_transmit() {
            self.observe.sent(&control);
            match control {
                Control::Goodbye(code) if code.is_verdict() => self.tell_verdict(code, cx),
                Control::Goodbye(code) => {
                    // The answer takes the place of what wasn't begun.
                    let queued = self.transport.unwritten();
                    self.transport.give_up();
                    let given_up = queued.saturating_sub(self.transport.unwritten());
                    self.ending().given_up = given_up;
                    self.ending().answer = Some(code);
                }
                control => self.transport.push_control(control),
            }
        }
    }

    fn queue_outputs(&mut self) {
        // One batch at a time, so that what hasn't left can't pile up. The last word has
        // an order of its own.
        if !self.transport.control_unwritten() && !self.monitor.has_ended() {
            while let Some(control) = self.next_control() {
                self.observe.sent(&control);
                match control {
                    Control::Goodbye(code) => {
                        let detail = std::mem::take(&mut self.ending().farewell);
                        self.transport.push_goodbye(code, detail);
                    }
                    control => self.transport.push_control(control),
                }
                self.flags.raise(Flag::Flushing);
                // Its answer's round trip is measured.
                self.settle_arrivals();
            }
        }
    }

    /// The next frame that the monitor wants sent now: a Fin and a goodbye wait for
    /// the messages.
    fn next_control(&mut self) -> Option<Control> {
        match self.transport.has_messages() {
            true => self.monitor.poll_transmit_ahead(),
            false => self.monitor.poll_transmit(),
        }
    }

    /// Whether the monitor has a frame to send that can be queued now.
    pub(super) fn has_control(&self) -> bool {
        let has_frame = match self.transport.has_messages() {
            true => self.monitor.has_transmit_ahead(),
            false => self.monitor.has_transmit(),
        };
        has_frame && !self.transport.control_unwritten()
    }

    /// Writes as much as the stream takes, and tells the monitor.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) {
        if self.has_ended() || self.write_end().is_some() {
            return;
        }
        let Some(stream) = &mut self.stream else {
            return;
        };
        let scope = match self.flags.has(Flag::FlushWanted) {
            true => Scope::All,
            false => Scope::Control,
        };
        let waits_for_room = self.writer.is_some() && !self.transport.has_room();
        let (taken, result) = self.transport.poll_write(stream, cx, scope);
        match result {
            Poll::Ready(Ok(())) => {
                self.blocked_since = None;
                if scope == Scope::All {
                    self.flags.clear(Flag::FlushWanted);
                    self.wake_writer();
                }
                if self.flags.has(Flag::Flushing) || self.flags.has(Flag::Blocked) {
                    self.flushed();
                } else if self.flags.has(Flag::Finishing) {
                    self.note_outputs(); // what comes behind the messages
                }
            }
            Poll::Ready(Err(error)) => {
                self.flags.raise(Flag::Ending);
                let ending = self.ending();
                ending.write_end = Some(safety_net::end_of(&error));
                ending.io_error = Some(Arc::new(error));
                // Whatever arrived before is read first.
                self.resume();
            }
            Poll::Pending => self.write_blocked(taken, cx),
        }
        if waits_for_room && self.has_room() {
            self.wake_writer();
        }
    }

    fn write_blocked(&mut self, taken: usize, cx: &mut Context<'_>) {
        // If not, the stream may well take more: this task has had its turn.
        let blocked = coop::has_budget_remaining() && !self.transport.is_resting();
        if taken > 0 || blocked && self.blocked_since.is_none() {
            self.blocked_since = blocked.then(|| self.clock.now());
        }
        if taken == 0 && !blocked {
            return;
        }
        if self.monitor.is_idle() && self.config().write_stall().is_none() {
            // No ping of ours waits, and nobody limits how long writes take.
            return;
        }
        let now = self.clock.now();
        if taken > 0 {
            self.monitor.handle_progress(now);
        }
        let only_messages_wait = !self.transport.control_unwritten();
        if let (true, Some(stream)) = (only_messages_wait, &mut self.stream) {
            // The control frames have left, unless the stream has a buffer of
            // its own.
            if self.flags.has(Flag::Flushing) {
                let (_, flushed) = self.transport.poll_write(stream, cx, Scope::Control);
                if let Poll::Ready(Ok(())) = flushed {
                    self.flushed();
                }
            }
        }
        if blocked {
            self.monitor.handle_blocked(now);
            self.flags.raise(Flag::Blocked);
        }
        self.note_outputs();
    }

    fn flushed(&mut self) {
        self.monitor.handle_flushed(self.clock.now());
        self.flags.clear(Flag::Flushing);
        self.flags.clear(Flag::Blocked);
        self.note_outputs();
    }

    /// Writes until `enough`, and serves the connection while that takes
    /// time.
    pub(super) fn poll_write_until(
        &mut self,
        cx: &mut Context<'_>,
        enough: impl Fn(&Self) -> bool,
    ) -> Poll<Result<(), SendError>> {
        self.writer = None;
        match enough(self) {
            true => Poll::Ready(self.check_open()),
            false => self.poll_write_more(cx, enough),
        }
    }

    /// Says behind everything that was queued that no more messages follow, and waits
    /// until that has left.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.finish_sending()?;
        self.poll_write_until(cx, Self::is_finished)
    }

    /// No more messages are accepted. Says whether that is news.
    pub(crate) fn finish_sending(&mut self) -> Result<bool, SendError> {
        if !C::HELLO && !C::HALF_CLOSE {
            return Err(SendError::Unfinishable);
        }
        let is_new = !self.flags.has(Flag::Finishing);
        if is_new {
            self.flags.raise(Flag::Finishing);
            self.flags.raise(Flag::FlushWanted);
            self.monitor.finish(self.clock.now());
            self.outputs_due();
        }
        Ok(is_new)
    }

    /// Whether everything was written, and that nothing follows.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_flushed() && !self.monitor.has_transmit() && !self.flags.has(Flag::Flushing)
    }

    fn poll_write_more(
        &mut self,
        cx: &mut Context<'_>,
        enough: impl Fn(&Self) -> bool,
    ) -> Poll<Result<(), SendError>> {
        if !self.has_ended() {
            self.write_now(cx);
            if !enough(self) {
                self.flags.raise(Flag::Written);
                self.serve(Keep::All, cx);
                self.flags.clear(Flag::Written);
                if !self.has_ended() && !enough(self) {
                    self.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(self.check_open())
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
