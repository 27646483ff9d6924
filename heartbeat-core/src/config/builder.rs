//! Builds a [`Config`] and refuses invalid values.

use core::time::Duration;

use super::{
    Choices, Config, Evidence, MAX_DURATION, MAX_FRAME, MILLION, Role, SHORTEST_SIGN_INTERVAL,
    default_adaptive_floor, default_min_interval,
    error::{ConfigError, Rule, Value},
    grid, probe_budget,
};
use crate::{
    packed::{Packed, PackedMicros},
    time::micros,
};

/// Collects the knobs of a [`Config`]; [`build`](Self::build) checks them.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ConfigBuilder {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) max_missed: u32,
    pub(super) jitter: f64,
    pub(super) adaptive: bool,
    pub(super) adaptive_floor: Option<Duration>,
    pub(super) evidence: Evidence,
    pub(super) role: Role,
    pub(super) min_interval: Option<Duration>,
    pub(super) stall_tolerance: Option<Duration>,
    pub(super) write_stall: Option<Duration>,
    pub(super) max_frame: usize,
    pub(super) min_rate: u32,
    pub(super) max_stretch: u32,
    pub(super) max_pause: Option<Duration>,
    pub(super) speak_within: Option<Duration>,
    pub(super) linger: Duration,
    pub(super) beat_events: bool,
}

impl Default for ConfigBuilder {
    fn default() -> Self {
        let mut builder = Config::default().to_builder();
        // These follow other knobs unless they are set.
        builder.adaptive_floor = None;
        builder.min_interval = None;
        builder.stall_tolerance = None;
        builder
    }
}

impl ConfigBuilder {
    /// Silence from the peer after which we ping. Default 5 s; from 1 µs to
    /// 365 days.
    ///
    /// Shorter finds a death sooner and costs more pings on idle connections.
    /// Connections with traffic aren't pinged at all.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long one ping may go unanswered. Default 3 s; from 1 µs to 365
    /// days.
    ///
    /// `max_missed · timeout` is the outage that a connection survives: an
    /// idle connection is given up only if nothing came through for that
    /// long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Misses in a row until the peer is dead. Default 3; from 1 to 255.
    ///
    /// Each miss sends one more ping, so that one lost answer decides
    /// nothing.
    pub fn max_missed(mut self, max_missed: u32) -> Self {
        self.max_missed = max_missed;
        self
    }

    /// Each interval is shortened by a random part of it, up to this. Default
    /// 0.25; from 0 to 1.
    ///
    /// Keeps many connections from pinging in step. An eighth of it goes into
    /// rounding the end of an interval down to a grid, so that one wake-up can
    /// serve several connections. The first interval is
    /// shortened by anything up to the whole of it, so that connections which
    /// were opened together spread at once. Zero switches off all randomness:
    /// the detection time is then exact.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Whether [`Suspect`](crate::Event::Suspect) follows the measured round
    /// trip. Default on.
    ///
    /// The timer is the one of RFC 6298: smoothed round trip plus four times
    /// its variation, or eight times our own recent lateness if that is longer. If we are
    /// late ourselves when that time is over, the beat gets eight times this lateness more.
    /// It only makes suspicion come earlier than after `timeout`. The verdict keeps its deadline: a
    /// fixed deadline is the best detector with a bound (Chen, Toueg, Aguilera 2002,
    /// theorem 5).
    pub fn adaptive(mut self, adaptive: bool) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// The shortest wait for a pong before [`Suspect`](crate::Event::Suspect), however short
    /// the round trips are. Default 200 ms, or `timeout` if that is shorter; from 1 µs to
    /// `timeout`.
    pub fn adaptive_floor(mut self, floor: Duration) -> Self {
        self.adaptive_floor = Some(floor);
        self
    }

    /// What counts as a sign of life. Default [`Evidence::AnyBytes`].
    pub fn evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    /// Whether we let the peer ping first. Default [`Role::Both`].
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// The fastest idle pings that we accept. Default the least of half of
    /// `interval`, 1 s and `max_missed · timeout`; from 1 µs to the lesser of
    /// `interval` and `max_missed · timeout`.
    ///
    /// It is announced, and a peer with a shorter interval slows down to it.
    /// A peer that pings faster all the same is cut off with
    /// [`PingFlood`](crate::Cause::PingFlood) after a bounded number. What it
    /// could have sent at the accepted pace since the connection began may
    /// arrive at once.
    ///
    /// It can't exceed our own interval: a peer with our timings couldn't detect in time
    /// that we live.
    pub fn min_interval(mut self, min_interval: Duration) -> Self {
        self.min_interval = Some(min_interval);
        self
    }

