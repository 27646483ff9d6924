//! The work of a turn, charged to tokio's cooperative budget.
//!
//! This module decides how much a task takes in before other tasks have a turn. A unit of the
//! budget is a number of bytes or of frames. It knows nothing of the stream: reads and frames
//! are reported by the others.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, ready},
};

use tokio::task::coop;

/// The bytes for one unit: as many as a plain `Framed` reads at once.
const BYTES: usize = 8 * 1024;

/// The messages for one unit: a plain `Framed` decodes four to ten times as many in the time.
/// Frames of a few bytes cost more than their bytes.
const MESSAGES: u32 = 128;

/// What a control frame costs, in messages: the monitor gets each of them.
const CONTROL: u32 = 16;

/// What new timings of the peer cost, in messages: all deadlines follow them.
const TIMINGS: u32 = 4 * MESSAGES;

/// What this turn has taken in.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Our own work has used up this task's budget.
    is_spent: bool,
    /// The frames that were taken out and not paid for, in messages.
    work: u32,
    timings: Timings,
}

/// Whether the socket's options follow the peer's timings. That takes a dozen system calls, so of
/// those that come in one turn only the first and the last are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Timings {
    /// None came in this turn.
    #[default]
    Same,
    /// They follow the only ones that came.
    Followed,
    /// Others came behind these.
    Behind,
}

impl Budget {
    /// Whether others in this task have used its budget up.
    #[inline]
    pub(super) fn is_refused(&self) -> bool {
        !coop::has_budget_remaining() && !self.is_spent
    }

    /// This task's turn is over. The next one has a budget of its own. Returns whether the
    /// socket's options have to follow the peer's timings.
    pub(super) fn end_turn(&mut self) -> bool {
        std::mem::take(self).timings == Timings::Behind
    }

    /// Pays for a read. The stream has charged the first unit. So a turn reads about as much as
    /// over a plain `Framed`.
    #[inline(always)] // most reads are small
    pub(super) fn charge_read(&mut self, read: usize, cx: &mut Context<'_>) {
        for _ in 1..read.div_ceil(BYTES) {
            if pin!(coop::consume_budget()).poll(cx).is_pending() {
                break;
            }
        }
        self.is_spent |= !coop::has_budget_remaining();
    }

    /// A message or a part of one was taken out.
    #[inline(always)]
    pub(super) const fn note_message(&mut self) {
        self.work += 1;
    }

    /// A control frame was taken out.
    pub(super) const fn note_control(&mut self) {
        self.work += CONTROL;
    }

    /// The peer has announced its timings. Returns whether the socket's options follow at once.
    pub(super) fn note_timings(&mut self) -> bool {
        self.work += TIMINGS;
        let is_first = self.timings == Timings::Same;
        self.timings = match is_first {
            true => Timings::Followed,
            false => Timings::Behind,
        };
        is_first
    }

    /// Pays for the frames that were taken out. `Pending` if the budget doesn't suffice.
    #[inline]
    pub(super) fn poll_charge_frames(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.work >= MESSAGES {
            self.work -= MESSAGES;
            ready!(pin!(coop::consume_budget()).poll(cx));
            self.is_spent |= !coop::has_budget_remaining();
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::task::yield_now;

    use super::*;

    /// What is left of a turn's budget after this.
    async fn left_after(work: impl FnOnce(&mut Context<'_>)) -> usize {
        yield_now().await; // the next turn has a whole budget
        let mut work = Some(work);
        poll_fn(|cx| {
            work.take().into_iter().for_each(|work| work(cx));
            Poll::Ready(use_up(cx))
        })
        .await
    }

    /// Uses the budget up, as other futures of the task do. Returns how much was left.
    fn use_up(cx: &mut Context<'_>) -> usize {
        let mut left = 0;
        while pin!(coop::consume_budget()).poll(cx).is_ready() {
            left += 1;
        }
        left
    }

    fn pay(budget: &mut Budget, cx: &mut Context<'_>) {
        let _ = budget.poll_charge_frames(cx);
    }

    #[tokio::test]
    async fn a_read_costs_a_unit_for_each_8_kib_and_the_stream_has_charged_the_first() {
        let whole = left_after(|_| {}).await;
        for (read, cost) in [(0, 0), (1, 0), (BYTES, 0), (BYTES + 1, 1), (9 * BYTES, 8)] {
            let left = left_after(|cx| Budget::default().charge_read(read, cx)).await;
            assert_eq!(whole - left, cost, "{read} bytes");
        }
    }

    #[tokio::test]
    async fn frames_cost_a_unit_for_each_128_messages() {
        let whole = left_after(|_| {}).await;
        let mut budget = Budget::default();
        for _ in 1..MESSAGES {
            budget.note_message();
        }
        assert_eq!(left_after(|cx| pay(&mut budget, cx)).await, whole);
        budget.note_message();
        assert_eq!(left_after(|cx| pay(&mut budget, cx)).await, whole - 1);
        (0..2 * MESSAGES / CONTROL).for_each(|_| budget.note_control());
        assert_eq!(left_after(|cx| pay(&mut budget, cx)).await, whole - 2);

        // A turn that ends has nothing left to pay.
        (1..MESSAGES).for_each(|_| budget.note_message());
        assert!(!budget.end_turn(), "no timings came");
        budget.note_message();
        assert_eq!(left_after(|cx| pay(&mut budget, cx)).await, whole);
    }

    #[test]
    fn the_first_timings_of_a_turn_are_followed_at_once_and_the_last_at_its_end() {
        let mut budget = Budget::default();
        for _ in 0..2 {
            assert!(budget.note_timings());
            assert!(!budget.end_turn(), "they are followed");
        }
        assert!(budget.note_timings());
        (0..3).for_each(|_| assert!(!budget.note_timings()));
        assert!(budget.end_turn());
        assert!(!budget.end_turn());
    }

    #[tokio::test]
    async fn a_budget_that_our_own_work_has_used_up_is_not_refused_in_this_turn() {
        let mut budget = Budget::default();
        left_after(|cx| {
            budget.charge_read(1 << 30, cx);
            assert!(!budget.is_refused());
            assert!(!budget.end_turn(), "no timings came");
        })
        .await;
        left_after(|cx| {
            use_up(cx);
            assert!(budget.is_refused(), "it was others in this turn");
        })
        .await;
        left_after(|cx| {
            (0..1 << 20).for_each(|_| budget.note_control());
            pay(&mut budget, cx);
            assert!(!budget.is_refused());
        })
        .await;
    }

    #[tokio::test]
    async fn a_budget_that_others_have_used_up_behind_our_work_is_refused() {
        left_after(|cx| {
            let mut budget = Budget::default();
            budget.charge_read(1, cx);
            (0..MESSAGES).for_each(|_| budget.note_message());
            pay(&mut budget, cx);
            assert!(!budget.is_refused());
            use_up(cx);
            assert!(budget.is_refused());
        })
        .await;
    }
}
