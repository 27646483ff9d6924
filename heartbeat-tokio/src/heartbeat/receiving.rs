//! Receiving from the peer.
//!
//! This module decides which inputs the monitor gets. It touches no field of another module:
//! inputs go through `judge`, waiting messages into `inbox`, and what was taken in is reported
//! to `budget`. The transport decodes frames, and the monitor interprets them.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use heartbeat_core::{Control, End, GoodbyeCode, Monitor, Nonce, ProtocolError};
use tokio::task::unconstrained;

use super::Heartbeat;
use crate::{
    safety_net,
    transport::{Broken, Failure, Frame, Transport},
};

/// After a read of this size there is probably more.
const LARGE: usize = 16 * 1024;

/// The state of the peer's direction.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    decoder: Decoder,
    /// The stream has nothing more to read: it has ended, or failed.
    is_read_out: bool,
    /// The number of reads that gave bytes; wraps.
    reads: u32,
}

/// The progress of decoding the bytes that were read.
#[derive(Clone, Copy, Debug, Default)]
enum Decoder {
    /// Everything is decoded.
    #[default]
    Idle,
    /// Frames of the last read may be whole.
    Unseen {
        /// The last read was large.
        is_large: bool,
        /// No sign of life of it was taken out yet. The monitor gets only the first.
        is_news: bool,
    },
    /// No more frames are taken out: the stream is broken, or said goodbye.
    Stopped,
}

impl Receiving {
    // ---- decoding --------------------------------------------------------

    /// The number of reads that gave bytes; wraps.
    pub(super) const fn reads(&self) -> u32 {
        self.reads
    }