    /// The lateness of a wake-up above which it is a local stall. Default `timeout`; from
    /// 1 µs to 365 days.
    ///
    /// After a stall the peer isn't blamed for a silence in which we didn't read: it gets a
    /// fresh ping. A lateness up to this adds to the detection time instead. A lateness of
    /// `max_missed · timeout` or more is always a stall.
    pub fn stall_tolerance(mut self, tolerance: Duration) -> Self {
        self.stall_tolerance = Some(tolerance);
        self
    }

    /// How long writes may make no progress while bytes still arrive, before the peer is
    /// dead ([`WriteStalled`](crate::Cause::WriteStalled)). Default: no limit; from 1 µs to
    /// 365 days.
    ///
    /// A peer that sends but doesn't read is alive. Set this if such a peer is of no use to
    /// you. Where the adapter hands whole frames to a library, as with a WebSocket, only frames
    /// that are no pongs are progress. The limit has to be longer than the longest message takes
    /// to write.
    pub fn write_stall(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.write_stall = limit.into();
        self
    }

    /// The largest message, in bytes, that is accepted. It is announced, and the
    /// peer sends no larger ones; before the peer's Hello it limits what we send,
    /// too. Default 8 MiB; from 1 byte to 4 GiB − 2 bytes.
    ///
    /// Bounds the memory that a peer can make us hold.
    pub fn max_frame(mut self, bytes: usize) -> Self {
        self.max_frame = bytes;
        self
    }

    /// The rate, in bytes per second, at which an incomplete message is evidence of life.
    /// Default 100; with 0 any byte is.
    ///
    /// Bytes of an incomplete message are evidence once `min_rate` times the time since the
    /// last evidence have arrived since then. A higher rate detects a peer that trickles
    /// sooner, but needs shorter messages on a slow line. A whole frame is evidence at any
    /// rate.
    pub fn min_rate(mut self, bytes_per_second: u32) -> Self {
        self.min_rate = bytes_per_second;
        self
    }

    /// The largest factor by which a peer's `min_interval` may stretch our
    /// [`Config::detection_time`]. Default 4; from 1 to 255.
    ///
    /// A peer that accepts fewer pings than we would send makes us ping less often. A Hello
    /// that needs a larger factor is refused ([`Refused`](crate::Cause::Refused)). The bound
    /// also holds for the kernel's verdict.
    pub fn max_stretch(mut self, times: u32) -> Self {
        self.max_stretch = times;
        self
    }

    /// How long the oldest message may wait in the inbox of a spawned
    /// connection. Then the connection is given up
    /// ([`NotReading`](crate::Cause::NotReading)). Default: no limit; from 1 µs
    /// to 365 days.
    ///
    /// With it, a handler that hangs ends the connection, and the peer is told. An
    /// application that hangs while no message waits isn't noticed. A connection that isn't
    /// spawned has no inbox, so this has no effect on it.
    pub fn max_pause(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.max_pause = limit.into();
        self
    }

    /// The longest time without a byte of ours: then an [`Alive`](crate::Control::Alive)
    /// leaves, whatever the peer sends. Default: no limit; from 20 ms to 365 days.
    ///
    /// For peers that give up a silent side without pinging it: one-way heartbeats, or a
    /// protocol's keep-alive time. Choose half of what the peer tolerates. In a protocol
    /// [without a Hello](crate::Monitor::without_hello) a ping leaves instead, which
    /// begins no round; it keeps the peer's [`min_interval`](Self::min_interval), and
    /// [`Status::speak_within`](crate::Status::speak_within) says if that is longer.
    pub fn speak_within(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.speak_within = limit.into();
        self
    }

    /// How long `close` waits for a living peer's confirmation, from the call.
    /// Default 30 s; from 1 µs to 365 days.
    ///
    /// A shorter time ends `close` sooner when the peer's application doesn't take its
    /// messages. A peer that dies meanwhile is detected within the detection time in any
    /// case.
    pub fn linger(mut self, limit: Duration) -> Self {
        self.linger = limit;
        self
    }

    /// Whether each pong is reported as [`Beat`](crate::Event::Beat). Default
    /// on.
    pub fn beat_events(mut self, report: bool) -> Self {
        self.beat_events = report;
        self
    }

