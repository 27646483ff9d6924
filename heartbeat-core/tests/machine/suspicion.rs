//! When a beat counts as late, and how often that is told.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use core::time::Duration;

use crate::common::{Run, at, ms, secs, us};
use heartbeat_core::{Cause, Config, Event, Instant, State};

/// Pings at 10 s, 12 s and 14 s, dead at 16 s.
fn start() -> Run {
    let config = Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0);
    Run::new(config.build().unwrap())
}

#[test]
fn each_missed_beat_is_told() {
    let mut run = start();
    run.just_before(secs(16));
    let missed = |missed, after| Event::Suspect {
        missed,
        silent_for: secs(after),
    };
    assert_eq!(
        run.told,
        [(secs(12), missed(1, 12)), (secs(14), missed(2, 14))]
    );
}

#[test]
fn a_ping_that_can_not_leave_is_no_late_beat() {
    let mut run = start();
    run.writable = false;
    run.just_before(secs(16));
    assert_eq!(run.told, []);
    assert_eq!(run.monitor.status().state, State::Alive);
    let death = run.assert_dies_at(secs(16));
    assert_eq!((death.cause, death.missed), (Cause::WriteStalled, 0));
}

/// One that left was late; the one behind it still waits, and isn't late.
#[test]
fn a_suspicion_stays_while_the_next_ping_can_not_leave() {
    let mut run = start();
    run.until(secs(10));
    run.writable = false;
    run.just_before(secs(16));
    let late = Event::Suspect {
        missed: 1,
        silent_for: secs(12),
    };
    assert_eq!(run.told, [(secs(12), late)]);
    assert_eq!(run.monitor.status().state, State::Suspect);
    let death = run.assert_dies_at(secs(16));
    assert_eq!((death.cause, death.missed), (Cause::Silent, 3));
}

/// Round trips of 100.001 ms and 180 ms: smoothed 100.001 ms with a variation
/// of 50 ms, then 110.001 ms with 57.5 ms.
#[test]
fn it_follows_the_round_trips_as_rfc_6298_says() {
    let config = Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0)
        .adaptive_floor(us(1));
    let mut run = Run::new(config.build().unwrap());
    let mut pinged = secs(10);
    let trips = [
        (us(100_001), us(100_001), us(300_001)),
        (ms(180), us(110_001), us(340_001)),
    ];
    for (trip, smoothed, suspicious) in trips {
        run.until(pinged);
        let pong = run.answer();
        run.at(pinged + trip, |monitor, now| {
            monitor.handle_frame(pong, now);
        });
        assert_eq!(run.monitor.status().last_rtt, Some(trip));
        assert_eq!(run.monitor.status().smoothed_rtt, Some(smoothed));
        pinged += trip + secs(10);
        assert_eq!(suspected_at(&run), Some(pinged + suspicious));
    }
}

/// If nothing comes from now on.
fn suspected_at(run: &Run) -> Option<Duration> {
    let mut monitor = run.monitor.clone();
    loop {
        let now = monitor.poll_timeout()?;
        monitor.handle_timeout(now);
        while monitor.poll_transmit().is_some() {}
        monitor.handle_flushed(now);
        while let Some(event) = monitor.poll_event() {
            if matches!(event, Event::Suspect { .. }) {
                return Some(now.saturating_duration_since(Instant::ORIGIN));
            }
        }
    }
}

/// Lifeguard's local health: an answer may take eight times what we were late by, but no
/// less than the round trips let expect, and no more than W.
#[test]
fn a_driver_that_was_late_is_patient() {
    for (lateness, patience) in [
        (Duration::ZERO, ms(200)),
        (ms(25), ms(200)),
        (ms(100), ms(800)),
        (ms(900), secs(2)),
    ] {
        let run = late_by(lateness);
        assert_eq!(suspected_at(&run), Some(run.now + patience), "{lateness:?}");
    }
}

/// Half of it after 22 punctual beats, and nothing in the end.
#[test]
fn a_driver_that_is_punctual_again_becomes_impatient_again() {
    let mut run = late_by(ms(100));
    let mut patience = Vec::new();
    while patience.last() != Some(&ms(200)) {
        patience.push(suspected_at(&run).unwrap() - run.now);
        answer_at_once(&mut run);
        run.until(run.now + secs(10));
    }
    assert!(patience.is_sorted_by(|before, after| before > after));
    assert!((ms(390)..=ms(400)).contains(&patience[22]), "{patience:?}");
    assert_eq!(patience.len(), 45);
}

/// The first late beat of all: nothing was known of our lateness when its ping left.
#[test]
fn a_beat_gets_more_time_once_if_we_are_late_ourselves_when_it_becomes_suspicious() {
    let suspicious = secs(20) + ms(200);
    for (late, later) in [
        (ms(0), ms(0)),
        (ms(25), ms(0)),
        (ms(26), ms(208)),
        (ms(100), ms(800)),
    ] {
        for late_again in [ms(0), ms(300)] {
            let mut run = late_by(ms(0));
            run.told.clear();
            run.asleep_until(suspicious + late);
            run.wake();
            if later > ms(0) {
                assert_eq!(run.told, [], "{late:?}");
                assert_eq!(suspected_at(&run), Some(suspicious + later));
                run.asleep_until(suspicious + later + late_again);
                run.wake();
            }
            let silent_for = run.now - secs(10);
            let suspect = Event::Suspect {
                missed: 0,
                silent_for,
            };
            assert_eq!(run.told, [(run.now, suspect)], "{late:?}, {late_again:?}");
        }
    }
}

