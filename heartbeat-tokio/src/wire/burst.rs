//! Limits how much is written before other tasks have a turn.
//!
//! This module decides the length of a burst. Writing until the socket blocks fills the
//! peer's receive window; progress then depends on zero-window probes. The writer decides
//! which bytes are written.

use std::{future::Future, pin::pin, task::Context};

use tokio::task::yield_now;

/// Bytes that the stream takes at once before a burst is over.
const BURST: u32 = 192 * 1024;

/// The longest burst of a longer message. A megabyte at once fills the window again.
const LONGEST: u32 = 640 * 1024;

/// The bytes written since the stream was last full, or another task had a turn.
#[derive(Debug)]
pub(super) struct Burst {
    /// In bytes.
    written: u32,
    /// The limit. Invariant: from [`BURST`] to [`LONGEST`].
    limit: u32,
    /// Another task is to have a turn.
    resting: bool,
}

impl Burst {
    pub(super) fn new() -> Self {
        Self {
            written: 0,
            limit: BURST,
            resting: false,
        }
    }

    /// A long message was queued; `queued` bytes wait now.
    pub(super) fn extend(&mut self, queued: usize) {
        self.limit = self.limit.max(limit(queued));
    }

    /// The bytes that may still be written.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.written) as usize
    }

    /// Counts `written` bytes.
    #[inline]
    pub(super) fn go_on(&mut self, written: usize) {
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        self.written = self.written.saturating_add(written);
    }

    /// The stream is full, or something was read: the peer goes on, too.
    #[inline]
    pub(super) fn end(&mut self) {
        self.written = 0;
    }

    /// Yields: this task is woken after all others had a turn. `queued` bytes wait for
    /// the burst that follows.
    pub(super) fn rest(&mut self, queued: usize, cx: &mut Context<'_>) {
        self.written = 0;
        self.limit = limit(queued);
        self.resting = true;
        let _ = pin!(yield_now()).poll(cx);
        debug_assert!(
            (BURST..=LONGEST).contains(&self.limit),
            "a burst is bounded"
        );
    }

    /// This task has its turn.
    #[inline]
    pub(super) fn resume(&mut self) {
        self.resting = false;
    }

    /// Whether the last write stopped after a long burst.
    #[inline]
    pub(super) fn is_resting(&self) -> bool {
        self.resting
    }
}

/// The length of a burst with this number of bytes queued. Many queued bytes mean a long
/// message, which gets a longer burst.
fn limit(queued: usize) -> u32 {
    u32::try_from(queued).map_or(LONGEST, |queued| queued.clamp(BURST, LONGEST))
}
