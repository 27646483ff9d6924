//! The state machine that judges one peer.
//!
//! This module defines the inputs and outputs, and which part handles each:
//!
//! | part | decides |
//! |---|---|
//! | `timing` | how long each thing may take, from both sides' timings |
//! | `life` | the peer's state and its deadline |
//! | `round` | how much of its budget a round of pings has used |
//! | `outbox` | which frames we owe, and what each ping is for |
//! | `ledger` | which pings were answered; round trips |
//! | `notices` | which events are pending |
//! | `writes` | since when writes are blocked |
//! | `leaving` | what each side has said about its messages; what it is owed |
//! | `speech` | since when nothing of ours has left |
//! | `dialogue` | what changes with the state of a foreign protocol |
//! | `health` | how late our driver is, and the extra time that a pong gets for it |
//!
//! No part touches the fields of another. `inputs`, `interval`, `rounds`, `stalls` and `ends` connect them.
//! Nothing here does I/O or reads a clock: the caller tells what happened and
//! when, and carries out what is asked for.

use core::time::Duration;

use crate::{
    config::Config, event::Event, frame::Control, limiter::Limiter, random::Random, status::Status,
    time::Instant,
};

mod dialogue;
mod ends;
mod health;
mod inputs;
#[cfg(feature = "testkit")]
mod inspect;
mod interval;
mod leaving;
mod ledger;
mod life;
mod notices;
mod outbox;
mod round;
mod rounds;
mod speech;
mod stalls;
mod timing;
mod writes;

pub use dialogue::Dialogue;
use health::Health;
use leaving::Leaving;
use ledger::Ledger;
use life::Life;
use notices::Notices;
use outbox::Outbox;
use speech::Speech;
use timing::{Draw, Timing};
use writes::Writes;

/// Judges whether one peer lives.
///
/// # How to drive it
///
/// Tell it what happened with the `handle_*` methods; after each of them (one
/// or several), drain the outputs in this order:
///
/// 1. [`poll_transmit`](Self::poll_transmit) until `None`: frames to send, in
///    this order. If there were any, call [`handle_flushed`](Self::handle_flushed) when all of
///    them have left for the kernel.
/// 2. [`poll_event`](Self::poll_event) until `None`. Undrained events are
///    merged: a suspicion that ended before it was drained is never reported.
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
/// beyond that it is a local stall, and the peer gets a fresh ping and a whole timeout.
/// Time that goes backwards stands still. After a terminal event every input is ignored
/// and every output is `None`.
///
/// An arrival may be reported up to
/// [`Config::arrival_slack`](crate::Config::arrival_slack) earlier than it was.
///
/// # The times
///
/// With interval I, timeout W and `max_missed` N: after I of silence
/// (shortened by jitter) a *round* begins. It sends a ping, and another one W after that
/// ping had left if nothing came, and so on. N·W after the round began the peer is dead.
/// Any [`Evidence`](crate::Evidence) ends the round. So the verdict comes after I + N·W
/// of silence at the latest, and pings that couldn't leave use up the same N·W.
/// [`docs/state-machine.md`] has each input in each state.
///
#[doc = concat!("[`docs/state-machine.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/state-machine.md")]
#[derive(Clone, Debug)]
pub struct Monitor {
    timing: Timing,
    life: Life,
    outbox: Outbox,
    ledger: Ledger,
    notices: Notices,
    writes: Writes,
    leaving: Leaving,
    health: Health,
    speech: Speech,
    protocol: Protocol,
    random: Random,
    /// The latest time of an input: time doesn't run backwards.
    clock: Instant,
    /// The last evidence of life, the start, or when reading resumed.
    /// Invariant: not after `clock`.
    last_heard: Instant,
}

/// The protocol that the peer speaks.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    /// Ours: we announced the rate of pings that we accept.
    Ours(Limiter),
    /// One without a Hello. Its pings have no limit.
    Foreign {
        /// Whether an answer can be expected in its present state.
        answers: bool,
    },
}

