//! The next event of a connection.
//!
//! This module decides the order: what the monitor has to send and to tell, frames
//! that were read, the verdict, the terminal event, reading, writing, and the timer
//! when there is nothing else. The clock is compared with the deadline before the
//! timer is polled, and the peer is judged when what had arrived was read. Whether
//! it lives is the monitor's to say.

use std::{
    future::Future,
    mem,
    pin::pin,
    task::{Context, Poll},
};

use heartbeat_core::{Cause, Event, Evidence, Instant};
use tokio::task::{coop, yield_now};

use super::{Heartbeat, READS_AT_ONCE, flags::Flag};
use crate::{
    CloseReason, Death, Detail, PeerEvent,
    error::Ended,
    transport::{Frame, Transport},
};

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// What there is most often: a message that lies there, and nothing else to
    /// see to.
    #[inline(always)] // so that the message is moved once
    pub(crate) fn next_message(&mut self) -> Option<C::Message> {
        if !self.flags.tell_of_messages() || self.timer.has_fired() || self.has_events() {
            return None;
        }
        self.take_message()
    }

    /// A message, if one lies there.
    #[inline(always)]
    fn take_message(&mut self) -> Option<C::Message> {
        let message = self.transport.next_message()?;
        self.note_message();
        if self.transport.unread() == 0 && !self.flags.has(Flag::Bulk) {
            // There is no backlog, and so nothing more to learn of this read.
            self.flags.clear(Flag::NewBytes);
        }
        if self.flags.has(Flag::Outputs) && self.monitor.has_event() {
            return self.keep_behind_events(message);
        }
        Some(message)
    }

    /// What a message proves is told before it.
    #[cold]
    fn keep_behind_events(&mut self, message: C::Message) -> Option<C::Message> {
        if self.flags.has(Flag::Unheard) {
            self.monitor.handle_discarded();
            while self.next_output().is_some() {}
            return None;
        }
        let weight = self.transport.weight();
        while let Some(event) = self.next_output() {
            self.inbox.push(event, 0, None);
        }
        let kept_at = self.kept_at();
        self.inbox
            .push(PeerEvent::Message(message), weight, kept_at);
        None
    }

    /// The next event, straight from the connection.
    pub(super) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<PeerEvent<C::Message>>> {
        let is_refused = !coop::has_budget_remaining() && !self.flags.has(Flag::Spent);
        let event = self.poll_within_budget(cx);
        if is_refused && event.is_pending() {
            // Others in this task used its budget up, and so nothing could be read or
            // written. The runtime wakes us later, of which whoever polls many in one
            // task learns nothing, and so polls all the others in vain.
            cx.waker().wake_by_ref();
        }
        if event.is_pending() {
            self.flags.clear(Flag::Spent);
        }
        event
    }

    fn poll_within_budget(&mut self, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<C::Message>>> {
        for _ in 0..READS_AT_ONCE {
            // Most often there is nothing to do until bytes arrive: messages
            // that lay there were handed out before this was called.
            if self.is_undisturbed() && !self.flags.has(Flag::NewBytes) {
                if self.poll_read(cx).is_ready() {
                    if self.flags.tell_of_messages() {
                        if let Some(message) = self.take_message() {
                            return Poll::Ready(Some(PeerEvent::Message(message)));
                        }
                    }
                } else if self.is_waiting(cx) {
                    return Poll::Pending;
                }
            }
            if let Some(event) = self.poll_other_event(cx) {
                return event;
            }
        }
        self.yield_to_others(cx)
    }

    /// There was always more to read. What waits to be written may leave all the
    /// same.
    #[cold]
    pub(super) fn yield_to_others(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<PeerEvent<C::Message>>> {
        if self.flags.has(Flag::FlushWanted) && !self.flags.has(Flag::Written) {
            self.write(cx);
        }
        if !self.has_ended() {
            // If that is over already, this task is polled again anyway.
            self.timer.arm(self.clock, self.next_deadline(), cx);
        }
        // Wakes this task when all others had a turn.
        let _ = pin!(yield_now()).poll(cx);
        Poll::Pending
    }

    /// Whether the monitor wants something, or the end has come.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.flags.has(Flag::Outputs) || self.flags.has(Flag::Ending)
    }

    /// Whether there is nothing to see to but messages.
    #[inline]
    fn is_undisturbed(&self) -> bool {
        !self.flags.disturb() && !self.timer.has_fired()
    }

    /// Everything there may be to do. `None` if something was read, of which
    /// nothing was taken out yet.
    fn poll_other_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Option<Poll<Option<PeerEvent<C::Message>>>> {
        if self.flags.has(Flag::Finished) {
            return Some(Poll::Ready(None));
        }
        // Control frames that come one behind the other are answered once.
        let mut goes_on = false;
        loop {
            let owes = mem::take(&mut goes_on);
            if self.flags.has(Flag::Outputs) && !owes {
                // What leaves now may make room for more.
                self.flags.clear(Flag::Outputs);
                self.write_outputs(cx);
                if let Some(event) = self.next_output() {
                    self.flags.raise(Flag::Outputs);
                    return Some(Poll::Ready(Some(event)));
                }
            }
            if self.is_time_to_judge() {
                self.read_before_judging(cx);
                continue;
            }
            if !self.flags.has(Flag::Paused) && self.flags.has(Flag::NewBytes) {
                match self.next_frame() {
                    Some(Frame::Data(message)) => {
                        self.note_message();
                        if owes {
                            self.flags.clear(Flag::Outputs);
                            self.write_outputs(cx);
                            self.note_outputs();
                        }
                        if !self.monitor.has_event() {
                            return Some(Poll::Ready(Some(PeerEvent::Message(message))));
                        }
                        self.keep_behind_events(message);
                    }
                    Some(Frame::Other) => {
                        self.note_sign();
                        continue;
                    }
                    Some(frame) => {
                        self.note_control(frame);
                        goes_on = !self.monitor.has_event();
                        continue;
                    }
                    None => self.note_backlog(),
                }
                // There may always be more to read.
                if self.flags.has(Flag::Outputs) || self.is_time_to_judge() {
                    continue;
                }
            }
            if self.flags.has(Flag::Judging) {
                self.judge(cx);
                continue;
            }
            if self.has_ended() {
                return Some(self.poll_terminal(cx));
            }
            if !self.flags.has(Flag::Paused) && self.poll_read(cx).is_ready() {
                return None;
            }
            let unwritten = self.flags.has(Flag::FlushWanted) || self.flags.has(Flag::Flushing);
            if unwritten && !self.flags.has(Flag::Written) {
                self.write(cx);
            }
            if let Some(end) = self.write_end() {
                self.end_after_reading(end, cx);
            }
            if self.flags.has(Flag::Outputs) {
                continue;
            }
            if self.timer.arm(self.clock, self.next_deadline(), cx) {
                self.wait();
                return Some(Poll::Pending);
            }
        }
    }

    /// The next of the monitor's events; a terminal one is put aside, for
    /// messages that arrived before it.
    pub(super) fn next_output(&mut self) -> Option<PeerEvent<C::Message>> {
        if let Some(stream) = &self.stream {
            self.observe.look(&self.monitor, &self.net, stream);
        }
        while let Some(event) = self.monitor.poll_event() {
            self.note_news();
            self.observe.event(&event);
            match (event, &self.stream) {
                (Event::Closed { .. } | Event::Dead(_), _) => {
                    self.note_end(event);
                    continue;
                }
                (Event::Connected { .. }, Some(stream)) => {
                    let interval = self.monitor.status().interval;
                    self.net.adapt(stream, self.monitor.config(), interval);
                }
                (Event::Beat { .. }, stream) => {
                    self.beats = self.beats.wrapping_add(1);
                    self.flags.clear(Flag::Probing);
                    if let (Some(stream), 0) = (stream, self.transport.unread()) {
                        self.net.acknowledge(stream);
                    }
                    if self.quiet.is_some() {
                        continue;
                    }
                }
                (Event::LocalStall { .. }, _) => self.probe_again(),
                (Event::Suspect { .. }, Some(stream)) => self.net.note_suspicion(stream),
                (Event::Recovered { .. }, Some(stream)) => self.net.forget_suspicion(stream),
                _ => {}
            }
            if let Some(event) = PeerEvent::from_core(event, &Detail::default()) {
                return Some(event);
            }
        }
        None
    }

    /// The connection has ended. Messages that wait in the inbox and behind are
    /// handed out before that is told.
    fn note_end(&mut self, mut event: Event) {
        let mut is_deaf = false;
        let mut is_ours = false;
        if let Event::Dead(death) = &mut event {
            let broken_off = self.transport.is_in_message() || self.transport.unread() > 0;
            self.net.diagnose(death, broken_off);
            is_ours = death.cause.goodbye().is_some();
            // What was taken in is right, whatever else is wrong.
            let is_right = matches!(
                death.cause,
                Cause::Silent | Cause::WriteStalled | Cause::NotReading
            );
            is_deaf = is_ours && !is_right;
        }
        if is_ours {
            self.drop_stream();
        }
        let ending = self.ending.get_or_insert_default();
        self.observe.end(&event, ending.io_error.as_deref());
        let detail = &ending.detail;
        ending.ended = match event {
            Event::Closed { reason } => Some(Ended::Closed(reason.with_detail(detail.clone()))),
            Event::Dead(death) => Some(Ended::Dead(death.with_detail(detail.clone()))),
            _ => None,
        };
        ending.terminal = Some(event);
        // Behind a goodbye there is nothing, and behind a broken frame nothing
        // that can be trusted.
        is_deaf |= matches!(
            ending.ended,
            Some(
                Ended::Closed(CloseReason::Peer { .. })
                    | Ended::Dead(Death {
                        cause: crate::Cause::GivenUp { .. },
                        ..
                    })
            )
        );
        if is_deaf {
            self.flags.raise(Flag::Deaf);
        }
        self.begin_parting(event);
        self.blocked_since = None;
        self.flags.raise(Flag::Ending);
        self.flags.clear(Flag::Paused);
        self.net.end_looking();
        self.wake_writer();
    }

    /// Judges, and arms the timer again.
    fn judge(&mut self, cx: &mut Context<'_>) {
        self.flags.clear(Flag::Judging);
        self.settle_arrivals();
        // Or their deadline, which is over, would be the next one again.
        self.arrivals.calm();
        self.ask_the_kernel();
        self.judge_pause();
        self.judge_room();
        self.monitor.handle_timeout(self.clock.now());
        self.flags.raise(Flag::Outputs);
        // If that is over already, the timer has fired again.
        self.timer.served();
        self.timer.arm(self.clock, self.next_deadline(), cx);
    }

    /// Whether the timer has fired, and what was read before is taken apart.
    fn is_time_to_judge(&self) -> bool {
        let unseen = self.flags.has(Flag::NewBytes) && !self.flags.has(Flag::Paused);
        let judging = self.flags.has(Flag::Judging);
        self.timer.has_fired() && !self.has_ended() && !unseen && !judging
    }

    /// The timer has fired. What is there is read and taken apart before
    /// anybody is judged.
    fn read_before_judging(&mut self, cx: &mut Context<'_>) {
        if self.flags.has(Flag::Paused) {
            let now = self.clock.now();
            let is_gone = |stream| self.net.is_gone(stream, now);
            if self.stream.as_ref().is_some_and(is_gone) {
                self.flags.raise(Flag::LastWords);
                self.resume();
            }
        } else {
            let found = self.read_regardless(cx).is_ready();
            if found || self.has_events() {
                // It may have waited for long, and so may the peer's pings behind it.
                self.monitor.handle_backlog(self.clock.now());
            }
        }
        self.flags.raise(Flag::Judging);
        if !self.flags.has(Flag::NewBytes) {
            self.judge(cx);
        }
    }

    /// An acknowledgement of the peer's kernel counts, if that was asked for; and what
    /// arrived of a message that the transport doesn't show before it is whole.
    fn ask_the_kernel(&mut self) {
        let Some(stream) = self
            .stream
            .as_ref()
            .filter(|_| !self.flags.has(Flag::Paused))
        else {
            return;
        };
        let is_met = !C::HELLO || self.monitor.status().peer.is_some();
        let heard_at = self.monitor.status().last_heard;
        let now = self.clock.now();
        match self.monitor.config().evidence() {
            Evidence::Acknowledgement if is_met => {
                if let Some(at) = self.net.acknowledged_at(stream, heard_at, now) {
                    self.monitor.handle_acknowledged(at, now);
                    self.count_incomplete();
                }
            }
            Evidence::AnyBytes if C::WHOLE_FRAMES => {
                if let Some(at) = self.net.received_at(stream, heard_at, now) {
                    self.monitor.handle_bytes(at);
                }
            }
            _ => {}
        }
    }

    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        let mut deadline = self.monitor.poll_timeout();
        let at_latest = |deadline: Option<Instant>, at: Instant| {
            Some(deadline.map_or(at, |deadline| deadline.min(at)))
        };
        if let Some(look_at) = self.net.look_at() {
            deadline = at_latest(deadline, look_at);
        }
        if let Some(end) = self.pause_ends() {
            deadline = at_latest(deadline, end);
        }
        if self.has_events() {
            if let Some(at) = self.monitor.backlog_deadline(self.arrivals.last()) {
                deadline = at_latest(deadline, at);
            }
        }
        if let (Some(until), true) = (self.room_until(), self.flags.has(Flag::Paused)) {
            deadline = at_latest(deadline, until);
        }
        if self.needs_no_times() {
            deadline = at_latest(deadline, self.arrivals.deadline(self.config()));
        }
        deadline
    }

    /// Whether the timer is armed already, and wakes this task. As long as
    /// arrivals aren't timed nothing has moved the deadline.
    #[inline]
    fn is_waiting(&mut self, cx: &Context<'_>) -> bool {
        if self.arrivals.are_relaxed() {
            return self.timer.wakes(cx);
        }
        let armed = self.timer.is_armed(self.next_deadline(), cx);
        if armed {
            self.wait();
        }
        armed
    }

    /// Nothing is to be done until the timer fires or bytes arrive.
    #[inline]
    pub(super) fn wait(&mut self) {
        if self.needs_no_times() {
            self.arrivals.relax();
        }
    }

    /// Whether reads needn't be timed until the timer fires: there are many,
    /// and nothing but silence is waited for.
    #[inline]
    fn needs_no_times(&self) -> bool {
        let any_bytes = || !matches!(self.config().evidence(), Evidence::Frame | Evidence::Echo);
        self.arrivals.are_many() && self.monitor.is_idle() && any_bytes()
    }
}
