//! What is kept for an application that doesn't take it at the moment.
//!
//! This module decides what a full inbox means: whether reading stops, what is kept all
//! the same, and what is thrown away. It owns the inbox, and touches no field of another
//! module. In which order events are handed out is for the inbox to say.

use std::task::Context;

use heartbeat_core::{Config, Instant, Monitor};

use super::Heartbeat;
use crate::{
    PeerEvent,
    inbox::{Inbox, READ_AHEAD},
    transport::Transport,
};

/// The inbox, and what becomes of a message for which it has no room.
#[derive(Debug)]
pub(super) struct Intake<M> {
    inbox: Inbox<M>,
    excess: Excess,
    /// Since when it is limited how long messages wait, if it is.
    limited_from: Option<Instant>,
}

/// What becomes of messages for which the inbox has no room. Only `Open` and `Paused`
/// take turns; otherwise it moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Excess {
    /// They are left to the peer: a full inbox stops reading. If we leave, and it has done
    /// so before, it does until then at most.
    Open { until: Option<Instant> },
    /// It has stopped reading.
    Paused { until: Option<Instant> },
    /// They are kept. Nothing can follow what has arrived: the connection has ended, or
    /// writing has failed, or the kernel says that the peer is gone.
    Kept,
    /// They are thrown away, and the peer's goodbye isn't confirmed: we leave.
    Discarded,
    /// All messages are thrown away: nobody will take one.
    Unheard,
}

impl<M> Intake<M> {
    pub(super) const fn new() -> Self {
        Self {
            inbox: Inbox::new(),
            excess: Excess::Open { until: None },
            limited_from: None,
        }
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }

    /// Whether the inbox has stopped reading.
    #[inline]
    pub(super) const fn is_paused(&self) -> bool {
        matches!(self.excess, Excess::Paused { .. })
    }

    /// Puts an event behind the others. Its message keeps `weight` bytes besides itself,
    /// and came at `came` at the latest.
    fn push(&mut self, event: PeerEvent<M>, weight: usize, came: Instant) {
        let since = self.limited_from.map(|from| came.max(from));
        self.inbox.push(event, weight, since);
    }

    pub(super) fn pop(&mut self) -> Option<PeerEvent<M>> {
        self.inbox.pop()
    }

    /// The application took this event past the inbox.
    pub(super) const fn note_taken(&mut self, event: &PeerEvent<M>) {
        self.inbox.note_taken(event);
    }

    /// What waits. Nothing does from here on.
    pub(super) fn take(&mut self) -> Inbox<M> {
        std::mem::replace(&mut self.inbox, Inbox::new())
    }

    /// How long messages wait is limited from now on.
    pub(super) fn limit_from(&mut self, now: Instant) {
        self.limited_from = Some(now);
        self.inbox.wait_from(now);
    }

    /// Stops reading if the inbox is full and may do that, until `until` at most. Says
    /// whether that is news.
    fn pause_if_full(&mut self, until: impl FnOnce() -> Option<Instant>) -> bool {
        let Excess::Open { until: former } = self.excess else {
            return false;
        };
        let is_full = self.inbox.is_full();
        if is_full {
            let until = former.or_else(until);
            self.excess = Excess::Paused { until };
        }
        is_full
    }

    /// If the inbox has stopped reading, it does until then at most.
    fn limit_pause(&mut self, until: Instant) {
        if let Excess::Paused { until: former } = &mut self.excess {
            former.get_or_insert(until);
        }
    }

    /// Reads on, with this for messages that come then. Says whether reading had stopped.
    fn go_on(&mut self, excess: Option<Excess>) -> bool {
        let was_paused = self.is_paused();
        self.excess = match (self.excess, excess) {
            (before, Some(excess)) => before.max(excess),
            (Excess::Paused { until }, None) => Excess::Open { until },
            (before, None) => before,
        };
        debug_assert!(!self.is_paused(), "reading goes on");
        was_paused
    }

    /// Until when a full inbox may stop reading, if it has.
    fn room_until(&self) -> Option<Instant> {
        match self.excess {
            Excess::Paused { until } => until,
            _ => None,
        }
    }

    /// When the oldest message has waited for as long as it may.
    fn wait_ends(&self, config: &Config) -> Option<Instant> {
        Some(self.inbox.waits_since()? + config.max_pause()?)
    }

    /// When somebody has to look.
    #[inline]
    pub(super) fn deadline(&self, config: &Config) -> Option<Instant> {
        let ends = [self.room_until(), self.wait_ends(config)];
        ends.into_iter().flatten().min()
    }
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Whether something waits in the inbox.
    #[inline]
    pub(crate) fn has_events(&self) -> bool {
        !self.intake.is_empty()
    }