impl Monitor {
    /// Starts to judge a peer at `now`, as if evidence had just arrived.
    ///
    /// The seed makes nonces and jitter: take it from a good source of
    /// randomness, and a new one for each connection. The same seed and the
    /// same inputs give the same outputs.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        let timing = Timing::new(config);
        let random = Random::new(seed);
        Self {
            life: Life::idle(&timing, Draw::First, random),
            timing,
            outbox: Outbox::new(true),
            ledger: Ledger::new(),
            notices: Notices::new(),
            writes: Writes::Moving,
            leaving: Leaving::new(),
            health: Health::new(),
            speech: Speech::new(&config, now),
            protocol: Protocol::Ours(Limiter::new(now)),
            random,
            clock: now,
            last_heard: now,
        }
    }

    /// For a protocol that has a ping of its own and neither Hello nor Alive.
    ///
    /// No Hello is sent, and none is expected. The peer can't know `min_interval`, so it isn't
    /// held to it. A peer that can't answer at the moment has no Alive to send, so its pings
    /// are evidence of life; and we send pings where [`Control::Alive`] would be sent.
    #[must_use]
    pub fn without_hello(mut self) -> Self {
        self.outbox = Outbox::new(false);
        self.protocol = Protocol::Foreign { answers: true };
        self
    }

    // ---- what is known -------------------------------------------------

    /// The configuration of this monitor, with the interval that was
    /// [set](Self::set_interval) last.
    #[must_use]
    pub const fn config(&self) -> &Config {
        self.timing.config()
    }

    /// A snapshot of the peer's state and of the connection's timings.
    #[must_use]
    pub fn status(&self) -> Status {
        let rtt = self.ledger.rtt();
        Status {
            state: self.life.state(
                self.notices.is_suspect(),
                self.leaving.is_leaving(),
                self.answers(),
            ),
            missed: self.life.missed().into(),
            last_heard: self.last_heard,
            last_rtt: rtt.last(),
            smoothed_rtt: rtt.smoothed(),
            pings: self.ledger.sent(),
            pongs: self.ledger.pongs(),
            peer: self.timing.peer(),
            interval: Duration::from_micros(self.timing.interval()),
            detection_time: Duration::from_micros(self.timing.detection_time()),
            speak_within: self.timing.speak_within(self.has_alive()),
        }
    }

    /// Whether a terminal event was given or waits in
    /// [`poll_event`](Self::poll_event).
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.life.has_ended()
    }

    /// If we leave or have left: the time by which the peer has to confirm it, or had to.
    #[must_use]
    pub fn leaves_until(&self) -> Option<Instant> {
        let until = match &self.life {
            Life::Closed { until, .. } => until.instant(),
            _ => self.leaving.until(),
        };
        Some(until).filter(|&until| until < Instant::MAX)
    }

    /// The last evidence of life, the start, or when reading resumed.
    #[inline]
    #[must_use]
    pub const fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// How many bytes of an incomplete message must have arrived since
    /// [`last_heard`](Self::last_heard) for
    /// [`handle_bytes`](Self::handle_bytes) to be called at `now`:
    /// [`min_rate`](crate::ConfigBuilder::min_rate) for each second, rounded up,
    /// and at least one.
    #[must_use]
    pub fn bytes_wanted(&self, now: Instant) -> u64 {
        self.timing.bytes_wanted(now.micros_since(self.last_heard))
    }

    /// Whether a ping of ours waits for its answer.
    #[must_use]
    pub const fn has_unanswered(&self) -> bool {
        !self.ledger.is_settled()
    }

    /// Whether only the interval is running: the peer was heard lately, and answered our
    /// latest ping if there was one.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.life, Life::Idle(_)) && self.outbox.has_no_ping() && self.ledger.is_settled()
    }

    // ---- outputs -------------------------------------------------------

    /// Whether [`poll_transmit`](Self::poll_transmit) has a frame. Cheaper than asking for it.
    #[must_use]
    pub const fn has_transmit(&self) -> bool {
        self.has_transmit_ahead() || self.leaving.is_due()
    }

    /// Whether [`poll_transmit_ahead`](Self::poll_transmit_ahead) has a frame.
    #[must_use]
    pub const fn has_transmit_ahead(&self) -> bool {
        if self.life.has_ended() {
            self.life.has_last_word()
        } else {
            self.outbox.has_frame()
        }
    }

    /// The next frame to send; `None` if there is none.
    ///
    /// A Fin and a goodbye come last: no message may follow them. While messages wait, a driver
    /// calls [`poll_transmit_ahead`](Self::poll_transmit_ahead) instead.
    pub fn poll_transmit(&mut self) -> Option<Control> {
        match self.has_transmit_ahead() {
            true => self.poll_transmit_ahead(),
            false => self.leaving.take(),
        }
    }

    /// The next frame that may go ahead of waiting messages: any frame but a Fin and the
    /// goodbye with which we leave.
    ///
    /// Once the connection has [ended](Self::has_ended) it is the last frame to the peer, which
    /// replaces the waiting messages.
    pub fn poll_transmit_ahead(&mut self) -> Option<Control> {
        if !self.has_transmit_ahead() {
            return None;
        }
        if self.outbox.take_hello() {
            return Some(self.hello());
        }
        if self.has_ended() {
            return self.life.take_last_word().map(Control::Goodbye);
        }
        if let Some(nonce) = self.outbox.take_pong() {
            return Some(Control::Pong(nonce));
        }
        if self.outbox.take_ping() {
            let index = self.ledger.send();
            return Some(Control::Ping(self.random.nonce(index)));
        }
        self.outbox.take_alive().then_some(Control::Alive)
    }

    /// What we announce.
    #[cold]
    fn hello(&self) -> Control {
        let instance = self.random.instance();
        Control::Hello(self.timing.config().hello(instance))
    }

    /// Whether [`poll_event`](Self::poll_event) has an event.
    #[must_use]
    pub const fn has_event(&self) -> bool {
        self.notices.has_event()
    }

    /// The next event; `None` if there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.notices.take_connected() {
            return self.connected();
        }
        let event = self.notices.poll(|| self.ledger.rtt().last());
        if event.is_some_and(|event| event.is_terminal()) {
            self.life.take_last_word();
        }
        event
    }

    /// What the peer announced.
    #[cold]
    fn connected(&self) -> Option<Event> {
        let peer = self.timing.peer();
        debug_assert!(peer.is_some(), "only its Hello connects us");
        peer.map(|peer| Event::Connected { peer })
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; `None`
    /// for never.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.deadline()).filter(|&deadline| deadline < Instant::MAX)
    }

    /// When to call [`handle_backlog`](Self::handle_backlog) if bytes that arrived at `since`
    /// or later still wait to be decoded; `None` for never, or not before the next input.
    ///
    /// The peer may have pinged at `since`. An Alive then reaches it before it gives us up.
    #[must_use]
    pub fn backlog_deadline(&self, since: Instant) -> Option<Instant> {
        let soon = since.plus(self.timing.sign_interval() / 2);
        Some(self.next_backlog_sign().max(soon)).filter(|&deadline| deadline < Instant::MAX)
    }

    #[inline]
    fn deadline(&self) -> Instant {
        match self.quiet_until() {
            Some(end) => end,
            None => self.deadline_in_any_state(),
        }
    }

    /// The end of the interval, if nothing else has a deadline: the ordinary case, with
    /// which each input begins.
    #[inline(always)]
    fn quiet_until(&self) -> Option<Instant> {
        match &self.life {
            Life::Idle(idle) if !idle.probe_waits() && !self.has_limits() && self.can_judge() => {
                Some(idle.interval_end(self.last_heard))
            }
            _ => None,
        }
    }

    /// The deadline, whatever it is for.
    #[inline(never)] // so that the code above stays small where it is inlined
    fn deadline_in_any_state(&self) -> Instant {
        let is_judged = || self.can_judge();
        let probe_at = || self.next_accepted();
        let own = self.life.deadline(self.last_heard, is_judged, probe_at);
        match self.has_limits() {
            true => own.min(self.next_limit()),
            false => own,
        }
    }

    /// Whether speech, blocked writes or leaving may have a deadline.
    #[inline]
    fn has_limits(&self) -> bool {
        self.speech.is_limited() || self.writes.are_limited() || self.leaving.is_leaving()
    }

    /// Of these, the earliest.
    #[cold]
    fn next_limit(&self) -> Instant {
        self.next_speech()
            .min(self.writes.limit_at())
            .min(self.leaving.until())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_is_at_most_320_bytes_its_configuration_included() {
        assert!(size_of::<Monitor>() <= 320, "{}", size_of::<Monitor>());
    }
}
