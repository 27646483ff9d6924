//! What the tests share: short names for times, and a little driver for
//! monitors in virtual time.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may panic too"
)]

use core::time::Duration;

use heartbeat_core::{
    CloseReason, Config, Control, Death, Event, GoodbyeCode, Instant, Monitor, NoDetail, Nonce,
};

pub(crate) const MICRO: Duration = us(1);
pub(crate) const YEAR: Duration = us(YEAR_MICROS);
pub(crate) const YEAR_MICROS: u64 = 365 * 24 * 60 * 60 * 1_000_000;

pub(crate) const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What the peers of the tests call their ends of the connection.
pub(crate) const INSTANCE: [u8; 8] = *b"the peer";

/// A goodbye of a peer that leaves.
pub(crate) const GOODBYE: Control = Control::Goodbye(GoodbyeCode::LEAVING);

/// The answer to a goodbye: everything before it was taken in.
pub(crate) const RECEIVED: Control = Control::Goodbye(GoodbyeCode::RECEIVED);

/// What comes of a goodbye.
pub(crate) const LEFT: CloseReason = CloseReason::Peer {
    code: GoodbyeCode::LEAVING,
    detail: NoDetail,
};

/// We leave, and for no other reason.
pub(crate) fn leave(monitor: &mut Monitor, now: Instant) {
    monitor.close(GoodbyeCode::LEAVING, now);
}

/// The moment `after` the start.
pub(crate) fn at(after: Duration) -> Instant {
    Instant::ORIGIN + after
}

/// A monitor and its driver in virtual time, and a record of what it did.
///
/// Deadlines are served exactly when they come, and frames leave at once,
/// unless a test says otherwise.
pub(crate) struct Run {
    pub(crate) monitor: Monitor,
    /// Since the start.
    pub(crate) now: Duration,
    pub(crate) sent: Vec<(Duration, Control)>,
    pub(crate) told: Vec<(Duration, Event)>,
    /// What is sent leaves at once; otherwise it waits.
    pub(crate) writable: bool,
    /// Timers fire at multiples of this only, if it isn't zero.
    pub(crate) timer: Duration,
    /// What [`converse`] brings is read; otherwise it waits.
    pub(crate) reads: bool,
    delivered: usize,
}

impl Run {
    /// From the start, with the Hello sent.
    pub(crate) fn new(config: Config) -> Self {
        Self::seeded(config, 1)
    }

    pub(crate) fn seeded(config: Config, seed: u64) -> Self {
        Self::of(Monitor::new(config, seed, Instant::ORIGIN))
    }

    /// In a protocol without Hello and Alive.
    pub(crate) fn foreign(config: Config, seed: u64) -> Self {
        Self::of(Monitor::new(config, seed, Instant::ORIGIN).without_hello())
    }

    fn of(monitor: Monitor) -> Self {
        let mut run = Self {
            monitor,
            now: Duration::ZERO,
            sent: Vec::new(),
            told: Vec::new(),
            writable: true,
            timer: Duration::ZERO,
            reads: true,
            delivered: 0,
        };
        run.drain();
        run
    }

    /// Time passes, and nothing comes.
    pub(crate) fn until(&mut self, end: Duration) {
        while let Some(deadline) = self.next_timer().filter(|&deadline| deadline <= end) {
            assert!(deadline >= self.now, "a deadline in the past");
            self.now = deadline;
            self.wake();
            assert!(self.next_timer() > Some(deadline) || self.next_timer().is_none());
        }
        self.now = end;
    }

    /// The last microsecond before `end`.
    pub(crate) fn just_before(&mut self, end: Duration) {
        self.until(end - MICRO);
    }

    /// Something happens, ahead of a deadline at the same instant.
    pub(crate) fn at(&mut self, when: Duration, input: impl FnOnce(&mut Monitor, Instant)) {
        if when > self.now {
            self.just_before(when);
            self.now = when;
        }
        input(&mut self.monitor, at(when));
        self.wake();
    }

    /// Time passes, and no deadline is served.
    pub(crate) fn asleep_until(&mut self, end: Duration) {
        self.now = end;
    }

    /// What a driver does at each wake-up, once it has read.
    pub(crate) fn wake(&mut self) {
        self.monitor.handle_timeout(at(self.now));
        self.drain();
    }

    fn drain(&mut self) {
        self.assert_foretold();
        while let Some(control) = self.monitor.poll_transmit() {
            self.sent.push((self.now, control));
            self.assert_foretold();
        }
        if self.writable {
            self.monitor.handle_flushed(at(self.now));
        }
        self.assert_foretold();
        while let Some(event) = self.monitor.poll_event() {
            self.told.push((self.now, event));
            self.assert_foretold();
        }
    }

