//! How a connection ends: in order, by a verdict, or with its transport.

use crate::{
    event::{Cause, CloseReason, End, NoDetail},
    frame::GoodbyeCode,
    packed::PackedInstant,
    time::{Instant, micros},
};

use super::{
    Monitor,
    leaving::{Leaving, Parting},
    life::Life,
};

impl Monitor {
    // ---- the application's wishes --------------------------------------

    /// Ends our messages; we keep receiving.
    ///
    /// A Fin is sent behind everything that the application has queued: see
    /// [`poll_transmit`](Self::poll_transmit). When both sides have finished,
    /// [`Event::Closed`](crate::Event::Closed) comes.
    ///
    /// In a protocol [without a Hello](Self::without_hello) the end of our direction of the
    /// stream takes the Fin's place. No ping can follow it, so the peer isn't judged any more.
    pub fn finish(&mut self, now: Instant) {
        let at = self.observe(now);
        self.forgive(at);
        if !self.has_ended() {
            self.leaving.finish();
        }
    }

    /// Leaves: says goodbye with a reason. 0, 1 and 64 to 127 are the codes with which a
    /// side leaves; any other counts as 0.
    ///
    /// The goodbye is sent behind everything that the application has queued: see
    /// [`poll_transmit`](Self::poll_transmit). The peer is judged as before until
    /// [`Event::Closed`](crate::Event::Closed) comes:
    ///
    /// - with [`CloseReason::Local`](crate::CloseReason::Local) when the peer has confirmed
    ///   that it received everything;
    /// - with [`CloseReason::Peer`](crate::CloseReason::Peer) if the peer said goodbye and the
    ///   connection ended without a confirmation;
    /// - with [`CloseReason::Unconfirmed`](crate::CloseReason::Unconfirmed) if the peer hasn't
    ///   confirmed within [`linger`](crate::ConfigBuilder::linger);
    /// - with [`CloseReason::Finished`](crate::CloseReason::Finished) if both sides had
    ///   finished before.
    ///
    /// A protocol [without a Hello](Self::without_hello) has no confirmation. There the event
    /// comes when the goodbye has left.
    pub fn close(&mut self, reason: GoodbyeCode, now: Instant) {
        let at = self.observe(now);
        self.forgive(at);
        if !self.has_ended() {
            let linger = micros(self.timing.config().linger());
            self.leaving
                .leave(reason.for_leaving(), at.now.plus(linger));
        }
    }

    /// The peer ended its direction of the stream, in a protocol in which that means what a
    /// Fin means. Nothing more can arrive, so the peer isn't pinged or judged any more.
    ///
    /// In our own protocol only a Fin means that, and this is an end like any other:
    /// [`End::Eof`].
    pub fn handle_half_close(&mut self, now: Instant) {
        if self.has_alive() {
            return self.handle_end(End::Eof, now);
        }
        self.observe(now);
        if !self.has_ended() {
            self.stop_asking();
            self.peer_finished();
        }
    }

    /// No ping can leave any more, or none can be answered.
    pub(super) fn stop_asking(&mut self) {
        self.outbox.pause();
        self.ledger.forget_times();
        self.life = Life::HalfClosed;
    }

    /// A message of the peer was discarded. So its goodbye, if one comes, isn't
    /// confirmed.
    pub const fn handle_discarded(&mut self) {
        self.leaving.discarded();
    }

    // ---- what the peer says --------------------------------------------

    /// The peer leaves, gave us up, or confirms our goodbye.
    pub(super) fn part(&mut self, code: GoodbyeCode, now: Instant) {
        let detail = NoDetail;
        if code.is_verdict() {
            return self.die(Cause::GivenUp { code, detail }, now);
        }
        match self.leaving.peer_left(code, self.has_alive()) {
            Parting::Both => self.close_if_all_is_said(),
            Parting::Over { answer } => {
                self.close_with(CloseReason::Peer { code, detail }, answer);
            }
        }
    }

    /// The peer sends no more messages.
    pub(super) fn peer_finished(&mut self) {
        if self.leaving.peer_finished() {
            self.notices.finished();
            self.close_if_all_is_said();
        }
    }

    /// Closes once neither side has anything left to say.
    pub(super) fn close_if_all_is_said(&mut self) {
        if self.life.has_ended() {
            return;
        }
        let is_unanswered = !self.has_alive() && self.leaving.has_said_goodbye();
        if self.leaving.is_settled() || is_unanswered {
            self.close_with(CloseReason::Local, None);
        } else if self.leaving.have_both_finished() {
            self.close_with(CloseReason::Finished, None);
        }
    }

    // ---- ends ----------------------------------------------------------

    /// The transport ended.
    ///
    /// Gives [`Event::Dead`](crate::Event::Dead) with the matching cause, or
    /// [`Event::Closed`](crate::Event::Closed) if the peer had said goodbye. Frames
    /// that arrived before the end are to be handled before it.
    pub fn handle_end(&mut self, end: End, now: Instant) {
        let now = self.observe(now).now;
        self.die(end.into(), now);
    }

    pub(super) fn die(&mut self, cause: Cause, now: Instant) {
        if self.life.has_ended() {
            return;
        }
        if let Some(reason) = self.leaving.outcome() {
            return self.close_with(reason, None);
        }
        let missed = match cause {
            // The whole budget is spent, however it was.
            Cause::Silent => self.timing.max_missed(),
            _ => self.life.missed(),
        };
        let silence = now.micros_since(self.last_heard);
        self.notices.dead(cause, silence, missed);
        let goodbye = cause.goodbye();
        self.end(Life::Dead { missed, goodbye });
    }

    /// The time to confirm our goodbye is over.
    pub(super) fn give_up_leaving(&mut self) {
        let reason = self.leaving.outcome();
        let reason = reason.unwrap_or(CloseReason::Unconfirmed);
        self.close_with(reason, None);
    }

    fn close_with(&mut self, reason: CloseReason, answer: Option<GoodbyeCode>) {
        self.notices.closed(reason);
        let until = PackedInstant::from_instant(self.leaving.until());
        self.end(Life::Closed { answer, until });
    }

    fn end(&mut self, life: Life) {
        debug_assert!(life.has_ended());
        self.life = life;
        self.writes.clear();
        self.leaving = Leaving::new();
    }
}
