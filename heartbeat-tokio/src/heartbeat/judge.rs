//! Judging the peer: the monitor, the clock and the timer.
//!
//! This module decides when the monitor is called, what is read before that, and the next
//! deadline. It owns the monitor and the timer with its clock: the other modules get the
//! time from here, and every input of the monitor goes through [`Judge::tell`]. It touches
//! no field of theirs. The monitor decides whether the peer lives.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    task::Context,
    time::Duration,
};

use heartbeat_core::{Config, ConfigError, Control, Event, Evidence, Instant, Monitor};

use super::Heartbeat;
use crate::{
    net::Net,
    observe::Observe,
    timer::{Clock, Timer},
    transport::Transport,
};

/// The monitor, and the time.
#[derive(Debug)]
pub(super) struct Judge {
    monitor: Monitor,
    timer: Timer,
    observe: Observe,
    /// The given configuration, if it switches beat events off. The monitor reports them all the
    /// same, for a probe that waits for an answer.
    quiet: Option<Box<Config>>,
    /// The monitor had frames or events after its last input or output.
    due: bool,
    /// The timer has fired, and everything that had arrived was read. The peer is judged when
    /// all of it is decoded.
    is_verdict_due: bool,
    /// The application probed, and no round trip was measured since.
    is_probing: bool,
    /// The number of reported events, messages aside; wraps.
    news: u32,
    /// The number of measured round trips; wraps.
    beats: u32,
}

impl Judge {
    pub(super) fn new(config: Config, has_hello: bool) -> Self {
        let clock = Clock::start();
        // Keyed by the operating system's randomness.
        let seed = RandomState::new().build_hasher().finish();
        let (told, quiet) = match config.beat_events() {
            true => (config, None),
            false => (with_beat_events(config), Some(Box::new(config))),
        };
        let monitor = Monitor::new(told, seed, clock.now());
        let monitor = match has_hello {
            true => monitor,
            false => monitor.without_hello(),
        };
        Self {
            due: monitor.has_transmit(),
            monitor,
            // A backlog arms it for half an interval: see `note_message`.
            timer: Timer::with_step(clock, config.interval() * 5 / 8),
            observe: Observe::new(),
            quiet,
            is_verdict_due: false,
            is_probing: false,
            news: 0,
            beats: 0,
        }
    }

    // ---- the monitor -----------------------------------------------------

    #[inline]
    pub(super) const fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// The configuration of the connection.
    #[inline]
    pub(super) fn config(&self) -> &Config {
        let quiet = self.quiet.as_deref();
        quiet.unwrap_or_else(|| self.monitor.config())
    }

    /// Whether beats aren't reported to the application.
    pub(super) const fn is_quiet_about_beats(&self) -> bool {
        self.quiet.is_some()
    }

    /// Gives the monitor an input that happens now.
    pub(super) fn tell(&mut self, input: impl FnOnce(&mut Monitor, Instant)) {
        self.tell_at(self.now(), input);
    }

    /// Gives the monitor an input that happened then.
    #[inline]
    pub(super) fn tell_at(&mut self, at: Instant, input: impl FnOnce(&mut Monitor, Instant)) {
        input(&mut self.monitor, at);
        self.note_outputs();
    }

    #[inline]
    fn note_outputs(&mut self) {
        self.due = self.monitor.has_event() || self.monitor.has_transmit();
    }

    /// Whether the monitor has an event, or a frame, which may have to wait.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        debug_assert!(
            self.due == (self.monitor.has_event() || self.monitor.has_transmit()),
            "every input and output is noted"
        );
        self.due
    }

    /// Probes the peer.
    pub(super) fn probe(&mut self) {
        self.is_probing = true;
        self.tell(Monitor::probe);
    }

    /// Sets another interval.
    pub(super) fn set_interval(&mut self, interval: Duration) -> Result<(), ConfigError> {
        let quiet = self.quiet.as_deref();
        let quiet = quiet.map(|config| config.with_interval(interval));
        let quiet = quiet.transpose()?;
        self.monitor.set_interval(interval, self.timer.now())?;
        self.note_outputs();
        self.quiet = quiet.map(Box::new);
        Ok(())
    }

    /// Pings again if the awaited answer proves nothing.
    pub(super) fn probe_again(&mut self) {
        if self.is_probing {
            self.probe();
        }
    }

    /// The next frame to send. A Fin and a goodbye wait for the `messages`.
    pub(super) fn next_control(&mut self, messages: bool) -> Option<Control> {
        let control = match messages {
            true => self.monitor.poll_transmit_ahead(),
            false => self.monitor.poll_transmit(),
        };
        self.note_outputs();
        if let Some(control) = &control {
            self.observe.sent(control);
        }
        control
    }

    /// The next event.
    pub(super) fn next_event<S>(&mut self, net: &Net<S>, stream: Option<&S>) -> Option<Event> {
        if let Some(stream) = stream {
            self.observe.look(&self.monitor, net, stream);
        }
        let event = self.monitor.poll_event();
        self.note_outputs();
        if let Some(event) = &event {
            self.note_news();
            self.observe.event(event);
        }
        match event {
            Some(Event::Beat { .. }) => {
                self.beats = self.beats.wrapping_add(1);
                self.is_probing = false;
            }
            Some(Event::LocalStall { .. }) => self.probe_again(),
            _ => {}
        }
        event
    }

    /// Watchers are told how it ended.
    pub(super) fn observe_end(&mut self, event: &Event, error: Option<&std::io::Error>) {
        self.observe.end(event, error);
    }

    pub(super) const fn note_news(&mut self) {
        self.news = self.news.wrapping_add(1);
    }

    pub(super) const fn news(&self) -> u32 {
        self.news
    }

    pub(super) const fn beats(&self) -> u32 {
        self.beats
    }

    // ---- the time --------------------------------------------------------

    #[inline]
    pub(super) fn now(&self) -> Instant {
        self.timer.now()
    }

    #[inline]
    pub(super) fn has_fired(&self) -> bool {
        self.timer.has_fired()
    }

    /// Whether nothing waits to be judged, told or sent.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_due() && !self.is_verdict_due && !self.timer.has_fired()
    }

    /// Makes sure that the task wakes up at `deadline` or earlier; `false` if it has passed.
    pub(super) fn arm(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> bool {
        self.timer.arm(deadline, cx)
    }

    /// Makes sure that the timer has fired by `deadline`, whichever side is woken.
    pub(super) fn advance(&mut self, deadline: Instant) {
        self.timer.advance(deadline);
    }

    /// The timer's next deadline is a new one.
    pub(super) fn served(&mut self) {
        self.timer.served();
    }

    /// Moves the connection to another machine.
    #[cfg(feature = "testkit")]
    pub(super) fn move_to(&mut self, machine: &'static crate::suspend::Machine) {
        self.timer.move_to(machine);
    }

    /// The timer belongs to this runtime from now on.
    pub(super) fn move_here(&mut self) {
        self.timer.move_here();
    }
}

