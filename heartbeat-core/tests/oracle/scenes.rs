//! The known kinds of fault, each as the shortest play that shows it.
//!
//! Most are found by the rules alone. Where a scene says more, that is the
//! value which the fault was reported with. Times are in milliseconds.

use std::time::Duration;

use heartbeat_core::{Config, End, Event, Evidence, Instant, Monitor, Role, State};

use crate::{
    api,
    judge::Violation,
    ops::{Answer, Op, announced, instant},
    stage::{Played, foreign, ms, stage, stage_from, usual},
};

fn row_1() -> Played {
    for (every, serves) in [
        (9_000, true),
        (10_000, true),
        (10_000, false),
        (11_000, true),
    ] {
        let mut stage = stage(usual().write_stall(ms(30_000)));
        stage.call(0, Op::Blocked)?;
        for at in (every..30_000).step_by(usize::try_from(every).unwrap_or(1)) {
            stage.until(at - u64::from(!serves), false)?;
            stage.call(at, Op::Bytes)?;
        }
        stage.dies_at(30_000, false)?;
    }
    Ok(())
}

fn row_2() -> Played {
    let mut stage = stage(usual());
    stage.call(14_000, Op::Bytes)?;
    stage.side.hand_out(14_000_000, &mut stage.tally)?;
    stage.until(29_999, false)?;
    stage.write(29_999)?;
    stage.dies_at(30_000, true)
}

fn row_3() -> Played {
    let mut stage = stage_from(usual(), 1_000_000_000);
    stage.then(1_000_000, Op::Paused)?;
    stage.call(1_000_001, Op::Probe)?;
    stage.call(1_000_002, Op::Resumed)?;
    stage.is(
        stage.side.judge.seen.events.is_empty(),
        "a punctual driver sees no LocalStall",
    )
}

fn row_4() -> Played {
    let mut stage = stage(usual());
    stage.hello(0, [10_000, 20_000, 10_000, 3])?;
    stage.then(1, Op::Probe)?;
    stage.call(2, Op::Bytes)?;
    stage.call(3, Op::Probe)?;
    stage.call(4, Op::Paused)?;
    stage.hello(5, [10_000, 20_000, 1, 3])?;
    stage.write(5)?;
    stage.until(60_000, true)?;
    stage.is(stage.side.judge.state() == State::Paused, "stays paused")
}

fn row_5() -> Played {
    let mut stage = stage(usual());
    stage.call(5_000, Op::Probe)?;
    stage.side.hand_out(5_000_000, &mut stage.tally)?;
    stage.call(5_001, Op::Pong(Answer::Ping(0)))?;
    stage.write(5_002)?;
    stage.until(15_000, true)?;
    let told = |event: &Event| matches!(event, Event::Suspect { .. });
    stage.is(
        !stage.side.events.iter().any(told),
        "the probe was answered",
    )
}

fn row_6() -> Played {
    let mut stage = stage(usual());
    stage.then(12_000, Op::Probe)?;
    stage.dies_at(16_000, true)
}

fn row_7() -> Played {
    let mut stage = foreign(usual().evidence(Evidence::Frame));
    stage.then(9_900, Op::Backlog)?;
    stage.until(10_000, true)?;
    stage.is(
        stage.side.judge.pings.len() == 1,
        "one ping, and not a second 100 ms later",
    )?;
    stage.until(11_999, true)
}

fn row_8() -> Played {
    let longer = [5_000, 14_000, 50_000, 3];
    let shorter = [5_000, 14_000, 1_000, 3];
    for late in [0, 2_000, 4_999] {
        for paused in [false, true] {
            let defaults = Config::builder().jitter(0.0).adaptive(false).max_stretch(5);
            let mut stage = stage(defaults.evidence(Evidence::Echo));
            stage.hello(0, longer)?;
            stage.write(0)?;
            stage.until(50_000, true)?;
            stage.then(50_000, Op::Pong(Answer::Ping(0)))?;
            if paused {
                stage.then(50_000, Op::Paused)?;
                stage.then(50_000, Op::Resumed)?;
            }
            stage.hello(50_000 + late, shorter)?;
            stage.dies_at(64_000, true)?;
        }
    }
    Ok(())
}

/// Stalls of 7 s, each of which begins just before the verdict.
fn row_9(leaves: bool) -> Played {
    let mut stage = stage(usual());
    stage.until(15_999, leaves)?;
    let mut verdict = 16_000;
    for _ in 0..3 {
        stage.then(verdict + 7_000, Op::Timeout)?;
        verdict += 9_000;
        if !leaves {
            continue;
        }
        stage.until(verdict - 1, leaves)?;
    }
    stage.dies_at(verdict, leaves)
}

fn row_10() -> Played {
    let mut stage = stage(usual());
    stage.until(12_000, true)?;
    stage.call(13_000, Op::Bytes)?;
    stage.call(13_000, Op::End(End::Eof))?;
    stage.drain(13_000)?;
    let recovered = Event::Recovered {
        silent_for: ms(13_000),
    };
    stage.is(
        stage.side.events.contains(&recovered),
        "Recovered after 13 s",
    )
}

