//! The runtime's clock and one lazily armed timer.
//!
//! This module decides how the core's instants map to tokio's, which runtime owns the timer,
//! and when the timer is set: only when a deadline comes before its current one, or after it
//! has fired. Receiving a message costs no timer operation, and a beat only the one that saves
//! a useless wake-up. Its callers decide the deadlines. On every system, time continues while
//! the machine sleeps.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::OnceLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

use heartbeat_core::Instant;
use tokio::{runtime::Handle, task::unconstrained, time::Sleep};

use crate::suspend::{Alarm, Machine};

/// Core instants are microseconds since a moment before this connection was wrapped. These
/// moments of two connections are a multiple of [`GRID`] apart, so that their monitors round
/// deadlines to the same grid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: tokio::time::Instant,
    /// Adds the time of suspends, in which tokio's clock may stand still.
    machine: &'static Machine,
}

/// Some 17 s: no monitor's grid is wider with intervals of up to 9 minutes, and
/// every narrower one fits into it.
const GRID: Duration = Duration::from_micros(1 << 24);

impl Clock {
    pub(crate) fn start() -> Self {
        static FIRST: OnceLock<tokio::time::Instant> = OnceLock::new();
        let now = tokio::time::Instant::now();
        let first = *FIRST.get_or_init(|| now);
        Self {
            origin: now.checked_sub(since_grid(first, now)).unwrap_or(now),
            machine: Machine::local(),
        }
    }

    pub(crate) fn now(self) -> Instant {
        let elapsed = self.origin.elapsed().as_micros();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        Instant::from_micros(elapsed.saturating_add(self.machine.slept()))
    }

    fn at(self, instant: Instant) -> Option<tokio::time::Instant> {
        let awake = instant.as_micros().saturating_sub(self.machine.slept());
        self.origin.checked_add(Duration::from_micros(awake))
    }
}

/// The time from the grid through `first` to `now`. A runtime whose clock is paused may be
/// before the first.
fn since_grid(first: tokio::time::Instant, now: tokio::time::Instant) -> Duration {
    match now.checked_duration_since(first) {
        Some(after) => remainder(after),
        None => GRID - remainder(first - now),
    }
}