/// Replaces the timings and nothing else.
fn with_beat_events(config: Config) -> Config {
    let told = config.to_builder().beat_events(true).build();
    // It was valid before.
    told.unwrap_or(config)
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// The state of the application's protocol may have changed, and with it whether pings are
    /// allowed and answered.
    #[inline]
    pub(super) fn note_dialogue(&mut self) {
        let stream = self.stream.as_ref().filter(|_| !C::HELLO);
        let dialogue = stream.map(|stream| self.transport.dialogue(stream));
        if let Some(dialogue) = dialogue.filter(|new| *new != self.judge.monitor.dialogue()) {
            self.judge
                .tell(|monitor, now| monitor.handle_dialogue(dialogue, now));
            self.observe_state();
            self.wakers.wake_reader();
        }
    }

    /// Observers learn of a state that no event tells of.
    pub(super) fn observe_state(&mut self) {
        if let Some(stream) = &self.stream {
            let judge = &mut self.judge;
            judge.observe.look(&judge.monitor, &self.net, stream);
        }
    }

    // ---- judging ---------------------------------------------------------

    /// Whether the timer has fired, and everything that was read before is decoded.
    pub(super) fn is_time_to_judge(&self) -> bool {
        self.judge.has_fired()
            && !self.judge.is_verdict_due
            && !self.has_ended()
            && !self.has_unseen()
    }

    /// The timer has fired. Everything that has arrived is read before the peer is judged.
    pub(super) fn read_before_judging(&mut self, cx: &mut Context<'_>) {
        self.judge.is_verdict_due = true;
        if self.inbox.is_paused() {
            let now = self.judge.now();
            let is_gone = |stream| self.net.is_gone(stream, now);
            if self.stream.as_ref().is_some_and(is_gone) {
                self.read_the_rest();
            }
        } else {
            let found = self.read_regardless(cx).is_ready();
            if found || self.inbox.has_messages() {
                // The message may have waited for long, and so may the peer's pings behind it.
                self.judge.tell(Monitor::handle_backlog);
            }
        }
        if !self.has_unseen() {
            self.judge_if_due(cx);
        }
    }

    /// Judges the peer if that is due, and arms the timer again. Returns whether it was due.
    pub(super) fn judge_if_due(&mut self, cx: &mut Context<'_>) -> bool {
        let is_due = std::mem::take(&mut self.judge.is_verdict_due);
        if is_due {
            self.settle_arrivals();
            // Otherwise their deadline, which has passed, would be the next one again.
            self.arrivals.calm();
            self.ask_the_kernel();
            self.look_for_progress();
            self.judge_patience();
            self.judge.tell(Monitor::handle_timeout);
            // If that has passed already, the timer has fired again.
            self.judge.served();
            self.arm(cx);
        }
        is_due
    }

    /// Arms the timer for the next deadline; `false` if it has passed.
    pub(super) fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        self.judge.arm(self.next_deadline(), cx)
    }

    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        let monitor = &self.judge.monitor;
        let last = self.arrivals.last();
        let backlog = match self.inbox.has_messages() {
            true => monitor.backlog_deadline(last),
            false => None,
        };
        [
            monitor.poll_timeout(),
            self.net.look_at(),
            self.inbox.deadline(self.judge.config()),
            backlog,
            self.untimed_until(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The time until which reads needn't be timed: reads are frequent, and only a silence
    /// could become due.
    #[inline]
    fn untimed_until(&self) -> Option<Instant> {
        let config = self.judge.config();
        let any_bytes = || !matches!(config.evidence(), Evidence::Frame | Evidence::Echo);
        let is_so = self.arrivals.are_many() && self.judge.monitor.is_idle() && any_bytes();
        is_so.then(|| self.arrivals.deadline(config))
    }

    /// There is nothing to do until the timer fires or bytes arrive. Arms the timer; `false` if
    /// its deadline has passed. While arrivals aren't timed and nothing is sent, the deadline
    /// doesn't move.
    #[inline]
    pub(super) fn wait(&mut self, cx: &mut Context<'_>) -> bool {
        if self.arrivals.are_relaxed() && self.sending.is_idle() {
            let timer = &self.judge.timer;
            if timer.wakes(cx) && !timer.has_fired() {
                return true;
            }
        }
        let is_armed = self.arm(cx);
        if is_armed && self.untimed_until().is_some() {
            self.arrivals.relax();
        }
        is_armed
    }
}
