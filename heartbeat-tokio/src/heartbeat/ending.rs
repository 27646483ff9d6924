//! How a connection ends.
//!
//! This module decides what is left to do when it does: which error is told, what is
//! read first, and how long the peer's end is waited for. That it has ended, and why,
//! is the monitor's to say.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use heartbeat_core::{End, Event, GoodbyeCode, Instant};
use tokio::task::yield_now;

use super::{Heartbeat, Keep, READS_AT_ONCE, Status, flags::Flag, reading::charge};
use crate::{
    CloseError, CloseReason, Detail, PeerEvent, SendError,
    error::Ended,
    inbox::{Inbox, READ_AHEAD},
    safety_net,
    transport::{Frame, Scope, Transport},
};

/// How a connection ends, and what is left to do. A connection that lives has
/// none of it, and doesn't keep room for it.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// The terminal event, until everything before it is handed out.
    pub(super) terminal: Option<Event>,
    /// How it ended, and how sending fails from now on.
    pub(super) ended: Option<Ended>,
    /// What a goodbye says besides its code: the peer's that arrived, or ours
    /// that tells a verdict.
    pub(super) detail: Detail,
    /// That is the peer's.
    pub(super) is_told: bool,
    /// What our goodbye is to say when we leave.
    pub(super) farewell: Detail,
    /// The answer to the peer's goodbye. It goes behind the rest of a begun frame.
    pub(super) answer: Option<GoodbyeCode>,
    /// The bytes that were given up for it.
    pub(super) given_up: usize,
    /// The bytes that weren't written when it ended.
    unwritten: Option<usize>,
    /// Until when a peer whose protocol confirms nothing has to end its direction, if
    /// we leave.
    linger_until: Option<Instant>,
    /// Until when a full inbox may keep us from reading while we leave: so long after the
    /// first time.
    room_until: Option<Instant>,
    parting: Parting,
    /// The error behind the end.
    pub(super) io_error: Option<Arc<io::Error>>,
    /// Writing failed so; what can still be read is read first.
    pub(super) write_end: Option<End>,
    /// The reactor had a turn since: it knows what there is to read.
    has_waited: bool,
}

/// What is left to do with the stream of a connection that ended in order, so that
/// what was said last arrives. A socket that is closed with something unread is reset,
/// and then the peer may not see what it hasn't read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Parting {
    /// Nothing was begun, as the connection lives; or nothing is to be done.
    #[default]
    None,
    /// What was queued last is written, then our direction is ended, and then the
    /// peer's end is waited for.
    Begun {
        stage: Stage,
        /// When that is given up.
        by: Instant,
        /// The bytes that may still be thrown away before the peer's end.
        patience: usize,
    },
    /// Its time was over, or the peer reset it: the stream was closed.
    GivenUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Writing,
    Ending,
    Draining,
}

/// The most bytes that are read behind a peer's goodbye.
const AFTER_GOODBYE: usize = 64 * 1024;

