//! Two sides and the two directions between them.
//!
//! This module decides the result of each side's reads and writes, and how the connection
//! ends for it. `lane.rs` decides when bytes arrive.

use std::{
    io,
    task::{Context, Poll},
};

use tokio::{io::ReadBuf, time::Instant};

use super::{
    Side,
    lane::{Ending, Found, Lane},
};

pub(super) struct State {
    left: End,
    right: End,
}

/// A side, and the direction that begins there.
struct End {
    sends: Lane,
    is_frozen: bool,
    life: Life,
}

/// Whether a side's stream can still be used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// The next call returns the error.
    Failing(io::ErrorKind),
    /// The error was returned.
    Failed,
    /// Its program dropped it.
    Dropped,
}

impl State {
    /// With room for this number of bytes in each direction.
    pub(super) fn new(room: usize) -> Self {
        let end = || End {
            sends: Lane::new(room),
            is_frozen: false,
            life: Life::Open,
        };
        let (left, right) = (end(), end());
        Self { left, right }
    }

    /// The direction in which the side sends.
    pub(super) const fn from(&mut self, side: Side) -> &mut Lane {
        &mut self.end(side).sends
    }

    /// The direction in which the side receives.
    const fn to(&mut self, side: Side) -> &mut Lane {
        self.from(side.other())
    }

    const fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }

    // ---- faults ---------------------------------------------------------------

    pub(super) const fn freeze(&mut self, side: Side) {
        self.end(side).is_frozen = true;
    }

    pub(super) fn thaw(&mut self, side: Side) {
        self.end(side).is_frozen = false;
        if self.end(side).life == Life::Dropped {
            self.leave(side);
        }
    }

    pub(super) const fn is_frozen(&mut self, side: Side) -> bool {
        self.end(side).is_frozen
    }

    pub(super) fn fail(&mut self, side: Side, kind: io::ErrorKind) {
        self.to(side).lose_what_is_under_way();
        if self.end(side).life == Life::Open {
            self.end(side).life = Life::Failing(kind);
        }
    }

    // ---- calls of a stream ------------------------------------------------------

    /// Reads, or returns the moment to poll again.
    pub(super) fn read(
        &mut self,
        side: Side,
        cx: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Result<Poll<io::Result<()>>, Instant> {
        if self.is_frozen(side) {
            return Ok(self.to(side).reader_waits(cx));
        }
        let found = self.to(side).read(buffer);
        let ended = match (found, self.end(side).life) {
            (Found::Some, _) | (_, Life::Failed) => return Ok(Poll::Ready(Ok(()))),
            (_, Life::Failing(kind)) => Err(kind.into()),
            (Found::Ended(Ending::End), _) => Ok(()),
            (Found::Ended(Ending::Reset), _) => Err(io::ErrorKind::ConnectionReset.into()),
            (Found::Nothing(at), _) => {
                let waits = self.to(side).reader_waits(cx);
                return at.map_or(Ok(waits), Err);
            }
        };
        if ended.is_err() {
            self.end(side).life = Life::Failed;
        }
        // A write that waits for room has to see it too.
        self.from(side).wake();
        Ok(Poll::Ready(ended))
    }

    /// Writes, or returns the moment to poll again.
    pub(super) fn write(
        &mut self,
        side: Side,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Result<Poll<io::Result<usize>>, Instant> {
        if self.is_frozen(side) {
            return Ok(self.from(side).writer_waits(cx));
        }
        let (other_has_left, leaves_at) = match self.end(side.other()).life {
            Life::Dropped => (self.to(side).ended(), self.to(side).ends_at()),
            _ => (None, None),
        };
        let kind = match (self.end(side).life, other_has_left) {
            (Life::Failing(kind), _) => kind,
            (Life::Open, Some(Ending::Reset)) => io::ErrorKind::ConnectionReset,
            (Life::Open, None) if !self.from(side).is_closed() => {
                return match (self.from(side).write(bytes, cx), leaves_at) {
                    (Poll::Pending, Some(at)) => Err(at),
                    (written, _) => Ok(written.map(Ok)),
                };
            }
            _ => return Ok(Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))),
        };
        self.end(side).life = Life::Failed;
        Ok(Poll::Ready(Err(kind.into())))
    }

    pub(super) fn shutdown(&mut self, side: Side, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.is_frozen(side) {
            return self.from(side).writer_waits(cx);
        }
        self.from(side).close(Ending::End);
        self.from(side).wake();
        Poll::Ready(Ok(()))
    }

    /// A side that knows of the end doesn't report its drop, nor does a frozen side until
    /// it is thawed.
    pub(super) fn drop_stream(&mut self, side: Side) {
        let end = self.end(side);
        if end.life == Life::Open {
            end.life = Life::Dropped;
            if !end.is_frozen {
                self.leave(side);
            }
        }
    }

    /// With a reset if it leaves something unread, as TCP does.
    fn leave(&mut self, side: Side) {
        let ending = match self.to(side).arrived() {
            0 => Ending::End,
            _ => Ending::Reset,
        };
        self.from(side).close(ending);
    }
}
