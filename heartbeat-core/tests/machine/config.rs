//! Which timings are refused and how that is said, what is derived from what,
//! and how a configuration looks in a file.

#![allow(clippy::unwrap_used, reason = "what a test needs, it needs")]

use core::time::Duration;

use crate::common::{INSTANCE, MICRO, YEAR, YEAR_MICROS, ms, secs, us};
use heartbeat_core::{Config, ConfigBuilder, Evidence, Role};
use proptest::prelude::*;

// ---- what is refused ------------------------------------------------------

/// A builder method that takes a duration, under the name of its knob.
type DurationKnob = (&'static str, fn(ConfigBuilder, Duration) -> ConfigBuilder);

const DURATIONS: [DurationKnob; 8] = [
    ("interval", ConfigBuilder::interval),
    ("timeout", ConfigBuilder::timeout),
    ("min_interval", ConfigBuilder::min_interval),
    ("stall_tolerance", ConfigBuilder::stall_tolerance),
    ("adaptive_floor", ConfigBuilder::adaptive_floor),
    ("write_stall", |builder, limit| builder.write_stall(limit)),
    ("max_pause", |builder, limit| builder.max_pause(limit)),
    ("linger", ConfigBuilder::linger),
];

#[test]
fn no_duration_is_zero() {
    for (knob, set) in DURATIONS {
        let zero = set(Config::builder(), Duration::ZERO);
        assert_refused(zero, knob, "0ns", "at least 1µs");

        let less_than_it_can_tell = set(Config::builder(), Duration::from_nanos(999));
        assert_refused(less_than_it_can_tell, knob, "999ns", "at least 1µs");
    }
}

#[test]
fn we_speak_every_20_ms_at_most() {
    let often = Config::builder().speak_within(Duration::from_micros(19_999));
    assert_refused(often, "speak_within", "19.999ms", "at least 20ms");
    let zero = Config::builder().speak_within(Duration::ZERO);
    assert_refused(zero, "speak_within", "0ns", "at least 1µs");
    let config = Config::builder().speak_within(ms(20)).build().unwrap();
    assert_eq!(config.speak_within(), Some(ms(20)));
    assert_eq!(config.to_builder().build().unwrap(), config);
}

#[test]
fn no_duration_overflows() {
    for (knob, set) in DURATIONS {
        let forever = set(Config::builder(), Duration::MAX);
        let value = "18446744073709551615.999999999s";
        assert_refused(forever, knob, value, "at most 365 days");

        let more_than_a_year = set(Config::builder(), YEAR + Duration::from_nanos(1));
        let value = "31536000.000000001s";
        assert_refused(more_than_a_year, knob, value, "at most 365 days");
    }
}

#[test]
fn from_a_microsecond_to_a_year_every_duration_is_fine() {
    for (knob, set) in DURATIONS {
        for fine in [MICRO, YEAR] {
            // Timings that leave room for any `adaptive_floor` and
            // `min_interval`.
            let roomy = Config::builder().interval(YEAR).timeout(YEAR);
            let builder = set(roomy, fine);
            assert!(builder.build().is_ok(), "{knob} = {fine:?}");
        }
    }
}

#[test]
fn misses_are_from_1_to_255() {
    for misses in [1, 255] {
        let config = Config::builder().max_missed(misses).build().unwrap();
        assert_eq!(config.max_missed(), misses);
    }
    for misses in [0, 256, u32::MAX] {
        let builder = Config::builder().max_missed(misses);
        let value = misses.to_string();
        assert_refused(builder, "max_missed", &value, "from 1 to 255");
    }
}

#[test]
fn a_peer_may_stretch_the_detection_time_1_to_255_times() {
    for times in [1, 255] {
        let config = Config::builder().max_stretch(times).build().unwrap();
        assert_eq!(config.max_stretch(), times);
    }
    for times in [0, 256, u32::MAX] {
        let builder = Config::builder().max_stretch(times);
        let value = times.to_string();
        assert_refused(builder, "max_stretch", &value, "from 1 to 255");
    }
}

#[test]
fn any_rate_is_fine() {
    for rate in [0, 1, u32::MAX] {
        let config = Config::builder().min_rate(rate).build().unwrap();
        assert_eq!(config.min_rate(), rate);
    }
}

#[test]
fn jitter_is_a_part_of_one() {
    for jitter in [0.0, -0.0, f64::MIN_POSITIVE, 1.0] {
        assert!(Config::builder().jitter(jitter).build().is_ok(), "{jitter}");
    }
    let refused = [
        (-0.001, "-0.001"),
        (-1.0, "-1"),
        (1.001, "1.001"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ];
    for (jitter, value) in refused {
        let builder = Config::builder().jitter(jitter);
        assert_refused(builder, "jitter", value, "from 0 to 1");
    }
}

#[test]
fn a_frame_fits_into_a_length_of_32_bits_with_its_tag() {
    const RULE: &str = "from 1 to 4294967294 bytes";
    for bytes in [1, 4_294_967_294] {
        let config = Config::builder().max_frame(bytes).build().unwrap();
        assert_eq!(config.max_frame(), bytes);
    }
    for bytes in [0, 4_294_967_295, usize::MAX] {
        let builder = Config::builder().max_frame(bytes);
        let value = format!("{bytes} bytes");
        assert_refused(builder, "max_frame", &value, RULE);
    }
}

#[test]
fn suspicion_cannot_have_a_floor_above_the_timeout() {
    let timeout = Config::builder().timeout(ms(300));
    let equal = timeout.clone().adaptive_floor(ms(300)).build().unwrap();
    assert_eq!(equal.adaptive_floor(), equal.timeout());

    let above = timeout.adaptive_floor(ms(300) + MICRO);
    assert_refused(
        above,
        "adaptive_floor",
        "300.001ms",
        "at most the timeout, 300ms",
    );
}

#[test]
fn the_first_knob_that_breaks_a_rule_is_named() {
    let all_wrong = Config::builder()
        .jitter(7.0)
        .max_missed(0)
        .interval(Duration::ZERO);
    assert_refused(all_wrong, "interval", "0ns", "at least 1µs");
}

/// The message tells the knob, its value and the rule.
#[track_caller]
fn assert_refused(builder: ConfigBuilder, knob: &str, value: &str, rule: &str) {
    let error = builder.build().unwrap_err();
    assert_eq!(error.field(), knob);
    assert_eq!(error.value().to_string(), value);
    assert_eq!(error.rule().to_string(), rule);
    let message = format!("{knob} = {value}: must be {rule}");
    assert_eq!(error.to_string(), message);
}

// ---- what is derived ------------------------------------------------------

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = Config::default();
    assert_eq!(config, Config::builder().build().unwrap());

    assert_eq!(config.interval(), secs(5));
    assert_eq!(config.timeout(), secs(3));
    assert_eq!(config.max_missed(), 3);
    assert_eq!(config.jitter(), 0.25);
    assert!(config.adaptive());
    assert_eq!(config.adaptive_floor(), ms(200));
    assert_eq!(config.evidence(), Evidence::AnyBytes);
    assert_eq!(config.role(), Role::Both);
    assert_eq!(config.min_interval(), secs(1));
    assert_eq!(config.stall_tolerance(), secs(3));
    assert_eq!(config.write_stall(), None);
    assert_eq!(config.max_frame(), 8 * 1024 * 1024);
    assert_eq!(config.min_rate(), 100);
    assert_eq!(config.max_stretch(), 4);
    assert_eq!(config.max_pause(), None);
    assert_eq!(config.speak_within(), None);
    assert_eq!(config.linger(), secs(30));
    assert!(config.beat_events());

    assert_eq!(config.detection_time(), secs(14));
}

#[test]
fn an_arrival_may_be_early_by_a_sixteenth_of_the_jitter() {
    let slack = |jitter| {
        let config = Config::builder().interval(secs(16)).jitter(jitter).build();
        config.unwrap().arrival_slack()
    };
    assert_eq!(slack(1.0), secs(1));
    assert_eq!(slack(0.25), ms(250));
    assert_eq!(slack(0.0), Duration::ZERO);
}

#[test]
fn what_is_left_out_follows_interval_and_timeout() {
    let follow = |interval, timeout| {
        let builder = Config::builder().interval(interval).timeout(timeout);
        let config = builder.build().unwrap();
        (
            config.min_interval(),
            config.stall_tolerance(),
            config.adaptive_floor(),
        )
    };
    // Half of the interval, at most a second and the probe budget; the timeout;
    // at most 200 ms.
    assert_eq!(follow(ms(500), ms(90)), (ms(250), ms(90), ms(90)));
    assert_eq!(follow(ms(500), ms(80)), (ms(240), ms(80), ms(80)));
    assert_eq!(follow(secs(2), secs(1)), (secs(1), secs(1), ms(200)));
    assert_eq!(follow(secs(2), ms(200)), (ms(600), ms(200), ms(200)));
    assert_eq!(follow(secs(60), secs(9)), (secs(1), secs(9), ms(200)));
    assert_eq!(follow(MICRO, MICRO), (MICRO, MICRO, MICRO));
    assert_eq!(follow(YEAR, YEAR), (secs(1), YEAR, ms(200)));
}

#[test]
fn what_is_set_by_hand_follows_nothing() {
    let config = Config::builder()
        .interval(secs(60))
        .timeout(secs(9))
        .min_interval(ms(7))
        .stall_tolerance(ms(8))
        .adaptive_floor(ms(9))
        .build()
        .unwrap();
    assert_eq!(config.min_interval(), ms(7));
    assert_eq!(config.stall_tolerance(), ms(8));
    assert_eq!(config.adaptive_floor(), ms(9));

    // And stays so when the configuration is taken apart again.
    let slower = config.to_builder().interval(secs(600)).build().unwrap();
    assert_eq!(slower.min_interval(), ms(7));
}

#[test]
fn the_presets_keep_their_word() {
    for (preset, interval, timeout, detection_time) in [
        (Config::lan(), secs(1), ms(500), ms(2_500)),
        (Config::wan(), secs(5), secs(3), secs(14)),
        (Config::mobile(), secs(30), secs(10), secs(60)),
    ] {
        assert_eq!(preset.interval(), interval);
        assert_eq!(preset.timeout(), timeout);
        assert_eq!(preset.detection_time(), detection_time);
        assert_eq!(preset.linger(), secs(30));

        // They are nothing that a builder couldn't have made.
        let by_hand = Config::builder().interval(interval).timeout(timeout);
        assert_eq!(preset, by_hand.build().unwrap());
    }
    assert_eq!(Config::wan(), Config::default());
}

#[test]
fn a_budget_from_5_microseconds_to_a_year_is_met() {
    for budget in [us(5), us(6), secs(14), YEAR] {
        let config = Config::detect_within(budget).unwrap();
        assert_eq!(config.detection_time(), budget);
    }
    assert_eq!(Config::detect_within(secs(14)).unwrap(), Config::default());
}

#[test]
fn a_budget_that_nobody_can_meet_is_refused() {
    for (budget, message) in [
        (
            us(4),
            "detect_within = 4µs: must be at least 5µs, for an interval and three timeouts",
        ),
        (Duration::ZERO, "detect_within = 0ns: must be at least 1µs"),
        (
            YEAR + MICRO,
            "detect_within = 31536000.000001s: must be at most 365 days",
        ),
        (
            Duration::MAX,
            "detect_within = 18446744073709551615.999999999s: must be at most 365 days",
        ),
    ] {
        let error = Config::detect_within(budget).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.field(), "detect_within");
    }
}

