//! Suspends of the machine, during which the monotonic clock stops.
//!
//! This module decides whether the machine has slept and for how long, and then wakes every
//! connection. On Linux and Apple's systems the clock of tokio's timers stops during suspend:
//! after an hour of sleep no timer is late, and a peer that is long gone would get its whole
//! detection time again. So that clock is compared with one that continues. A connection
//! treats the difference as a local stall.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    thread,
    time::Duration,
};

mod clocks;

use clocks::Clocks;

/// How often the clocks are compared if the system doesn't report a wake-up.
const TICK: Duration = Duration::from_secs(1);

/// A machine, and the tasks that it wakes.
pub(crate) struct Machine {
    /// The total time that it has slept, as far as was noticed. Microseconds.
    slept: AtomicU64,
    alarms: Mutex<Alarms>,
}

#[derive(Default)]
struct Alarms {
    places: Vec<Option<Waker>>,
    /// Free places.
    free: Vec<usize>,
}

/// A task that is woken when the machine has slept, until this is dropped.
#[derive(Debug)]
pub(crate) struct Alarm {
    machine: &'static Machine,
    place: usize,
}

impl Machine {
    pub(crate) const fn new() -> Self {
        Self {
            slept: AtomicU64::new(0),
            alarms: Mutex::new(Alarms {
                places: Vec::new(),
                free: Vec::new(),
            }),
        }
    }

    /// The machine that this process runs on, watched by a thread.
    pub(crate) fn local() -> &'static Self {
        static LOCAL: Machine = Machine::new();
        static WATCHED: OnceLock<bool> = OnceLock::new();
        WATCHED.get_or_init(|| {
            let thread = thread::Builder::new()
                .name("heartbeat-wake".into())
                .stack_size(64 * 1024);
            // Without the thread, a sleep is noticed only when a timer fires.
            thread.spawn(|| watch(&LOCAL)).is_ok()
        });
        &LOCAL
    }

    /// The total time that it has slept. Microseconds.
    #[inline]
    pub(crate) fn slept(&self) -> u64 {
        self.slept.load(Relaxed)
    }

    /// It slept for this long, and woke up just now.
    pub(crate) fn wake_up(&self, slept: Duration) {
        let micros = u64::try_from(slept.as_micros()).unwrap_or(u64::MAX);
        // Never zero: a task that is woken sees the reason by the change.
        let add = |before: u64| Some(before.saturating_add(micros.max(1)));
        let _ = self.slept.fetch_update(Relaxed, Relaxed, add);
        // The lock makes what was stored visible to the tasks that are woken.
        let wakers: Vec<_> = self.lock().places.iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Registers a task.
    pub(crate) fn alarm(&'static self, waker: Waker) -> Alarm {
        let mut alarms = self.lock();
        let place = match alarms.free.pop() {
            Some(place) => place,
            None => {
                alarms.places.push(None);
                alarms.places.len() - 1
            }
        };
        drop(alarms);
        let mut alarm = Alarm {
            machine: self,
            place,
        };
        alarm.set(waker);
        alarm
    }

    fn lock(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm {
    /// Replaces the task that is woken.
    pub(crate) fn set(&mut self, waker: Waker) {
        drop(self.replace(Some(waker)));
    }

    /// Returns the former waker, so that none is dropped while the lock is held.
    fn replace(&self, waker: Option<Waker>) -> Option<Waker> {
        let mut alarms = self.machine.lock();
        let place = alarms.places.get_mut(self.place)?;
        std::mem::replace(place, waker)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        drop(self.replace(None));
        self.machine.lock().free.push(self.place);
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slept = Duration::from_micros(self.slept());
        f.debug_struct("Machine").field("slept", &slept).finish()
    }
}

// ---- the watch -----------------------------------------------------------------

/// Notices each sleep. Never returns.
fn watch(machine: &Machine) {
    let mut wake_ups = system::WakeUps::new();
    let mut before = Clocks::now();
    loop {
        let tick = wake_ups.wait();
        let now = Clocks::now();
        if let Some(slept) = now.slept_since(&before, tick) {
            machine.wake_up(slept);
        }
        before = now;
    }
}

/// Waits for the kernel's report of a wake-up.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::{os::fd::OwnedFd, thread, time::Duration};

    use rustix::{
        io::{Errno, read},
        time::{
            Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
            timerfd_settime,
        },
    };

    use super::TICK;

    /// A timer of the calendar, far away. It is cancelled when the calendar jumps away
    /// from the monotonic clock, as it does in suspend: `timerfd_create(2)`,
    /// `TFD_TIMER_CANCEL_ON_SET`. So nothing has to wake up meanwhile.
    #[derive(Debug)]
    pub(super) struct WakeUps {
        timer: Option<OwnedFd>,
    }

    impl WakeUps {
        pub(super) fn new() -> Self {
            Self {
                timer: far_timer().ok(),
            }
        }

        /// Waits until the machine may have slept. Returns how long that should have taken, if that
        /// is known.
        pub(super) fn wait(&mut self) -> Option<Duration> {
            if let Some(timer) = &self.timer {
                if may_have_slept(read(timer, &mut [0; 8])) {
                    return None;
                }
                self.timer = None;
            }
            thread::sleep(TICK);
            Some(TICK)
        }
    }

    /// Whether the calendar has jumped, or a signal came. Otherwise the timer expired in the far
    /// future, or can't be read here.
    fn may_have_slept(waited: rustix::io::Result<usize>) -> bool {
        matches!(waited, Err(Errno::CANCELED | Errno::INTR))
    }

    fn far_timer() -> rustix::io::Result<OwnedFd> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC)?;
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        let time = |seconds| Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        let year_2242 = Itimerspec {
            it_interval: time(0),
            it_value: time(1 << 33),
        };
        timerfd_settime(&timer, flags, &year_2242)?;
        Ok(timer)
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used, reason = "how a test fails")]
    mod tests {
        use std::{fs, time::Instant};

        use rustix::time::timerfd_gettime;

        use super::*;
        use crate::suspend::Machine;

        #[test]
        fn the_kernel_has_such_a_timer_and_it_is_far_away() {
            let timer = WakeUps::new().timer.unwrap();
            let year = 365 * 24 * 60 * 60;
            assert!(timerfd_gettime(&timer).unwrap().it_value.tv_sec > 100 * year);
        }

        /// After either it waits as before. What can't be read isn't asked again.
        #[test]
        fn a_jump_of_the_calendar_and_a_signal_keep_the_timer() {
            assert!(may_have_slept(Err(Errno::CANCELED)));
            assert!(may_have_slept(Err(Errno::INTR)));
            assert!(!may_have_slept(Ok(8)));
            assert!(!may_have_slept(Err(Errno::PERM)));
        }

        /// Whether a thread of this process has this name, and sleeps.
        fn is_asleep(name: &str) -> bool {
            let mut threads = fs::read_dir("/proc/self/task").unwrap();
            threads.any(|thread| {
                let stat = fs::read_to_string(thread.unwrap().path().join("stat"));
                stat.is_ok_and(|stat| stat.contains(&format!("({name}) S")))
            })
        }

        #[test]
        fn a_thread_watches_the_machine_and_waits_for_its_wake_up() {
            Machine::local();
            let began = Instant::now();
            let mut looks = 0;
            while looks < 3 {
                assert!(began.elapsed() < Duration::from_secs(10), "it isn't asleep");
                thread::sleep(Duration::from_millis(5));
                looks = match is_asleep("heartbeat-wake") {
                    true => looks + 1,
                    false => 0,
                };
            }
        }
    }
}

