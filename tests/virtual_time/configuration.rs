//! Settings from files and the environment, by `examples/config`; and that
//! docs/configuration.md says of them what is so.

#[path = "../../examples/config/settings.rs"]
mod settings;

use std::{
    collections::HashMap,
    fs,
    path::{MAIN_SEPARATOR, Path},
};

use heartbeat_tests::{ms, secs};
use heartbeat_tokio::{Config, ConfigLayer, Evidence, Role, SafetyNet};
use serde_json::json;
use settings::Settings;

const PAGE: &str = include_str!("../../docs/configuration.md");

// ---- one on top of the other ------------------------------------------------

#[test]
fn nothing_given_is_the_defaults() {
    let settings = load("heartbeat.toml", "", &[]).unwrap();
    assert_eq!(settings.heartbeat, Config::default());
    assert_eq!(settings.safety_net(), SafetyNet::default());
}

#[test]
fn a_file_in_toml_or_json_is_the_same() {
    let toml = "heartbeat.detect_within = '6s'\nsafety_net.retries = 9";
    let json = r#"{"heartbeat": {"detect_within": "6s"}, "safety_net": {"retries": 9}}"#;
    for (name, text) in [("heartbeat.toml", toml), ("heartbeat.json", json)] {
        let settings = load(name, text, &[]).unwrap();
        assert_eq!(settings.heartbeat, Config::detect_within(secs(6)).unwrap());
        assert_eq!(settings.safety_net().retries(), 9);
    }
}

#[test]
fn everything_is_a_string_in_the_environment() {
    let settings = load(
        "heartbeat.toml",
        "",
        &[
            ("APP_HEARTBEAT__INTERVAL", "10s"),
            ("APP_HEARTBEAT__TIMEOUT", "2s"),
            ("APP_HEARTBEAT__MAX_MISSED", "4"),
            ("APP_HEARTBEAT__JITTER", "0.5"),
            ("APP_HEARTBEAT__ADAPTIVE", "false"),
            ("APP_HEARTBEAT__ADAPTIVE_FLOOR", "100ms"),
            ("APP_HEARTBEAT__EVIDENCE", "echo"),
            ("APP_HEARTBEAT__ROLE", "passive"),
            ("APP_HEARTBEAT__MIN_INTERVAL", "3s"),
            ("APP_HEARTBEAT__STALL_TOLERANCE", "7s"),
            ("APP_HEARTBEAT__WRITE_STALL", "1m"),
            ("APP_HEARTBEAT__MAX_FRAME", "1000"),
            ("APP_HEARTBEAT__MIN_RATE", "0"),
            ("APP_HEARTBEAT__MAX_STRETCH", "2"),
            ("APP_HEARTBEAT__MAX_PAUSE", "20s"),
            ("APP_HEARTBEAT__SPEAK_WITHIN", "5s"),
            ("APP_HEARTBEAT__LINGER", "1m 30s"),
            ("APP_HEARTBEAT__BEAT_EVENTS", "off"),
            ("APP_SAFETY_NET__IDLE", "1m 30s"),
            ("APP_SAFETY_NET__INTERVAL", "20s"),
            ("APP_SAFETY_NET__RETRIES", "5"),
            ("APP_SAFETY_NET__USER_TIMEOUT", "1.5s"),
            ("APP_SAFETY_NET__MAX_RETRANSMIT_TIMEOUT", "off"),
            ("APP_SAFETY_NET__MAX_UNSENT", "65536"),
            ("APP_SAFETY_NET__PEEK_INTERVAL", "250ms"),
        ],
    );
    let settings = settings.unwrap();
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
    assert_eq!(settings.heartbeat, by_hand.build().unwrap());
    let by_hand = SafetyNet::new(secs(90), secs(20), 5)
        .and_then(|net| net.with_user_timeout(ms(1500)))
        .and_then(|net| net.with_max_unsent(65_536))
        .and_then(|net| net.with_peek_interval(ms(250)));
    assert_eq!(settings.safety_net(), by_hand.unwrap());
}

#[test]
fn the_environment_takes_precedence_key_by_key() {
    let file = "[heartbeat]\npreset = 'lan'\nmax_missed = 5\nwrite_stall = '1m'";
    let variables = [
        ("APP_HEARTBEAT__MAX_MISSED", "2"),
        ("APP_HEARTBEAT__WRITE_STALL", "off"),
        ("PATH", "/bin"),
    ];
    let settings = load("heartbeat.toml", file, &variables).unwrap();
    let lan = Config::lan().to_builder().max_missed(2);
    assert_eq!(settings.heartbeat, lan.build().unwrap());
}

