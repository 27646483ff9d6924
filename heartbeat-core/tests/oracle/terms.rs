//! What the timings of both sides mean, as docs/state-machine.md writes it.
//!
//! Pure functions of a configuration and of the peer's last Hello.

use std::time::Duration;

use heartbeat_core::{Config, Evidence, Hello, Role};

const MILLION: u128 = 1_000_000;

/// Both sides' timings in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) interval: u64,
    pub(crate) timeout: u64,
    pub(crate) misses: u32,
    /// Millionths.
    pub(crate) jitter: u64,
    pub(crate) slack: u64,
    pub(crate) tolerance: u64,
    pub(crate) floor: u64,
    pub(crate) write_stall: Option<u64>,
    pub(crate) linger: u64,
    pub(crate) speak: Option<u64>,
    /// b; 0 where the peer sends none by itself.
    pub(crate) beats: u64,
    pub(crate) min_interval: u64,
    pub(crate) min_rate: u32,
    pub(crate) max_stretch: u64,
    pub(crate) passive: bool,
    pub(crate) evidence: Evidence,
    pub(crate) adaptive: bool,
    pub(crate) beat_events: bool,
    pub(crate) peer: Option<Hello>,
    /// There is neither Hello nor Alive.
    pub(crate) foreign: bool,
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn part(of: u64, millionths: u64, divisor: u128) -> u128 {
    u128::from(of) * u128::from(millionths) / divisor
}

fn small(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl Terms {
    pub(crate) fn new(config: &Config, foreign: bool) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 1,000,000"
        )]
        let jitter = (config.jitter() * 1e6).round() as u64;
        Self {
            interval: micros(config.interval()),
            timeout: micros(config.timeout()),
            misses: config.max_missed(),
            jitter,
            slack: micros(config.arrival_slack()),
            tolerance: micros(config.stall_tolerance()),
            floor: micros(config.adaptive_floor()),
            write_stall: config.write_stall().map(micros),
            linger: micros(config.linger()),
            speak: config.speak_within().map(micros),
            beats: 0,
            min_interval: micros(config.min_interval()),
            min_rate: config.min_rate(),
            max_stretch: config.max_stretch().into(),
            passive: config.role() == Role::Passive,
            evidence: config.evidence(),
            adaptive: config.adaptive(),
            beat_events: config.beat_events(),
            peer: None,
            foreign,
        }
    }

    /// N·W.
    pub(crate) fn budget(&self) -> u64 {
        self.timeout * u64::from(self.misses)
    }

    /// m′; 0 without a Hello.
    pub(crate) fn peers_min(&self) -> u64 {
        self.peer.map_or(0, |peer| micros(peer.min_interval))
    }

    /// I*.
    pub(crate) fn star(&self) -> u64 {
        let beats = self.beats.min(self.slowest());
        self.interval.max(self.peers_min()).max(beats)
    }

    /// I*·(1 − J).
    pub(crate) fn shortest(&self) -> u64 {
        let star = self.star();
        (star - small(part(star, self.jitter, MILLION))).max(1)
    }

    /// How long after the last evidence a round's base is at least.
    pub(crate) fn least_base(&self) -> u64 {
        self.shortest() + self.slack
    }

    /// Whether a ping that left `ago` serves as the first of a round, and is too
    /// recent to be piggybacked: less than max(m′, I*·(1 − max(J, ¼))). `None` where
    /// rounding decides.
    pub(crate) fn is_recent(&self, ago: u64) -> Option<bool> {
        let star = self.star();
        let kept = MILLION - u128::from(self.jitter.max(250_000));
        let least = small(u128::from(star) * kept / MILLION).max(1);
        let exact = u128::from(star) * kept % MILLION == 0;
        if ago < self.peers_min().max(least) {
            Some(true)
        } else if !exact && ago == least && ago >= self.peers_min() {
            None
        } else {
            Some(false)
        }
    }

    /// The sign interval.
    pub(crate) fn sign(&self) -> u64 {
        let needed = self.peer.map_or(self.interval, |peer| {
            let interval = micros(peer.interval);
            let patience = micros(peer.detection_time) - interval;
            self.interval.min(interval).min(patience)
        });
        needed.max(20_000)
    }

    /// The longest time in which nothing of ours leaves: where only pings do, m′ if that
    /// is longer.
    pub(crate) fn speech(&self) -> Option<u64> {
        let least = if self.foreign { self.peers_min() } else { 0 };
        self.speak.map(|within| within.max(least))
    }

    /// How many of the latest pings an answer may be for.
    pub(crate) fn remembered(&self) -> u64 {
        let rounds = 2 * u64::from(self.misses);
        match self.speech().filter(|_| self.foreign) {
            None => rounds,
            Some(within) => {
                let more = (self.star() + self.budget()) / within;
                (rounds + more).min(rounds.max(1024))
            }
        }
    }

    /// The width of the grid on which the end of an interval may lie: the
    /// largest power of two up to J·I/8.
    pub(crate) fn grid(&self) -> u64 {
        let most = small(part(self.interval, self.jitter, 8 * MILLION));
        most.checked_ilog2().map_or(1, |bits| 1 << bits)
    }

    /// The shortest of the intervals that aren't the first, before m′.
    pub(crate) fn shortest_drawn(&self) -> u64 {
        let star = self.star();
        let cut = (u128::from(star) * u128::from(self.jitter) * 3).div_ceil(4 * MILLION);
        (star - small(cut)).max(1)
    }

    /// Whether a Hello is refused: it wants to know within less than 100 ms and
    /// we don't, or it would make our detection time longer than `max_stretch`
    /// times what it is.
    pub(crate) fn refuses(&self, hello: &Hello) -> bool {
        let limit = 100_000;
        let ours = self.interval + self.budget();
        let hasty = micros(hello.detection_time) < limit && ours >= limit;
        let stretched = self.interval.max(micros(hello.min_interval)) + self.budget();
        hasty || stretched > ours * self.max_stretch
    }

    /// Whether a peer with this Hello refuses us, because we want to know within less than
    /// 100 ms and it doesn't.
    pub(crate) fn is_hasty_for(&self, hello: &Hello) -> bool {
        let limit = 100_000;
        let theirs = micros(hello.detection_time.max(hello.interval));
        self.interval + self.budget() < limit && theirs >= limit
    }

    /// The longest m′ that isn't refused.
    pub(crate) fn slowest(&self) -> u64 {
        (self.interval + self.budget()) * self.max_stretch - self.budget()
    }

    /// How many bytes show life after such a silence: at the least rate, and one
    /// at least.
    pub(crate) fn bytes_wanted(&self, silence: u64) -> u64 {
        let bytes = u128::from(silence) * u128::from(self.min_rate);
        small(bytes.div_ceil(MILLION).max(1))
    }
}