    /// Keeps what there is to tell as long as `goes_on`, and serves the connection
    /// meanwhile.
    pub(crate) fn take_in(&mut self, cx: &mut Context<'_>, goes_on: impl Fn(&Self) -> bool) {
        // Other tasks have a turn after `READ_AHEAD` bytes that were thrown away.
        let mut thrown_away = 0;
        while goes_on(self) {
            if thrown_away >= READ_AHEAD {
                return self.yield_to_others(cx);
            }
            self.pause_if_full();
            let std::task::Poll::Ready(Some(event)) = self.poll_event(cx) else {
                return;
            };
            thrown_away += self.keep(event);
        }
    }

    /// Puts an event that was taken out just now behind the others, or throws it away.
    /// Gives the bytes that were.
    pub(super) fn keep(&mut self, event: PeerEvent<C::Message>) -> usize {
        let is_message = matches!(event, PeerEvent::Message(_));
        let is_kept = match self.intake.excess {
            Excess::Open { .. } | Excess::Paused { .. } | Excess::Kept => true,
            Excess::Discarded => !is_message || !self.intake.inbox.is_full(),
            Excess::Unheard => event.is_terminal(),
        };
        let weight = if is_message {
            self.transport.weight()
        } else {
            0
        };
        if is_kept {
            let came = self.receiving.last_came(self.judge.config());
            let came = came.max(self.judge.monitor().last_heard());
            self.intake.push(event, weight, came);
        } else if is_message {
            self.judge.tell(|monitor, _| monitor.handle_discarded());
            return size_of::<PeerEvent<C::Message>>() + weight;
        }
        0
    }

    /// The next event out of the inbox. Reading goes on when it is empty.
    pub(crate) fn take_from_inbox(&mut self) -> Option<PeerEvent<C::Message>> {
        let event = self.intake.pop();
        if self.intake.is_empty() {
            self.go_on(None);
        }
        event
    }

    /// Nobody will take what waits in the inbox, which this gives, nor what comes.
    pub(crate) fn discard(&mut self) -> Inbox<C::Message> {
        let waiting = self.intake.take();
        if waiting.has_messages() {
            self.judge.tell(|monitor, _| monitor.handle_discarded());
        }
        self.go_on(Some(Excess::Unheard));
        waiting
    }

    /// Nothing can follow what has arrived: all of it is kept.
    pub(super) fn read_the_rest(&mut self) {
        self.go_on(Some(Excess::Kept));
    }

    /// What the inbox has no room for is thrown away from now on.
    pub(super) fn discard_excess(&mut self) {
        self.go_on(Some(Excess::Discarded));
    }

    fn pause_if_full(&mut self) {
        let judge = &self.judge;
        if self.intake.pause_if_full(|| room_until(judge)) {
            self.judge.note_news();
            self.settle_arrivals();
            self.judge.tell(Monitor::handle_paused);
            if let Some(stream) = &self.stream {
                self.net.begin_looking(stream, self.judge.now());
            }
        }
    }

    fn go_on(&mut self, excess: Option<Excess>) {
        if self.intake.go_on(excess) {
            self.judge.note_news();
            if !self.receiving.is_read_out() {
                self.judge.tell(Monitor::handle_resumed);
                self.count_incomplete();
            }
            self.judge.probe_again();
            self.net.end_looking();
        }
    }

    /// We leave: a full inbox can't stop reading for ever.
    pub(super) fn limit_pause(&mut self) {
        if let Some(until) = room_until(&self.judge) {
            self.intake.limit_pause(until);
        }
    }

    /// Gives up waiting for our application, in one way or another.
    pub(super) fn judge_intake(&mut self) {
        let now = self.judge.now();
        let config = self.judge.config();
        let ends = self.intake.wait_ends(config).filter(|&end| end <= now);
        if let Some(end) = ends {
            if now.saturating_duration_since(end) > config.stall_tolerance() {
                // We slept, and so did our application.
                self.intake.inbox.wait_from(now);
            } else {
                self.judge.tell_at(now, Monitor::handle_not_reading);
            }
        }
        if self.intake.room_until().is_some_and(|until| until <= now) {
            self.discard_excess();
        }
    }
}

/// Until when a full inbox may stop reading, if it does so now: if we leave, for half of
/// the time for which the peer waits for our end.
fn room_until(judge: &super::Judge) -> Option<Instant> {
    judge.monitor().leaves_until()?;
    let own = judge.config().timeout() * judge.config().max_missed();
    let peer = judge.monitor().status().peer;
    let patience = peer.map(|hello| hello.detection_time.saturating_sub(hello.interval));
    Some(judge.now() + patience.unwrap_or(own) / 2)
}
