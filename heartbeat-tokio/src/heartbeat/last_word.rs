//! The last word: the last frame that the peer gets.
//!
//! This module decides which queued messages are discarded for the answer to a goodbye and
//! for a verdict, and the text of a verdict. It has no state.

use std::task::Context;

use heartbeat_core::{Control, GoodbyeCode, Instant, Monitor};

use super::Heartbeat;
use crate::{
    Detail,
    transport::{Scope, Transport},
};

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// The connection has ended. Sends the last word, if the peer is owed one.
    pub(super) fn write_last_word(&mut self, cx: &mut Context<'_>) {
        while let Some(control) = self.judge.next_control(false) {
            match control {
                Control::Goodbye(code) if code.is_verdict() => self.tell_verdict(code, cx),
                Control::Goodbye(code) => self.push_last_word(code, Detail::default()),
                control => self.transport.push_control(control),
            }
        }
    }

    /// Tells the peer of our verdict, as far as the stream takes it at once.
    fn tell_verdict(&mut self, code: GoodbyeCode, cx: &mut Context<'_>) {
        let Some(stream) = &self.stream else {
            return;
        };
        let detail = self.ending.said().filter(|detail| !detail.is_empty());
        let detail =
            detail.unwrap_or_else(|| explain(code, self.judge.monitor(), self.judge.now()));
        self.net.prepare_end(stream);
        self.push_last_word(code, detail);
        if let Some(stream) = &mut self.stream {
            let _ = self.transport.poll_write(stream, cx, Scope::Control);
        }
    }

    /// The last word replaces the messages that weren't begun.
    fn push_last_word(&mut self, code: GoodbyeCode, detail: Detail) {
        let queued = self.transport.unwritten();
        self.transport.give_up();
        let left = self.transport.unwritten();
        self.transport.push_goodbye(code, detail);
        let word = self.transport.unwritten().saturating_sub(left);
        self.ending
            .note_last_word(queued.saturating_sub(left), word);
    }
}

/// The text of a verdict without an error of its own.
fn explain(code: GoodbyeCode, monitor: &Monitor, now: Instant) -> Detail {
    let config = monitor.config();
    let words = match code {
        GoodbyeCode::PING_FLOOD => {
            format!("one ping in {:?} is accepted", config.min_interval())
        }
        GoodbyeCode::NOT_READING => {
            let limit = config.max_pause().unwrap_or_default();
            format!("a message waited for {limit:?}")
        }
        _ => {
            let silent_for = now.saturating_duration_since(monitor.last_heard());
            format!("silent for {silent_for:?}")
        }
    };
    Detail::from(&*words)
}
