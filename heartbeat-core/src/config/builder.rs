//! How a [`Config`] is built, and what is refused.

use core::time::Duration;

use super::{
    Config, Evidence, MAX_DURATION, MAX_FRAME, MILLION, Role, default_adaptive_floor,
    default_min_interval,
    error::{ConfigError, Rule, Value},
    grid, probe_budget,
};
use crate::time::micros;

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
    /// its variation. It only makes suspicion come earlier; the verdict keeps
    /// its deadline, which is what a detector with a bound does best (Chen,
    /// Toueg, Aguilera 2002, theorem 5).
    pub fn adaptive(mut self, adaptive: bool) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// The earliest that a beat is suspicious, however short the round trips
    /// are. Default 200 ms, or `timeout` if that is shorter; from 1 µs to
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

    /// Whether we leave the asking to the peer. Default [`Role::Both`].
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
    /// Slower than our own interval would be unfair: a peer as impatient as we
    /// are couldn't find out in time that we live.
    pub fn min_interval(mut self, min_interval: Duration) -> Self {
        self.min_interval = Some(min_interval);
        self
    }

    /// How late a wake-up may be before it is our own stall. Default
    /// `timeout`; from 1 µs to 365 days.
    ///
    /// After a stall the peer isn't blamed for silence that nobody listened
    /// to: it is pinged afresh. A lateness up to this adds to the detection
    /// time instead. A lateness of `max_missed · timeout` or more is always a
    /// stall.
    pub fn stall_tolerance(mut self, tolerance: Duration) -> Self {
        self.stall_tolerance = Some(tolerance);
        self
    }

    /// How long writes may make no progress at all while bytes still arrive,
    /// before the peer counts as dead
    /// ([`WriteStalled`](crate::Cause::WriteStalled)). Default: no limit;
    /// from 1 µs to 365 days.
    ///
    /// A peer that sends but doesn't read is alive. Set this if it is of no
    /// use to you all the same.
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
        let or = |field, value: Option<Duration>, default| {
            value.map_or(Ok(default), |value| checked(field, value))
        };

        let max_missed = checked_misses(self.max_missed.into())?;
        let jitter = checked_jitter(self.jitter)?;

        let default_floor = default_adaptive_floor(timeout);
        let adaptive_floor = or("adaptive_floor", self.adaptive_floor, default_floor)?;
        if adaptive_floor > timeout {
            let floor = Duration::from_micros(adaptive_floor);
            let rule = Rule::UpToTimeout(Duration::from_micros(timeout));
            return Err(ConfigError::new("adaptive_floor", floor, rule));
        }
        let max_frame = checked_frame(self.max_frame as u64)?;
        let min_interval = checked_min_interval(
            self.min_interval,
            interval,
            probe_budget(timeout, max_missed),
        )?;

        Ok(Config {
            interval,
            timeout,
            min_interval,
            stall_tolerance: or("stall_tolerance", self.stall_tolerance, timeout)?,
            adaptive_floor,
            write_stall: or("write_stall", self.write_stall, 0)?,
            jitter,
            max_frame,
            max_missed,
            grid: grid(interval, jitter),
            adaptive: self.adaptive,
            beat_events: self.beat_events,
            evidence: self.evidence,
            role: self.role,
        })
    }
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

/// The microseconds of a duration that every timer can live with.
pub(super) fn checked(field: &'static str, value: Duration) -> Result<u64, ConfigError> {
    if value > MAX_DURATION {
        return Err(ConfigError::new(field, value, Rule::AtMostAYear));
    }
    match micros(value) {
        0 => Err(ConfigError::new(field, value, Rule::AtLeastAMicrosecond)),
        micros => Ok(micros),
    }
}

pub(super) fn checked_misses(misses: u64) -> Result<u8, ConfigError> {
    let value = Value::Count(misses);
    u8::try_from(misses)
        .ok()
        .filter(|&misses| misses > 0)
        .ok_or(ConfigError::new("max_missed", value, Rule::OneTo255))
}

/// In millionths.
pub(super) fn checked_jitter(jitter: f64) -> Result<u32, ConfigError> {
    // The comparison is false for NaN, which so is refused too.
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
