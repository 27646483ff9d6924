//! The state machine that judges one peer.
//!
//! This module decides when to ping, what counts as a miss, when a peer is
//! suspect and when it is dead. It does no I/O and reads no clock: the caller
//! tells it what happened and when, and carries out what it asks for.

use core::{num::NonZeroU8, time::Duration};

use crate::{
    config::{Config, Evidence, Role},
    event::{Cause, CloseReason, Death, Diagnosis, End, Event},
    frame::{Control, Hello, Nonce},
    limiter::{self, Allowance, Limiter},
    random::Random,
    rtt::RoundTrip,
    status::{State, Status},
    time::{Instant, micros},
};

/// Judges whether one peer lives.
///
/// # How to drive it
///
/// Tell it what happened with the `handle_*` methods; after each of them (one
/// or several), drain the outputs in this order:
///
/// 1. [`poll_transmit`](Self::poll_transmit) until `None`: frames to send, in
///    this order. When all of them have left for the kernel, call
///    [`handle_flushed`](Self::handle_flushed).
/// 2. [`poll_event`](Self::poll_event) until `None`. What isn't drained is
///    merged: a suspicion that was taken back before anybody asked is never
///    told.
/// 3. [`poll_timeout`](Self::poll_timeout): when to call
///    [`handle_timeout`](Self::handle_timeout) if nothing else happens first.
///    It replaces every earlier answer.
///
/// When reading and a deadline fall together, read first: evidence and
/// deadline at the same instant mean alive.
///
/// # What the caller may get wrong
///
/// Nothing here panics, whatever the order or the time. A call that is early
/// or repeated does nothing. A call that is late makes the verdict late by as
/// much, up to [`stall_tolerance`](crate::ConfigBuilder::stall_tolerance);
/// beyond that it is taken for a stall of our own and the peer gets a fresh
/// chance. Time that goes backwards stands still. After a terminal event
/// every input is ignored and every output is `None`.
///
/// An arrival may be reported up to
/// [`Config::arrival_slack`](crate::Config::arrival_slack) earlier than it was.
///
/// # The times
///
/// With interval I, timeout W and `max_missed` N: after I of silence
/// (shortened by jitter) a *round* begins. It sends a ping, another one W
/// after that one had left if nothing came, and so on; N·W after it began the
/// peer is dead. Any [`Evidence`] ends the round. So the verdict comes after
/// I + N·W of silence at the latest, and pings that couldn't leave use up the
/// same N·W.
#[derive(Clone, Debug)]
pub struct Monitor {
    config: Config,
    peer: Option<Peer>,
    limiter: Limiter,
    rtt: RoundTrip,
    random: Random,

    /// The last evidence of life, or the start.
    heard_at: Instant,
    /// Microseconds of silence after `heard_at` until a round begins.
    idle: u64,

    /// The next step of the phase: the next miss, the next beat of a pause,
    /// the end of a farewell.
    step_at: Instant,
    /// When the round has used up its N·W. In a pause, when that began.
    verdict_at: Instant,
    /// Since when something waits to be written and doesn't move; `MAX` while
    /// nothing waits.
    stuck_since: Instant,

    /// When the latest ping left, if `sent` says that there was one.
    flushed_at: Instant,
    /// When the first ping of the round left, and which one it was: its pong
    /// is the one that comes back first when round trips exceed W.
    round_flushed_at: Instant,
    round_first: u32,

    /// Pings handed out; also the index of the latest ping's nonce.
    sent: u32,
    /// The index of the latest ping that was answered.
    answered: u32,
    /// Pongs that matched.
    pongs: u32,

    /// What the next events say.
    told_late: u64,
    told_silence: u64,
    told_cause: Cause,

    /// The pong that is owed; the latest ping's only.
    pong: Nonce,

    phase: Phase,
    ping: Ping,
    missed: u8,
    /// Stalls of our own forgiven since the last evidence.
    forgiven: u8,
    flags: Flags,
}

/// What the monitor is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The peer was heard lately.
    Idle,
    /// A round is under way.
    Round,
    /// We don't read; nothing is judged.
    Paused,
    /// We said goodbye, and wait for it to leave.
    Farewell,
    /// A terminal event was given or is pending.
    Ended,
}

/// Where the one ping is that may be on its way to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    /// Nowhere: the last one has left.
    None,
    /// To be handed out.
    Wanted,
    /// Handed out, and hasn't left yet.
    Taken,
}

/// A fact that is true or not, and takes one bit.
#[derive(Clone, Copy, Debug)]
enum Flag {
    HelloSent,
    /// The protocol has none.
    NoHello,
    GoodbyeWanted,
    GoodbyeTaken,
    PongOwed,
    /// A probe waits until the peer accepts the next ping.
    ProbeWaits,
    /// The ping that is wanted is sent even if evidence comes first.
    Insist,
    /// The ping under way was asked for by `probe`: its flush begins a round.
    Probe,
    /// The ping under way follows a stall: it gets a whole W after its flush.
    Fresh,
    /// A ping of this round has left.
    RoundFlushed,
    /// This beat was reported as late already.
    LateTold,
    /// The peer is suspect.
    Suspect,
    /// `Suspect` was given, and `Recovered` is owed for it.
    SuspectGiven,
    // Events to be given.
    TellConnected,
    TellStall,
    TellRecovered,
    TellBeat,
    TellSuspect,
    TellClosed,
    TellDead,
    /// How it ended: dead, closed by the peer, or (neither) closed by us.
    Died,
    PeerClosed,
}