#[test]
fn a_late_beat_that_is_answered_in_its_extra_time_is_not_suspected() {
    let mut run = late_by(ms(0));
    run.asleep_until(secs(20) + ms(300));
    run.wake();
    run.until(secs(20) + ms(310));
    answer_at_once(&mut run);
    assert_eq!(run.suspicions(), 0);
    // The next one has the patience that we know to be needed, and may be excused too.
    run.until(run.now + secs(10));
    let patience = suspected_at(&run).unwrap() - run.now;
    assert!((ms(770)..=ms(800)).contains(&patience), "{patience:?}");
    run.asleep_until(run.now + patience + ms(50));
    run.wake();
    assert_eq!(run.suspicions(), 0);
}

/// A step is a miss however late we are. Only a suspicion by round trips is put off.
#[test]
fn the_time_that_a_late_beat_gets_ends_with_its_step() {
    let mut run = late_by(ms(0));
    run.asleep_until(secs(20) + ms(800));
    run.wake();
    assert_eq!(run.suspicions(), 0);
    let missed = suspected_at(&run);
    assert_eq!(missed, Some(secs(22)));
}

/// A ping was answered at once, and the next one is this much too late.
fn late_by(lateness: Duration) -> Run {
    let config = Config::builder()
        .interval(secs(10))
        .timeout(secs(2))
        .jitter(0.0);
    let mut run = Run::new(config.build().unwrap());
    run.until(secs(10));
    answer_at_once(&mut run);
    run.asleep_until(secs(20) + lateness);
    run.wake();
    run
}

fn answer_at_once(run: &mut Run) {
    let pong = run.answer();
    run.at(run.now, |monitor, now| monitor.handle_frame(pong, now));
}

/// Two programs that others keep from the processor, each for up to 1.8 s and for a third
/// of the time. Beats are late, and no side is dead.
#[test]
fn on_a_starved_machine_a_tenth_of_the_late_beats_is_suspicious() {
    let (mut suspicions, mut by_round_trips_alone) = (0, 0);
    for seed in 0..40 {
        let (told, expected) = starve(seed);
        suspicions += told;
        by_round_trips_alone += expected;
    }
    assert!(by_round_trips_alone > 500, "{by_round_trips_alone}");
    assert!(
        suspicions * 10 <= by_round_trips_alone,
        "{suspicions} of {by_round_trips_alone}"
    );
}

/// How often a peer was suspected in 20 minutes, and how often RFC 6298 would have.
fn starve(seed: u64) -> (usize, usize) {
    let mut dice = Dice(seed);
    let [ours, theirs] = [(); 2].map(|()| Starved::new(&mut dice));
    let mut run = Run::seeded(Config::default(), seed);
    let (mut smoothed, mut variation) = (None::<u64>, 0);
    let mut by_round_trips_alone = 0;
    while run.now < secs(1200) {
        // The interval is over.
        let deadline = run.monitor.poll_timeout().unwrap();
        run.now = ours.awake_from(deadline.saturating_duration_since(Instant::ORIGIN));
        run.wake();
        let left = run.now;
        let pong = run.answer();
        let back = ours.awake_from(theirs.awake_from(left + ms(1)) + ms(1));
        let trip = u64::try_from((back - left).as_micros()).unwrap();
        if let Some(before) = smoothed {
            let expected = (before + 4 * variation).clamp(200_000, 3_000_000);
            by_round_trips_alone += usize::from(ours.awake_from(left + us(expected)) < back);
            variation = (3 * variation + before.abs_diff(trip)) / 4;
            smoothed = Some((7 * before + trip) / 8);
        } else {
            (smoothed, variation) = (Some(trip), trip / 2);
        }
        // Suspicion and misses, as far as they come before the pong.
        while let Some(deadline) = run.monitor.poll_timeout() {
            let due = ours.awake_from(deadline.saturating_duration_since(Instant::ORIGIN));
            if due >= back {
                break;
            }
            run.now = due;
            run.wake();
        }
        run.now = back;
        run.monitor.handle_frame(pong, at(back));
        run.wake();
        run.assert_alive();
    }
    (run.suspicions(), by_round_trips_alone)
}

/// When a program gets no processor: from, to.
struct Starved(Vec<(Duration, Duration)>);

impl Starved {
    fn new(dice: &mut Dice) -> Self {
        let mut now = Duration::ZERO;
        let mut all = Vec::new();
        while now < secs(1300) {
            let from = now + us(dice.below(2_000_000));
            // Short ones are more frequent.
            let most = 28_000 << dice.below(7);
            now = from + us(dice.below(most));
            all.push((from, now));
        }
        Self(all)
    }

    /// When something that is due at `when` is done.
    fn awake_from(&self, when: Duration) -> Duration {
        let next = self.0.partition_point(|&(_, to)| to <= when);
        match self.0.get(next) {
            Some(&(from, to)) if from <= when => to,
            _ => when,
        }
    }
}

/// `SplitMix64`.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
