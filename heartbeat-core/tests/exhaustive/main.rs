//! Every state that two monitors can get into.
//!
//! Other tests pick their schedules by hand or by dice. This one lets a model
//! checker ([stateright](https://docs.rs/stateright)) try all of them: two
//! real `Monitor`s talk over two queues, the clock advances tick by tick, and
//! at every tick each message may arrive or be held back, each timer may be
//! served or be late, each write may leave or wait, be reported at once or
//! later, a side may fall asleep and wake up, stop reading, ask, hang, jam, be
//! cut off, finish, or say goodbye. After each input `record.rs` says what must come of
//! it by docs/state-machine.md, to the tick: frames, events and their values,
//! the deadline, the status. `verdicts.rs` compares.
//!
//! A tick is 20 ms, the shortest time between two signs of life; where round
//! trips are measured it is a microsecond, as they are averaged to that.
//!
//! # There is no horizon
//!
//! The search has no depth limit: it ends when there is no new state. That
//! works because two states count as one if they differ only in
//!
//! - *what time it is*: every instant is replaced by its age. The core
//!   compares and subtracts instants and does nothing else with them. An age
//!   beyond `LONG_AGO` ticks counts as that: it is more than twice the
//!   longest time that any rule adds to an instant, so no rule can tell.
//! - *how many pings there were*: a nonce is replaced by how many pings ago
//!   it was handed out, and likewise the monitor's indices. Nonces are only
//!   compared for equality, and without jitter (J = 0 everywhere here)
//!   nothing else depends on the count.
//! - the measured round trip, where `adaptive` is off.
//! - how much credit the flood limiter gives: it can be told only by a peer
//!   that floods, and these don't.
//!
//! A monitor's part of that is a `Snapshot`, which each part of the monitor
//! writes its own fields to: one that is forgotten doesn't compile. And no
//! state is made up: were this projection to merge too much, the search would
//! see less, but it would never blame a monitor that is right.
//!
//! # Figures
//!
//! All interleavings of the scenarios below; "depth" is the longest of the
//! shortest ways to a state, in actions.
//!
//! ```text
//! HEARTBEAT_FULL=1 cargo test -p heartbeat-core --test exhaustive -- --nocapture --test-threads 1
//!
//!               calm:      2413 states, depth  37
//!          one fault:     30066 states, depth  47
//!            leaving:    139753 states, depth  41
//!      one direction:     18957 states, depth  44
//!   one of two paces:      7172 states, depth  40
//!    both directions:      2518 states, depth  42
//!       both, slowly:      7806 states, depth  59
//!         two faults:    231061 states, depth  48
//!               late:     59016 states, depth  58
//!             delays:   1196740 states, depth  62
//!             stalls:    774519 states, depth  58
//! stall, slow writes:   1064116 states, depth  65
//!   stalls, one beat:     80073 states, depth  38
//! stall, three beats:     11604 states, depth  39
//!           adaptive:     33161 states, depth  54
//!          greetings:     62378 states, depth  45
//!    greetings, echo:     29265 states, depth  32
//!               echo:    449109 states, depth  66
//!             pauses:     62594 states, depth  76
//!             probes:     91555 states, depth  53
//!           together:    837475 states, depth  99
//!            backlog:      7646 states, depth  97
//!             speech:    847670 states, depth  87
//!            blocked:    189840 states, depth  57
//!           one beat:     14079 states, depth  35
//! ```
//!
//! That is with `HEARTBEAT_FULL`, as in `.ci/run`, and takes 53 s of processor
//! time. Without, a search ends after the states that are nearest. The states are
//! always as many; the depth varies a little, as two threads share the work. With
//! `HEARTBEAT_EXHAUSTIVE=1` delays are longer, and there are more stalls and more
//! faults in one run: DEEP.
//!
//! That the projection hides nothing is tried too: random walks meet 54,000 states
//! again, at another time and after other pings, and the same must follow.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says how long it took"
)]

mod key;
mod model;
mod record;
mod verdicts;

use std::time::Duration;