/// Whatever says all timings replaces all timings.
#[test]
fn a_preset_and_a_budget_in_two_layers_replace_each_other() {
    let budget = Config::detect_within(secs(6)).unwrap();
    for (file, variable, timings) in [
        ("preset = 'lan'", ("DETECT_WITHIN", "6s"), budget),
        (
            "preset = 'lan'\ntimeout = '1s'",
            ("DETECT_WITHIN", "6s"),
            budget,
        ),
        (
            "interval = '9s'\nmax_missed = 7",
            ("DETECT_WITHIN", "6s"),
            budget,
        ),
        ("detect_within = '6s'", ("PRESET", "lan"), Config::lan()),
        ("detect_within = '9s'", ("DETECT_WITHIN", "6s"), budget),
        (
            "preset = 'mobile'\ninterval = '20s'",
            ("PRESET", "lan"),
            Config::lan(),
        ),
    ] {
        let name = format!("APP_HEARTBEAT__{}", variable.0);
        let file = format!("[heartbeat]\n{file}\nmax_frame = 1000");
        let settings = load("heartbeat.toml", &file, &[(&name, variable.1)]).unwrap();
        // The others stay.
        let expected = timings.to_builder().max_frame(1000).build();
        assert_eq!(settings.heartbeat, expected.unwrap(), "{file}");
    }
    // One layer says both, or a timing on top of what it would make untrue.
    for (file, variables) in [
        ("", &[("PRESET", "lan"), ("DETECT_WITHIN", "6s")][..]),
        ("heartbeat.detect_within = '6s'", &[("INTERVAL", "1s")]),
    ] {
        let named = |(name, value): &(&str, _)| (format!("APP_HEARTBEAT__{name}"), *value);
        let variables: Vec<_> = variables.iter().map(named).collect();
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (&**name, *value))
            .collect();
        let told = load("heartbeat.toml", file, &variables).unwrap_err();
        assert!(
            told.contains("detect_within = 6s: must be without"),
            "{told}"
        );
    }
}

#[test]
fn a_layer_takes_back_any_value_of_the_layers_below() {
    let heartbeat = serde_json::to_value(Config::mobile()).unwrap();
    let mut net = serde_json::to_value(SafetyNet::from(&Config::mobile())).unwrap();
    net["user_timeout"] = "30s".into();
    let file = json!({ "heartbeat": heartbeat, "safety_net": net });
    let mut variables = Vec::new();
    for (section, keys) in file.as_object().unwrap() {
        for key in keys.as_object().unwrap().keys() {
            let name = format!("app_{section}__{key}").to_uppercase();
            variables.push((name, "default"));
        }
    }
    let given = variables.iter().map(|(name, value)| (&**name, *value));
    let given: Vec<_> = given.collect();
    let settings = load("heartbeat.json", &file.to_string(), &given).unwrap();
    assert_eq!(settings.heartbeat, Config::default());
    assert_eq!(settings.safety_net(), SafetyNet::default());
    // And what sets several at once.
    let budget = load(
        "heartbeat.toml",
        "heartbeat.detect_within = '6s'",
        &[
            ("APP_HEARTBEAT__DETECT_WITHIN", "default"),
            ("APP_HEARTBEAT__INTERVAL", "10s"),
        ],
    );
    let by_hand = Config::builder().interval(secs(10)).build().unwrap();
    assert_eq!(budget.unwrap().heartbeat, by_hand);
}

/// In one layer, and in a file too.
#[test]
fn a_value_that_is_the_default_is_as_good_as_left_out() {
    let file = "[heartbeat]\npreset = 'lan'\nmin_interval = 'default'\nmax_missed = 'default'";
    let settings = load("heartbeat.toml", file, &[]).unwrap();
    assert_eq!(settings.heartbeat, Config::lan());
}

/// The one on the page, and what it says of it.
#[test]
fn the_layers_on_the_page_are_what_it_says() {
    let blocks = blocks(PAGE);
    let find = |start: &str| {
        let found = blocks.iter().find(|(_, block)| block.contains(start));
        found.unwrap().1
    };
    let variables = find("EVIDENCE=default").lines();
    let variables: Vec<_> = variables.filter_map(|line| line.split_once('=')).collect();
    let settings = load("heartbeat.toml", find("preset = \"lan\""), &variables).unwrap();
    let expected = Config::detect_within(secs(2)).unwrap().to_builder();
    let expected = expected.max_frame(65_536).build().unwrap();
    assert_eq!(settings.heartbeat, expected);
    assert_eq!(settings.safety_net(), SafetyNet::from(&expected));
}

#[test]
fn the_safety_net_follows_the_heartbeat_unless_it_is_told() {
    let file = "heartbeat.preset = 'mobile'\nsafety_net.retries = 20";
    let settings = load("heartbeat.toml", file, &[]).unwrap();
    let derived = SafetyNet::from(&Config::mobile());
    assert_ne!(derived, SafetyNet::default());
    assert_eq!(
        settings.safety_net(),
        derived.with_retries(20).unwrap(),
        "not what follows from the defaults"
    );
}