/// The remainder of a duration after division by [`GRID`].
fn remainder(duration: Duration) -> Duration {
    let nanos = duration.as_nanos() % GRID.as_nanos();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// The clock, and a `Sleep` that is made when first needed and reset as rarely as possible.
#[derive(Debug)]
pub(crate) struct Timer {
    clock: Clock,
    /// The least distance by which it is moved to a later time. Moving it costs a fraction of a
    /// useless wake-up. Microseconds.
    step: u64,
    /// The runtime that fires it, whichever runtime polls the connection: that one may not run
    /// when it is due. `None` if the connection was made outside of a runtime; then the first
    /// runtime that polls owns it.
    runtime: Option<Handle>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it fires. It may be earlier than needed, never later.
    armed: Option<Instant>,
    /// The waker.
    waker: Option<Waker>,
    /// The waker for a suspend of the machine.
    alarm: Option<Alarm>,
    /// The total time of suspends when it was served last. Microseconds.
    slept: u64,
}

impl Timer {
    pub(crate) fn with_step(clock: Clock, step: Duration) -> Self {
        Self {
            clock,
            step: u64::try_from(step.as_micros()).unwrap_or(u64::MAX),
            runtime: Handle::try_current().ok(),
            sleep: None,
            armed: None,
            waker: None,
            alarm: None,
            slept: clock.machine.slept(),
        }
    }

    /// Moves it to another machine.
    #[cfg(feature = "testkit")]
    pub(crate) fn move_to(&mut self, machine: &'static Machine) {
        debug_assert!(self.alarm.is_none(), "it is new");
        self.clock.machine = machine;
        self.served();
    }

    #[inline]
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Moves it to this runtime. It has to be armed again.
    pub(crate) fn move_here(&mut self) {
        self.runtime = Handle::try_current().ok();
        self.sleep = None;
        self.armed = None;
        self.waker = None;
    }

    /// Whether it has fired since it was armed, or the machine has slept. Reads no clock, and
    /// ignores tokio's cooperative budget, under which a timer that has fired may poll as pending.
    #[inline]
    pub(crate) fn has_fired(&self) -> bool {
        let is_elapsed = |sleep: &Pin<Box<Sleep>>| sleep.is_elapsed();
        self.armed.is_some() && (self.sleep.as_ref().is_some_and(is_elapsed) || self.has_slept())
    }

    /// Whether the machine has slept since this was served: then it would fire too late.
    #[inline]
    fn has_slept(&self) -> bool {
        self.clock.machine.slept() != self.slept
    }

    /// Whether it fires at `deadline` or a little earlier, and wakes this task.
    #[inline]
    pub(crate) fn is_armed(&self, deadline: Option<Instant>, cx: &Context<'_>) -> bool {
        let Some(deadline) = deadline else {
            return true;
        };
        self.is_armed_before(deadline) && self.wakes(cx) && !self.has_fired()
    }

    /// Whether it fires before `deadline`, but not much earlier.
    #[inline]
    fn is_armed_before(&self, deadline: Instant) -> bool {
        self.armed.is_some_and(|armed| {
            let later = deadline.as_micros().checked_sub(armed.as_micros());
            later.is_some_and(|micros| micros < self.step)
        })
    }

    #[inline]
    pub(crate) fn wakes(&self, cx: &Context<'_>) -> bool {
        let waker = self.waker.as_ref();
        waker.is_some_and(|waker| waker.will_wake(cx.waker()))
    }

    /// Makes sure that the task wakes up at `deadline` or earlier. `false` if it has passed.
    pub(crate) fn arm(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = deadline else {
            return true;
        };
        if self.is_armed(Some(deadline), cx) {
            return true;
        }
        let early_enough = self.is_armed_before(deadline) && !self.has_slept();
        let same_waker = self.wakes(cx);
        // A deadline beyond the runtime's clock never comes.
        let Some(at) = self.clock.at(deadline) else {
            return true;
        };
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if !early_enough || sleep.is_elapsed() {
                    sleep.as_mut().reset(at);
                    self.armed = Some(deadline);
                }
                sleep
            }
            none => {
                self.armed = Some(deadline);
                let _context = self.runtime.as_ref().map(Handle::enter);
                none.insert(Box::pin(tokio::time::sleep_until(at)))
            }
        };
        if !same_waker {
            self.waker = Some(cx.waker().clone());
            match &mut self.alarm {
                Some(alarm) => alarm.set(cx.waker().clone()),
                none => *none = Some(self.clock.machine.alarm(cx.waker().clone())),
            }
        }
        // Without the cooperative budget: a poll that the budget refuses registers no
        // waker.
        let fired = pin!(unconstrained(sleep.as_mut())).poll(cx);
        // A suspend between the two is noticed here; later ones wake the task.
        matches!(fired, Poll::Pending) && !self.has_slept()
    }

    /// Makes sure that it fires by `deadline`, and doesn't change which task it wakes.
    pub(crate) fn advance(&mut self, deadline: Instant) {
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        let Some(at) = self.clock.at(deadline) else {
            return;
        };
        let runtime = self.runtime.as_ref();
        let sleep = self.sleep.get_or_insert_with(|| {
            let _context = runtime.map(Handle::enter);
            Box::pin(tokio::time::sleep_until(at))
        });
        // This also starts a timer that was never polled.
        sleep.as_mut().reset(at);
        self.armed = Some(deadline);
    }

    /// The timer was served. The next deadline arms it again.
    pub(crate) fn served(&mut self) {
        self.armed = None;
        self.slept = self.clock.machine.slept();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "how a test fails")]
mod tests {
    use std::{future::poll_fn, sync::Arc, task::Wake};

    use tokio::runtime::Builder;

    use super::*;

    /// Then connections share wake-ups, whenever each was wrapped.
    #[tokio::test]
    async fn all_clocks_have_one_grid() {
        let first = Clock::start();
        for millis in [1, 20, 5] {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let other = Clock::start();
            let (early, late) = (
                first.origin.min(other.origin),
                first.origin.max(other.origin),
            );
            assert_eq!(remainder(late - early), Duration::ZERO);
            assert!(tokio::time::Instant::now() - other.origin < GRID + GRID);
        }
    }

