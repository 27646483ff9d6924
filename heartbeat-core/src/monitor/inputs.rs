//! The inputs: arrivals, writes, time, and the application's requests.
//!
//! Each input first checks whether it is late enough for a local stall, before anything
//! moves the deadline that shows it.

use crate::{
    config::Evidence,
    event::Cause,
    frame::{Control, Hello, Nonce, ProtocolError},
    time::{Instant, micros},
};

use super::{
    Monitor, Protocol,
    life::{Life, Paused},
    outbox::Purpose,
    rounds::Moment,
    timing::Greeting,
};

/// However often pings leave, no more are remembered for their answers than this, unless
/// rounds send more.
const MOST_REMEMBERED: u32 = 1024;

impl Monitor {
    // ---- arrivals ------------------------------------------------------

    /// Some bytes of an incomplete message arrived.
    ///
    /// Evidence of life unless [`Evidence::Frame`] or [`Evidence::Echo`] is configured. Call it
    /// when [`bytes_wanted`](Self::bytes_wanted) bytes have arrived since the last evidence:
    /// fewer count as silence. Don't count the bytes of a control frame or a header: the other
    /// methods report what they become. With an application's codec the kind of a frame is
    /// unknown, so any bytes count.
    pub fn handle_bytes(&mut self, now: Instant) {
        self.hear(Evidence::AnyBytes, now);
    }

    /// The peer's kernel acknowledged something of ours at `at`.
    ///
    /// Evidence of life for [`Evidence::Acknowledgement`] only, and only if it
    /// is newer than the last. Call it before
    /// [`handle_timeout`](Self::handle_timeout), with the same `now`.
    pub fn handle_acknowledged(&mut self, at: Instant, now: Instant) {
        let is_wanted = self.timing.config().evidence() == Evidence::Acknowledgement;
        self.hear_kernel(is_wanted, at, now);
    }

    /// The peer's kernel took data of ours at `at` that was queued before our oldest
    /// unanswered ping, in a protocol [without a Hello](Self::without_hello): the ping
    /// still waits behind that data.
    ///
    /// Evidence of life as [`handle_bytes`](Self::handle_bytes) is, if it is newer than the
    /// last. Call it before [`handle_timeout`](Self::handle_timeout), with the same `now`.
    pub fn handle_taken(&mut self, at: Instant, now: Instant) {
        let is_wanted = !self.has_alive() && self.timing.accepts(Evidence::AnyBytes);
        self.hear_kernel(is_wanted, at, now);
    }

    fn hear_kernel(&mut self, is_wanted: bool, at: Instant, now: Instant) {
        let moment = self.observe(now);
        let Moment { now, late, .. } = moment;
        let at = at.min(now);
        if !is_wanted || at <= self.last_heard {
            self.forgive(moment);
            return;
        }
        let former = self.life;
        self.heard(at);
        // An old sign of life may leave the end of the interval in the past.
        let told = match late {
            Some(late) => self.ask_after_stall(late, now),
            None => {
                self.begin_round_if_over(self.interval_end(), now);
                false
            }
        };
        // A round that begins therefore takes nothing away from the one before.
        if let (Life::Round(round), Life::Round(mut former)) = (&mut self.life, former) {
            if late.is_some() {
                former.forgive(&self.timing, now);
            }
            if round.last_as_long_as(&former, &self.timing, now) {
                self.outbox.want(Purpose::Round);
            }
        }
        if let Life::Round(_) = self.life {
            self.serve(now);
        }
        if told || matches!(former, Life::Round(_)) {
            self.speak(now);
        }
    }

    /// More data is on its way: a frame is incomplete, or a read didn't take everything. Call
    /// it after [`handle_bytes`](Self::handle_bytes).
    ///
    /// The peer's pings wait behind its data, in its own buffers and in the network's, and may
    /// reach us too late. So [`Control::Alive`] is sent at intervals that the peer tolerates.
    pub fn handle_backlog(&mut self, now: Instant) {
        let at = self.observe(now);
        self.forgive(at);
        if self.next_backlog_sign().is_due(at.now) {
            self.want_sign();
        }
    }

    /// A whole application frame arrived.
    ///
    /// Evidence of life, except with [`Evidence::Echo`].
    pub fn handle_message(&mut self, now: Instant) {
        self.hear(Evidence::Frame, now);
    }

    /// A whole control frame arrived.
    ///
    /// Evidence of life, except with [`Evidence::Echo`]; a pong that answers one of our pings
    /// always is. A ping never is: it says that the peer hears nothing, and proves nothing
    /// about whether the peer hears us. A second Hello replaces the first.
    pub fn handle_frame(&mut self, control: Control, now: Instant) {
        let at = self.observe(now);
        if self.has_ended() {
            return;
        }
        let may_speak = match control {
            Control::Pong(nonce) if self.match_pong(nonce, at) => {
                self.handle_evidence(Evidence::Echo, at)
            }
            Control::Ping(_) if self.has_alive() => {
                self.forgive(at);
                false
            }
            _ => self.handle_evidence(Evidence::Frame, at),
        };
        // A pong has no other effect.
        if !matches!(control, Control::Pong(_)) {
            self.take(control, at.now);
        }
        if may_speak {
            self.speak(at.now);
        }
    }