use heartbeat_core::{Config, ConfigBuilder, Evidence};

use model::Rules;
use verdicts::Seen;

/// In microseconds: the shortest time between two signs of life.
const TICK: u64 = 20_000;

/// I = 3, W = 2, N = 2, m = 1, J = 0: dead after 7 ticks.
fn timings(tick: u64) -> ConfigBuilder {
    Config::builder()
        .interval(Duration::from_micros(3 * tick))
        .timeout(Duration::from_micros(2 * tick))
        .min_interval(Duration::from_micros(tick))
        .max_missed(2)
        .linger(Duration::from_micros(5 * tick))
        .jitter(0.0)
        .adaptive(false)
}

fn ticks(count: u64) -> Duration {
    Duration::from_micros(count * TICK)
}

/// The first without, the second with `HEARTBEAT_EXHAUSTIVE=1`.
fn deeper<T>(usual: T, deep: T) -> T {
    match std::env::var_os("HEARTBEAT_EXHAUSTIVE") {
        Some(_) => deep,
        None => usual,
    }
}

#[test]
fn without_faults_nobody_dies() {
    let world = Rules {
        delay: 1,
        lateness: 1,
        calm: true,
        ..Rules::new(TICK, timings(TICK))
    };
    world.check("calm", &[Seen::Beat]);
}

#[test]
fn a_fault_is_found_in_time_and_nothing_else_is() {
    let world = Rules {
        delay: 1,
        lateness: 1,
        faults: deeper(1, 2),
        ..Rules::new(TICK, timings(TICK))
    };
    world.check(
        "one fault",
        &[
            Seen::Dead,
            Seen::GivenUp,
            Seen::ClosedByPeer,
            Seen::Confirmed,
        ],
    );
}

/// Either side leaves or finishes first, and the other may do so meanwhile.
#[test]
fn leaving_is_confirmed_in_every_order() {
    let world = Rules {
        delay: 1,
        write_delay: [deeper(0, 1), 0],
        faults: deeper(2, 3),
        partings: true,
        calm: true,
        ..Rules::new(TICK, timings(TICK))
    };
    let ends = [Seen::ClosedByPeer, Seen::Confirmed, Seen::BothFinished];
    world.check("leaving", &ends);
}

#[test]
fn where_one_direction_fails_both_sides_know() {
    let world = Rules {
        delay: 1,
        lateness: 1,
        phases: 3,
        faults: 1,
        cuts: true,
        ..Rules::new(TICK, timings(TICK))
    };
    world.check("one direction", &[Seen::Dead, Seen::GivenUp, Seen::Beat]);
}

#[test]
fn where_one_direction_fails_sides_with_different_timings_know_too() {
    let world = Rules {
        delay: 1,
        phases: 1,
        faults: 1,
        cuts: true,
        ..Rules::between(TICK, fast_and_slow(Evidence::Frame))
    };
    world.check("one of two paces", &[Seen::Dead, Seen::GivenUp]);
}

#[test]
fn where_both_directions_work_nobody_dies_and_questions_cause_no_storm() {
    let world = Rules {
        delay: 1,
        lateness: 1,
        phases: 3,
        calm: true,
        ..Rules::new(TICK, timings(TICK))
    };
    world.check("both directions", &[Seen::Beat]);
}

/// Answers come later than half an interval.
#[test]
fn where_delays_are_long_nobody_dies_and_questions_cause_no_storm() {
    let world = Rules {
        delay: deeper(2, 3),
        phases: 3,
        calm: true,
        ..Rules::new(TICK, timings(TICK).timeout(ticks(4)))
    };
    world.check("both, slowly", &[Seen::Beat]);
}

#[test]
fn two_faults_are_no_worse_than_one() {
    let world = Rules {
        delay: 1,
        faults: 2,
        ..Rules::new(TICK, timings(TICK))
    };
    world.check(
        "two faults",
        &[
            Seen::Dead,
            Seen::WriteStalled,
            Seen::ClosedByPeer,
            Seen::Unconfirmed,
        ],
    );
}