#[test]
fn the_resolution_is_a_microsecond_and_a_millionth() {
    let config = Config::builder()
        .interval(Duration::from_nanos(1_999))
        .timeout(Duration::from_nanos(2_000_999))
        .jitter(0.123_456_4)
        .build()
        .unwrap();
    assert_eq!(config.interval(), us(1));
    assert_eq!(config.timeout(), us(2_000));
    assert_eq!(config.jitter(), 0.123_456);
}

proptest! {
    #[test]
    fn the_detection_time_is_interval_plus_misses_times_timeout(config in configs()) {
        let budget = config.timeout() * config.max_missed();
        prop_assert_eq!(config.detection_time(), config.interval() + budget);
    }

    #[test]
    fn any_budget_is_met_exactly(micros in 5..=YEAR_MICROS) {
        let config = Config::detect_within(us(micros)).unwrap();
        prop_assert_eq!(config.detection_time(), us(micros));
        prop_assert_eq!(config.linger(), secs(30));

        // And every knob is one that a builder would have accepted.
        prop_assert_eq!(config.to_builder().build(), Ok(config));
    }

    #[test]
    fn a_builder_holds_all_of_a_configuration(config in configs()) {
        prop_assert_eq!(config.to_builder().build(), Ok(config));
    }

    #[test]
    fn a_hello_says_what_is_configured(config in configs()) {
        let hello = config.hello(INSTANCE);
        prop_assert_eq!(hello.interval, config.interval());
        prop_assert_eq!(hello.detection_time, config.detection_time());
        prop_assert_eq!(hello.min_interval, config.min_interval());
        prop_assert_eq!(hello.max_missed, config.max_missed());
    }
}

