//! What comes from the peer.
//!
//! This module decides what the monitor is told of it, which arrivals are timed, and
//! when reading pauses. How frames lie on the wire is the transport's to know, and
//! what they mean the monitor's.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use heartbeat_core::{Control, End, GoodbyeCode, Instant, Nonce, ProtocolError};
use tokio::task::{coop, unconstrained};

use super::{Heartbeat, flags::Flag};
use crate::{
    Detail, safety_net,
    transport::{Broken, Frame, Transport},
};

/// After a read of so many bytes there is probably more.
const BULK: usize = 16 * 1024;

/// What one unit of tokio's cooperative budget pays for, in bytes: as much as a plain
/// `Framed` reads at once.
const UNIT: usize = 8 * 1024;

/// Pays for a read of `read` bytes. The stream has charged the first unit. So a turn takes
/// in about as much as over a plain `Framed`.
pub(super) fn charge(read: usize, cx: &mut Context<'_>) {
    for _ in 1..read.div_ceil(UNIT) {
        if pin!(coop::consume_budget()).poll(cx).is_pending() {
            return;
        }
    }
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Reads once; `Pending` if there is nothing.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = self
            .stream
            .as_mut()
            .filter(|_| !self.flags.has(Flag::ReadOut))
        else {
            return Poll::Pending; // nothing comes
        };
        match ready!(self.transport.poll_read(stream, cx)) {
            Ok(0) => {
                self.flags.raise(Flag::ReadOut);
                self.flags.raise(Flag::NewBytes); // a codec may have something to say of the end
                if !C::HALF_CLOSE || self.write_end().is_some() {
                    self.end(self.write_end().unwrap_or(End::Eof));
                }
            }
            Ok(read) => {
                charge(read, cx);
                if !coop::has_budget_remaining() {
                    self.flags.raise(Flag::Spent);
                }
                self.flags.raise(Flag::NewBytes);
                self.flags.set(Flag::Bulk, read >= BULK);
                if !self.arrivals.are_relaxed() {
                    self.time_arrival();
                }
            }
            Err(error) => {
                self.flags.raise(Flag::ReadOut);
                let end = safety_net::end_of(&error);
                self.ending().io_error = Some(Arc::new(error));
                self.end(end);
            }
        }
        Poll::Ready(())
    }

    /// Reads once, also when tokio's cooperative budget is used up: that this
    /// task has had its turn says nothing about the peer.
    pub(super) fn read_regardless(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        pin!(unconstrained(poll_fn(|cx| self.poll_read(cx)))).poll(cx)
    }

    /// What was read came now. What it is worth shows when it is taken apart.
    fn time_arrival(&mut self) {
        let now = self.clock.now();
        self.arrivals.time(self.monitor.config(), now);
        self.flags.raise(Flag::NewMessage);
    }

    /// From here on arrivals are to be known exactly.
    pub(super) fn settle_arrivals(&mut self) {
        if self.arrivals.are_relaxed() {
            let now = self.clock.now();
            if let Some(at) = self.arrivals.settle(self.monitor.config(), now) {
                self.monitor.handle_bytes(at);
                self.count_incomplete();
            }
            self.flags.raise(Flag::NewMessage);
        }
    }

    /// The bytes of an incomplete message that are here count as seen from now on.
    pub(super) fn count_incomplete(&mut self) {
        self.arrivals.count(self.transport.incomplete());
    }

    /// Every whole frame was taken out. What there is of another one is evidence if
    /// it came fast enough.
    pub(super) fn note_incomplete(&mut self) {
        let at = self.arrivals.last();
        if self.monitor.last_heard() >= at {
            return self.count_incomplete();
        }
        let incomplete = self.transport.incomplete();
        let since = self.arrivals.since_evidence(incomplete);
        if since > 0 && since >= self.monitor.bytes_wanted(at) {
            self.arrivals.count(incomplete);
            self.monitor.handle_bytes(at);
            self.note_outputs();
        }
    }

    /// A frame out of what was read, as long as frames are of interest.
    pub(super) fn next_frame(&mut self) -> Option<Frame<C::Message>> {
        while !self.flags.has(Flag::Deaf) {
            match self.transport.next_frame() {
                Ok(Some(Frame::Data(message))) => return Some(Frame::Data(message)),
                // After the end only messages are.
                Ok(Some(_)) if self.has_ended() => {}
                Ok(frame) => return frame,
                Err(broken) => self.refuse(broken),
            }
        }
        None
    }

    /// No more frames are taken out.
    pub(crate) fn stop_decoding(&mut self) {
        self.flags.raise(Flag::Deaf);
    }

    /// What arrived ends the connection.
    fn refuse(&mut self, Broken { error, words }: Broken) {
        self.flags.raise(Flag::Deaf);
        let ending = self.ending();
        if let Some(words) = words {
            ending.io_error.get_or_insert(Arc::new(words));
        }
        ending.detail = Detail::from(&*error.to_string());
        self.end(End::Protocol(error));
    }

    /// A frame was taken out that isn't a message.
    pub(super) fn note_control(&mut self, frame: Frame<C::Message>) {
        self.note_news(); // a pong, perhaps
        self.settle_arrivals();
        // In a protocol whose pings carry nothing, so do the pongs.
        let or_empty = |nonce: Option<Nonce>| nonce.unwrap_or(Nonce([0; 8]));
        let control = match frame {
            Frame::Hello(hello) => Control::Hello(hello),
            Frame::Ping(nonce) => Control::Ping(or_empty(nonce)),
            Frame::Pong(Some(nonce)) => Control::Pong(nonce),
            Frame::Alive => Control::Alive,
            Frame::Fin => Control::Fin,
            Frame::Goodbye { code, detail } => {
                // The first one counts.
                let ending = self.ending();
                if code != GoodbyeCode::RECEIVED && !ending.is_told {
                    ending.is_told = true;
                    ending.detail = detail;
                }
                Control::Goodbye(code)
            }
            Frame::Pong(None) => {
                self.monitor.handle_unnumbered_pong(self.arrivals.last());
                self.flags.raise(Flag::Outputs);
                return;
            }
            Frame::Data(_) | Frame::Other => {
                self.monitor.handle_message(self.arrivals.last());
                return self.note_outputs();
            }
        };
        self.monitor.handle_frame(control, self.arrivals.last());
        self.flags.raise(Flag::Outputs);
        if let (Control::Hello(hello), true) = (control, self.monitor.has_ended()) {
            // It was refused, or is our own.
            let why = match self.config().refusal(&hello) {
                Some(refusal) => refusal.to_string(),
                None => ProtocolError::Loop.to_string(),
            };
            self.ending().detail = Detail::from(&*why);
        }
    }

    /// A message was taken out.
    #[inline]
    pub(super) fn note_message(&mut self) {
        if self.note_sign() {
            self.arrivals.begin_message();
            // Our application may take its time before it comes back for more.
            if self.transport.may_hold_more() {
                let since = self.arrivals.last();
                if let Some(deadline) = self.monitor.backlog_deadline(since) {
                    self.timer.advance(self.clock, deadline);
                }
            }
        }
    }

    /// A sign of life was taken out that asks nothing, such as a part of a message. One
    /// for each read is enough to know of; says whether this is that one.
    #[inline]
    pub(super) fn note_sign(&mut self) -> bool {
        self.arrivals.note_message();
        let is_first = self.flags.has(Flag::NewMessage);
        if is_first {
            self.flags.clear(Flag::NewMessage);
            self.monitor.handle_message(self.arrivals.last());
            self.note_outputs();
        }
        is_first
    }

    /// Every whole frame was taken out.
    pub(super) fn note_backlog(&mut self) {
        self.flags.clear(Flag::NewBytes);
        if self.flags.has(Flag::ReadOut) {
            return self.note_half_close();
        }
        if !self.arrivals.are_relaxed() {
            self.flags.clear(Flag::NewMessage);
            self.note_incomplete();
        }
        let is_in_message = self.transport.is_in_message();
        if is_in_message || self.flags.has(Flag::Bulk) || self.transport.unread() > 0 {
            self.monitor.handle_backlog(self.arrivals.last());
            self.note_outputs();
        }
    }

    /// The peer's direction has ended, which isn't the end. Nothing comes any more,
    /// so nothing is judged.
    fn note_half_close(&mut self) {
        if C::HALF_CLOSE && !self.has_ended() {
            self.monitor.handle_half_close(self.clock.now());
            self.flags.raise(Flag::Outputs);
        }
    }

    /// Messages wait that were read, and the timer has fired: what our application left
    /// alone for so long is seen to before the next of them is handed out.
    #[inline]
    pub(super) fn is_overdue(&self) -> bool {
        self.timer.has_fired() && (self.has_events() || self.flags.has(Flag::NewBytes))
    }

    /// Takes in what was read, and what one more read gives, until the timer was
    /// served.
    #[cold]
    pub(super) fn catch_up(&mut self, cx: &mut Context<'_>) {
        while self.is_overdue() && !self.has_ended() {
            if self.inbox.is_full() {
                self.pause();
            }
            match self.poll_event(cx) {
                Poll::Ready(Some(event)) => self.keep(event),
                _ => return,
            }
        }
    }

    /// Stops reading.
    pub(super) fn pause(&mut self) {
        if !self.flags.has(Flag::Paused) {
            self.flags.raise(Flag::Paused);
            self.note_news();
            self.settle_arrivals();
            let now = self.clock.now();
            self.monitor.handle_paused(now);
            self.wait_for_room(now);
            if let Some(stream) = &self.stream {
                self.net.begin_looking(stream, now);
            }
            self.flags.raise(Flag::Outputs);
        }
    }

    /// Reads again.
    pub(super) fn resume(&mut self) {
        if self.flags.has(Flag::Paused) {
            self.flags.clear(Flag::Paused);
            self.note_news();
            if !self.flags.has(Flag::ReadOut) {
                self.monitor.handle_resumed(self.clock.now());
                self.count_incomplete();
            }
            self.probe_again();
            self.net.end_looking();
            self.flags.raise(Flag::Outputs);
        }
    }

    /// When the oldest message in the inbox has waited for as long as it may.
    #[inline]
    pub(super) fn pause_ends(&self) -> Option<Instant> {
        let since = self.inbox.waits_since()?;
        let limit = self.config().max_pause()?;
        Some(since + limit)
    }

    /// When the message was put into the inbox that was taken out last, if that is
    /// of interest: when it came, or when reading resumed. On a busy connection that
    /// is the latest that it can have been.
    pub(super) fn kept_at(&self) -> Option<Instant> {
        let limited_from = self.pauses_limited_from?;
        Some({
            let came = match self.arrivals.are_relaxed() {
                true => self.arrivals.deadline(self.config()),
                false => self.arrivals.last(),
            };
            came.max(self.monitor.last_heard()).max(limited_from)
        })
    }

    /// A task of this runtime serves it from now on, and keeps what arrives for the
    /// application. How long messages wait there may be limited.
    pub(crate) fn prepare_spawn(&mut self) {
        self.timer.move_here();
        // They were another task's.
        (self.reader, self.writer) = (None, None);
        self.flags.raise(Flag::Driven);
        if self.config().max_pause().is_some() {
            let now = self.clock.now();
            self.pauses_limited_from = Some(now);
            self.inbox.wait_from(now);
        }
    }

    /// Whether something lies there that may be a message.
    pub(crate) fn has_unread(&self) -> bool {
        self.transport.unread() > 0
    }

    /// Ends it if our application leaves messages waiting for too long.
    pub(super) fn judge_pause(&mut self) {
        let now = self.clock.now();
        let Some(end) = self.pause_ends().filter(|&end| end <= now) else {
            return;
        };
        if now.saturating_duration_since(end) > self.config().stall_tolerance() {
            // We slept, and so did our application.
            self.inbox.wait_from(now);
        } else {
            self.monitor.handle_not_reading(now);
        }
    }
}