    /// Checks every knob.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the first knob which breaks a rule, its
    /// value and the rule.
    pub fn build(self) -> Result<Config, ConfigError> {
        let interval = checked("interval", self.interval)?;
        let timeout = checked("timeout", self.timeout)?;
        let max_missed = checked_count("max_missed", self.max_missed.into())?;
        let jitter = checked_jitter(self.jitter)?;

        let adaptive_floor = checked_floor(self.adaptive_floor, timeout)?;
        let max_frame = checked_frame(self.max_frame as u64)?;
        let min_interval = checked_min_interval(
            self.min_interval,
            interval,
            probe_budget(timeout, max_missed),
        )?;

        Ok(Config {
            interval: PackedMicros::new(interval),
            timeout: PackedMicros::new(timeout),
            min_interval: PackedMicros::new(min_interval),
            stall_tolerance: packed("stall_tolerance", self.stall_tolerance, timeout)?,
            adaptive_floor: PackedMicros::new(adaptive_floor),
            write_stall: packed("write_stall", self.write_stall, 0)?,
            max_pause: packed("max_pause", self.max_pause, 0)?,
            speak_within: PackedMicros::new(checked_speech(self.speak_within)?),
            linger: PackedMicros::new(checked("linger", self.linger)?),
            jitter: Packed::new(jitter.into()),
            max_frame: Packed::new(max_frame.into()),
            min_rate: Packed::new(self.min_rate.into()),
            max_missed,
            max_stretch: checked_count("max_stretch", self.max_stretch.into())?,
            grid: grid(interval, jitter),
            choices: Choices::new(self.adaptive, self.beat_events, self.evidence, self.role),
        })
    }
}

/// A duration, or `default` for none.
fn or(field: &'static str, value: Option<Duration>, default: u64) -> Result<u64, ConfigError> {
    value.map_or(Ok(default), |value| checked(field, value))
}

fn packed(
    field: &'static str,
    value: Option<Duration>,
    default: u64,
) -> Result<PackedMicros, ConfigError> {
    or(field, value, default).map(PackedMicros::new)
}

fn checked_floor(value: Option<Duration>, timeout: u64) -> Result<u64, ConfigError> {
    const FIELD: &str = "adaptive_floor";
    let floor = or(FIELD, value, default_adaptive_floor(timeout))?;
    if floor > timeout {
        let floor = Duration::from_micros(floor);
        let rule = Rule::UpToTimeout(Duration::from_micros(timeout));
        return Err(ConfigError::new(FIELD, floor, rule));
    }
    Ok(floor)
}

fn checked_min_interval(
    value: Option<Duration>,
    interval: u64,
    probe_budget: u64,
) -> Result<u64, ConfigError> {
    const FIELD: &str = "min_interval";
    let Some(value) = value else {
        return Ok(default_min_interval(interval, probe_budget));
    };
    let min_interval = checked(FIELD, value)?;
    let refused = |rule| Err(ConfigError::new(FIELD, value, rule));
    if min_interval > interval {
        refused(Rule::UpToInterval(Duration::from_micros(interval)))
    } else if min_interval > probe_budget {
        refused(Rule::UpToProbeBudget(Duration::from_micros(probe_budget)))
    } else {
        Ok(min_interval)
    }
}

/// Zero for none.
pub(super) fn checked_speech(value: Option<Duration>) -> Result<u64, ConfigError> {
    const FIELD: &str = "speak_within";
    let Some(value) = value else {
        return Ok(0);
    };
    match checked(FIELD, value)? {
        ..SHORTEST_SIGN_INTERVAL => Err(ConfigError::new(FIELD, value, Rule::AtLeastASign)),
        within => Ok(within),
    }
}

/// The microseconds of a duration that every timer can live with.
pub(crate) fn checked(field: &'static str, value: Duration) -> Result<u64, ConfigError> {
    if value > MAX_DURATION {
        return Err(ConfigError::new(field, value, Rule::AtMostAYear));
    }
    match micros(value) {
        0 => Err(ConfigError::new(field, value, Rule::AtLeastAMicrosecond)),
        micros => Ok(micros),
    }
}

pub(super) fn checked_count(field: &'static str, count: u64) -> Result<u8, ConfigError> {
    u8::try_from(count)
        .ok()
        .filter(|&count| count > 0)
        .ok_or(ConfigError::new(field, Value::Count(count), Rule::OneTo255))
}

/// In millionths.
pub(super) fn checked_jitter(jitter: f64) -> Result<u32, ConfigError> {
    // The comparison is false for NaN, so NaN is refused too.
    if !(0.0..=1.0).contains(&jitter) {
        let value = Value::Ratio(jitter);
        return Err(ConfigError::new("jitter", value, Rule::ZeroToOne));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 1,000,000, as just checked"
    )]
    let millionths = (jitter * f64::from(MILLION) + 0.5) as u32;
    Ok(millionths)
}

pub(super) fn checked_frame(bytes: u64) -> Result<u32, ConfigError> {
    let value = Value::Bytes(bytes);
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| (1..=MAX_FRAME).contains(bytes))
        .ok_or(ConfigError::new("max_frame", value, Rule::FrameSize))
}
