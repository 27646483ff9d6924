//! The tasks that wait for a connection.
//!
//! This module decides which of them is woken. Its callers decide when.

use std::task::{Context, Waker};

/// The task that waits for events, and the one that waits to write, which may be another.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// A driver serves the connection, and wakes the tasks itself.
    is_driven: bool,
}

impl Wakers {
    pub(super) fn leave_to_driver(&mut self) {
        *self = Self {
            is_driven: true,
            ..Self::default()
        };
    }

    /// This task waits for events.
    #[inline]
    pub(super) fn note_reader(&mut self, cx: &Context<'_>) {
        let is_noted = |waker: &Waker| waker.will_wake(cx.waker());
        if !self.is_driven && !self.reader.as_ref().is_some_and(is_noted) {
            self.reader = Some(cx.waker().clone());
        }
    }

    /// This task waits to write, or none does.
    #[inline]
    pub(super) fn set_writer(&mut self, writer: Option<&Waker>) {
        debug_assert!(!self.is_driven, "a driver knows its writers");
        self.writer = writer.cloned();
    }

    /// There is work for the reader's task.
    pub(super) fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    /// The condition of a waiting writer may hold.
    pub(super) fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }

    /// A writer has served the connection. If the reader is another task, it has to register
    /// again.
    pub(super) fn hand_over(&mut self, has_events: bool, cx: &Context<'_>) {
        let reader = self.reader.take();
        let reader = reader.filter(|waker| has_events || !waker.will_wake(cx.waker()));
        reader.into_iter().for_each(Waker::wake);
    }
}
