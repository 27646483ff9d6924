//! How a connection ends.
//!
//! This module decides what is left to do when it does: which error is told, what is
//! read first, and how long the peer's end is waited for. That it has ended, and why,
//! is the monitor's to say.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use heartbeat_core::{End, Event, Instant};

use super::{Heartbeat, READS_AT_ONCE, Status, flags::Flag};
use crate::{
    PeerEvent, SendError,
    error::Ended,
    inbox::{Inbox, READ_AHEAD},
    transport::{Frame, Transport},
};

/// How a connection ends, and what is left to do. A connection that lives has
/// none of it, and doesn't keep room for it.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// The terminal event, until everything before it is handed out.
    pub(super) terminal: Option<Event>,
    /// How it ended, and how sending fails from now on.
    pub(super) ended: Option<Ended>,
    /// The error behind the end.
    pub(super) io_error: Option<Arc<io::Error>>,
    /// Writing failed so; what can still be read is read first.
    pub(super) write_end: Option<End>,
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
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ending.as_ref()?.ended
    }

    /// How sending fails once the connection has ended.
    #[inline]
    pub(super) fn check_open(&self) -> Result<(), SendError> {
        match self.ended() {
            Some(ended) => Err(ended.into()),
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

    pub(super) fn take_terminal(&mut self) -> Option<Event> {
        self.ending.as_mut()?.terminal.take()
    }

    /// The transport ended.
    pub(super) fn end(&mut self, end: End) {
        self.monitor.handle_end(end, self.clock.now());
        self.flags.raise(Flag::Outputs);
    }

    /// Writing has failed. That is the end, as soon as there is nothing left
    /// to read.
    pub(super) fn end_after_reading(&mut self, end: End, cx: &mut Context<'_>) {
        if self.ended().is_none() && self.read_regardless(cx).is_pending() {
            self.end(end);
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
            let done = self.transport.poll_shutdown(&mut self.stream, cx);
            self.flags.set(Flag::Shut, done.is_ready());
        }
        let done = self.flags.has(Flag::Shut) && self.poll_peers_end(cx).is_ready();
        if done || self.timer.has_fired() || !self.timer.arm(self.clock, Some(by), cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Waits for the end of the peer's direction. If the socket were closed
    /// before, the peer's next ping would be answered with a reset, and what
    /// the kernel has of us and the peer hasn't read yet would be lost.
    fn poll_peers_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_AT_ONCE {
            if let Ok(0) | Err(_) = ready!(self.transport.poll_read(&mut self.stream, cx)) {
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
        if self.ended().is_none() {
            self.end(End::Io);
        }
        while let Some(event) = self.next_output() {
            self.inbox.push(event, 0);
        }
        while let Some(Frame::Data(message)) = self.next_frame() {
            let weight = self.transport.weight();
            self.inbox.push(PeerEvent::Message(message), weight);
        }
        if let Some(terminal) = self.take_terminal().and_then(PeerEvent::from_core) {
            self.inbox.push(terminal, 0);
        }
        Remains {
            status: self.status(),
            ended: self.ended(),
            io_error: self.shared_io_error(),
            inbox: self.inbox,
        }
    }
}