#[test]
fn late_timers_and_writes_that_wait_cost_no_more_than_they_are() {
    let world = Rules {
        delay: 1,
        lateness: 1,
        write_delay: [1, 1],
        faults: deeper(0, 1),
        ..Rules::new(TICK, timings(TICK))
    };
    world.check("late", &[]);
}

#[test]
fn long_delays_kill_only_who_was_silent_for_long_enough() {
    let world = Rules {
        delay: deeper(4, 5),
        ..Rules::new(TICK, timings(TICK))
    };
    world.check("delays", &[Seen::Dead, Seen::Recovered]);
}

#[test]
fn stalls_of_our_own_are_not_the_peers_fault() {
    let world = Rules {
        delay: 1,
        stalls: 2,
        longest_stall: deeper(8, 12),
        lateness: deeper(0, 1),
        ..Rules::new(TICK, timings(TICK))
    };
    world.check("stalls", &[Seen::LocalStall]);
}

#[test]
fn a_ping_that_follows_a_stall_has_its_whole_timeout_once_it_was_written() {
    let world = Rules {
        delay: 1,
        write_delay: [deeper(1, 2), 0],
        stalls: 1,
        longest_stall: deeper(4, 6),
        faults: 1,
        // Other worlds have goodbyes that take long.
        ..Rules::new(TICK, timings(TICK).linger(ticks(1)))
    };
    world.check("stall, slow writes", &[Seen::LocalStall, Seen::Dead]);
}

#[test]
fn no_more_stalls_are_forgiven_than_beats_may_be_missed() {
    let world = Rules {
        write_delay: [deeper(0, 1), 0],
        stalls: 2,
        longest_stall: deeper(4, 6),
        faults: 1,
        ..Rules::new(TICK, timings(TICK).max_missed(1))
    };
    world.check("stalls, one beat", &[Seen::LocalStall, Seen::Dead]);
}

#[test]
fn a_stall_in_a_round_takes_no_beat_away() {
    let world = Rules {
        stalls: deeper(1, 2),
        longest_stall: 5,
        faults: 1,
        ..Rules::new(TICK, timings(TICK).timeout(ticks(1)).max_missed(3))
    };
    world.check("stall, three beats", &[Seen::LocalStall, Seen::Dead]);
}

#[test]
fn suspicion_that_follows_round_trips_is_taken_back() {
    const MICROSECOND: u64 = 1;
    let floor = Duration::from_micros(MICROSECOND);
    let config = timings(MICROSECOND).adaptive(true).adaptive_floor(floor);
    let world = Rules {
        delay: 1,
        faults: deeper(0, 1),
        ..Rules::new(MICROSECOND, config)
    };
    world.check("adaptive", &[Seen::Recovered]);
}

#[test]
fn greetings_that_come_late_or_twice_settle_on_the_slower_interval() {
    let world = Rules {
        delay: 1,
        calm: true,
        greetings: 3,
        lateness: deeper(0, 1),
        ..Rules::between(TICK, fast_and_slow(Evidence::AnyBytes))
    };
    world.check("greetings", &[]);
}

#[test]
fn a_greeting_that_is_no_evidence_moves_the_round_that_it_makes_due() {
    let world = Rules {
        delay: 1,
        lateness: 1,
        greetings: 2,
        flush_delay: deeper(0, 1),
        ..Rules::between(TICK, fast_and_slow(Evidence::Echo))
    };
    world.check("greetings, echo", &[Seen::Beat]);
}

#[test]
fn only_answers_count_where_only_answers_are_evidence() {
    let world = Rules {
        delay: 1,
        flush_delay: 1,
        stalls: 1,
        longest_stall: 6,
        faults: deeper(0, 1),
        ..Rules::new(TICK, timings(TICK).evidence(Evidence::Echo))
    };
    world.check("echo", &[Seen::Beat]);
}

#[test]
fn a_pause_is_no_silence_and_keeps_the_peer_content() {
    let world = Rules {
        delay: 1,
        lateness: deeper(0, 1),
        pauses: deeper(1, 2),
        longest_pause: deeper(9, 7),
        calm: true,
        ..Rules::new(TICK, timings(TICK))
    };
    world.check("pauses", &[Seen::Beat]);
}