/// Waits for a fixed time, on systems without such a report.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::{thread, time::Duration};

    use super::TICK;

    #[derive(Debug)]
    pub(super) struct WakeUps;

    impl WakeUps {
        pub(super) fn new() -> Self {
            Self
        }

        /// Waits, and returns the intended duration.
        #[expect(clippy::unused_self, reason = "elsewhere it waits for the kernel")]
        pub(super) fn wait(&mut self) -> Option<Duration> {
            thread::sleep(TICK);
            Some(TICK)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "how a test fails")]
mod tests {
    use std::{
        sync::{Arc, atomic::AtomicUsize},
        task::Wake,
    };

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn every_alarm_wakes_its_task_each_time_and_a_place_is_used_again() {
        static MACHINE: Machine = Machine::new();
        let machine = &MACHINE;
        let counts: [Arc<Count>; 3] = Default::default();
        let woken = || counts.each_ref().map(|count| count.0.load(Relaxed));
        let [a, b, c] = counts.clone().map(Waker::from);
        let first = machine.alarm(a);
        let mut second = machine.alarm(b);
        machine.wake_up(ms(5));
        assert_eq!((woken(), machine.slept()), ([1, 1, 0], 5_000));
        drop(first);
        second.set(c.clone());
        machine.wake_up(Duration::ZERO);
        assert_eq!((woken(), machine.slept()), ([1, 1, 1], 5_001));
        assert_eq!(format!("{machine:?}"), "Machine { slept: 5.001ms }");
        let _third = machine.alarm(c);
        assert_eq!(machine.lock().places.len(), 2);
    }
}