/// The first interval is uniform.
fn row_11() -> Played {
    for interval in [1, 10, 50, 65, 200] {
        let config = api::build(Config::builder().interval(ms(interval)));
        let mut quarters = [0; 4];
        for seed in 0..2_000 {
            let monitor = Monitor::new(config, seed, instant(0));
            let first = monitor.poll_timeout().map_or(0, Instant::as_micros);
            let quarter = (first.saturating_sub(1) * 4 / (interval * 1_000)).min(3);
            quarters[usize::try_from(quarter).unwrap_or(0)] += 1;
        }
        // 500 each; the standard deviation is below 20.
        if quarters.iter().any(|count| !(380..=620).contains(count)) {
            let detail = format!("I = {interval} ms, quarters {quarters:?}");
            return Err(Violation::new("first intervals are uniform", detail));
        }
    }
    Ok(())
}

fn row_12() -> Played {
    let mut stage = stage_from(usual().max_missed(1), 5_000_000);
    stage.call(7_000, Op::Timeout)?;
    stage.then(5_000, Op::Probe)?;
    stage.call(7_000, Op::Timeout)?;
    stage.is(!stage.side.judge.has_ended(), "the clock kills nobody")
}

fn row_12_tolerant() -> Played {
    let mut stage = stage(usual().stall_tolerance(ms(3_600_000)));
    stage.call(60_000, Op::Timeout)?;
    stage.is(
        !stage.side.judge.has_ended(),
        "not dead without having been asked",
    )
}

fn row_12_close() -> Played {
    let near = u64::MAX - 1_000;
    let mut stage = stage_from(usual(), near);
    stage.side.call(near, Op::Close(0), &mut stage.tally)?;
    stage.side.call(u64::MAX, Op::Timeout, &mut stage.tally)?;
    stage.is(
        stage.side.judge.has_ended(),
        "the goodbye ends at the end of time",
    )
}

fn row_13() -> Played {
    let acknowledged = usual().evidence(Evidence::Acknowledgement);
    let mut stage = stage(acknowledged.stall_tolerance(Duration::from_micros(1)));
    stage.until(10_000, true)?;
    for at in 1..=10 {
        let now = stage.side.judge.seen.deadline.unwrap_or(0) / 1_000;
        if stage.side.judge.has_ended() {
            break;
        }
        stage
            .side
            .call(now * 1_000, Op::Acknowledged(at), &mut stage.tally)?;
        stage.until(now, true)?;
    }
    let told = |event: &Event| matches!(event, Event::LocalStall { .. });
    stage.is(
        !stage.side.events.iter().any(told),
        "no LocalStall on a punctual driver",
    )
}

fn row_14() -> Played {
    let passive = usual().role(Role::Passive);
    let mut stage = stage(passive);
    stage.hello(0, [10_000, 20_000, 1_000, 3])?;
    stage.until(30_000, false)?;
    let told = |event: &Event| matches!(event, Event::Suspect { .. });
    stage.is(
        !stage.side.events.iter().any(told),
        "no Suspect for a beat that wasn't sent",
    )
}

/// A Hello of a year doesn't change what a passive side goes by.
fn row_14_year() -> Played {
    let mut stage = stage(usual().role(Role::Passive));
    stage.hello(0, [31_536_000_000, 31_536_002_000, 1_000, 1])?;
    stage.dies_at(16_000, true)
}

fn row_15() -> Played {
    let mut stage = stage(usual().interval(ms(200)).timeout(ms(200)).max_missed(1));
    stage.hello(0, [200, 400, 100, 1])?;
    stage.write(0)?;
    // A ping each 100 ms, held for 30 s, while one byte comes each 200 ms.
    for at in (200..30_000).step_by(200) {
        stage.until(at - 1, true)?;
        stage.then(at, Op::Bytes)?;
    }
    for ping in 0..300 {
        stage.call(30_000, Op::Ping(ping))?;
    }
    stage.is(!stage.side.judge.has_ended(), "a compliant peer lives")
}

fn row_16() -> Played {
    let mut stage = stage(usual());
    stage.hello(0, [10_000, 20_000, 1_000, 40])?;
    for ping in 0..40 {
        stage.call(0, Op::Ping(ping))?;
    }
    stage.hello(0, [10_000, 20_000, 1_000, 1])?;
    stage.call(0, Op::Ping(40))?;
    stage.is(
        !stage.side.judge.has_ended(),
        "what was sent with the former N is accepted",
    )
}

fn row_17() -> Played {
    let mut stage = stage(usual());
    stage.until(10_000, true)?;
    stage.call(3_600_000, Op::Pong(Answer::Ping(0)))?;
    let told = |event: &Event| matches!(event, Event::Beat { .. });
    stage.is(
        !stage.side.judge.seen.events.iter().any(told),
        "no sample across a stall",
    )
}