    /// A pong without a nonce arrived, in a protocol without nonces that answers in order: it
    /// answers the oldest unanswered ping.
    ///
    /// Evidence of life like any frame, and with [`Evidence::Echo`] if there is such a ping.
    pub fn handle_unnumbered_pong(&mut self, now: Instant) {
        match self.ledger.oldest_unanswered(self.random, self.window()) {
            Some(nonce) => self.handle_frame(Control::Pong(nonce), now),
            None => self.handle_message(now),
        }
    }

    /// A frame other than a pong while the peer is judged.
    fn take(&mut self, control: Control, now: Instant) {
        debug_assert!(!self.has_ended(), "evidence ends nothing");
        match control {
            Control::Hello(hello) => self.meet(hello, now),
            // No answer can follow the end of our direction.
            Control::Ping(_) if self.life == Life::HalfClosed => {}
            Control::Ping(nonce) if self.admits_ping(now) => {
                self.outbox.owe_pong(nonce);
                self.ask_along(now);
            }
            Control::Ping(_) => self.die(Cause::PingFlood, now),
            Control::Goodbye(code) => self.part(code, now),
            Control::Fin => self.peer_finished(),
            Control::Pong(_) | Control::Alive | Control::Reserved => {}
        }
    }

    fn admits_ping(&mut self, now: Instant) -> bool {
        let accepted = micros(self.timing.config().min_interval());
        match &mut self.protocol {
            Protocol::Ours(limiter) => limiter.admit(accepted, now),
            Protocol::Foreign { .. } => true,
        }
    }

    /// How many of the latest pings a pong may answer: N in a round, one more for each
    /// stall forgiven, and those that leave meanwhile because nothing else does.
    pub(super) fn window(&self) -> u32 {
        let asked = 2 * u32::from(self.timing.max_missed());
        if self.has_alive() {
            return asked;
        }
        match self.timing.speak_within(false) {
            Some(within) => {
                let spoken = self.timing.detection_time() / micros(within).max(1);
                let spoken = u32::try_from(spoken).unwrap_or(u32::MAX);
                asked.saturating_add(spoken).min(MOST_REMEMBERED.max(asked))
            }
            None => asked,
        }
    }

    /// Whether a pong answers a ping of ours that is unanswered so far.
    #[inline]
    fn match_pong(&mut self, nonce: Nonce, at: Moment) -> bool {
        let window = self.window();
        let Some(answer) = self.ledger.answer(nonce, self.random, window, at.now) else {
            return false;
        };
        if answer.is_latest && self.outbox.answer_in_flight() {
            self.ledger.left_by(at.now);
            self.speech.spoke(at.now);
            self.keepalive_left(at.now);
        }
        match answer.round_trip {
            Some(micros) if self.timing.config().beat_events() => self.notices.beat(micros),
            _ => {}
        }
        true
    }

    /// A Hello replaces the peer's earlier one.
    fn meet(&mut self, hello: Hello, now: Instant) {
        let sends_hello = self.has_alive();
        if sends_hello && hello.instance == self.random.instance() {
            return self.die(Cause::Protocol(ProtocolError::Loop), now);
        }
        let end = self.interval_end();
        match self.timing.greet(hello) {
            Greeting::Known => return,
            Greeting::Refused => return self.die(Cause::Refused, now),
            Greeting::News => self.notices.connected(),
        }
        let count = self.timing.peer_max_missed();
        if let (Protocol::Ours(limiter), Some(count)) = (&mut self.protocol, count) {
            limiter.announce(count);
        }
        self.follow_timings(end, now);
    }

    // ---- writes --------------------------------------------------------

    /// Everything that [`poll_transmit`](Self::poll_transmit) returned has left for the kernel.
    /// The timeout of a ping among it starts now.
    ///
    /// Call it only if something has left since the last call: each call also counts as
    /// speech for [`speak_within`](crate::ConfigBuilder::speak_within).
    pub fn handle_flushed(&mut self, now: Instant) {
        let at = self.observe(now);
        self.forgive(at);
        self.writes.clear();
        self.speech.spoke(at.now);
        if let Some(purpose) = self.outbox.ping_left() {
            self.ping_left(purpose, at.now);
        }
        if self.outbox.alive_left(at.now) {
            self.sign_left(at.now);
        }
        if !self.leaving.is_open() {
            self.last_words_left();
        }
    }

    /// A Fin or a goodbye left, if one was handed out.
    #[cold]
    fn last_words_left(&mut self) {
        // Once it has ended there is no Fin to leave.
        let has_ended_our_direction = self.leaving.left() && !self.has_alive();
        if has_ended_our_direction {
            debug_assert!(!self.has_ended());
            self.stop_asking();
            self.outbox.take_pong();
        }
        self.close_if_all_is_said();
    }