#[test]
fn a_probe_asks_once_and_as_soon_as_the_peer_accepts_it() {
    let world = Rules {
        delay: 1,
        flush_delay: 1,
        probes: deeper(1, 2),
        faults: deeper(0, 1),
        ..Rules::new(TICK, timings(TICK).min_interval(ticks(2)))
    };
    world.check("probes", &[Seen::Beat]);
}

#[test]
fn probes_pauses_and_stalls_together() {
    let world = Rules {
        probes: deeper(1, 2),
        pauses: 1,
        longest_pause: 5,
        stalls: 1,
        longest_stall: 6,
        write_delay: [1, 0],
        ..Rules::new(TICK, timings(TICK).min_interval(ticks(2)))
    };
    world.check("together", &[Seen::LocalStall]);
}

#[test]
fn a_backlog_delays_no_sign_of_life() {
    let world = Rules {
        delay: 1,
        lateness: 1,
        backlog: true,
        calm: true,
        ..Rules::between(TICK, fast_and_slow(Evidence::AnyBytes))
    };
    world.check("backlog", &[]);
}

/// One side asks rarely, and something of it leaves all the same, in pauses and after
/// stalls too.
#[test]
fn something_leaves_within_the_time_that_was_asked_for() {
    let speaks = timings(TICK).speak_within(ticks(2));
    let world = Rules {
        delay: 1,
        lateness: deeper(0, 1),
        write_delay: [deeper(0, 1), 0],
        stalls: 1,
        longest_stall: 4,
        pauses: 1,
        longest_pause: 4,
        ..Rules::between(TICK, [speaks, timings(TICK)])
    };
    world.check("speech", &[Seen::LocalStall, Seen::Beat]);
}

#[test]
fn blocked_writes_end_whatever_arrives() {
    let world = Rules {
        delay: 1,
        faults: 1,
        stalls: 1,
        longest_stall: 6,
        ..Rules::new(TICK, timings(TICK).write_stall(ticks(5)))
    };
    world.check("blocked", &[Seen::WriteStalled]);
}

#[test]
fn the_only_ping_of_a_round_is_unanswered() {
    let world = Rules {
        delay: 2,
        flush_delay: 1,
        faults: deeper(0, 1),
        ..Rules::new(TICK, timings(TICK).max_missed(1))
    };
    world.check("one beat", &[Seen::Dead]);
}

/// The projection hides nothing: what may happen next, and what comes of it, is
/// the same wherever a state is met again, at another time and after other pings.
#[test]
fn states_that_count_as_one_go_on_alike() {
    let rules = Rules {
        delay: 1,
        lateness: 1,
        write_delay: [1, 0],
        flush_delay: 1,
        faults: 2,
        stalls: 2,
        longest_stall: 6,
        probes: 2,
        pauses: 2,
        longest_pause: 5,
        ..Rules::new(TICK, timings(TICK).write_stall(ticks(5)))
    };
    let echo = Rules::between(TICK, fast_and_slow(Evidence::Echo));
    let adaptive = timings(1)
        .adaptive(true)
        .adaptive_floor(Duration::from_micros(1));
    let worlds = [
        rules.clone(),
        Rules {
            configs: echo.configs,
            timings: echo.timings,
            ..rules.clone()
        },
        Rules {
            delay: 2,
            faults: 1,
            ..Rules::new(1, adaptive)
        },
    ];
    for rules in worlds {
        let met_again = rules.compare_what_follows(deeper(2_000, 20_000));
        println!("{:>18}: {met_again:>9} states", "met again");
        assert!(met_again > 1_000);
    }
}

/// The one pings each tick, the other accepts a ping each second tick.
fn fast_and_slow(evidence: Evidence) -> [ConfigBuilder; 2] {
    let fast = timings(TICK).interval(ticks(1));
    let slow = timings(TICK).min_interval(ticks(2));
    [fast, slow].map(|config| config.evidence(evidence))
}