// ---- in a file ------------------------------------------------------------

#[cfg(feature = "serde")]
mod file {
    use serde::Deserialize as _;
    use serde::de::value::{self, MapDeserializer};

    use super::*;

    #[test]
    fn everything_may_be_left_out() {
        assert_eq!(from_toml(""), Ok(Config::default()));
        assert_eq!(from_json("{}"), Ok(Config::default()));
    }

    #[test]
    fn durations_are_written_as_people_write_them() {
        for (text, duration) in [
            ("1.5s", ms(1_500)),
            ("250ms", ms(250)),
            ("2m 30s", secs(150)),
            ("1h", secs(3_600)),
            ("1µs", us(1)),
            ("1us", us(1)),
            ("20 seconds", secs(20)),
            ("PT20S", secs(20)),
        ] {
            let config = from_toml(&format!("interval = '{text}'")).unwrap();
            assert_eq!(config.interval(), duration, "{text}");
        }
    }

    #[test]
    fn each_knob_has_its_name() {
        let config = from_toml(
            "
            interval = '10s'
            timeout = '2s'
            max_missed = 4
            jitter = 0.5
            adaptive = false
            adaptive_floor = '100ms'
            evidence = 'echo'
            role = 'passive'
            min_interval = '3s'
            stall_tolerance = '7s'
            write_stall = '1m'
            max_frame = 1000
            min_rate = 0
            max_stretch = 2
            max_pause = '20s'
            speak_within = '5s'
            linger = '1m 30s'
            beat_events = false
            ",
        );
        let by_hand = Config::builder()
            .interval(secs(10))
            .timeout(secs(2))
            .max_missed(4)
            .jitter(0.5)
            .adaptive(false)
            .adaptive_floor(ms(100))
            .evidence(Evidence::Echo)
            .role(Role::Passive)
            .min_interval(secs(3))
            .stall_tolerance(secs(7))
            .write_stall(secs(60))
            .max_frame(1000)
            .min_rate(0)
            .max_stretch(2)
            .max_pause(secs(20))
            .speak_within(secs(5))
            .linger(secs(90))
            .beat_events(false);
        let config = config.unwrap();
        assert_eq!(config, by_hand.build().unwrap());

        // What is on by default can be seen to be off.
        assert!(!config.adaptive());
        assert!(!config.beat_events());
    }

