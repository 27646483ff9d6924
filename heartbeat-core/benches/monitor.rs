//! What a heartbeat costs.
//!
//! ```text
//! cargo bench -p heartbeat-core              # everything; some minutes
//! cargo bench -p heartbeat-core -- --quick   # the same, less exactly
//! cargo bench -p heartbeat-core -- hour      # only the simulated hour
//! ```
//!
//! The three small ones are what a connection costs: for each batch of reads in the
//! middle of a message (`handle_bytes`), whenever its driver goes to sleep (`poll_timeout`), and
//! once an interval if it is idle (`beat`: the deadline, a ping out, flushed,
//! its pong in, all outputs drained).
//!
//! The hour has a million idle connections with an interval of 5 s in virtual
//! time, all of them in memory and woken in the order of their deadlines, so
//! that the caches of the processor are of as little help as in a real server.
//! Nothing but the monitors is measured with them except a wheel of timers.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a measurement reads the clock, and the monitors live"
)]

use std::{hint::black_box, time::Duration};

use criterion::Criterion;
use heartbeat_core::{Config, Control, Instant, Monitor};

const ROUND_TRIP: Duration = Duration::from_millis(20);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    handle_bytes(&mut criterion);
    poll_timeout(&mut criterion);
    beat(&mut criterion);
    criterion.final_summary();

    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let filtered = std::env::args().skip(1).any(|arg| !arg.starts_with('-'));
    // `cargo test --benches` doesn't say `--bench`.
    if has("--bench") && (has("hour") || !filtered) {
        simulated_hour(if has("--quick") { 50_000 } else { 1_000_000 });
    }
}

fn handle_bytes(criterion: &mut Criterion) {
    let mut now = Instant::ORIGIN;
    let mut monitor = beating(1, &mut now);
    criterion.bench_function("handle_bytes", |bench| {
        bench.iter(|| {
            now = now + Duration::from_micros(10);
            black_box(&mut monitor).handle_bytes(black_box(now));
        });
    });
}

fn poll_timeout(criterion: &mut Criterion) {
    let mut now = Instant::ORIGIN;
    let monitor = beating(1, &mut now);
    criterion.bench_function("poll_timeout", |bench| {
        bench.iter(|| black_box(&monitor).poll_timeout());
    });
}

fn beat(criterion: &mut Criterion) {
    let mut now = Instant::ORIGIN;
    let mut monitor = beating(1, &mut now);
    criterion.bench_function("beat", |bench| {
        bench.iter(|| one_beat(black_box(&mut monitor), &mut now));
    });
}

/// A monitor whose peer has introduced itself and answered once.
fn beating(seed: u64, now: &mut Instant) -> Monitor {
    let config = Config::default();
    let mut monitor = Monitor::new(config, seed, *now);
    monitor.handle_frame(Control::Hello(config.hello(*b"the peer")), *now);
    while monitor.poll_transmit().is_some() {}
    monitor.handle_flushed(*now);
    one_beat(&mut monitor, now);
    monitor
}

/// What a driver does for an idle connection from one deadline to the next.
fn one_beat(monitor: &mut Monitor, now: &mut Instant) {
    *now = (*now).max(monitor.poll_timeout().expect("it lives"));
    monitor.handle_timeout(*now);
    while let Some(control) = monitor.poll_transmit() {
        let Control::Ping(nonce) = black_box(control) else {
            continue;
        };
        monitor.handle_flushed(*now);
        *now = *now + ROUND_TRIP;
        monitor.handle_frame(Control::Pong(nonce), *now);
    }
    while let Some(event) = monitor.poll_event() {
        black_box(event);
    }
}

fn simulated_hour(count: usize) {
    const HOUR: Duration = Duration::from_secs(3_600);
    println!("hour: {count} monitors, interval 5 s ...");
    let mut monitors: Vec<_> = (0..count)
        .map(|seed| {
            let config = Config::default();
            let mut monitor = Monitor::new(config, seed as u64, Instant::ORIGIN);
            monitor.handle_frame(Control::Hello(config.hello(*b"the peer")), Instant::ORIGIN);
            while monitor.poll_transmit().is_some() {}
            monitor.handle_flushed(Instant::ORIGIN);
            monitor
        })
        .collect();
    let mut wheel = Wheel::new();
    for (index, monitor) in monitors.iter().enumerate() {
        wheel.insert(index, monitor);
    }

    let began = std::time::Instant::now();
    let mut beats = 0_u64;
    let mut due = Vec::new();
    while wheel.now < Instant::ORIGIN + HOUR {
        wheel.turn(&mut due);
        for index in due.drain(..) {
            if let Some(monitor) = monitors.get_mut(index) {
                one_beat(monitor, &mut wheel.now.clone());
                wheel.insert(index, monitor);
                beats += 1;
            }
        }
    }
    let took = began.elapsed();

    let seconds = took.as_secs_f64();
    let pings: u64 = monitors.iter().map(|m| u64::from(m.status().pings)).sum();
    assert_eq!(pings, beats, "each beat was a ping");
    assert!(
        monitors
            .iter()
            .all(|m| m.status().pings == m.status().pongs)
    );
    #[expect(clippy::cast_precision_loss, reason = "to be read by people")]
    let (count, beats) = (count as f64, beats as f64);
    println!(
        "hour: {took:.1?} of one core, {:.0} monitor-hours per second, {:.0} ns for each of {:.0} million beats",
        count / seconds,
        seconds * 1e9 / beats,
        beats / 1e6,
    );
    println!(
        "hour: {count:.0} idle connections take {:.2} % of one core",
        100.0 * seconds / HOUR.as_secs_f64()
    );
}

/// Timers in slots of 10 ms, for up to 10 s from now.
struct Wheel {
    now: Instant,
    turns: usize,
    slots: Vec<Vec<usize>>,
}

impl Wheel {
    const SLOTS: usize = 1_024;
    const SLOT: Duration = Duration::from_millis(10);

    fn new() -> Self {
        Self {
            now: Instant::ORIGIN,
            turns: 0,
            slots: vec![Vec::new(); Self::SLOTS],
        }
    }

    /// Into the first slot that isn't early.
    fn insert(&mut self, index: usize, monitor: &Monitor) {
        let deadline = monitor.poll_timeout().expect("it lives");
        let wait = deadline.saturating_duration_since(self.now);
        let ahead = wait.as_micros().div_ceil(Self::SLOT.as_micros()).max(1);
        let slot = self.turns + usize::try_from(ahead).expect("at most 5 s");
        if let Some(slot) = self.slots.get_mut(slot % Self::SLOTS) {
            slot.push(index);
        }
    }

    /// Goes one slot on and takes out what is due then.
    fn turn(&mut self, due: &mut Vec<usize>) {
        self.turns += 1;
        self.now = self.now + Self::SLOT;
        if let Some(slot) = self.slots.get_mut(self.turns % Self::SLOTS) {
            std::mem::swap(slot, due);
        }
    }
}