    /// Whether everything that was read is decoded, and more may come.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.decoder, Decoder::Idle)
    }

    /// Whether frames of the last read may be whole.
    #[inline]
    pub(super) fn has_unseen(&self) -> bool {
        matches!(self.decoder, Decoder::Unseen { .. })
    }

    pub(super) const fn is_read_out(&self) -> bool {
        self.is_read_out
    }

    /// No more frames are taken out.
    pub(super) const fn stop_decoding(&mut self) {
        self.decoder = Decoder::Stopped;
    }

    /// Bytes were read, or the end, which a codec may turn into a frame.
    fn note_read(&mut self, read: usize, is_news: bool) {
        debug_assert!(
            !matches!(self.decoder, Decoder::Stopped),
            "only parting reads what nobody decodes"
        );
        self.decoder = Decoder::Unseen {
            is_large: read >= LARGE,
            is_news,
        };
    }

    /// A message was taken out, and nothing is left. A small read is then completely decoded. A
    /// codec may turn the end into a frame.
    #[inline]
    fn note_emptied(&mut self) {
        let Decoder::Unseen { is_large, .. } = self.decoder else {
            return;
        };
        if !is_large && !self.is_read_out {
            self.decoder = Decoder::Idle;
        }
    }

    /// Whether a sign of life is the first of its read. The next one isn't.
    #[inline]
    fn take_news(&mut self) -> bool {
        match &mut self.decoder {
            Decoder::Unseen { is_news, .. } => std::mem::take(is_news),
            _ => false,
        }
    }
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    // ---- reading ---------------------------------------------------------

    /// Reads once; `Pending` if there is nothing.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stream = self.stream.as_mut();
        let Some(stream) = stream.filter(|_| !self.receiving.is_read_out) else {
            return Poll::Pending; // nothing comes
        };
        match ready!(self.transport.poll_read(stream, cx)) {
            Ok(0) => {
                self.receiving.is_read_out = true;
                self.receiving.note_read(0, false);
                let failed = self.ending.write_failed();
                if !C::HALF_CLOSE || failed.is_some() {
                    self.end(failed.unwrap_or(End::Eof));
                }
            }
            Ok(read) => {
                self.budget.charge_read(read, cx);
                let is_timed = !self.arrivals.are_relaxed();
                if is_timed {
                    self.arrivals.time(self.judge.config(), self.judge.now());
                }
                self.receiving.note_read(read, is_timed);
                self.receiving.reads = self.receiving.reads.wrapping_add(1);
            }
            Err(error) => self.fail_reading(error),
        }
        Poll::Ready(())
    }

    /// Nothing more can be read.
    fn fail_reading(&mut self, error: io::Error) {
        self.receiving.is_read_out = true;
        let end = safety_net::end_of(&error);
        self.ending.note_error(error);
        self.end(end);
    }

    /// Reads once, even if tokio's cooperative budget is used up: the budget says nothing about
    /// the peer.
    pub(super) fn read_regardless(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        pin!(unconstrained(poll_fn(|cx| self.poll_read(cx)))).poll(cx)
    }

    // ---- frames ----------------------------------------------------------

    /// Whether frames may be taken out.
    #[inline]
    pub(super) fn has_unseen(&self) -> bool {
        self.receiving.has_unseen() && !self.inbox.is_paused()
    }

    /// Takes out frames, up to a message or to a frame that has to be reported or answered
    /// first. Consecutive pings are answered once.
    pub(super) fn take_message(&mut self) -> Option<C::Message> {
        while self.receiving.has_unseen() {
            match self.next_frame() {
                Some(Frame::Data(message)) => return self.note_message(message),
                Some(Frame::Other) => {
                    self.budget.note_message();
                    self.note_sign();
                    if self.has_outputs() {
                        break;
                    }
                }
                Some(control) => self.note_control(control),
                None => self.note_all_seen(),
            }
            if self.judge.monitor().has_event() {
                break;
            }
        }
        None
    }

    /// The next whole frame, unless frames don't matter any more.
    pub(super) fn next_frame(&mut self) -> Option<Frame<C::Message>> {
        while !matches!(self.receiving.decoder, Decoder::Stopped) {
            let frame = self.transport.next_frame();
            self.note_dialogue();
            match frame {
                Ok(Some(Frame::Data(message))) => return Some(Frame::Data(message)),
                // After the end only messages matter.
                Ok(Some(_)) if self.has_ended() => {}
                Ok(frame) => return frame,
                Err(failure) => self.fail(failure),
            }
        }
        None
    }

    /// The received bytes end the connection.
    #[cold]
    fn fail(&mut self, failure: Failure) {
        self.receiving.stop_decoding();
        match failure {
            Failure::Protocol(Broken { error, words }) => {
                self.ending.refuse(&error, words);
                self.end(End::Protocol(error));
            }
            Failure::Io(error) if self.has_ended() => self.ending.explain(error),
            Failure::Io(error) => self.fail_reading(error),
        }
    }

    /// A message was taken out. The monitor gets its evidence first.
    #[inline(always)] // so that the message is moved once
    pub(super) fn note_message(&mut self, message: C::Message) -> Option<C::Message> {
        self.budget.note_message();
        self.arrivals.begin_message();
        if self.note_sign() {
            // Our application may take its time before it comes back for more.
            if self.transport.may_hold_more() {
                let since = self.arrivals.last();
                if let Some(deadline) = self.judge.monitor().backlog_deadline(since) {
                    self.judge.advance(deadline);
                }
            }
        }
        if self.transport.unread() == 0 {
            self.receiving.note_emptied();
        }
        if self.judge.is_due() && self.judge.monitor().has_event() {
            self.keep_behind_events(message);
            return None;
        }
        Some(message)
    }

    /// A sign of life was taken out that needs no answer, such as a part of a message. One for
    /// each read is enough; returns whether this is the one.
    #[inline]
    fn note_sign(&mut self) -> bool {
        self.arrivals.note_message();
        let is_first = self.receiving.take_news();
        if is_first {
            let at = self.arrivals.last();
            self.judge.tell_at(at, Monitor::handle_message);
        }
        is_first
    }

    /// A frame was taken out that isn't a message.
    fn note_control(&mut self, frame: Frame<C::Message>) {
        self.budget.note_control();
        self.judge.note_news(); // a pong, perhaps
        self.settle_arrivals();
        let at = self.arrivals.last();
        let control = match frame {
            Frame::Hello(hello) => Control::Hello(hello),
            // In a protocol whose pings carry nothing, so do the pongs.
            Frame::Ping(nonce) => Control::Ping(nonce.unwrap_or(Nonce([0; 8]))),
            Frame::Pong(Some(nonce)) => Control::Pong(nonce),
            Frame::Pong(None) => {
                return self.judge.tell_at(at, Monitor::handle_unnumbered_pong);
            }
            Frame::Alive => Control::Alive,
            Frame::Fin => Control::Fin,
            Frame::Goodbye { code, detail } => {
                // The confirmation of our own goodbye isn't the peer's goodbye.
                let is_ours = self.judge.monitor().leaves_until().is_some();
                if code != GoodbyeCode::RECEIVED || !is_ours {
                    self.ending.note_goodbye(detail);
                }
                Control::Goodbye(code)
            }
            Frame::Data(_) | Frame::Other => {
                return self.judge.tell_at(at, Monitor::handle_message);
            }
        };
        self.judge
            .tell_at(at, |monitor, at| monitor.handle_frame(control, at));
        if let (Control::Hello(hello), true) = (control, self.judge.monitor().has_ended()) {
            // It was refused, or is our own.
            match self.judge.config().refusal(&hello) {
                Some(refusal) => self.ending.refuse(&refusal, None),
                None => self.ending.refuse(&ProtocolError::Loop, None),
            }
        }
    }

    /// Every whole frame was taken out.
    fn note_all_seen(&mut self) {
        let Decoder::Unseen { is_large, .. } = self.receiving.decoder else {
            return;
        };
        self.receiving.decoder = Decoder::Idle;
        if self.receiving.is_read_out {
            return self.note_half_close();
        }
        if !self.arrivals.are_relaxed() {
            self.note_incomplete();
        }
        if is_large || self.transport.is_in_message() || self.transport.unread() > 0 {
            let at = self.arrivals.last();
            self.judge.tell_at(at, Monitor::handle_backlog);
        }
    }

    /// The peer's direction has ended, and the connection goes on unless it has ended too.
    /// Nothing more comes, so nothing is judged.
    fn note_half_close(&mut self) {
        if C::HALF_CLOSE {
            self.judge.tell(Monitor::handle_half_close);
            self.observe_state();
        }
    }

    // ---- arrivals --------------------------------------------------------

    /// From here on the times of arrivals must be exact.
    pub(super) fn settle_arrivals(&mut self) {
        if self.arrivals.are_relaxed() {
            if let Some(at) = self.arrivals.settle(self.judge.config(), self.judge.now()) {
                self.judge.tell_at(at, Monitor::handle_bytes);
                self.count_incomplete();
            }
            if let Decoder::Unseen { is_news, .. } = &mut self.receiving.decoder {
                *is_news = true;
            }
        }
    }

    /// The bytes of an incomplete message that are here count as evidence once.
    pub(super) fn count_incomplete(&mut self) {
        self.arrivals.count(self.transport.incomplete());
    }

    /// Every whole frame was taken out. The bytes of an incomplete one are evidence if
    /// they came fast enough.
    fn note_incomplete(&mut self) {
        let at = self.arrivals.last();
        let monitor = self.judge.monitor();
        if monitor.last_heard() >= at {
            return self.count_incomplete();
        }
        let incomplete = self.transport.incomplete();
        let since = self.arrivals.since_evidence(incomplete);
        if since >= monitor.bytes_wanted(at) {
            self.arrivals.count(incomplete);
            self.judge.tell_at(at, Monitor::handle_bytes);
        }
    }
}