    #[test]
    fn the_grid_goes_through_the_first_clock_both_ways() {
        let first = tokio::time::Instant::now() + 10 * GRID;
        let micros = Duration::from_micros;
        for (since, expected) in [
            (micros(0), micros(0)),
            (micros(1), micros(1)),
            (GRID - micros(1), GRID - micros(1)),
            (3 * GRID + micros(7), micros(7)),
        ] {
            assert_eq!(since_grid(first, first + since), expected);
        }
        let before = micros(7) + 3 * GRID;
        assert_eq!(since_grid(first, first - before), GRID - micros(7));
    }

    /// A task that is told apart from others.
    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    /// Two tasks that poll in turn, as in a `join!`, move no timer.
    #[tokio::test]
    async fn another_task_takes_over_the_timer_and_its_alarm_as_they_are() {
        let mut timer = Timer::with_step(Clock::start(), Duration::from_secs(10));
        let at = |seconds| Some(Instant::ORIGIN + Duration::from_secs(seconds));
        let [one, other] = [(); 2].map(|()| Waker::from(Arc::new(Task)));
        let mut one = Context::from_waker(&one);
        let mut other = Context::from_waker(&other);
        assert!(timer.arm(at(100), &mut one));
        assert!(timer.is_armed(None, &other));
        assert!(timer.is_armed(at(100), &one));
        assert!(timer.is_armed(at(109), &one));
        assert!(!timer.is_armed(at(110), &one), "it is much too early");
        assert!(!timer.is_armed(at(99), &one));
        assert!(!timer.is_armed(at(100), &other));

        let state = |timer: &Timer| {
            let deadline = timer.sleep.as_ref().unwrap().deadline();
            (deadline, timer.armed, format!("{:?}", timer.alarm))
        };
        let before = state(&timer);
        assert!(timer.arm(at(105), &mut other));
        assert_eq!(state(&timer), before);
        assert!(timer.is_armed(at(105), &other));
        assert!(!timer.is_armed(at(105), &one));
    }

    /// The runtime in which it was made isn't run.
    #[test]
    fn a_timer_that_is_moved_fires_in_its_new_runtime() {
        let runtime = || Builder::new_current_thread().enable_time().build().unwrap();
        let (former, own) = (runtime(), runtime());
        let mut timer = {
            let _context = former.enter();
            Timer::with_step(Clock::start(), GRID)
        };
        let deadline = timer.now() + Duration::from_millis(1);
        own.block_on(async {
            timer.move_here();
            let fires = poll_fn(|cx| match timer.arm(Some(deadline), cx) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            });
            let fired = tokio::time::timeout(Duration::from_secs(10), fires).await;
            assert!(fired.is_ok(), "it fires in no runtime");
        });
    }

    /// tokio #6504: what timers cost at many connections. A deadline that moves
    /// away a little, as it does with every message, touches nothing; one that
    /// comes closer moves the one timer there is.
    #[tokio::test]
    async fn lesson_50_one_timer_a_connection_and_no_work_for_a_deadline_that_moves_away() {
        let clock = Clock::start();
        let mut timer = Timer::with_step(clock, Duration::from_secs(10));
        let cx = &mut Context::from_waker(Waker::noop());
        let at = |seconds| Some(Instant::ORIGIN + Duration::from_secs(seconds));
        assert!(timer.sleep.is_none(), "it is made when it is needed");

        assert!(timer.arm(at(100), cx));
        let sleep = |timer: &Timer| {
            let sleep = timer.sleep.as_ref().unwrap();
            (std::ptr::from_ref::<Sleep>(sleep), sleep.deadline())
        };
        let first = sleep(&timer);
        for later in 101..110 {
            assert!(timer.arm(at(later), cx));
            assert_eq!(sleep(&timer), first);
        }
        assert!(timer.arm(at(50), cx));
        let closer = sleep(&timer);
        assert_eq!(closer.0, first.0);
        assert_eq!(first.1 - closer.1, Duration::from_secs(50));
        // But it is moved once that saves a useless wake-up.
        assert!(timer.arm(at(60), cx));
        let later = sleep(&timer);
        assert_eq!(later.0, first.0);
        assert_eq!(later.1 - closer.1, Duration::from_secs(10));
    }
}