    #[test]
    fn a_written_configuration_can_be_read_by_people() {
        let written = toml::to_string(&Config::mobile()).unwrap();
        assert_eq!(
            written,
            "interval = \"30s\"\n\
             timeout = \"10s\"\n\
             max_missed = 3\n\
             jitter = 0.25\n\
             adaptive = true\n\
             adaptive_floor = \"200ms\"\n\
             evidence = \"any_bytes\"\n\
             role = \"both\"\n\
             min_interval = \"1s\"\n\
             stall_tolerance = \"10s\"\n\
             write_stall = \"off\"\n\
             max_frame = 8388608\n\
             min_rate = 100\n\
             max_stretch = 4\n\
             max_pause = \"off\"\n\
             speak_within = \"off\"\n\
             linger = \"30s\"\n\
             beat_events = true\n"
        );
    }

    #[test]
    fn a_knob_that_does_not_exist_is_refused() {
        for wrong in [
            from_toml("intervall = '5s'"),
            from_json("{\"intervall\": \"5s\"}"),
        ] {
            let message = wrong.unwrap_err();
            assert!(message.contains("unknown field `intervall`"), "{message}");
        }
    }

    #[test]
    fn a_duration_needs_its_unit() {
        const EXPECTED: &str =
            "expected interval to be a duration with its unit, such as \"1.5s\" or \"250ms\"";
        for wrong in ["5", "'5'", "'soon'", "'-5s'", "''", "5.0", "true"] {
            let message = from_toml(&format!("interval = {wrong}")).unwrap_err();
            assert!(message.contains(EXPECTED), "{wrong}: {message}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_same_message_as_in_code() {
        for (text, builder) in [
            ("interval = '0s'", Config::builder().interval(secs(0))),
            (
                "timeout = '9000h'",
                Config::builder().timeout(secs(9000 * 3600)),
            ),
            ("max_missed = 0", Config::builder().max_missed(0)),
            ("max_missed = 256", Config::builder().max_missed(256)),
            ("jitter = 1.5", Config::builder().jitter(1.5)),
            ("jitter = nan", Config::builder().jitter(f64::NAN)),
            ("max_frame = 0", Config::builder().max_frame(0)),
            (
                "adaptive_floor = '4s'",
                Config::builder().adaptive_floor(secs(4)),
            ),
            ("write_stall = '0s'", Config::builder().write_stall(secs(0))),
            ("max_stretch = 0", Config::builder().max_stretch(0)),
            ("max_pause = '0s'", Config::builder().max_pause(secs(0))),
            (
                "speak_within = '19ms'",
                Config::builder().speak_within(ms(19)),
            ),
            (
                "linger = '9000h'",
                Config::builder().linger(secs(9000 * 3600)),
            ),
        ] {
            let in_code = builder.build().unwrap_err().to_string();
            let in_a_file = from_toml(text).unwrap_err();
            assert!(in_a_file.contains(&in_code), "{text}: {in_a_file}");
        }
    }

    #[test]
    fn one_key_sets_all_timings() {
        assert_eq!(
            from_toml("detect_within = '6s'"),
            Ok(Config::detect_within(secs(6)).unwrap())
        );
        assert_eq!(from_toml("preset = 'lan'"), Ok(Config::lan()));
        assert_eq!(from_toml("preset = 'wan'"), Ok(Config::wan()));
        assert_eq!(from_toml("preset = 'mobile'"), Ok(Config::mobile()));

        // And others beside it.
        let config = from_toml("detect_within = '6s'\nrole = 'passive'\nmin_interval = '1ms'");
        let within = Config::detect_within(secs(6)).unwrap().to_builder();
        let by_hand = within.role(Role::Passive).min_interval(ms(1));
        assert_eq!(config, Ok(by_hand.build().unwrap()));
    }

    #[test]
    fn what_follows_from_a_timing_follows_when_it_is_changed() {
        let config = from_toml("preset = 'mobile'\ninterval = '1s'\ntimeout = '100ms'").unwrap();
        assert_eq!(config.max_missed(), 3);
        // Three timeouts, which are less than half of the interval.
        assert_eq!(config.min_interval(), ms(300));
        assert_eq!(config.stall_tolerance(), ms(100));
        assert_eq!(config.adaptive_floor(), ms(100));
    }

    #[test]
    fn a_detection_time_stands_alone() {
        for (other, name) in [
            ("preset = 'lan'", "preset"),
            ("interval = '2s'", "interval"),
            ("timeout = '2s'", "timeout"),
            ("max_missed = 3", "max_missed"),
        ] {
            let both = from_toml(&format!("{other}\ndetect_within = '6s'")).unwrap_err();
            let rule = format!("must be without {name}, because both set the timings");
            assert!(
                both.contains(&format!("detect_within = 6s: {rule}")),
                "{both}"
            );
        }
        for wrong in ["detect_within = '0s'", "detect_within = '4us'"] {
            let error = from_toml(wrong).unwrap_err();
            assert!(error.contains("detect_within = "), "{error}");
        }
    }

    #[test]
    fn a_mistake_is_told_on_its_line_with_its_name() {
        for wrong in [
            "preset = 'home'",
            "detect_within = '366 days'",
            "interval = '0s'",
            "timeout = 3",
            "max_missed = 0",
            "max_missed = -1",
            "max_missed = 2.5",
            "jitter = 1.01",
            "jitter = -1",
            "jitter = 'much'",
            "adaptive = 1",
            "adaptive_floor = ''",
            "evidence = 'bytes'",
            "role = true",
            "min_interval = '0ms'",
            "stall_tolerance = []",
            "write_stall = 'never'",
            "max_frame = 4294967295",
            "max_frame = '1 MiB'",
            "min_rate = -1",
            "min_rate = 4294967296",
            "min_rate = '100 B/s'",
            "max_stretch = 256",
            "max_pause = 'never'",
            "speak_within = 'often'",
            "speak_within = '19ms'",
            "linger = 'off'",
            "beat_events = 'yes'",
            "colour = 'red'",
        ] {
            let name = wrong.split(' ').next().unwrap();
            let text = format!("\n\n{wrong}\n\n");
            let error = from_toml(&text).unwrap_err();
            let (place, message) = error.trim_end().rsplit_once('\n').unwrap();
            assert!(place.contains("at line 3,"), "{wrong}: {error}");
            assert!(message.contains(name), "{wrong}: {error}");
        }
        let error = from_json("{\n\"jitter\": 2\n}").unwrap_err();
        assert_eq!(error, "jitter = 2: must be from 0 to 1 at line 2 column 11");
        let error = from_json("{\n\"adaptive\": \"yes\"\n}").unwrap_err();
        let told = "expected adaptive to be true or false at line 2 column 17";
        assert!(error.ends_with(told), "{error}");
    }

    #[test]
    fn a_ratio_may_be_a_whole_number() {
        assert_eq!(from_toml("jitter = 0").unwrap().jitter(), 0.0);
        assert_eq!(from_json("{\"jitter\": 1}").unwrap().jitter(), 1.0);
    }

    /// As variables of the environment are.
    #[test]
    fn every_kind_of_value_may_be_a_string() {
        let read = |name, value| {
            let strings = [(name, value)].into_iter();
            Config::deserialize(MapDeserializer::<_, value::Error>::new(strings))
        };
        assert_eq!(read("jitter", "0.25").unwrap().jitter(), 0.25);
        assert_eq!(read("max_missed", "5").unwrap().max_missed(), 5);
        assert_eq!(read("max_frame", "1000").unwrap().max_frame(), 1000);
        assert_eq!(read("interval", "20s").unwrap().interval(), secs(20));
        assert_eq!(read("role", "passive").unwrap().role(), Role::Passive);
        for (text, flag) in [
            ("true", true),
            ("on", true),
            ("false", false),
            ("off", false),
        ] {
            assert_eq!(read("adaptive", text).unwrap().adaptive(), flag);
            assert_eq!(read("beat_events", text).unwrap().beat_events(), flag);
        }
        for (name, wrong) in [("jitter", "much"), ("max_missed", "-1"), ("adaptive", "1")] {
            let error = read(name, wrong).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn no_limit_is_off_everywhere() {
        assert_eq!(from_toml("write_stall = 'off'"), Ok(Config::default()));
        assert_eq!(from_toml("max_pause = 'off'"), Ok(Config::default()));
        assert_eq!(
            from_json("{\"write_stall\": \"off\"}"),
            Ok(Config::default())
        );
    }

    #[test]
    fn no_limit_is_null_in_json() {
        let config = from_json("{\"write_stall\": null, \"min_interval\": null}");
        assert_eq!(config, Ok(Config::default()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(config in configs()) {
            let written = toml::to_string(&config).unwrap();
            prop_assert_eq!(from_toml(&written), Ok(config), "{}", written);

            let written = serde_json::to_string(&config).unwrap();
            prop_assert_eq!(from_json(&written), Ok(config), "{}", written);
        }
    }

    fn from_toml(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn from_json(text: &str) -> Result<Config, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

// ---- any valid configuration ----------------------------------------------

/// Short ones and long ones alike: uniform in the number of digits.
fn durations() -> impl Strategy<Value = Duration> {
    (0..45_u32, any::<u64>()).prop_map(|(bits, random)| {
        let micros = (1 << bits) | (random & ((1 << bits) - 1));
        us(micros.min(YEAR_MICROS))
    })
}

prop_compose! {
    fn configs()(
        (interval, timeout, max_missed, jitter) in
            (durations(), durations(), 1..=255_u32, 0.0..=1.0),
        (adaptive, floor, beat_events, max_frame) in
            (any::<bool>(), 0.0..=1.0, any::<bool>(), 1..=4_294_967_294_usize),
        evidence in prop::sample::select(vec![Evidence::AnyBytes, Evidence::Frame, Evidence::Echo]),
        role in prop::sample::select(vec![Role::Both, Role::Passive]),
        (min_interval, stall_tolerance, write_stall) in
            (durations(), durations(), prop::option::of(durations())),
        (min_rate, max_stretch, max_pause, linger) in
            (any::<u32>(), 1..=255_u32, prop::option::of(durations()), durations()),
    ) -> Config {
        Config::builder()
            .interval(interval)
            .timeout(timeout)
            .max_missed(max_missed)
            .jitter(jitter)
            .adaptive(adaptive)
            .adaptive_floor(timeout.mul_f64(floor).clamp(MICRO, timeout))
            .evidence(evidence)
            .role(role)
            .min_interval(min_interval.min(interval).min(timeout * max_missed))
            .stall_tolerance(stall_tolerance)
            .write_stall(write_stall)
            .max_frame(max_frame)
            .min_rate(min_rate)
            .max_stretch(max_stretch)
            .max_pause(max_pause)
            .linger(linger)
            .beat_events(beat_events)
            .build()
            .unwrap()
    }
}
