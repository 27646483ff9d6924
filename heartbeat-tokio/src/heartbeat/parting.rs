//! The last steps with the stream of a connection that has ended in order.
//!
//! This module decides their order and time limits: the last bytes are written, our
//! direction is ended, and the peer's end is awaited. Closing a socket with unread data
//! resets it, and the peer may then lose what it hasn't read. It touches no field but the
//! stream and its own state.

use std::task::{Context, Poll, ready};

use heartbeat_core::{CloseReason, End, Instant};

use super::{Heartbeat, READS_AT_ONCE};
use crate::{
    inbox::READ_AHEAD,
    safety_net,
    transport::{Scope, Transport},
};

/// The progress of parting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    Begun {
        stage: Stage,
        /// When it is given up.
        by: Instant,
        /// The bytes that may still be discarded before the peer's end.
        patience: usize,
    },
    /// Nothing is left to do.
    Done,
    /// Its time was over, or the peer reset the stream: it was closed.
    GivenUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The last bytes are written.
    Writing,
    /// Our direction is ended.
    Ending,
    /// The peer's end is awaited.
    Draining,
}

/// The most bytes that are read after a peer's goodbye.
const AFTER_GOODBYE: usize = 64 * 1024;

impl Parting {
    fn advance(&mut self) {
        let Self::Begun { stage, .. } = self else {
            return;
        };
        match stage {
            Stage::Writing => *stage = Stage::Ending,
            Stage::Ending => *stage = Stage::Draining,
            Stage::Draining => *self = Self::Done,
        }
    }

    /// Counts discarded bytes. Returns whether they are too many.
    fn is_spent_by(&mut self, read: usize) -> bool {
        let Self::Begun { patience, .. } = self else {
            return false;
        };
        *patience = patience.saturating_sub(read);
        *patience == 0
    }
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Decides the steps after this end of the connection.
    pub(super) fn begin_parting(&mut self, reason: CloseReason) -> Parting {
        if reason == CloseReason::Unconfirmed {
            self.drop_stream();
            return Parting::Done;
        }
        self.judge.served();
        Parting::Begun {
            stage: Stage::Writing,
            by: self.parting_ends(reason),
            patience: match reason {
                CloseReason::Local => usize::MAX,
                _ => AFTER_GOODBYE,
            },
        }
    }

    /// When parting is given up. Linger limits it, if we leave.
    fn parting_ends(&self, reason: CloseReason) -> Instant {
        let config = self.judge.config();
        let now = self.judge.now();
        // A peer that confirms nothing may still have to read from its kernel.
        let is_slow = match reason {
            CloseReason::Finished => true,
            CloseReason::Local => !C::HELLO,
            _ => false,
        };
        let patience = match is_slow {
            true => config.linger(),
            false => config.timeout() * config.max_missed(),
        };
        let given_up = now + patience;
        let linger_ends = self.judge.monitor().leaves_until();
        linger_ends.map_or(given_up, |until| until.min(given_up))
    }

    /// Takes the steps, in bounded time. Ready when nothing is left to do.
    pub(super) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(&mut Parting::Begun { stage, by, .. }) = self.ending.parting() {
            let done = match stage {
                Stage::Writing => self.poll_write_rest(cx),
                Stage::Ending => self.poll_end_direction(cx),
                Stage::Draining => self.poll_drain(cx),
            };
            if done.is_ready() {
                if let Some(parting) = self.ending.parting() {
                    parting.advance();
                }
                continue;
            }
            if self.judge.has_fired() {
                self.judge.served();
                if by <= self.judge.now() {
                    self.give_up_parting();
                    continue;
                }
            }
            if self.judge.arm(Some(by), cx) {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    fn give_up_parting(&mut self) {
        self.drop_stream();
        if let Some(parting) = self.ending.parting() {
            *parting = Parting::GivenUp;
        }
    }

    /// Writes the remaining bytes and then the answer to the peer's goodbye. An error changes
    /// nothing.
    fn poll_write_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => {
                let (_, written) = self.transport.poll_write(stream, cx, Scope::All);
                written.map(drop)
            }
            None => Poll::Ready(()),
        }
    }

    /// Ends our direction of the stream. An error changes nothing.
    fn poll_end_direction(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => self.transport.poll_shutdown(stream, cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// Waits for the end of the peer's direction, and discards bytes before it.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_AT_ONCE {
            let stream = self.stream.as_mut();
            let Some(stream) = stream.filter(|_| !self.receiving.is_read_out()) else {
                return Poll::Ready(());
            };
            let read = match ready!(self.transport.poll_read(stream, cx)) {
                Ok(0) => return Poll::Ready(()),
                Err(error) => {
                    if !C::HELLO && safety_net::end_of(&error) != End::Eof {
                        // A peer that resets may not have read everything from its kernel.
                        self.give_up_parting();
                    }
                    return Poll::Ready(());
                }
                Ok(read) => read,
            };
            self.budget.charge_read(read, cx);
            let parting = self.ending.parting();
            let is_spent = parting.is_some_and(|parting| parting.is_spent_by(read));
            if is_spent || !self.throw_away() {
                self.give_up_parting();
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Discards the bytes that were read, to bound the memory; `false` if they are invalid.
    fn throw_away(&mut self) -> bool {
        while self.transport.unread() > READ_AHEAD {
            match self.transport.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        true
    }

    /// Closes the stream of a peer that we gave up. On TCP this is a reset: nothing unsent stays
    /// in the kernel, and the peer learns of it even if our goodbye can't be sent.
    pub(super) fn drop_stream(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.net.reset(&stream);
        }
    }
}
