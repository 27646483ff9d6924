//! `Arbitrary` for the public types of this crate.
//!
//! This module decides how values are spread: durations evenly over their
//! orders of magnitude, small counts more often than large ones, and bounds
//! themselves often enough to be tried. Whatever has rules of its own (a
//! `Config`, a `Hello`) comes out valid; a `ConfigBuilder` doesn't always. None has a
//! `speak_within`: it adds wake-ups that say nothing about the peer.

use core::{ops::RangeInclusive, time::Duration};

use proptest::{
    arbitrary::{Arbitrary, any},
    option, prop_oneof,
    strategy::{BoxedStrategy, Just, Strategy},
};

use super::{Direction, Link, LinkStrategy, Side};
use crate::{
    BufferTooShort, Cause, CloseReason, Config, ConfigBuilder, ConfigError, Control, Death,
    Diagnosis, Dialogue, End, Event, Evidence, GoodbyeCode, Hello, IdleGauge, Instant,
    IntervalSearch, Monitor, NoDetail, Nonce, ProtocolError, Refusal, Role, SearchMethod,
    SearchOutcome, State, Status, Tag,
    config::{MAX_DURATION, MAX_MISSED},
    time::micros,
};

/// Implements `Arbitrary` by an expression that is a strategy.
macro_rules! arbitrary {
    ($($type:ty => $strategy:expr;)*) => {$(
        impl Arbitrary for $type {
            type Parameters = ();
            type Strategy = BoxedStrategy<Self>;

            fn arbitrary_with((): ()) -> BoxedStrategy<Self> {
                $strategy.boxed()
            }
        }
    )*};
}

