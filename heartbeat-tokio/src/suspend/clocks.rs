//! Two clocks, one of which continues in suspend.
//!
//! This module decides which clocks these are on each system, and derives from their
//! difference whether the machine has slept.

use std::time::{Duration, Instant};

use super::TICK;

/// A smaller difference is noise from clock adjustments.
const NOTICED: Duration = Duration::from_millis(100);

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    /// The clock of tokio's timers, before and after the other one was read. Another thread may
    /// have run in between.
    standing: [Instant; 2],
    /// The clock that continues in suspend, with an arbitrary origin.
    continuing: Duration,
}

impl Clocks {
    pub(super) fn now() -> Self {
        Self::read(Instant::now, continuing)
    }

    pub(super) fn read(
        standing: impl Fn() -> Instant,
        continuing: impl FnOnce() -> Duration,
    ) -> Self {
        let before = standing();
        let continuing = continuing();
        Self {
            standing: [before, standing()],
            continuing,
        }
    }

    /// How long the machine slept at least since `before`, if it did, by the difference of the
    /// clocks. Where both continue, a `tick` that comes far too late shows it, because timers
    /// count waking time only.
    pub(super) fn slept_since(&self, before: &Self, tick: Option<Duration>) -> Option<Duration> {
        let ([first, last], [earliest, latest]) = (self.standing, before.standing);
        let shortest = first.saturating_duration_since(latest);
        let longest = last.saturating_duration_since(earliest);
        let continuing = self.continuing.saturating_sub(before.continuing);
        let slept = continuing.saturating_sub(longest);
        let is_late = tick.is_some_and(|tick| shortest > tick + TICK);
        (slept >= NOTICED || is_late).then_some(slept)
    }
}

/// Linux and OpenBSD have a clock for it.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "openbsd"))]
fn continuing() -> Duration {
    of(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
}

/// Here `CLOCK_MONOTONIC` goes on, and the standard library's clock isn't that one.
#[cfg(target_vendor = "apple")]
fn continuing() -> Duration {
    of(rustix::time::clock_gettime(
        rustix::time::ClockId::Monotonic,
    ))
}

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "openbsd",
    target_vendor = "apple"
))]
fn of(time: rustix::time::Timespec) -> Duration {
    Duration::try_from(time).unwrap_or_default()
}

/// The calendar continues everywhere. Setting it looks like a sleep and costs each connection
/// a ping. It isn't used on Windows, where the other clock continues too.
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "openbsd",
    target_vendor = "apple",
    windows
)))]
fn continuing() -> Duration {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default()
}

#[cfg(windows)]
fn continuing() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, thread};

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_sleep_is_what_the_continuing_clock_is_ahead_by() {
        let before = Clocks {
            standing: [Instant::now(); 2],
            continuing: ms(100_000),
        };
        let after = |standing, continuing| Clocks {
            standing: before.standing.map(|read| read + standing),
            continuing: before.continuing + continuing,
        };
        let slept = |after: Clocks, tick| after.slept_since(&before, tick);
        assert_eq!(slept(after(ms(10), ms(7_210)), None), Some(ms(7_200)));
        assert_eq!(slept(after(ms(10), ms(110)), None), Some(NOTICED));
        // Noise, and a calendar that was set back.
        assert_eq!(slept(after(ms(10), ms(109)), None), None);
        assert_eq!(slept(after(ms(5_000), ms(0)), None), None);
        // A tick that is late, where no clock stands still.
        assert_eq!(slept(after(ms(2_000), ms(2_000)), Some(TICK)), None);
        let woke = slept(after(ms(2_001), ms(2_001)), Some(TICK));
        assert_eq!(woke, Some(Duration::ZERO));
        assert_eq!(slept(after(ms(9_000), ms(9_000)), None), None);
    }

    #[test]
    fn a_thread_whose_turn_was_over_between_two_looks_is_no_sleep() {
        let (begun, passed) = (Instant::now(), Cell::new(ms(0)));
        let read = |preempted: Duration| {
            let look = || passed.replace(passed.get() + preempted);
            Clocks::read(|| begun + look(), look)
        };
        for preempted in [[0, 500], [500, 0], [500, 500]] {
            let [before, after] = preempted.map(|millis| {
                passed.set(passed.get() + TICK);
                read(ms(millis))
            });
            assert_eq!(after.slept_since(&before, Some(TICK)), None);
        }
    }

    #[test]
    fn the_clocks_of_this_system_agree_while_it_is_awake() {
        let before = Clocks::now();
        thread::sleep(ms(50));
        assert_eq!(Clocks::now().slept_since(&before, None), None);
        // And both go on.
        let passed = Clocks::now().continuing - before.continuing;
        assert!(passed >= ms(50) || cfg!(windows), "{passed:?}");
    }
}