fn row_18() -> Played {
    let mut stage = stage(usual());
    stage.call(0, Op::Hello(announced([1, 2, 1, 3])))?;
    stage.is(stage.side.judge.state() == State::Dead, "refused")
}

fn row_18_pause() -> Played {
    let mut stage = stage(usual());
    stage.call(0, Op::Hello(announced([1, 100_000, 1, 3])))?;
    stage.then(0, Op::Paused)?;
    stage.until(1_000, true)?;
    let signs = stage.tally.0.get("signs of life").copied().unwrap_or(0);
    stage.is((50..=51).contains(&signs), "20 ms apart")
}

fn row_19() -> Played {
    // As much as is accepted: 255 · 16 s − 6 s.
    let slow = [4_074_000, 4_076_000, 4_074_000, 1];
    let normal = [10_000, 20_000, 1_000, 3];
    for evidence in [Evidence::Echo, Evidence::AnyBytes] {
        for paused in [false, true] {
            let mut stage = stage(usual().evidence(evidence).max_stretch(255));
            if paused {
                stage.then(0, Op::Paused)?;
            }
            stage.hello(0, slow)?;
            if paused {
                stage.then(0, Op::Resumed)?;
            }
            stage.hello(0, normal)?;
            stage.write(0)?;
            stage.dies_at(16_000, true)?;
        }
        let mut stage = stage(usual().evidence(evidence).max_stretch(255));
        stage.until(10_000, true)?;
        stage.hello(11_000, slow)?;
        stage.hello(11_000, normal)?;
        stage.then(11_000, Op::Pong(Answer::Ping(0)))?;
        stage.dies_at(27_000, true)?;
    }
    Ok(())
}

/// A Hello that makes us wait for longer than four times our detection time.
fn row_21() -> Played {
    for (most, refused) in [(58_000, false), (58_001, true), (31_536_000_000, true)] {
        let mut stage = stage(usual());
        stage.hello(0, [31_536_000_000, 31_536_002_000, most, 1])?;
        stage.is(stage.side.judge.has_ended() == refused, "refused")?;
        if !refused {
            stage.write(0)?;
            stage.dies_at(64_000, true)?;
        }
    }
    Ok(())
}

fn row_20() -> Played {
    for builder in [
        usual().min_interval(ms(10_001)),
        usual().interval(ms(100)).timeout(ms(1)).min_interval(ms(4)),
    ] {
        if let Ok(config) = builder.build() {
            return Err(Violation::new(
                "min_interval is refused",
                format!("{config:?}"),
            ));
        }
    }
    Ok(())
}

/// In a foreign protocol our Fin ends our direction: nothing is asked or judged behind
/// it, and only `linger` ends what `close` waits for.
fn half_closed() -> Played {
    let mut stage = foreign(usual());
    stage.call(0, Op::Finish)?;
    stage.side.hand_out(0, &mut stage.tally)?;
    stage.call(1, Op::Close(0))?;
    stage.call(1, Op::Flushed)?;
    stage.is(
        stage.side.judge.seen.deadline == Some(30_001_000),
        "only linger is left",
    )
}

type Scene = (&'static str, fn() -> Played);

const SCENES: &[Scene] = &[
    ("1: write_stall, whatever arrives", row_1),
    ("2: a late flush doesn't move the verdict", row_2),
    ("3: a probe in a pause", row_3),
    ("4: a Hello in a pause with a probe", row_4),
    ("5: a pong before its flush", row_5),
    ("6: a probe on an overdue round", row_6),
    ("7: a backlog just before a round", row_7),
    ("8: Echo and a shorter Hello", row_8),
    ("9: stalls, pings leave", || row_9(true)),
    ("9: stalls, pings can't leave", || row_9(false)),
    ("10: Recovered with its own silence", row_10),
    ("11: first intervals", row_11),
    ("12: clock back", row_12),
    ("12: a tolerance of an hour", row_12_tolerant),
    ("12: close near the end of time", row_12_close),
    ("13: an old acknowledgement", row_13),
    ("14: no Suspect for an unsent beat", row_14),
    ("14: an interval of a year, passive", row_14_year),
    ("15: pings that were held", row_15),
    ("16: a Hello with a smaller N", row_16),
    ("17: no sample across a stall", row_17),
    ("18: a Hello of microseconds", row_18),
    ("18: signs of life 20 ms apart", row_18_pause),
    ("19: a Hello taken back", row_19),
    ("20: min_interval above its bounds", row_20),
    ("21: a Hello that stretches our detection time", row_21),
    ("a goodbye behind a Fin that is on its way", half_closed),
];

#[test]
fn the_known_faults_stay_away() {
    let mut wrong = 0;
    for (name, scene) in SCENES {
        match scene() {
            Ok(()) => println!("row {name}: right"),
            Err(violation) => {
                wrong += 1;
                println!(
                    "row {name}: WRONG, {}\n  {}",
                    violation.rule, violation.detail
                );
            }
        }
    }
    assert_eq!(wrong, 0, "known faults are back");
}