arbitrary! {
    Instant => prop_oneof![
        8 => magnitudes(0..=u64::MAX).prop_map(Instant::from_micros),
        1 => Just(Instant::ORIGIN),
        1 => Just(Instant::MAX),
    ];
    Evidence => prop_oneof![
        Just(Self::Acknowledgement),
        Just(Self::AnyBytes),
        Just(Self::Frame),
        Just(Self::Echo),
    ];
    Role => prop_oneof![Just(Self::Both), Just(Self::Passive)];
    SearchMethod => prop_oneof![
        Just(Self::Binary),
        Just(Self::Exponential),
        Just(Self::Composite),
        duration().prop_map(Self::Step),
    ];
    SearchOutcome => prop_oneof![
        4 => duration().prop_map(|idle| Self::Answered { idle }),
        4 => duration().prop_map(|idle| Self::Lost { idle }),
        1 => Just(Self::Unrelated),
        1 => Just(Self::NetworkChanged),
    ];
    IntervalSearch => (duration(), duration(), any::<(SearchMethod, f64, f64)>()).prop_filter_map(
        "a range", |(smallest, largest, (method, margin, resolution))| {
            let search = IntervalSearch::new(smallest..=largest).ok()?;
            Some(search.method(method).margin(margin).resolution(resolution))
        },
    );
    IdleGauge => any::<Instant>().prop_map(Self::new);
    ConfigBuilder => builder(prop_oneof![
        9 => duration(),
        1 => Just(Duration::ZERO),
        1 => Just(Duration::MAX),
    ].boxed());
    Config => builder(duration().boxed()).prop_filter_map(
        "a valid configuration", |builder| builder.build().ok(),
    );
    ConfigError => (any::<ConfigBuilder>(), 0..9).prop_filter_map(
        "an invalid configuration", |(builder, broken)| match broken {
            0 => builder.interval(Duration::ZERO),
            1 => builder.timeout(Duration::MAX),
            2 => builder.max_missed(0),
            3 => builder.jitter(f64::NAN),
            4 => builder.max_frame(0),
            5 => builder.min_interval(Duration::MAX),
            6 => builder.max_stretch(0),
            7 => builder.linger(Duration::ZERO),
            _ => builder.adaptive_floor(MAX_DURATION),
        }.build().err(),
    );

    Refusal => (any::<bool>(), duration(), duration()).prop_map(|(is_short, one, other)| {
        let (less, more) = (one.min(other), one.max(other));
        match is_short {
            true => Self::DetectionTime { announced: less, least: more },
            false => Self::MinInterval { announced: more, most: less },
        }
    });

    Tag => prop_oneof![
        8 => (0..=7_u8).prop_filter_map("a tag", |tag| Self::from_byte(tag).ok()),
        1 => (0x40..=0x7f_u8).prop_map(|tag| Self::Reserved { tag }),
    ];
    Nonce => any::<[u8; 8]>().prop_map(Self);
    Hello => any::<(Config, [u8; 8])>().prop_map(|(config, instance)| config.hello(instance));
    Control => prop_oneof![
        any::<Hello>().prop_map(Self::Hello),
        any::<Nonce>().prop_map(Self::Ping),
        any::<Nonce>().prop_map(Self::Pong),
        any::<GoodbyeCode>().prop_map(Self::Goodbye),
        Just(Self::Alive),
        Just(Self::Fin),
        Just(Self::Reserved),
    ];
    GoodbyeCode => prop_oneof![
        4 => (0..=8_u8).prop_map(Self),
        1 => (64..=127_u8).prop_map(Self),
        1 => any::<u8>().prop_map(Self),
    ];
    BufferTooShort => Just(Self);
    ProtocolError => prop_oneof![
        any::<u8>().prop_map(|tag| Self::UnknownTag { tag }),
        (any::<u32>(), any::<u32>()).prop_map(|(one, other)| Self::FrameTooLong {
            length: one.max(other),
            max: one.min(other),
        }),
        Just(Self::EmptyFrame),
        any::<u8>().prop_map(|tag| Self::Malformed { tag }),
        any::<u8>().prop_map(|tag| Self::HelloExpected { tag }),
        Just(Self::WrongMagic),
        any::<u8>().prop_map(|version| Self::WrongVersion { version }),
        prop_oneof![Just(Self::BrokenParts), Just(Self::AfterFin)],
        prop_oneof![Just(Self::ImpossibleHello), Just(Self::Loop)],
        Just(Self::Undecodable),
    ];

    End => prop_oneof![
        Just(Self::Eof), Just(Self::Reset), Just(Self::TimedOut), Just(Self::Unreachable),
        any::<ProtocolError>().prop_map(Self::Protocol),
        Just(Self::Io),
    ];
    Cause => prop_oneof![
        4 => any::<End>().prop_map(Self::from),
        1 => Just(Self::Silent),
        1 => Just(Self::WriteStalled),
        1 => Just(Self::PingFlood),
        1 => Just(Self::Refused),
        1 => Just(Self::NotReading),
        1 => (2..=7_u8).prop_map(|code| Self::GivenUp {
            code: GoodbyeCode(code),
            detail: NoDetail,
        }),
    ];
    NoDetail => Just(Self);
    Death => (any::<Cause>(), duration(), missed(), option::of(round_trip()), any::<Diagnosis>(), any::<bool>())
        .prop_map(|(cause, silent_for, missed, last_rtt, diagnosis, was_heard)| Self {
            cause,
            silent_for,
            missed,
            last_rtt,
            diagnosis,
            was_heard,
        });
    Diagnosis => prop_oneof![
        Just(Self::Unknown), Just(Self::AppHung), Just(Self::PathDead),
        Just(Self::PeerNotReading),
    ];
    CloseReason => prop_oneof![
        any::<GoodbyeCode>().prop_map(|code| Self::Peer { code, detail: NoDetail }),
        Just(Self::Local), Just(Self::Unconfirmed), Just(Self::Finished),
    ];
    Event => prop_oneof![
        any::<Hello>().prop_map(|peer| Self::Connected { peer }),
        round_trip().prop_map(|rtt| Self::Beat { rtt }),
        (missed(), duration())
            .prop_map(|(missed, silent_for)| Self::Suspect { missed, silent_for }),
        duration().prop_map(|silent_for| Self::Recovered { silent_for }),
        duration().prop_map(|late| Self::LocalStall { late }),
        Just(Self::Finished),
        any::<CloseReason>().prop_map(|reason| Self::Closed { reason }),
        any::<Death>().prop_map(Self::Dead),
    ];

    State => prop_oneof![
        Just(Self::Alive), Just(Self::Suspect), Just(Self::Paused), Just(Self::Closing),
        Just(Self::Closed), Just(Self::Dead), Just(Self::Occupied), Just(Self::HalfClosed),
    ];
    Status => (
        any::<(State, Instant, Option<Hello>, Config)>(),
        missed(),
        option::of((round_trip(), round_trip())),
        any::<(u32, u32)>(),
    ).prop_map(|((state, last_heard, peer, config), missed, rtts, (pings, pongs))| Self {
        state,
        missed,
        last_heard,
        last_rtt: rtts.map(|(last, _)| last),
        smoothed_rtt: rtts.map(|(_, smoothed)| smoothed),
        pings,
        pongs: pongs.min(pings),
        peer,
        interval: config.interval(),
        detection_time: config.detection_time(),
        speak_within: config.speak_within(),
    });
    Monitor => any::<(Config, u64, Instant)>().prop_map(
        |(config, seed, now)| Self::new(config, seed, now),
    );

    Dialogue => (any::<(bool, bool)>(), option::of(duration())).prop_map(
        |((may_ping, answers), beats_every)| Self { may_ping, answers, beats_every },
    );

    Side => prop_oneof![Just(Self::A), Just(Self::B)];
    Direction => prop_oneof![Just(Self::AToB), Just(Self::BToA), Just(Self::Both)];
}