    /// A write took some bytes, though not all.
    ///
    /// The time of [`write_stall`](crate::ConfigBuilder::write_stall) starts again. It is no
    /// evidence of life: a kernel takes bytes for a peer that hangs.
    pub fn handle_progress(&mut self, now: Instant) {
        let at = self.observe(now);
        self.forgive(at);
        self.writes.progress(self.timing.config(), at.now);
        self.speech.spoke(at.now);
    }

    /// Some of our messages left for the kernel. Needed only if
    /// [`speak_within`](crate::ConfigBuilder::speak_within) is set.
    pub fn handle_sent(&mut self, now: Instant) {
        let at = self.observe(now);
        self.forgive(at);
        self.speech.spoke(at.now);
    }

    /// A write could take nothing now. The time from here to the next
    /// [`handle_progress`](Self::handle_progress) or
    /// [`handle_flushed`](Self::handle_flushed) counts for
    /// [`write_stall`](crate::ConfigBuilder::write_stall).
    pub fn handle_blocked(&mut self, now: Instant) {
        let at = self.observe(now);
        self.forgive(at);
        if !self.has_ended() {
            self.writes.block(self.timing.config(), at.now);
        }
    }

    // ---- time ----------------------------------------------------------

    /// Time has passed. Does nothing before the deadline of
    /// [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        let at = self.observe(now);
        if !at.deadline.is_due(at.now) {
            return;
        }
        self.health.served(at.now.micros_since(at.deadline));
        if !self.forgive(at) {
            if let Some(late) = at.late {
                self.tell_stall(late, at.now);
            }
            self.serve(at.now);
        }
        if self.has_limits() {
            self.serve_limits(at.now);
        }
    }

    /// Serves the deadlines that don't belong to the state.
    #[cold]
    fn serve_limits(&mut self, now: Instant) {
        self.speak(now);
        if self.writes.limit_at().is_due(now) {
            self.die(Cause::WriteStalled, now);
        }
        if self.leaving.until().is_due(now) {
            self.give_up_leaving();
        }
    }

    // ---- the application's wishes --------------------------------------

    /// We stopped reading, because the application is busy.
    ///
    /// No verdict is given until [`handle_resumed`](Self::handle_resumed), because the peer's
    /// signs of life may be unread. The peer gets [`Control::Alive`] once an interval, or more
    /// often if its own timings require it.
    ///
    /// Read its Hello before the first pause: until then the peer's timings are unknown.
    pub fn handle_paused(&mut self, now: Instant) {
        let at = self.observe(now);
        let waits = match self.life {
            Life::Idle(idle) => idle.probe_waits(),
            Life::Round(_) => false,
            _ => return,
        };
        if let Some(late) = at.late {
            self.tell_stall(late, at.now);
        }
        let was_on_its_way = self.outbox.pause();
        self.ledger.forget_times();
        self.life = Life::Paused(Paused::new(waits || was_on_its_way));
        self.plan_sign(at.now);
        self.speak(at.now);
    }

    /// We read again: the peer is judged as if evidence had just arrived.
    pub fn handle_resumed(&mut self, now: Instant) {
        let at = self.observe(now);
        let Life::Paused(paused) = self.life else {
            return;
        };
        if let Some(late) = at.late {
            self.tell_stall(late, at.now);
        }
        self.ledger.forget_times();
        self.last_heard = at.now;
        self.enter_idle();
        if paused.probe_waits() {
            self.probe_idle(at.now);
        } else if at.late.is_some() {
            self.keepalive_if_accepted(at.now);
        }
        self.speak(at.now);
    }

    /// Our application took no message for longer than
    /// [`max_pause`](crate::ConfigBuilder::max_pause).
    ///
    /// Gives [`Event::Dead`](crate::Event::Dead) with [`Cause::NotReading`], also while we
    /// don't read. The caller measures that time: a monitor doesn't know of waiting messages.
    pub fn handle_not_reading(&mut self, now: Instant) {
        let now = self.observe(now).now;
        if !self.has_ended() {
            self.die(Cause::NotReading, now);
        }
    }

    /// Pings the peer now, without waiting for the interval.
    ///
    /// A round begins, so the verdict comes within N·W: a probe shortens the tolerated
    /// silence. If a round is under way, nothing changes. If the last ping is more recent than
    /// the peer's `min_interval`, the new one waits until that has passed. While we don't
    /// read, it waits until we do.
    pub fn probe(&mut self, now: Instant) {
        let at = self.observe(now);
        self.forgive(at); // a round that this begins serves the probe
        match self.life {
            Life::Idle(_) => self.probe_idle(at.now),
            Life::Paused(ref mut paused) => paused.let_probe_wait(),
            Life::Round(_) | Life::HalfClosed | Life::Closed { .. } | Life::Dead { .. } => {}
        }
    }
}
