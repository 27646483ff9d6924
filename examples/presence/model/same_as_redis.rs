//! The model's store does what `presence.lua` does in a real Redis.

use std::collections::BTreeMap;

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use redis::{Connection, RedisResult, Value};

use super::{
    name,
    store::{Reply, Said, Script, Store},
};
use crate::Redis;

const PREFIX: &str = "{presence}:";

/// A grace period that is over when the test says so.
const LONG: u64 = 3_600_000;

#[derive(Clone, Debug)]
enum Step {
    Run {
        gateway: u8,
        epoch: u8,
        script: Script,
    },
    LeaseEnds {
        gateway: u8,
    },
    GraceEnds {
        user: u8,
    },
    LoseData,
    Settled,
}

/// One server for all cases; each begins with an empty one.
#[test]
fn the_models_store_does_what_the_script_does_in_redis() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let mut connection = redis.client.get_connection().unwrap();
    let cases = if super::full() { 300 } else { 150 };
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases));
    let steps = prop::collection::vec(step(), 1..60);
    for _ in 0..cases {
        let steps = steps.new_tree(&mut runner).unwrap().current();
        compare(&mut connection, &steps).unwrap_or_else(|error| panic!("{steps:?}: {error}"));
    }
}

fn compare(redis: &mut Connection, steps: &[Step]) -> Result<(), TestCaseError> {
    let _: () = redis::cmd("FLUSHALL").query(redis).unwrap();
    let (mut store, mut told) = (Store::default(), "0-0".to_owned());
    for step in steps {
        let mut said = Vec::new();
        match step {
            Step::Run {
                gateway,
                epoch,
                script,
            } => {
                let real = run(redis, *gateway, *epoch, script, store.losses);
                let modelled = store.run(*gateway, *epoch, script, &mut said);
                prop_assert_eq!(real, modelled, "{:?}", step);
            }
            Step::LeaseEnds { gateway } => {
                store.leases.remove(gateway);
                command(redis, "DEL", &[&key(&format!("lease:{gateway}"))]);
            }
            Step::GraceEnds { user } => {
                if let Some(is_over) = store.leaving.get_mut(user) {
                    *is_over = true;
                    command(redis, "ZADD", &[&key("leaving"), "0", &name(*user)]);
                }
            }
            Step::LoseData => {
                store = Store {
                    losses: store.losses + 1,
                    ..Store::default()
                };
                told = "0-0".into();
                command(redis, "FLUSHALL", &[]);
            }
            Step::Settled => {
                store.settling = false;
                command(redis, "DEL", &[&key("settling")]);
            }
        }
        // A sweep has no order.
        said.sort();
        prop_assert_eq!(heard(redis, &mut told), said, "{:?}", step);
        prop_assert_eq!(users(redis), store.users.clone());
    }
    Ok(())
}

// ---- steps ------------------------------------------------------------------

fn step() -> impl Strategy<Value = Step> {
    let run = (0..2_u8, 1..4_u8, script());
    let run = run.prop_map(|(gateway, epoch, script)| Step::Run {
        gateway,
        epoch,
        script,
    });
    prop_oneof![
        20 => run,
        2 => (0..2_u8).prop_map(|gateway| Step::LeaseEnds { gateway }),
        3 => (0..2_u8).prop_map(|user| Step::GraceEnds { user }),
        1 => Just(Step::LoseData),
        1 => Just(Step::Settled),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let enter = (0..4_u64, any::<bool>()).prop_map(|(connection, again)| Script::Enter {
        connection,
        user: u8::try_from(connection % 2).unwrap(),
        again,
    });
    let leave = (0..4_u64, any::<bool>());
    prop_oneof![
        4 => Just(Script::Register),
        3 => Just(Script::Refresh),
        6 => enter,
        4 => leave.prop_map(|(connection, at_once)| Script::Leave { connection, at_once }),
        1 => Just(Script::Close),
    ]
}

// ---- the real one ---------------------------------------------------------

fn run(redis: &mut Connection, gateway: u8, epoch: u8, script: &Script, losses: u8) -> Reply {
    let code = redis::Script::new(include_str!("../presence/presence.lua"));
    let mut call = code.key(PREFIX);
    let (operation, arguments) = match script {
        Script::Register => {
            let number = (1 + losses).to_string();
            let (ttl, grace) = (LONG.to_string(), LONG.to_string());
            ("register", vec![ttl, grace, gateway.to_string(), number])
        }
        Script::Refresh => ("refresh", vec![LONG.to_string(), LONG.to_string()]),
        Script::Enter {
            connection,
            user,
            again,
        } => {
            let again = u8::from(*again).to_string();
            ("enter", vec![connection.to_string(), name(*user), again])
        }
        Script::Leave {
            connection,
            at_once,
        } => {
            let grace = if *at_once { 0 } else { LONG };
            (
                "leave",
                vec![connection.to_string(), grace.to_string(), "why".into()],
            )
        }
        Script::Close => ("close", vec![LONG.to_string(), gateway.to_string()]),
    };
    call.arg(operation).arg(gateway).arg(epoch).arg(arguments);
    let reply: RedisResult<Value> = call.invoke(redis);
    match (script, reply) {
        (_, Err(error)) if error.code() == Some("FENCED") => Reply::Fenced,
        (_, Err(error)) => panic!("{script:?}: {error}"),
        (Script::Register, Ok(number)) => {
            let (number, is_quiet) = redis::from_redis_value(number).unwrap();
            Reply::Registered(number, is_quiet)
        }
        (Script::Refresh, Ok(reply)) => {
            let reply = redis::from_redis_value(reply).unwrap();
            let (entries, _, is_quiet): (usize, i64, bool) = reply;
            Reply::Refreshed(entries, is_quiet)
        }
        (_, Ok(_)) => Reply::Done,
    }
}

/// What was announced since, of what the model knows.
fn heard(redis: &mut Connection, told: &mut String) -> Vec<Said> {
    let mut read = redis::cmd("XRANGE");
    read.arg(key("events")).arg(format!("({told}")).arg("+");
    let entries: Vec<(String, BTreeMap<String, String>)> = read.query(redis).unwrap();
    let mut said = Vec::new();
    for (id, fields) in entries {
        *told = id;
        let last = fields["who"].bytes().last().unwrap_or(b'0') - b'0';
        match &*fields["kind"] {
            "joined" => said.push(Said::Joined(last)),
            "left" => said.push(Said::Left(last)),
            "gateway-lost" => said.push(Said::Lost(last)),
            _ => {}
        }
    }
    said.sort();
    said
}

fn users(redis: &mut Connection) -> BTreeMap<u8, usize> {
    let mut read = redis::cmd("HGETALL");
    let users: BTreeMap<String, usize> = read.arg(key("users")).query(redis).unwrap();
    let number = |user: String| user.bytes().last().unwrap() - b'0';
    users
        .into_iter()
        .map(|(user, entries)| (number(user), entries))
        .collect()
}

fn command(redis: &mut Connection, name: &str, arguments: &[&str]) {
    let _: Value = redis::cmd(name).arg(arguments).query(redis).unwrap();
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}