impl Arbitrary for Link {
    type Parameters = ();
    type Strategy = LinkStrategy;

    fn arbitrary_with((): ()) -> LinkStrategy {
        Self::strategy()
            .rtt(..=Duration::from_secs(2))
            .jitter(..=Duration::from_secs(1))
            .loss(0.0..=0.2)
            .outage(..=Duration::from_secs(10))
    }
}

/// Any builder whose knobs are durations like these.
fn builder(times: BoxedStrategy<Duration>) -> impl Strategy<Value = ConfigBuilder> {
    let part = || option::of(0.0..=1.0);
    let derived = (part(), part(), option::of(times.clone()));
    (independent_knobs(times), derived).prop_map(|(knobs, derived)| {
        let (mut builder, longest_gap, highest_floor) = knobs;
        let (min_interval, floor, stall_tolerance) = derived;
        if let Some(part) = min_interval {
            builder = builder.min_interval(part_of(longest_gap, part));
        }
        if let Some(part) = floor {
            builder = builder.adaptive_floor(part_of(highest_floor, part));
        }
        if let Some(tolerance) = stall_tolerance {
            builder = builder.stall_tolerance(tolerance);
        }
        builder
    })
}

/// A builder without the knobs that are derived from others, and what `min_interval` and
/// `adaptive_floor` are at most: above that they contradict the others.
fn independent_knobs(
    times: BoxedStrategy<Duration>,
) -> impl Strategy<Value = (ConfigBuilder, Duration, Duration)> {
    let time = || times.clone();
    let jitter = prop_oneof![2 => 0.0..=1.0, 1 => Just(0.0), 1 => Just(1.0)];
    let max_frame = magnitudes(1..=u64::from(u32::MAX - 1))
        .prop_map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let required = (time(), time(), missed(), jitter, max_frame);
    let limits = (option::of(time()), option::of(time()), time());
    let strangers = (
        prop_oneof![1 => Just(100), 1 => Just(0), 1 => any::<u32>()],
        prop_oneof![1 => Just(4), 2 => 1..=255_u32],
    );
    let chosen = any::<(bool, bool, Evidence, Role)>();
    let all = (required, limits, strangers, chosen);
    all.prop_map(|(required, limits, strangers, chosen)| {
        let (interval, timeout, max_missed, jitter, max_frame) = required;
        let (write_stall, max_pause, linger) = limits;
        let (min_rate, max_stretch) = strangers;
        let (adaptive, beat_events, evidence, role) = chosen;
        let builder = Config::builder()
            .interval(interval)
            .timeout(timeout)
            .max_missed(max_missed)
            .jitter(jitter)
            .max_frame(max_frame)
            .write_stall(write_stall)
            .max_pause(max_pause)
            .linger(linger)
            .min_rate(min_rate)
            .max_stretch(max_stretch)
            .adaptive(adaptive)
            .beat_events(beat_events)
            .evidence(evidence)
            .role(role);
        let longest_gap = interval.min(timeout.saturating_mul(max_missed));
        (builder, longest_gap, timeout)
    })
}

/// From a microsecond to `most`, unless that is less.
fn part_of(most: Duration, part: f64) -> Duration {
    let time = most.min(MAX_DURATION).mul_f64(part);
    time.max(Duration::from_micros(1)).min(most)
}

/// From a microsecond to a year.
fn duration() -> impl Strategy<Value = Duration> + Clone {
    magnitudes(1..=micros(MAX_DURATION)).prop_map(Duration::from_micros)
}

/// As far as the monitor can tell round trips apart.
fn round_trip() -> impl Strategy<Value = Duration> {
    magnitudes(0..=u64::from(u32::MAX - 1)).prop_map(Duration::from_micros)
}

fn missed() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1..=5_u32, 2 => 1..=MAX_MISSED, 1 => Just(MAX_MISSED)]
}

/// Evenly over the orders of magnitude: a millisecond is as likely as an hour.
fn magnitudes(range: RangeInclusive<u64>) -> impl Strategy<Value = u64> + Clone {
    let (start, end) = range.into_inner();
    (0..=u64::BITS, any::<u64>()).prop_map(move |(bits, random)| {
        let mask = 1_u64.checked_shl(bits).unwrap_or(0).wrapping_sub(1);
        (random & mask).clamp(start, end)
    })
}
