//! The work of a turn, charged to tokio's cooperative budget.
//!
//! This module decides how much a task takes in before other tasks have a turn. A unit of the
//! budget is a number of bytes or of frames. It knows nothing of the stream: reads and frames
//! are reported by the others.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, ready},
};

use tokio::task::coop;

/// The bytes for one unit: as many as a plain `Framed` reads at once.
const BYTES: usize = 8 * 1024;

/// The messages for one unit: a plain `Framed` decodes four to ten times as many in the time.
/// Frames of a few bytes cost more than their bytes.
const MESSAGES: u32 = 128;

/// What a control frame costs, in messages: the monitor gets each of them.
const CONTROL: u32 = 16;

/// What new timings of the peer cost, in messages: the socket's options follow them.
const TIMINGS: u32 = 64;

/// What this turn has taken in.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Our own work has used up this task's budget.
    is_spent: bool,
    /// The frames that were taken out and not paid for, in messages.
    work: u32,
}

impl Budget {
    /// Whether others in this task have used its budget up.
    #[inline]
    pub(super) fn is_refused(&self) -> bool {
        !coop::has_budget_remaining() && !self.is_spent
    }

    /// This task's turn is over. The next one has a budget of its own.
    pub(super) const fn end_turn(&mut self) {
        self.is_spent = false;
        self.work = 0;
    }

    /// Pays for a read. The stream has charged the first unit. So a turn reads about as much as
    /// over a plain `Framed`.
    #[inline(always)] // most reads are small
    pub(super) fn charge_read(&mut self, read: usize, cx: &mut Context<'_>) {
        for _ in 1..read.div_ceil(BYTES) {
            if pin!(coop::consume_budget()).poll(cx).is_pending() {
                break;
            }
        }
        self.is_spent |= !coop::has_budget_remaining();
    }

    /// A message or a part of one was taken out.
    #[inline(always)]
    pub(super) const fn note_message(&mut self) {
        self.work += 1;
    }

    /// A control frame was taken out.
    pub(super) const fn note_control(&mut self) {
        self.work += CONTROL;
    }

    /// The peer has announced its timings.
    pub(super) const fn note_timings(&mut self) {
        self.work += TIMINGS;
    }

    /// Pays for the frames that were taken out. `Pending` if the budget doesn't suffice.
    #[inline]
    pub(super) fn poll_charge_frames(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.work >= MESSAGES {
            self.work -= MESSAGES;
            ready!(pin!(coop::consume_budget()).poll(cx));
            self.is_spent |= !coop::has_budget_remaining();
        }
        Poll::Ready(())
    }
}
