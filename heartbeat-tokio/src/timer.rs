//! The runtime's clock and one lazily armed timer.
//!
//! This module decides how the core's instants map to tokio's and when the
//! runtime's timer is touched: only when a deadline comes closer than it is
//! set to, or after it has fired. Receiving a message costs no timer
//! operation. It doesn't decide any deadline.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use heartbeat_core::Instant;
use tokio::{task::unconstrained, time::Sleep};

/// Core instants are microseconds since this connection was wrapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Instant {
        let elapsed = self.origin.elapsed().as_micros();
        Instant::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn at(self, instant: Instant) -> Option<tokio::time::Instant> {
        let offset = instant.saturating_duration_since(Instant::ORIGIN);
        self.origin.checked_add(offset)
    }
}

/// A `Sleep` that is made when it is first needed and moved as seldom as
/// possible.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it fires. It may be earlier than needed, never later.
    armed: Option<Instant>,
    /// Whom it wakes.
    waker: Option<Waker>,
}

impl Timer {
    /// Whether it has fired since it was armed. Asks no clock, and isn't
    /// fooled by tokio's cooperative budget, under which a timer that has
    /// fired may poll as pending.
    pub(crate) fn has_fired(&self) -> bool {
        self.armed.is_some() && self.sleep.as_ref().is_some_and(|sleep| sleep.is_elapsed())
    }

    /// Makes sure that the task wakes up at `deadline`, or earlier. `false`
    /// if that is over already.
    pub(crate) fn arm(
        &mut self,
        clock: Clock,
        deadline: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(deadline) = deadline else {
            return true;
        };
        let early_enough = self.armed.is_some_and(|armed| armed <= deadline);
        let same_waker = self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        if early_enough && same_waker && !self.has_fired() {
            return true;
        }
        // A deadline beyond the runtime's clock is never.
        let Some(at) = clock.at(deadline) else {
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
                none.insert(Box::pin(tokio::time::sleep_until(at)))
            }
        };
        if !same_waker {
            self.waker = Some(cx.waker().clone());
        }
        // Without the cooperative budget: a poll that it refused would leave
        // no waker behind.
        let fired = pin!(unconstrained(sleep.as_mut())).poll(cx);
        matches!(fired, Poll::Pending)
    }

    /// The timer was served; its next deadline is a new one.
    pub(crate) fn served(&mut self) {
        self.armed = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "how a test fails")]
mod tests {
    use std::time::Duration;

    use super::*;

    /// tokio #6504: what timers cost at many connections. A deadline that moves
    /// away, as it does with every message, touches nothing; one that comes
    /// closer moves the one timer there is.
    #[tokio::test]
    async fn lesson_50_one_timer_a_connection_and_no_work_for_a_deadline_that_moves_away() {
        let clock = Clock::start();
        let mut timer = Timer::default();
        let cx = &mut Context::from_waker(Waker::noop());
        let at = |seconds| Some(Instant::ORIGIN + Duration::from_secs(seconds));
        assert!(timer.sleep.is_none(), "it is made when it is needed");

        assert!(timer.arm(clock, at(100), cx));
        let sleep = |timer: &Timer| {
            let sleep = timer.sleep.as_ref().unwrap();
            (std::ptr::from_ref::<Sleep>(sleep), sleep.deadline())
        };
        let first = sleep(&timer);
        for later in 101..1000 {
            assert!(timer.arm(clock, at(later), cx));
            assert_eq!(sleep(&timer), first);
        }
        assert!(timer.arm(clock, at(50), cx));
        let closer = sleep(&timer);
        assert_eq!(closer.0, first.0);
        assert_eq!(first.1 - closer.1, Duration::from_secs(50));
    }
}
