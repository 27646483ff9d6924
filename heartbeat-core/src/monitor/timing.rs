//! Intervals, bounds and allowances, from both sides' timings.
//!
//! This module decides how long each thing may take, given our configuration
//! and what the peer announced. It keeps no time and no state of the
//! connection: all of it is arithmetic. Times are microseconds.

use core::{num::NonZeroU8, time::Duration};

use super::health::patience;
use crate::{
    config::{Config, ConfigError, Evidence, Role, Rule, SHORTEST_SIGN_INTERVAL},
    frame::Hello,
    packed::{Packed, PackedMicros},
    random::Random,
    time::{Instant, micros},
};

/// Both sides' timings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    config: Config,
    peer: Known,
}

/// The peer's timings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Known {
    /// It has announced nothing. The time between its own beats; zero where it answers
    /// ours.
    Beats(PackedMicros),
    Hello(Peer),
}

/// A peer's [`Hello`], smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Peer {
    interval: PackedMicros,
    /// Invariant: not less than `interval`.
    detection_time: Packed<7>,
    min_interval: PackedMicros,
    max_missed: NonZeroU8,
    max_frame: Packed<4>,
    instance: [u8; 8],
}

/// The effect of a Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Nothing changed.
    Known,
    News,
    /// Timings that we refuse. They weren't taken.
    Refused,
}

/// Selects the random part that shortens an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Draw {
    /// An interval before any ping has left: any part of it.
    First,
    /// The interval after this many pings, which selects the random part.
    After(u32),
}

/// The times of one silence, with one random draw. In microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed)] // see `life`
pub(super) struct Silence {
    /// Until a ping is due.
    ping_after: u64,
    /// Rounds the end of `ping_after` down to a grid.
    mask: u64,
}

impl Silence {
    /// When a ping is due.
    #[inline]
    pub(super) const fn end(self, since: Instant) -> Instant {
        since.plus(self.ping_after).masked(self.mask)
    }
}

#[cfg(feature = "testkit")]
impl Silence {
    pub(super) fn describe(self, facts: &mut crate::testkit::Facts) {
        let Self { ping_after, mask } = self;
        facts.large(ping_after);
        facts.number(mask.trailing_zeros());
    }
}