    /// Whether there are outputs is known without taking them.
    fn assert_foretold(&self) {
        let mut copy = self.monitor.clone();
        assert_eq!(copy.has_transmit(), copy.poll_transmit().is_some());
        assert_eq!(copy.has_event(), copy.poll_event().is_some());
    }

    fn next_timer(&self) -> Option<Duration> {
        let deadline = self.monitor.poll_timeout()?;
        let deadline = deadline.saturating_duration_since(Instant::ORIGIN);
        if self.timer.is_zero() {
            return Some(deadline);
        }
        let ticks = deadline.as_micros().div_ceil(self.timer.as_micros());
        Some(self.timer * u32::try_from(ticks).unwrap())
    }

    /// When pings were sent.
    pub(crate) fn pings(&self) -> Vec<Duration> {
        self.sent_at(|control| matches!(control, Control::Ping(_)))
    }

    /// When `Alive` was sent.
    pub(crate) fn signs(&self) -> Vec<Duration> {
        self.sent_at(|control| matches!(control, Control::Alive))
    }

    fn sent_at(&self, like: impl Fn(&Control) -> bool) -> Vec<Duration> {
        let sent = self.sent.iter().filter(|(_, control)| like(control));
        sent.map(|&(when, _)| when).collect()
    }

    /// When pings were sent that didn't leave with an answer.
    pub(crate) fn asked_alone(&self) -> Vec<Duration> {
        let is_answer = |when: Duration, index: usize| {
            let before = index.checked_sub(1).and_then(|index| self.sent.get(index));
            matches!(before, Some(&(at, Control::Pong(_))) if at == when)
        };
        let sent = self.sent.iter().enumerate();
        let alone = sent.filter(|&(index, &(when, control))| {
            matches!(control, Control::Ping(_)) && !is_answer(when, index)
        });
        alone.map(|(_, &(when, _))| when).collect()
    }

    /// The nonces of all pings.
    pub(crate) fn nonces(&self) -> Vec<Nonce> {
        let nonce = |&(_, control): &(_, Control)| match control {
            Control::Ping(nonce) => Some(nonce),
            _ => None,
        };
        self.sent.iter().filter_map(nonce).collect()
    }

    /// The answer to the last ping.
    pub(crate) fn answer(&self) -> Control {
        Control::Pong(*self.nonces().last().unwrap())
    }

    /// The peer's death, and when it was told.
    pub(crate) fn death(&self) -> Option<(Duration, Death)> {
        self.told.iter().find_map(|&(when, event)| match event {
            Event::Dead(death) => Some((when, death)),
            _ => None,
        })
    }

    /// How often the peer was suspected.
    pub(crate) fn suspicions(&self) -> usize {
        let events = self.told.iter();
        events
            .filter(|(_, event)| matches!(event, Event::Suspect { .. }))
            .count()
    }

    #[track_caller]
    pub(crate) fn assert_alive(&self) {
        assert_eq!(self.death(), None);
        assert!(!self.monitor.has_ended());
    }

    /// It isn't dead one microsecond before `when`, and is at `when`.
    #[track_caller]
    pub(crate) fn assert_dies_at(&mut self, when: Duration) -> Death {
        self.just_before(when);
        self.assert_alive();
        self.until(when);
        let (told_at, death) = self.death().expect("a death");
        assert_eq!(told_at, when);
        death
    }
}

/// Two peers talk over a link that takes `delay` each way.
pub(crate) fn converse(a: &mut Run, b: &mut Run, delay: Duration, end: Duration) {
    loop {
        let arrivals = [next_arrival(a, b, delay), next_arrival(b, a, delay)];
        let timers = [a.next_timer(), b.next_timer()];
        let next = arrivals.into_iter().chain(timers).flatten().min();
        let now = next.unwrap_or(Duration::MAX).max(a.now);
        if now > end {
            a.now = end;
            b.now = end;
            return;
        }
        deliver(a, b, delay, now);
        deliver(b, a, delay, now);
    }
}

fn next_arrival(from: &Run, to: &Run, delay: Duration) -> Option<Duration> {
    let &(sent_at, _) = from.sent.get(from.delivered).filter(|_| to.reads)?;
    Some(sent_at + delay)
}

/// `to` wakes up at `now`: reads what is there, then looks at the clock, if a
/// timer or an arrival woke it.
fn deliver(from: &mut Run, to: &mut Run, delay: Duration, now: Duration) {
    let mut woken = to.next_timer().is_some_and(|deadline| deadline <= now);
    to.now = now;
    while next_arrival(from, to, delay).is_some_and(|arrival| arrival <= now) {
        if let Some(&(_, control)) = from.sent.get(from.delivered) {
            to.monitor.handle_frame(control, at(now));
        }
        from.delivered += 1;
        woken = true;
    }
    if woken {
        to.wake();
    }
}