/// What is left of a connection that is over.
#[derive(Debug)]
pub(crate) struct Remains<M> {
    pub(crate) inbox: Inbox<M>,
    pub(crate) ended: Ended,
    pub(crate) close_result: Result<CloseReason, CloseError>,
    pub(crate) io_error: Option<Arc<io::Error>>,
    pub(crate) status: Status,
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ending.as_ref()?.ended.as_ref()
    }

    /// Whether it has ended.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended().is_some()
    }

    /// How sending fails once the connection has ended.
    #[inline]
    pub(super) fn check_open(&self) -> Result<(), SendError> {
        match self.ended() {
            Some(ended) => Err(ended.clone().into()),
            None => Ok(()),
        }
    }

    /// How sending a message fails once none may follow.
    #[inline]
    pub(crate) fn check_sending(&self) -> Result<(), SendError> {
        self.check_open()?;
        match self.flags.has(Flag::Finishing) {
            true => Err(SendError::Finished),
            false => Ok(()),
        }
    }

    /// Whether the terminal event was handed out, or lies in the inbox.
    pub(crate) fn has_finished(&self) -> bool {
        self.flags.has(Flag::Finished)
    }

    /// The error behind the end.
    pub(crate) fn shared_io_error(&self) -> Option<Arc<io::Error>> {
        self.ending.as_ref()?.io_error.clone()
    }

    pub(super) fn ending(&mut self) -> &mut Ending {
        self.ending.get_or_insert_default()
    }

    pub(super) fn write_end(&self) -> Option<End> {
        self.ending.as_ref()?.write_end
    }

    pub(super) fn take_terminal(&mut self) -> Option<PeerEvent<C::Message>> {
        let ending = self.ending.as_mut()?;
        PeerEvent::from_core(ending.terminal.take()?, &ending.detail)
    }

    /// The transport ended.
    pub(super) fn end(&mut self, end: End) {
        self.monitor.handle_end(end, self.clock.now());
        self.flags.raise(Flag::Outputs);
    }

    /// Writing has failed. That is the end, as soon as there is nothing left
    /// to read.
    pub(super) fn end_after_reading(&mut self, end: End, cx: &mut Context<'_>) {
        if self.has_ended() || self.read_regardless(cx).is_ready() {
            return;
        }
        if std::mem::replace(&mut self.ending().has_waited, true) {
            self.end(end);
        } else {
            // A process that slept learns of its timers first, and then of what
            // arrived.
            let _ = pin!(yield_now()).poll(cx);
        }
    }

    // ---- leaving ---------------------------------------------------------

    /// We leave, once, and say so behind everything that was queued. Says whether that
    /// is news.
    pub(crate) fn leave(&mut self, code: GoodbyeCode, detail: Detail) -> bool {
        let is_new = self
            .ending
            .as_ref()
            .is_none_or(|ending| ending.linger_until.is_none());
        let leaves = is_new && !self.has_ended();
        if leaves {
            let code = match code.0 {
                0 | 1 | 64..=127 => code,
                _ => GoodbyeCode::LEAVING,
            };
            let now = self.clock.now();
            let linger = self.config().linger();
            let ending = self.ending();
            ending.farewell = detail;
            ending.linger_until = Some(now + linger);
            self.flags.raise(Flag::Finishing);
            self.flags.raise(Flag::FlushWanted);
            self.monitor.close(code, now);
            if self.flags.has(Flag::Paused) {
                self.wait_for_room(now);
            }
            self.outputs_due();
        }
        leaves
    }

    /// Reading has stopped. If we leave, a full inbox may stop it until then: half of the
    /// time for which the peer waits for our end, from the first stop on.
    pub(super) fn wait_for_room(&mut self, now: Instant) {
        let config = self.monitor.config();
        let own = config.timeout() * config.max_missed();
        let peer = self.monitor.status().peer;
        let patience = peer.map(|hello| hello.detection_time.saturating_sub(hello.interval));
        let Some(ending) = &mut self.ending else {
            return;
        };
        if ending.linger_until.is_some() {
            let until = now + patience.unwrap_or(own) / 2;
            ending.room_until.get_or_insert(until);
        }
    }

    /// Until when a full inbox keeps us from reading, if we leave.
    #[inline]
    pub(super) fn room_until(&self) -> Option<Instant> {
        self.ending.as_ref()?.room_until
    }

    /// Reads on if a full inbox keeps us from it at that time or later. What doesn't fit
    /// is thrown away from then on, and the peer's goodbye isn't confirmed.
    pub(super) fn judge_room(&mut self) {
        let now = self.clock.now();
        let is_over = self.room_until().is_some_and(|until| until <= now);
        if is_over && self.flags.has(Flag::Paused) {
            self.flags.raise(Flag::Overflowing);
            self.resume();
        }
    }

    /// Serves the connection until it is over, once we leave.
    pub(super) fn poll_left(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<CloseReason, CloseError>> {
        self.writer = None;
        if !self.has_finished() {
            // Also if some of what made us pause was taken out since.
            self.resume();
            self.serve(Keep::ThereIsRoomFor, cx);
        }
        if self.has_finished() {
            return Poll::Ready(self.close_result());
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What is known of what we sent, now that the connection is over.
    pub(crate) fn close_result(&self) -> Result<CloseReason, CloseError> {
        let unwritten = self.ending.as_ref().and_then(|ending| ending.unwritten);
        let unwritten = unwritten.unwrap_or_else(|| self.transport.unwritten());
        let reason = match self.ended() {
            Some(Ended::Closed(reason)) => reason.clone(),
            Some(Ended::Dead(death)) => {
                let death = death.clone();
                return Err(CloseError::Dead { death, unwritten });
            }
            None => CloseReason::Unconfirmed,
        };
        let was_given_up = || {
            let ending = self.ending.as_ref();
            ending.is_some_and(|ending| ending.parting == Parting::GivenUp)
        };
        let confirmed = match reason {
            CloseReason::Local => C::HELLO || !was_given_up(),
            CloseReason::Peer { .. } | CloseReason::Finished => !self.flags.has(Flag::Sent),
            CloseReason::Unconfirmed => false,
        };
        match confirmed {
            true => Ok(reason),
            false => Err(CloseError::Unconfirmed { unwritten }),
        }
    }

    /// How much wasn't written, once nothing more will be; before anything is given
    /// up.
    pub(super) fn note_unwritten(&mut self) {
        let queued = self.transport.unwritten();
        let ending = self.ending();
        ending.unwritten.get_or_insert(ending.given_up + queued);
    }

    // ---- parting ---------------------------------------------------------

    /// The connection has ended so. Decides what is left to do with its stream.
    pub(super) fn begin_parting(&mut self, event: Event) {
        let Event::Closed { reason } = event else {
            return;
        };
        if reason == heartbeat_core::CloseReason::Unconfirmed {
            return self.drop_stream();
        }
        let we_leave = reason == heartbeat_core::CloseReason::Local;
        self.ending().parting = Parting::Begun {
            stage: Stage::Writing,
            by: self.parting_ends(reason),
            patience: if we_leave { usize::MAX } else { AFTER_GOODBYE },
        };
        self.timer.served();
    }

    /// When parting is given up. Linger limits it, if we leave.
    fn parting_ends(&self, reason: heartbeat_core::CloseReason) -> Instant {
        let config = self.config();
        let now = self.clock.now();
        let linger_until = self.ending.as_ref().and_then(|ending| ending.linger_until);
        // A peer that confirms nothing may still have to read what its kernel holds.
        let is_slow = match reason {
            heartbeat_core::CloseReason::Finished => true,
            heartbeat_core::CloseReason::Local => !C::HELLO,
            _ => false,
        };
        let patience = match is_slow {
            true => config.linger(),
            false => config.timeout() * config.max_missed(),
        };
        match linger_until {
            Some(until) if is_slow => until,
            Some(until) => until.min(now + patience),
            None => now + patience,
        }
    }

    /// The terminal event, when nothing is left to do with the stream.
    pub(super) fn poll_terminal(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<PeerEvent<C::Message>>> {
        ready!(self.poll_part(cx));
        self.note_unwritten();
        self.flags.raise(Flag::Finished);
        Poll::Ready(self.take_terminal())
    }

    /// Parts from the peer, in bounded time.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Parting::Begun { stage, by, .. } = self.ending().parting else {
                return Poll::Ready(());
            };
            let done = match stage {
                Stage::Writing => self.poll_write_rest(cx),
                Stage::Ending => self.poll_end_direction(cx),
                Stage::Draining => self.poll_drain(cx),
            };
            if done.is_pending() {
                if self.timer.has_fired() {
                    self.timer.served();
                    if by <= self.clock.now() {
                        self.give_up_parting();
                        continue;
                    }
                }
                if self.timer.arm(self.clock, Some(by), cx) {
                    return Poll::Pending;
                }
                continue;
            }
            match (&mut self.ending().parting, stage) {
                (Parting::Begun { stage, .. }, Stage::Writing) => *stage = Stage::Ending,
                (Parting::Begun { stage, .. }, Stage::Ending) => *stage = Stage::Draining,
                (parting @ Parting::Begun { .. }, Stage::Draining) => *parting = Parting::None,
                _ => {}
            }
        }
    }

    fn give_up_parting(&mut self) {
        self.drop_stream();
        self.ending().parting = Parting::GivenUp;
    }

    /// Writes what is left, and the answer to the peer's goodbye behind it. An error
    /// changes nothing.
    fn poll_write_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(());
            };
            let (_, written) = self.transport.poll_write(stream, cx, Scope::All);
            if ready!(written).is_err() {
                return Poll::Ready(());
            }
            let Some(code) = self.ending().answer.take() else {
                return Poll::Ready(());
            };
            self.transport.push_goodbye(code, Detail::default());
        }
    }

    /// Ends our direction of the stream. An error changes nothing.
    fn poll_end_direction(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => self.transport.poll_shutdown(stream, cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// Waits for the end of the peer's direction, and throws away what comes before.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_AT_ONCE {
            let Some(stream) = self
                .stream
                .as_mut()
                .filter(|_| !self.flags.has(Flag::ReadOut))
            else {
                return Poll::Ready(());
            };
            let read = match ready!(self.transport.poll_read(stream, cx)) {
                Ok(0) => {
                    self.flags.raise(Flag::ReadOut);
                    return Poll::Ready(());
                }
                Err(error) => {
                    self.flags.raise(Flag::ReadOut);
                    if !C::HELLO && safety_net::end_of(&error) != End::Eof {
                        // A peer that resets may not have read what its kernel held.
                        self.give_up_parting();
                    }
                    return Poll::Ready(());
                }
                Ok(read) => read,
            };
            charge(read, cx);
            let mut spent = false;
            if let Parting::Begun { patience, .. } = &mut self.ending().parting {
                *patience = patience.saturating_sub(read);
                spent = *patience == 0;
            }
            while self.transport.unread() > READ_AHEAD && !spent {
                match self.transport.next_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => spent = true,
                }
            }
            if spent {
                self.give_up_parting();
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    // ---- verdicts --------------------------------------------------------

    /// Tells the peer of our verdict, as far as the stream takes it at once.
    pub(super) fn tell_verdict(&mut self, code: GoodbyeCode, cx: &mut Context<'_>) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let known = self.ending.as_ref().map(|ending| ending.detail.clone());
        let detail = known.filter(|detail| !detail.is_empty());
        let detail = detail.unwrap_or_else(|| match code {
            GoodbyeCode::PING_FLOOD => {
                let least = self.monitor.config().min_interval();
                Detail::from(&*format!("one ping in {least:?} is accepted"))
            }
            GoodbyeCode::NOT_READING => {
                let limit = self.monitor.config().max_pause().unwrap_or_default();
                Detail::from(&*format!("a message waited for {limit:?}"))
            }
            _ => {
                let last_heard = self.monitor.status().last_heard;
                let silent_for = self.clock.now().saturating_duration_since(last_heard);
                Detail::from(&*format!("silent for {silent_for:?}"))
            }
        });
        self.net.prepare_end(stream);
        self.note_unwritten();
        self.transport.give_up();
        self.transport.push_goodbye(code, detail);
        if let Some(stream) = &mut self.stream {
            let _ = self.transport.poll_write(stream, cx, Scope::Control);
        }
    }

    /// Closes the stream of a peer that we gave up. On TCP that is a reset, so
    /// that nothing unsent stays in the kernel, and the peer learns of it even
    /// where our goodbye can't be sent.
    pub(super) fn drop_stream(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.net.reset(&stream);
        }
    }

    /// Takes out what there is to tell; the rest is of no use any more. If it hasn't
    /// ended, nobody serves it any more, and that is its end.
    pub(crate) fn take_remains(&mut self) -> Remains<C::Message> {
        if !self.has_ended() {
            self.end(End::Io);
        }
        while let Some(event) = self.next_output() {
            self.inbox.push(event, 0, None);
        }
        // What was read since the terminal event was told is nobody's.
        while !self.has_finished() {
            let Some(Frame::Data(message)) = self.next_frame() else {
                break;
            };
            let weight = self.transport.weight();
            self.inbox.push(PeerEvent::Message(message), weight, None);
        }
        if let Some(terminal) = self.take_terminal() {
            self.inbox.push(terminal, 0, None);
        }
        debug_assert!(self.has_ended(), "the monitor has said how");
        let unknown = Ended::Closed(CloseReason::Unconfirmed);
        Remains {
            status: self.status(),
            ended: self.ended().cloned().unwrap_or(unknown),
            close_result: self.close_result(),
            io_error: self.shared_io_error(),
            inbox: std::mem::replace(&mut self.inbox, Inbox::new()),
        }
    }
}