impl Timing {
    pub(super) const fn new(config: Config) -> Self {
        Self {
            config,
            peer: Known::Beats(PackedMicros::new(0)),
        }
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn peer(&self) -> Option<Hello> {
        self.hello().copied().map(Hello::from)
    }

    /// Replaces the former Hello.
    pub(super) fn greet(&mut self, hello: Hello) -> Greeting {
        if self.config.refusal(&hello).is_some() {
            return Greeting::Refused;
        }
        let peer = Peer::from(hello);
        if self.peer == Known::Hello(peer) {
            return Greeting::Known;
        }
        self.peer = Known::Hello(peer);
        debug_assert!(self.detection_time() <= self.longest_detection());
        Greeting::News
    }

    #[inline]
    const fn hello(&self) -> Option<&Peer> {
        match &self.peer {
            Known::Hello(peer) => Some(peer),
            Known::Beats(_) => None,
        }
    }

    /// Sets the time between the peer's own beats, if it sends any. Returns whether that
    /// changes anything: it doesn't after a Hello.
    pub(super) fn expect_beats(&mut self, every: Option<Duration>) -> bool {
        let beats = PackedMicros::new(every.map_or(0, micros));
        let Known::Beats(before) = &mut self.peer else {
            return false;
        };
        let changes = core::mem::replace(before, beats) != beats;
        debug_assert!(self.detection_time() <= self.longest_detection());
        changes
    }

    /// The time between the peer's own beats.
    pub(super) const fn beats_every(&self) -> Option<Duration> {
        match &self.peer {
            Known::Beats(every) if every.get() > 0 => Some(Duration::from_micros(every.get())),
            _ => None,
        }
    }

    /// The longest silence of ours: `speak_within`, or longer if only pings can leave and the
    /// peer accepts them more slowly.
    pub(super) fn speak_within(&self, has_alive: bool) -> Option<Duration> {
        let slowest = if has_alive { 0 } else { self.min_gap() };
        let within = self.config.speak_within()?;
        Some(within.max(Duration::from_micros(slowest)))
    }

    /// Our configuration with another interval, if both sides accept it.
    pub(super) fn with_interval(&self, interval: Duration) -> Result<Config, ConfigError> {
        let config = self.config.with_interval(interval)?;
        let error = |rule| Err(ConfigError::new("interval", interval, rule));
        let Some(hello) = self.peer() else {
            return Ok(config);
        };
        match (config.refusal(&hello), config.refusal_by(&hello)) {
            (Some(refusal), _) => error(Rule::FitForPeer(refusal)),
            // A peer that takes us as we are takes others like that.
            (None, Some(refusal)) if self.config.refusal_by(&hello).is_none() => {
                error(Rule::FitForUs(refusal))
            }
            (None, _) => Ok(config),
        }
    }

    /// Replaces our configuration. Returns whether it differs.
    pub(super) fn replace_config(&mut self, config: Config) -> bool {
        let former = core::mem::replace(&mut self.config, config);
        debug_assert!(self.detection_time() <= self.longest_detection());
        former != config
    }

    /// The longest detection time that a peer can cause.
    fn longest_detection(&self) -> u64 {
        micros(self.config.detection_time()) * u64::from(self.config.max_stretch())
    }

    /// The bytes of an incomplete message that show life after `silence` microseconds.
    pub(super) fn bytes_wanted(&self, silence: u64) -> u64 {
        let rate = u64::from(self.config.min_rate());
        let (seconds, rest) = (silence / 1_000_000, silence % 1_000_000);
        let wanted = seconds.saturating_mul(rate);
        wanted
            .saturating_add((rest * rate).div_ceil(1_000_000))
            .max(1)
    }

    /// The interval I*: ours, or the peer's minimum or the time between its beats if that
    /// is longer.
    pub(super) fn interval(&self) -> u64 {
        let least = match &self.peer {
            Known::Hello(peer) => peer.min_interval.get(),
            // Cut, so that the detection time stays within its bound.
            Known::Beats(every) => {
                let longest = self.longest_detection() - self.probe_budget();
                every.get().min(longest)
            }
        };
        micros(self.config.interval()).max(least)
    }

    /// The probe budget N·W.
    #[inline]
    pub(super) const fn probe_budget(&self) -> u64 {
        self.config.probe_budget()
    }

    pub(super) fn timeout(&self) -> u64 {
        micros(self.config.timeout())
    }

    /// How many stalls in a row are forgiven: N.
    pub(super) fn max_missed(&self) -> u8 {
        u8::try_from(self.config.max_missed()).unwrap_or(u8::MAX)
    }

    /// The detection time, stretched for the peer.
    pub(super) fn detection_time(&self) -> u64 {
        self.interval().saturating_add(self.probe_budget())
    }

    /// The peer's announced `min_interval`; zero if unknown.
    #[inline]
    pub(super) fn min_gap(&self) -> u64 {
        match &self.peer {
            Known::Hello(peer) => peer.min_interval.get(),
            Known::Beats(_) => 0,
        }
    }

    /// The `max_missed` that the peer announced.
    pub(super) fn peer_max_missed(&self) -> Option<NonZeroU8> {
        self.hello().map(|peer| peer.max_missed)
    }

    /// Draws how long a silence lasts until a ping is due.
    pub(super) fn draw(&self, draw: Draw, random: Random) -> Silence {
        let interval = self.interval();
        let exactly = |ping_after| Silence {
            ping_after,
            mask: u64::MAX,
        };
        match draw {
            _ if self.is_passive() || !self.config.is_jittered() => exactly(interval),
            Draw::First => exactly(uniform(interval, random.first())),
            Draw::After(pings) => {
                let shortened = self.config.shortened(interval, random.dice(pings));
                let (least, grid) = (self.min_gap(), self.config.grid());
                let ping_after = shortened.max(least);
                // No ping comes before the peer accepts it.
                let has_room = (ping_after - least) >> grid > 0;
                let mask = if has_room { u64::MAX << grid } else { u64::MAX };
                Silence { ping_after, mask }
            }
        }
    }

    /// The earliest time from which a round may be counted, if the last evidence came at
    /// `last_heard` and may have been reported too early: after I*·(1 − J).
    pub(super) fn earliest_base(&self, last_heard: Instant) -> Instant {
        let shortest = self.config.shortest(self.interval());
        last_heard + self.config.arrival_slack() + Duration::from_micros(shortest)
    }

    /// A passive side lets the peer ping first.
    fn is_passive(&self) -> bool {
        self.config.role() == Role::Passive
    }

    /// The least time between pings that begin a round: max(m′, I*·(1 − max(J, ¼))).
    pub(super) fn spacing(&self) -> u64 {
        let interval = self.interval();
        let most_cut = self.config.shortest(interval).min(interval - interval / 4);
        most_cut.max(self.min_gap())
    }

    /// The time between two signs of life: our interval, or less if the peer's timings need it.
    pub(super) fn sign_interval(&self) -> u64 {
        let ours = micros(self.config.interval());
        let needed = self.hello().map_or(ours, |peer| {
            let interval = peer.interval.get();
            // The silence that it tolerates if its jitter, which it doesn't announce,
            // shortens its interval to nothing.
            let least = peer.detection_time.get() - interval;
            ours.min(interval).min(least)
        });
        needed.max(SHORTEST_SIGN_INTERVAL)
    }

    /// How long after its flush an unanswered ping is suspicious, if the measured round trips
    /// decide that.
    pub(super) fn suspect_after(&self, measured: u64) -> Option<u64> {
        let floor = micros(self.config.adaptive_floor());
        let expected = measured.max(floor).min(self.timeout());
        self.config.adaptive().then_some(expected)
    }

    /// How much longer an answer may take, if it was due this number of microseconds ago and
    /// we are served only now.
    pub(super) fn extra_time(&self, late: u64) -> Option<u64> {
        let extra = patience(late);
        (extra > micros(self.config.adaptive_floor())).then_some(extra)
    }

    /// The lateness of a call above which it is a stall of ours.
    ///
    /// A lateness of the whole probe budget always is: the peer would be dead without a ping.
    #[inline]
    pub(super) fn tolerated_lateness(&self) -> u64 {
        micros(self.config.stall_tolerance()).min(self.probe_budget() - 1)
    }

    /// Whether the configuration accepts `grade` as evidence.
    #[inline]
    pub(super) fn accepts(&self, grade: Evidence) -> bool {
        match self.config.evidence() {
            Evidence::Acknowledgement | Evidence::AnyBytes => true,
            Evidence::Frame => grade != Evidence::AnyBytes,
            Evidence::Echo => grade == Evidence::Echo,
        }
    }
}

#[cfg(feature = "testkit")]
impl Timing {
    pub(super) fn describe(&self, facts: &mut crate::testkit::Facts) {
        // The snapshot has the configuration.
        let Self { config: _, peer } = self;
        facts.number(self.hello().is_some());
        if let Known::Beats(every) = peer {
            facts.large(every.get());
        }
        if let Known::Hello(peer) = peer {
            let Peer {
                interval,
                detection_time,
                min_interval,
                max_missed,
                max_frame,
                instance,
            } = *peer;
            facts.large(interval.get());
            facts.large(detection_time.get());
            facts.large(min_interval.get());
            facts.number(max_missed.get());
            facts.large(max_frame.get());
            facts.number(i64::from_be_bytes(instance));
        }
    }
}

/// From 1 to `interval`, each as likely.
fn uniform(interval: u64, random: u64) -> u64 {
    let scaled = (u128::from(interval) * u128::from(random)) >> 64;
    u64::try_from(scaled).unwrap_or(u64::MAX).saturating_add(1)
}

impl From<Hello> for Peer {
    fn from(hello: Hello) -> Self {
        let interval = micros(hello.interval);
        Self {
            interval: Packed::new(interval),
            detection_time: Packed::new(micros(hello.detection_time).max(interval)),
            min_interval: Packed::new(micros(hello.min_interval)),
            max_missed: u8::try_from(hello.max_missed).map_or(NonZeroU8::MAX, |count| {
                NonZeroU8::new(count).unwrap_or(NonZeroU8::MIN)
            }),
            max_frame: Packed::new(hello.max_frame.into()),
            instance: hello.instance,
        }
    }
}

impl From<Peer> for Hello {
    fn from(peer: Peer) -> Self {
        Self {
            interval: Duration::from_micros(peer.interval.get()),
            detection_time: Duration::from_micros(peer.detection_time.get()),
            min_interval: Duration::from_micros(peer.min_interval.get()),
            max_missed: peer.max_missed.get().into(),
            max_frame: u32::try_from(peer.max_frame.get()).unwrap_or(u32::MAX),
            instance: peer.instance,
        }
    }
}