impl Flag {
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The facts that are true.
#[derive(Clone, Copy, Debug, Default)]
struct Flags(u32);

impl Flags {
    const fn has(self, flag: Flag) -> bool {
        self.0 & flag.bit() != 0
    }

    const fn set(&mut self, flag: Flag, value: bool) {
        self.0 = match value {
            true => self.0 | flag.bit(),
            false => self.0 & !flag.bit(),
        };
    }

    const fn raise(&mut self, flag: Flag) {
        self.set(flag, true);
    }

    const fn clear(&mut self, flag: Flag) {
        self.set(flag, false);
    }

    const fn take(&mut self, flag: Flag) -> bool {
        let had = self.has(flag);
        self.clear(flag);
        had
    }
}

/// A peer's [`Hello`], smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    interval: u64,
    detection_time: u64,
    min_interval: u64,
    max_missed: NonZeroU8,
}

impl Monitor {
    /// Starts to judge a peer at `now`, as if it had just been heard.
    ///
    /// The seed makes nonces and jitter: take it from a good source of
    /// randomness, and a new one for each connection. The same seed and the
    /// same inputs give the same outputs.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        let mut monitor = Self {
            peer: None,
            limiter: Limiter::new(now),
            rtt: RoundTrip::new(),
            random: Random::new(seed),
            heard_at: now,
            idle: 0,
            step_at: Instant::MAX,
            verdict_at: Instant::MAX,
            stuck_since: Instant::MAX,
            flushed_at: Instant::ORIGIN,
            round_flushed_at: Instant::ORIGIN,
            round_first: 0,
            sent: 0,
            answered: 0,
            pongs: 0,
            told_late: 0,
            told_silence: 0,
            told_cause: Cause::Silent,
            pong: Nonce([0; 8]),
            phase: Phase::Idle,
            ping: Ping::None,
            missed: 0,
            forgiven: 0,
            flags: Flags::default(),
            config,
        };
        monitor.idle = monitor.first_idle();
        monitor
    }

    /// For a protocol that has a ping of its own and no Hello: none is sent,
    /// and none is expected. The peer can't know how often it may ping then,
    /// so it isn't held to `min_interval`.
    #[must_use]
    pub fn without_hello(mut self) -> Self {
        self.flags.raise(Flag::HelloSent);
        self.flags.raise(Flag::NoHello);
        self
    }

    // ---- what is known -------------------------------------------------

    /// The timings that this monitor was made with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What is known about the peer and about the connection's times.
    #[must_use]
    pub fn status(&self) -> Status {
        let interval = self.interval();
        Status {
            state: match self.phase {
                Phase::Ended if self.flags.has(Flag::Died) => State::Dead,
                Phase::Ended => State::Closed,
                Phase::Farewell => State::Closing,
                Phase::Paused => State::Paused,
                Phase::Idle | Phase::Round if self.flags.has(Flag::Suspect) => State::Suspect,
                Phase::Idle | Phase::Round => State::Alive,
            },
            missed: self.missed.into(),
            last_heard: self.heard_at,
            last_rtt: self.rtt.last(),
            smoothed_rtt: self.rtt.smoothed(),
            pings: self.sent,
            pongs: self.pongs,
            peer: self.peer.map(Hello::from),
            interval: Duration::from_micros(interval),
            detection_time: Duration::from_micros(interval + self.config.budget()),
        }
    }

    /// Whether a terminal event was given or waits in
    /// [`poll_event`](Self::poll_event).
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    // ---- inputs --------------------------------------------------------

    /// Some bytes arrived from the peer, perhaps in the middle of a frame.
    ///
    /// Evidence of life unless [`Evidence::Frame`] or [`Evidence::Echo`] is
    /// asked for. Call it at least once for each batch of reads, before the
    /// frames in it.
    pub fn handle_bytes(&mut self, now: Instant) {
        let late = self.lateness(now);
        self.handle_evidence(Evidence::AnyBytes, late, now);
    }

    /// The peer's kernel acknowledged something of ours at `at`.
    ///
    /// Evidence of life for [`Evidence::Acknowledgement`] only, and only if it
    /// is newer than the last. Call it before
    /// [`handle_timeout`](Self::handle_timeout), with the same `now`.
    pub fn handle_acknowledged(&mut self, at: Instant, now: Instant) {
        if self.config.evidence() == Evidence::Acknowledgement && at > self.heard_at {
            let late = self.lateness(now);
            self.heard(at.min(now));
            self.excuse(late, true, now);
        }
    }

    /// What arrived isn't all that is coming: a frame is incomplete, or there
    /// was more than one read takes. Call it after
    /// [`handle_bytes`](Self::handle_bytes).
    ///
    /// The peer's pings wait behind what it sends, in its buffers and in the
    /// network's, and its patience may end before we get to read them. So,
    /// although we hear it, we ping once an interval: it hears that we live.
    pub fn handle_backlog(&mut self, now: Instant) {
        let due = match self.sent {
            0 => now,
            _ => self.flushed_at.plus(self.outward_interval()),
        };
        if self.phase == Phase::Idle && self.ping == Ping::None && due.is_due(now) {
            self.want_ping(now);
            self.flags.raise(Flag::Insist);
        }
    }

    /// A whole application frame arrived.
    ///
    /// Evidence of life unless only [`Evidence::Echo`] is.
    pub fn handle_message(&mut self, now: Instant) {
        let late = self.lateness(now);
        self.handle_evidence(Evidence::Frame, late, now);
    }

    /// A whole control frame arrived.
    ///
    /// Evidence of life unless only [`Evidence::Echo`] is; a pong that
    /// answers one of our pings always is. A second Hello replaces the first.
    pub fn handle_frame(&mut self, control: Control, now: Instant) {
        // Before a round trip is learned: it moves the deadline.
        let late = self.lateness(now);
        let evidence = match control {
            Control::Pong(nonce) if self.match_pong(nonce, now) => Evidence::Echo,
            _ => Evidence::Frame,
        };
        self.handle_evidence(evidence, late, now);
        if matches!(self.phase, Phase::Farewell | Phase::Ended) {
            // Somebody leaves: nothing is answered or learned any more.
            if self.phase == Phase::Farewell && control == Control::Goodbye {
                self.close_with(CloseReason::Peer);
            }
            return;
        }
        match control {
            Control::Hello(hello) => self.meet(hello.into(), now),
            Control::Ping(_) if !self.admits(now) => self.die(Cause::PingFlood, now),
            Control::Ping(nonce) => {
                self.pong = nonce;
                self.flags.raise(Flag::PongOwed);
            }
            Control::Pong(_) => {}
            Control::Goodbye => self.close_with(CloseReason::Peer),
        }
    }

    /// A pong without a nonce arrived, in a protocol that numbers none and
    /// answers in order: it is for the oldest ping that is unanswered.
    ///
    /// Evidence of life like any frame, and for [`Evidence::Echo`] if there is
    /// such a ping.
    pub fn handle_unnumbered_pong(&mut self, now: Instant) {
        match self.unanswered() {
            0 => self.handle_message(now),
            unanswered => {
                let oldest = self.sent.wrapping_sub(unanswered - 1);
                self.handle_frame(Control::Pong(self.random.nonce(oldest)), now);
            }
        }
    }

    /// All that [`poll_transmit`](Self::poll_transmit) gave has left for the
    /// kernel. From here on the ping that was among it is timed.
    pub fn handle_flushed(&mut self, now: Instant) {
        let late = self.lateness(now);
        self.excuse(late, false, now);
        self.stuck_since = Instant::MAX;
        if self.flags.has(Flag::GoodbyeTaken) && self.phase == Phase::Farewell {
            self.close_with(CloseReason::Local);
        }
        if self.ping == Ping::Taken {
            self.ping_left(now);
        }
    }

    /// A write took some bytes, though not all.
    ///
    /// The time of [`write_stall`](crate::ConfigBuilder::write_stall) and of a
    /// farewell counts from here. It is no evidence of life: kernels take
    /// bytes for a peer that hangs.
    pub fn handle_progress(&mut self, now: Instant) {
        let late = self.lateness(now);
        self.excuse(late, false, now);
        self.restart_write_stall(now);
        let end = now.plus(self.config.budget());
        // A clock that has run out must not make a farewell endless.
        if self.phase == Phase::Farewell && end < Instant::MAX {
            self.step_at = self.step_at.max(end);
        }
    }

    /// A write could take nothing now. The time from here to the next
    /// [`handle_progress`](Self::handle_progress) or
    /// [`handle_flushed`](Self::handle_flushed) counts for
    /// [`write_stall`](crate::ConfigBuilder::write_stall).
    pub fn handle_blocked(&mut self, now: Instant) {
        let late = self.lateness(now);
        if self.stuck_since == Instant::MAX {
            self.stuck_since = now;
        }
        self.excuse(late, false, now);
    }

    /// Time has passed. Does nothing before the deadline of
    /// [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(late) = self.lateness(now) {
            if self.excuse(Some(late), false, now) {
                return;
            }
            self.tell_stall(late, now);
        }
        match self.phase {
            Phase::Idle => self.ask_if_due(now),
            Phase::Round if self.step_at.is_due(now) => self.miss(now),
            Phase::Round if self.suspect_at().is_due(now) => self.suspect(now),
            Phase::Paused if self.step_at.is_due(now) => self.beat_in_pause(now),
            Phase::Farewell if self.step_at.is_due(now) => self.close_with(CloseReason::Local),
            Phase::Round | Phase::Paused | Phase::Farewell | Phase::Ended => {}
        }
        if self.write_stall_at().is_due(now) {
            self.die(Cause::WriteStalled, now);
        }
    }

    /// The transport ended.
    ///
    /// Gives [`Event::Dead`] with the matching cause; after our own goodbye
    /// it gives [`Event::Closed`]. Frames that arrived before the end are to
    /// be handled before it.
    pub fn handle_end(&mut self, end: End, now: Instant) {
        match self.phase {
            Phase::Farewell => self.close_with(CloseReason::Local),
            _ => self.die(end.into(), now),
        }
    }

    /// We stopped reading, because the application is busy.
    ///
    /// No verdict is given until [`handle_resumed`](Self::handle_resumed): the
    /// peer's signs of life lie unread. It is pinged once an interval, or more
    /// often if it pings more often itself or wouldn't wait that long, so that
    /// it hears that we live.
    ///
    /// Read its Hello before the first pause: until then nobody knows how
    /// soon it gives up, and how often it accepts pings.
    pub fn handle_paused(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Idle | Phase::Round) {
            return;
        }
        let late = self.lateness(now);
        self.excuse(late, true, now);
        self.phase = Phase::Paused;
        // Where `excuse_pause` finds it again; nothing is judged meanwhile.
        self.verdict_at = now;
        self.missed = 0;
        self.step_at = match (self.ping, self.sent) {
            (Ping::None, 0) => now,
            (Ping::None, _) => now.max(self.flushed_at.plus(self.outward_interval())),
            (Ping::Wanted | Ping::Taken, _) => Instant::MAX,
        };
        self.step_at = self.step_at.min(self.probe_at());
        if self.step_at <= now {
            self.beat_in_pause(now);
        }
    }

    /// We read again: the peer is judged afresh, as if it had just been
    /// heard.
    pub fn handle_resumed(&mut self, now: Instant) {
        if self.phase != Phase::Paused {
            return;
        }
        let late = self.lateness(now);
        let paused_for = now.micros_since(self.verdict_at);
        self.limiter.excuse(self.allowance(), paused_for);
        self.heard_at = self.heard_at.max(now);
        self.forgiven = 0;
        self.phase = Phase::Idle;
        self.excuse(late, true, now);
    }

    /// Asks the peer now, without waiting for the interval.
    ///
    /// A round begins, so the verdict comes N·W after this at the latest: who
    /// asks shortens the silence that is tolerated. If a ping is unanswered
    /// already this changes nothing, and if the last one is more recent than
    /// what the peer accepts (its `min_interval`), the new one waits until
    /// then.
    pub fn probe(&mut self, now: Instant) {
        match self.phase {
            Phase::Idle if self.next_accepted() > now => self.flags.raise(Flag::ProbeWaits),
            Phase::Idle => self.probe_now(now),
            Phase::Paused if self.ping == Ping::None => {
                self.step_at = self.step_at.min(now.max(self.next_accepted()));
                // The pause may be over before.
                self.flags.raise(Flag::ProbeWaits);
            }
            Phase::Paused | Phase::Round | Phase::Farewell | Phase::Ended => {}
        }
    }

    /// Says goodbye.
    ///
    /// Send it behind everything that the application has queued.
    /// [`Event::Closed`] comes when it has left, or when writes made no
    /// progress for N·W: a farewell from a dead peer is bounded too.
    pub fn close(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Farewell | Phase::Ended) {
            return;
        }
        self.phase = Phase::Farewell;
        self.step_at = now.plus(self.config.budget());
        self.flags.raise(Flag::GoodbyeWanted);
        self.flags.clear(Flag::PongOwed);
        if self.ping == Ping::Wanted {
            self.ping = Ping::None;
        }
    }

    // ---- outputs -------------------------------------------------------

    /// Whether [`poll_transmit`](Self::poll_transmit) has something: a cheap
    /// question for drivers that are called often.
    #[must_use]
    pub const fn has_transmit(&self) -> bool {
        let goodbye = self.flags.has(Flag::GoodbyeWanted) && !self.flags.has(Flag::GoodbyeTaken);
        let any = !self.flags.has(Flag::HelloSent)
            || self.flags.has(Flag::PongOwed)
            || matches!(self.ping, Ping::Wanted)
            || goodbye;
        any && !self.has_ended()
    }

    /// Whether nothing but silence is waited for: the peer was heard lately,
    /// and answered our latest ping if there was one.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
            && matches!(self.ping, Ping::None)
            && self.sent == self.answered
    }

    /// Whether [`poll_event`](Self::poll_event) has something.
    #[must_use]
    pub const fn has_event(&self) -> bool {
        const TELL: u32 = Flag::TellConnected.bit()
            | Flag::TellStall.bit()
            | Flag::TellRecovered.bit()
            | Flag::TellBeat.bit()
            | Flag::TellSuspect.bit()
            | Flag::TellClosed.bit()
            | Flag::TellDead.bit();
        self.flags.0 & TELL != 0
    }

    /// The next frame to send, until there is none.
    pub fn poll_transmit(&mut self) -> Option<Control> {
        if self.phase == Phase::Ended {
            return None;
        }
        if !self.flags.has(Flag::HelloSent) {
            self.flags.raise(Flag::HelloSent);
            return Some(Control::Hello(self.config.hello()));
        }
        if self.flags.has(Flag::PongOwed) {
            self.flags.clear(Flag::PongOwed);
            return Some(Control::Pong(self.pong));
        }
        if self.ping == Ping::Wanted {
            self.ping = Ping::Taken;
            self.sent = self.sent.wrapping_add(1);
            return Some(Control::Ping(self.random.nonce(self.sent)));
        }
        if self.flags.has(Flag::GoodbyeWanted) && !self.flags.has(Flag::GoodbyeTaken) {
            self.flags.raise(Flag::GoodbyeTaken);
            return Some(Control::Goodbye);
        }
        None
    }

    /// The next event, until there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        let silent_for = Duration::from_micros(self.told_silence);
        if self.flags.take(Flag::TellConnected) {
            if let Some(peer) = self.peer {
                return Some(Event::Connected { peer: peer.into() });
            }
        }
        if self.flags.take(Flag::TellStall) {
            let late = Duration::from_micros(self.told_late);
            return Some(Event::LocalStall { late });
        }
        if self.flags.take(Flag::TellRecovered) {
            return Some(Event::Recovered { silent_for });
        }
        if self.flags.take(Flag::TellBeat) {
            if let Some(rtt) = self.rtt.last() {
                return Some(Event::Beat { rtt });
            }
        }
        let missed = self.missed.into();
        if self.flags.take(Flag::TellSuspect) {
            self.flags.raise(Flag::SuspectGiven);
            return Some(Event::Suspect { missed, silent_for });
        }
        if self.flags.take(Flag::TellClosed) {
            let by_peer = self.flags.has(Flag::PeerClosed);
            let reason = if by_peer {
                CloseReason::Peer
            } else {
                CloseReason::Local
            };
            return Some(Event::Closed { reason });
        }
        self.flags
            .take(Flag::TellDead)
            .then_some(Event::Dead(Death {
                cause: self.told_cause,
                silent_for,
                missed,
                last_rtt: self.rtt.last(),
                diagnosis: Diagnosis::Unknown,
            }))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; `None`
    /// for never.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.deadline()).filter(|&deadline| deadline < Instant::MAX)
    }

    // ---- deadlines -----------------------------------------------------

    #[inline]
    fn deadline(&self) -> Instant {
        let deadline = match self.phase {
            Phase::Idle => self.round_at().min(self.probe_at()),
            Phase::Round => self.step_at.min(self.suspect_at()),
            Phase::Paused | Phase::Farewell => self.step_at,
            Phase::Ended => Instant::MAX,
        };
        deadline.min(self.write_stall_at())
    }

    /// When the silence was long enough for a round.
    #[inline]
    fn round_at(&self) -> Instant {
        let exact = self.heard_at.plus(self.idle);
        let on_grid = self.config.on_grid(exact);
        // Neither before the peer accepts a ping nor before its own is due.
        let earliest = self.peer.map_or(0, |peer| peer.min_interval);
        if on_grid > self.heard_at.plus(earliest) {
            on_grid
        } else {
            exact
        }
    }

    /// When the beat under way is later than round trips let expect.
    fn suspect_at(&self) -> Instant {
        let waiting = self.flags.has(Flag::RoundFlushed) && self.ping == Ping::None;
        if !self.config.adaptive() || !waiting || self.flags.has(Flag::LateTold) {
            return Instant::MAX;
        }
        match self.rtt.timeout() {
            Some(timeout) => {
                let floor = micros(self.config.adaptive_floor());
                self.flushed_at.plus(timeout.max(floor)).min(self.step_at)
            }
            None => Instant::MAX,
        }
    }

    /// When a probe that had to wait is due.
    fn probe_at(&self) -> Instant {
        if self.flags.has(Flag::ProbeWaits) {
            self.next_accepted()
        } else {
            Instant::MAX
        }
    }

    /// From when on the peer accepts another ping.
    fn next_accepted(&self) -> Instant {
        match self.peer {
            Some(peer) if self.sent > 0 => self.flushed_at.plus(peer.min_interval),
            _ => Instant::ORIGIN,
        }
    }

    fn write_stall_at(&self) -> Instant {
        match (self.phase, self.config.write_stall()) {
            (Phase::Idle | Phase::Round | Phase::Paused, Some(limit)) => self.stuck_since + limit,
            _ => Instant::MAX,
        }
    }

    /// Silence until we ping, microseconds: the slowest of what we want and
    /// what the peer needs.
    fn interval(&self) -> u64 {
        let own = micros(self.config.interval());
        match self.peer {
            Some(peer) if self.is_passive() => own.max(peer.min_interval).max(peer.interval),
            Some(peer) => own.max(peer.min_interval),
            None => own,
        }
    }

    /// The interval until the next round: a random part shorter, but not
    /// shorter than the peer accepts.
    fn next_idle(&self) -> u64 {
        if self.is_passive() {
            // The peer's ping is due by then at the latest, so nothing is
            // gained by asking earlier.
            return self.interval();
        }
        let dice = self.random.dice(self.sent.wrapping_add(1));
        let shortened = self.config.shortened(self.interval(), dice);
        shortened.max(self.peer.map_or(0, |peer| peer.min_interval))
    }

    /// The first interval: shortened by up to the whole of it, so that
    /// connections which were opened together spread.
    fn first_idle(&self) -> u64 {
        if self.is_passive() || self.config.jitter() == 0.0 {
            return self.interval();
        }
        let dice = u64::from(self.random.dice(0));
        ((self.interval() >> 16).saturating_mul(dice) >> 16).max(1)
    }

    /// Between two beats that only show that we live: as often as we ping, or
    /// as the peer needs if it is the more impatient, but not more often than
    /// it accepts.
    fn outward_interval(&self) -> u64 {
        let own = self.interval();
        let Some(peer) = self.peer else { return own };
        // What it tolerates in an interval that jitter, which we aren't told,
        // leaves nothing of.
        let patience = peer.detection_time - peer.interval;
        own.min(peer.interval).min(patience).max(peer.min_interval)
    }

    /// Whether the peer's pings take the place of our first one.
    fn is_passive(&self) -> bool {
        self.config.role() == Role::Passive
            && self.config.max_missed() > 1
            && self.config.evidence() != Evidence::Echo
    }

    /// Whether one more ping is no flood.
    fn admits(&mut self, now: Instant) -> bool {
        self.flags.has(Flag::NoHello) || self.limiter.admit(self.allowance(), now)
    }

    fn allowance(&self) -> Allowance {
        let negotiated = self.interval() + self.config.budget();
        Allowance {
            min_interval: micros(self.config.min_interval()),
            longest_gap: limiter::longest_gap(micros(self.config.detection_time()), negotiated),
            // A peer that said nothing of itself gets the most.
            max_missed: self.peer.map_or(u8::MAX, |peer| peer.max_missed.get()),
        }
    }

    // ---- evidence ------------------------------------------------------

    fn handle_evidence(&mut self, evidence: Evidence, late: Option<u64>, now: Instant) {
        let accepted = match self.config.evidence() {
            Evidence::Acknowledgement | Evidence::AnyBytes => true,
            Evidence::Frame => evidence != Evidence::AnyBytes,
            Evidence::Echo => evidence == Evidence::Echo,
        };
        if accepted {
            self.heard(now);
        }
        self.excuse(late, accepted, now);
    }

    fn heard(&mut self, now: Instant) {
        match self.phase {
            Phase::Idle | Phase::Paused => {}
            Phase::Round => {
                self.phase = Phase::Idle;
                self.missed = 0;
                if self.ping == Ping::Wanted && !self.flags.has(Flag::Insist) {
                    self.ping = Ping::None;
                    self.stuck_since = Instant::MAX;
                }
            }
            Phase::Farewell | Phase::Ended => return,
        }
        self.forgiven = 0;
        if self.flags.has(Flag::Suspect) {
            self.recover(now);
        }
        self.heard_at = self.heard_at.max(now);
    }

    fn recover(&mut self, now: Instant) {
        self.flags.clear(Flag::Suspect);
        self.told_silence = now.micros_since(self.heard_at);
        // A suspicion that nobody was told of needn't be taken back.
        self.flags.clear(Flag::TellSuspect);
        if self.flags.take(Flag::SuspectGiven) {
            self.flags.raise(Flag::TellRecovered);
        }
    }

    /// Whether a pong answers a ping of ours that is unanswered so far; takes
    /// its round trip if so.
    fn match_pong(&mut self, nonce: Nonce, now: Instant) -> bool {
        if matches!(self.phase, Phase::Farewell | Phase::Ended) {
            return false;
        }
        let Some(index) = (0..self.unanswered())
            .map(|back| self.sent.wrapping_sub(back))
            .find(|&index| self.random.nonce(index) == nonce)
        else {
            return false;
        };
        self.answered = index;
        self.pongs = self.pongs.wrapping_add(1);
        let left_at = if index == self.sent {
            (self.ping != Ping::Taken).then_some(self.flushed_at)
        } else {
            (index == self.round_first).then_some(self.round_flushed_at)
        };
        if let Some(left_at) = left_at {
            self.rtt.sample(now.micros_since(left_at));
            self.flags.set(Flag::TellBeat, self.config.beat_events());
        }
        true
    }

    /// How many of the latest pings nothing has answered: at most N in a round,
    /// and one more for each stall forgiven.
    fn unanswered(&self) -> u32 {
        let unanswered = self.sent.wrapping_sub(self.answered);
        unanswered.min(2 * self.config.max_missed())
    }

    fn meet(&mut self, peer: Peer, now: Instant) {
        if self.peer != Some(peer) {
            self.flags.raise(Flag::TellConnected);
        }
        // What wasn't due as the peer was known so far isn't late now.
        let probe_waited = !self.probe_at().is_due(now);
        let waited = match self.phase {
            Phase::Idle => now.micros_since(self.heard_at).min(self.idle),
            _ => 0,
        };
        self.peer = Some(peer);
        if self.is_passive() {
            self.idle = self.interval();
        } else {
            // Also not longer than what `status` says: a former Hello may have
            // asked for more.
            self.idle = self.idle.max(peer.min_interval).min(self.interval());
        }
        self.idle = self.idle.max(waited);
        if probe_waited && self.probe_at().is_due(now) {
            self.probe_now(now);
        }
    }

    // ---- rounds --------------------------------------------------------

    fn ask_if_due(&mut self, now: Instant) {
        let due = self.round_at();
        if due.is_due(now) {
            self.begin_idle_round(due, now);
        } else if self.probe_at().is_due(now) {
            self.probe_now(now);
        }
    }

    fn probe_now(&mut self, now: Instant) {
        self.begin_round(now, now);
        self.want_ping(now);
        self.flags.raise(Flag::Insist);
        self.flags.raise(Flag::Probe);
    }

    /// The interval was over at `due`; it is `now`.
    fn begin_idle_round(&mut self, due: Instant, now: Instant) {
        self.begin_round(due.max(self.earliest_round()), now);
        if self.verdict_at.is_due(now) {
            // Later than the whole budget, and the caller tolerates that.
            self.die(Cause::Silent, now);
        } else if !self.is_passive() {
            self.want_ping(now);
        }
    }

    /// The first interval of a connection may be shortened below I·(1 − J),
    /// and an arrival may have been reported too early; the round is counted
    /// from here all the same, so that no silence is judged sooner than
    /// promised.
    fn earliest_round(&self) -> Instant {
        let slack = micros(self.config.arrival_slack());
        let shortest = self.config.shortest(self.interval());
        self.heard_at.plus(shortest.saturating_add(slack))
    }

    /// A round whose N·W count from `base` begins at `now`.
    fn begin_round(&mut self, base: Instant, now: Instant) {
        self.phase = Phase::Round;
        self.flags.clear(Flag::ProbeWaits);
        self.missed = 0;
        self.flags.clear(Flag::RoundFlushed);
        self.flags.clear(Flag::LateTold);
        self.verdict_at = base.plus(self.config.budget());
        self.step_at = self.next_step(base.max(now));
    }

    /// W after `from`, or the verdict if that comes first.
    fn next_step(&self, from: Instant) -> Instant {
        from.plus(micros(self.config.timeout()))
            .min(self.verdict_at)
    }

    fn want_ping(&mut self, now: Instant) {
        if self.ping == Ping::None {
            self.ping = Ping::Wanted;
            self.stuck_since = self.stuck_since.min(now);
            self.flags.clear(Flag::Insist);
            self.flags.clear(Flag::Probe);
            self.flags.clear(Flag::Fresh);
            self.idle = self.next_idle();
        }
    }

    fn ping_left(&mut self, now: Instant) {
        self.ping = Ping::None;
        self.flushed_at = now;
        match self.phase {
            Phase::Idle if self.flags.has(Flag::Probe) => {
                // Evidence came before the probe left. It was asked for all
                // the same, and whoever waits for it must not wait for ever.
                self.begin_round(now, now);
            }
            Phase::Round => {
                let step = now.plus(micros(self.config.timeout()));
                if self.flags.has(Flag::Fresh) {
                    self.verdict_at = self.verdict_at.max(step);
                }
                self.step_at = self.step_at.max(step).min(self.verdict_at);
            }
            Phase::Paused => self.step_at = now.plus(self.outward_interval()),
            Phase::Idle | Phase::Farewell | Phase::Ended => {}
        }
        self.flags.clear(Flag::Probe);
        self.flags.clear(Flag::Fresh);
        self.flags.clear(Flag::LateTold);
        if !self.flags.has(Flag::RoundFlushed) || self.phase != Phase::Round {
            self.flags.raise(Flag::RoundFlushed);
            self.round_flushed_at = now;
            self.round_first = self.sent;
        }
    }

    /// The step of a round is over and nothing came.
    fn miss(&mut self, now: Instant) {
        if now >= self.verdict_at {
            let asked = self.flags.has(Flag::RoundFlushed) || self.ping == Ping::None;
            let cause = if asked {
                Cause::Silent
            } else {
                Cause::WriteStalled
            };
            return self.die(cause, now);
        }
        if self.ping == Ping::None {
            // It was on the wire for a whole W.
            self.missed = self.missed.saturating_add(1);
            if !self.flags.has(Flag::LateTold) {
                self.suspect(now);
            }
            self.want_ping(now);
            self.flags.clear(Flag::LateTold);
        } else if !self.flags.has(Flag::LateTold) {
            self.suspect(now);
        }
        self.step_at = self.next_step(now);
    }

    fn suspect(&mut self, now: Instant) {
        self.flags.raise(Flag::LateTold);
        self.flags.raise(Flag::Suspect);
        self.flags.raise(Flag::TellSuspect);
        self.told_silence = now.micros_since(self.heard_at);
    }

    /// What is left of the budget begins again at `now`.
    fn renew_round(&mut self, now: Instant) {
        let left = self
            .config
            .max_missed()
            .saturating_sub(self.missed.into())
            .max(1);
        let budget = u64::from(left) * micros(self.config.timeout());
        self.verdict_at = self.verdict_at.max(now.plus(budget));
        self.step_at = self.step_at.max(self.next_step(now));
    }

    /// A write that doesn't move is judged from `now` on.
    fn restart_write_stall(&mut self, now: Instant) {
        if self.stuck_since < now {
            self.stuck_since = now;
        }
    }

    fn beat_in_pause(&mut self, now: Instant) {
        self.flags.clear(Flag::ProbeWaits);
        self.want_ping(now);
        self.flags.raise(Flag::Insist);
        // Until it has left there is nothing to wait for.
        self.step_at = Instant::MAX;
    }

    // ---- our own stalls ------------------------------------------------

    /// How late this call is, if that is more than can be tolerated.
    #[inline]
    fn lateness(&self, now: Instant) -> Option<u64> {
        let late = now.micros_since(self.deadline());
        (late > micros(self.config.stall_tolerance())).then_some(late)
    }

    fn tell_stall(&mut self, late: u64, now: Instant) {
        if matches!(self.phase, Phase::Idle | Phase::Round | Phase::Paused) {
            self.flags.raise(Flag::TellStall);
            self.told_late = late;
            self.limiter.excuse(self.allowance(), late);
            self.restart_write_stall(now);
        }
    }

    /// Forgives the peer a silence that we slept through. `true` if a fresh
    /// round takes the place of what was due; otherwise what is due remains so
    /// until `handle_timeout`.
    ///
    /// If the peer was heard after all (`alive`) there is nothing to forgive,
    /// but what was heard may have lain in a buffer all the while, so it is
    /// asked at once.
    fn excuse(&mut self, late: Option<u64>, alive: bool, now: Instant) -> bool {
        let Some(late) = late else { return false };
        if !matches!(self.phase, Phase::Idle | Phase::Round) {
            return false;
        }
        if alive {
            self.tell_stall(late, now);
            self.want_ping(now);
            self.flags.raise(Flag::Insist);
            if self.flags.take(Flag::ProbeWaits) {
                self.flags.raise(Flag::Probe);
            }
            return false;
        }
        if u32::from(self.forgiven) >= self.config.max_missed() {
            return false;
        }
        self.forgiven += 1;
        self.tell_stall(late, now);
        if self.phase == Phase::Idle {
            self.begin_round(now.max(self.earliest_round()), now);
        } else {
            self.renew_round(now);
        }
        self.want_ping(now);
        self.flags.raise(Flag::Insist);
        self.flags.raise(Flag::Fresh);
        true
    }

    // ---- ends ----------------------------------------------------------

    fn die(&mut self, cause: Cause, now: Instant) {
        if self.phase == Phase::Ended {
            return;
        }
        if cause == Cause::Silent {
            // The whole budget is used up, however it was spent.
            self.missed = u8::try_from(self.config.max_missed()).unwrap_or(u8::MAX);
        }
        self.told_silence = now.micros_since(self.heard_at);
        self.told_cause = cause;
        self.flags.raise(Flag::TellDead);
        self.flags.raise(Flag::Died);
        self.end();
    }

    fn close_with(&mut self, reason: CloseReason) {
        self.flags.raise(Flag::TellClosed);
        self.flags
            .set(Flag::PeerClosed, reason == CloseReason::Peer);
        self.end();
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.flags.clear(Flag::Suspect);
        // The terminal event says it all.
        self.flags.clear(Flag::TellSuspect);
    }
}

impl From<Hello> for Peer {
    fn from(hello: Hello) -> Self {
        let interval = micros(hello.interval);
        Self {
            interval,
            detection_time: micros(hello.detection_time).max(interval),
            min_interval: micros(hello.min_interval),
            max_missed: u8::try_from(hello.max_missed).map_or(NonZeroU8::MAX, |count| {
                NonZeroU8::new(count).unwrap_or(NonZeroU8::MIN)
            }),
        }
    }
}

impl From<Peer> for Hello {
    fn from(peer: Peer) -> Self {
        Self {
            interval: Duration::from_micros(peer.interval),
            detection_time: Duration::from_micros(peer.detection_time),
            min_interval: Duration::from_micros(peer.min_interval),
            max_missed: peer.max_missed.get().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_is_at_most_256_bytes_its_configuration_included() {
        assert!(size_of::<Monitor>() <= 256, "{}", size_of::<Monitor>());
    }
}
