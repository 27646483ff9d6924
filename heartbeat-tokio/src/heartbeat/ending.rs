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

use super::{Heartbeat, READS_AT_ONCE, Status, flags::Flag};
use crate::{
    Detail, PeerEvent, SendError,
    error::Ended,
    inbox::{Inbox, READ_AHEAD},
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
    /// The error behind the end.
    pub(super) io_error: Option<Arc<io::Error>>,
    /// Writing failed so; what can still be read is read first.
    pub(super) write_end: Option<End>,
    /// The reactor had a turn since: it knows what there is to read.
    has_waited: bool,
    /// When ending our direction of the stream is given up.
    shutdown_by: Option<Instant>,
}

/// What is left of a connection that is over.
#[derive(Debug)]
pub(crate) struct Remains<M> {
    pub(crate) inbox: Inbox<M>,
    pub(crate) ended: Option<Ended>,
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

    /// Ends our direction of the stream and waits for the peer to end its own,
    /// in bounded time.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.config().timeout() * self.config().max_missed();
        let by = match self.ending().shutdown_by {
            Some(by) => by,
            None => {
                self.timer.served();
                let by = self.clock.now() + patience;
                *self.ending().shutdown_by.insert(by)
            }
        };
        if !self.flags.has(Flag::Shut) {
            // The goodbye has left: an error here changes nothing.
            self.shut_down(cx);
        }
        let done = self.flags.has(Flag::Shut) && self.poll_peers_end(cx).is_ready();
        if done || self.timer.has_fired() || !self.timer.arm(self.clock, Some(by), cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Ends our direction of the stream. An error changes nothing.
    pub(super) fn shut_down(&mut self, cx: &mut Context<'_>) {
        let done = match &mut self.stream {
            Some(stream) => self.transport.poll_shutdown(stream, cx).is_ready(),
            None => true,
        };
        self.flags.set(Flag::Shut, done);
    }

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
        self.transport.give_up(code, detail);
        let _ = self.transport.poll_write(stream, cx, Scope::Control);
    }

    /// Closes the stream of a peer that we gave up. On TCP that is a reset, so
    /// that nothing unsent stays in the kernel, and the peer learns of it even
    /// where our goodbye can't be sent.
    pub(super) fn drop_stream(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.net.reset(&stream);
        }
    }

    /// Waits for the end of the peer's direction. If the socket were closed
    /// before, the peer's next ping would be answered with a reset, and what
    /// the kernel has of us and the peer hasn't read yet would be lost.
    fn poll_peers_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_AT_ONCE {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(());
            };
            if let Ok(0) | Err(_) = ready!(self.transport.poll_read(stream, cx)) {
                return Poll::Ready(());
            }
            // Who goes on sending is heard out, and what he sends is of no use
            // to anybody.
            while self.transport.unread() > READ_AHEAD {
                match self.transport.next_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Poll::Ready(()),
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes it apart and keeps what there is to tell. If it hasn't ended,
    /// nobody serves it any more, and that is its end.
    pub(crate) fn into_remains(mut self) -> Remains<C::Message> {
        if !self.has_ended() {
            self.end(End::Io);
        }
        while let Some(event) = self.next_output() {
            self.inbox.push(event, 0, None);
        }
        while let Some(Frame::Data(message)) = self.next_frame() {
            let weight = self.transport.weight();
            self.inbox.push(PeerEvent::Message(message), weight, None);
        }
        if let Some(terminal) = self.take_terminal() {
            self.inbox.push(terminal, 0, None);
        }
        Remains {
            status: self.status(),
            ended: self.ended().cloned(),
            io_error: self.shared_io_error(),
            inbox: self.inbox,
        }
    }
}