#[test]
fn the_file_of_the_example_is_right() {
    let settings = Settings::load(
        Path::new("../examples/config/heartbeat.toml"),
        HashMap::new(),
    );
    let settings = settings.unwrap();
    assert_eq!(settings.heartbeat.detection_time(), secs(6));
    assert_eq!(settings.heartbeat.role(), Role::Passive);
    let derived = SafetyNet::from(&settings.heartbeat);
    let net = derived.with_user_timeout(secs(30)).unwrap();
    assert_eq!(settings.safety_net(), net);
}

/// There is no role that only asks.
#[test]
fn a_role_that_doesnt_exist_is_refused_with_those_that_do() {
    let told = load("heartbeat.toml", "heartbeat.role = 'active'", &[]).unwrap_err();
    let expected = "expected role to be both or passive";
    assert!(told.contains(expected), "{told}");
    for (word, role) in [("both", Role::Both), ("passive", Role::Passive)] {
        let file = format!("heartbeat.role = '{word}'");
        let settings = load("heartbeat.toml", &file, &[]).unwrap();
        assert_eq!(settings.heartbeat.role(), role);
    }
}

/// From the top down, nothing is replaced by what was taken back.
#[test]
fn what_a_budget_has_replaced_stays_replaced() {
    let layer = |text| toml::from_str::<ConfigLayer>(text).unwrap();
    let [bottom, middle, top] = [
        layer("interval = '10s'"),
        layer("detect_within = '6s'"),
        layer("detect_within = 'default'"),
    ];
    let top_down = top.clone().on_top_of(middle.clone());
    let top_down = Config::try_from(top_down.on_top_of(bottom.clone()));
    let by_hand = Config::builder().interval(secs(10)).build();
    assert_eq!(top_down, by_hand);
    let bottom_up = Config::try_from(top.on_top_of(middle.on_top_of(bottom)));
    assert_eq!(bottom_up, Ok(Config::default()));
}

// ---- what the page says -------------------------------------------------------

/// A file or variables, and right after it what is said of them: the whole
/// message, to the letter.
#[test]
fn each_mistake_on_the_page_is_told_as_the_page_says() {
    let blocks = blocks(PAGE);
    let mut mistakes = 0;
    for pair in blocks.windows(2) {
        let [(kind, input), ("text", message)] = pair else {
            continue;
        };
        mistakes += 1;
        let told = read(kind, input).unwrap_err();
        assert_eq!(told.trim_end(), message.trim_end(), "{input}");
    }
    assert_eq!(mistakes, 20);
}

#[test]
fn each_file_on_the_page_that_is_no_mistake_is_right() {
    let blocks = blocks(PAGE);
    let mut files = 0;
    for (index, (kind, input)) in blocks.iter().enumerate() {
        let is_mistake = blocks
            .get(index + 1)
            .is_some_and(|(kind, _)| *kind == "text");
        if is_mistake || !["toml", "json", "sh"].contains(kind) {
            continue;
        }
        files += 1;
        let settings = read(kind, input).unwrap_or_else(|error| panic!("{input}: {error}"));
        assert_ne!(settings.heartbeat, Config::default(), "{input}");
    }
    assert_eq!(files, 5);
}

#[test]
fn the_tables_have_every_key_and_its_default() {
    let config = serde_json::to_value(Config::default()).unwrap();
    let net = serde_json::to_value(SafetyNet::default()).unwrap();
    for (heading, written) in [("## `[heartbeat]`", config), ("## `[safety_net]`", net)] {
        let section = PAGE.split(heading).nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let table: serde_json::Map<_, _> = section.lines().filter_map(row).collect();
        assert_eq!(serde_json::Value::Object(table), written, "{heading}");
    }
}

/// `` | `key` | unit | `default` ... ``, if it has a default.
fn row(line: &str) -> Option<(String, serde_json::Value)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let key = cells.next()?.trim_end_matches('`');
    let default = cells.nth(1)?.strip_prefix('`')?.split('`').next()?;
    Some((
        key.into(),
        serde_json::from_str(default).unwrap_or(json!(null)),
    ))
}

/// The fenced blocks of a page: what they are, and what is in them.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fenced = page.split("\n```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).collect()
}

/// What `examples/config` makes of a block.
fn read(kind: &str, input: &str) -> Result<Settings, String> {
    match kind {
        "json" => load("heartbeat.json", input, &[]),
        "sh" => {
            let variables = input.lines().filter_map(|line| line.split_once('='));
            let unquoted = variables.map(|(name, value)| (name, value.trim_matches('"')));
            load("heartbeat.toml", "", &unquoted.collect::<Vec<_>>())
        }
        _ => load("heartbeat.toml", input, &[]),
    }
}

/// The message is as it would be for a file in this folder.
fn load(name: &str, text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    let variables = variables.iter().map(owned).collect();
    let here = format!("{}{MAIN_SEPARATOR}", folder.path().display());
    Settings::load(&path, variables).map_err(|error| error.to_string().replace(&here, ""))
}
