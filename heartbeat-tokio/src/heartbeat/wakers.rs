//! The tasks that wait for a connection.
//!
//! This module decides which of them is woken. What for is decided where something
//! happens.

use std::task::{Context, Waker};

/// Where those who wait are known.
#[derive(Debug)]
pub(super) enum Wakers {
    /// Here. The task that waits for events and the one that waits to write may be two.
    Here {
        reader: Option<Waker>,
        writer: Option<Waker>,
    },
    /// At the driver, which calls them itself.
    Driver,
}

impl Wakers {
    pub(super) const fn new() -> Self {
        Self::Here {
            reader: None,
            writer: None,
        }
    }

    /// This task waits for events.
    #[inline]
    pub(super) fn note_reader(&mut self, cx: &Context<'_>) {
        if let Self::Here { reader, .. } = self {
            if !reader
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *reader = Some(cx.waker().clone());
            }
        }
    }

    /// This task waits to write.
    pub(super) fn note_writer(&mut self, cx: &Context<'_>) {
        if let Self::Here { writer, .. } = self {
            *writer = Some(cx.waker().clone());
        }
    }

    #[inline]
    pub(super) fn forget_writer(&mut self) {
        if let Self::Here { writer, .. } = self {
            *writer = None;
        }
    }

    /// There is something to see to.
    pub(super) fn wake_reader(&mut self) {
        if let Self::Here { reader, .. } = self {
            wake(reader);
        }
    }

    /// What a writer waits for may be so.
    pub(super) fn wake_writer(&mut self) {
        if let Self::Here { writer, .. } = self {
            wake(writer);
        }
    }

    /// A writer has served the connection. If the reader is another task, it has to ask
    /// for its wake-ups again.
    pub(super) fn hand_over(&mut self, has_events: bool, cx: &Context<'_>) {
        if let Self::Here { reader, .. } = self {
            if let Some(reader) = reader.take() {
                if has_events || !reader.will_wake(cx.waker()) {
                    reader.wake();
                }
            }
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
