//! The progress of both sides in leaving.
//!
//! This module decides when a Fin, a goodbye, and the answer to the peer's goodbye
//! are due, and when both sides are done. It doesn't decide when the application leaves,
//! nor the goodbye for a peer that is given up.

use crate::{
    event::{CloseReason, NoDetail},
    frame::{Control, GoodbyeCode},
    packed::PackedInstant,
    time::Instant,
};

/// Leaving ends even at the end of representable time.
const END: Instant = Instant::from_micros(u64::MAX - 1);

/// What each side has said about its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    ours: Ours,
    theirs: Theirs,
    /// Some of the peer's messages were discarded.
    lossy: bool,
}

/// What we said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    /// Messages may follow.
    Open,
    /// No message follows.
    Finished(Step),
    /// We leave, and the peer has to confirm it by `until`. A Fin that was handed out before
    /// is in flight or has left; one that is only due isn't sent any more.
    Leaving {
        until: PackedInstant,
        code: GoodbyeCode,
        fin: Step,
        goodbye: Step,
        confirmed: bool,
    },
}

/// What the peer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theirs {
    /// Messages may follow.
    Open,
    /// No message follows.
    Finished,
    /// Both sides leave. Invariant: `ours` is `Leaving`.
    Left { code: GoodbyeCode, answer: Step },
}

/// The progress of a frame that we owe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// To be handed out.
    Due,
    /// Handed out, and hasn't left.
    InFlight,
    /// It has left, or isn't owed.
    Left,
}

/// The effect of a goodbye of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// We leave too, and the connection goes on until both sides have sent everything.
    Both,
    /// The connection is over, and the peer gets this answer.
    Over { answer: Option<GoodbyeCode> },
}

impl Leaving {
    pub(super) const fn new() -> Self {
        Self {
            ours: Ours::Open,
            theirs: Theirs::Open,
            lossy: false,
        }
    }

    // ---- what happens --------------------------------------------------

    /// We send no more messages.
    pub(super) fn finish(&mut self) {
        if self.ours == Ours::Open {
            self.ours = Ours::Finished(Step::Due);
        }
    }

    /// We leave; later calls do nothing. The peer has to confirm it by then.
    pub(super) fn leave(&mut self, code: GoodbyeCode, until: Instant) {
        let fin = match self.ours {
            Ours::Open => Step::Due,
            Ours::Finished(step) => step,
            Ours::Leaving { .. } => return,
        };
        self.ours = Ours::Leaving {
            until: PackedInstant::from_instant(until.min(END)),
            code,
            fin,
            goodbye: Step::Due,
            confirmed: false,
        };
    }

    /// We slept until `now`: an expired time limit ends now, so that the next input isn't late
    /// for it again.
    pub(super) fn slept(&mut self, now: Instant) {
        if let Ours::Leaving { until, .. } = &mut self.ours {
            *until = PackedInstant::from_instant(now.min(END).max(until.instant()));
        }
    }

    /// The peer sends no more messages. Returns whether this is the first time.
    pub(super) fn peer_finished(&mut self) -> bool {
        let is_news = self.theirs == Theirs::Open;
        if is_news {
            self.theirs = Theirs::Finished;
        }
        is_news
    }

    /// The peer said goodbye, in a protocol that has answers or none.
    pub(super) fn peer_left(&mut self, code: GoodbyeCode, has_answers: bool) -> Parting {
        // What confirms a goodbye isn't answered.
        let is_answer = code == GoodbyeCode::RECEIVED;
        let is_answered = has_answers && !is_answer;
        let reply = self.answer();
        let Ours::Leaving {
            goodbye, confirmed, ..
        } = &mut self.ours
        else {
            let answer = is_answered.then_some(reply);
            return Parting::Over { answer };
        };
        if is_answer && !goodbye.is_due() {
            *confirmed = true;
        } else if !matches!(self.theirs, Theirs::Left { .. }) {
            let answer = if is_answered { Step::Due } else { Step::Left };
            self.theirs = Theirs::Left { code, answer };
        }
        Parting::Both
    }

    /// A message of the peer's was discarded: its goodbye won't be confirmed.
    pub(super) const fn discarded(&mut self) {
        self.lossy = true;
    }

    /// Everything that was handed out has left. Returns whether our Fin was among it.
    pub(super) const fn left(&mut self) -> bool {
        let fin = match &mut self.ours {
            Ours::Open => false,
            Ours::Finished(fin) => fin.leaves(),
            Ours::Leaving { fin, goodbye, .. } => {
                goodbye.leaves();
                fin.leaves()
            }
        };
        if let Theirs::Left { answer, .. } = &mut self.theirs {
            answer.leaves();
        }
        fin
    }

    // ---- what is due ---------------------------------------------------

    /// Whether there is a frame to hand out.
    pub(super) const fn is_due(&self) -> bool {
        match (&self.ours, &self.theirs) {
            (Ours::Open, _) => false,
            (Ours::Finished(step), _) => step.is_due(),
            (Ours::Leaving { goodbye, .. }, Theirs::Left { answer, .. }) => {
                goodbye.is_due() || answer.is_due()
            }
            (Ours::Leaving { goodbye, .. }, _) => goodbye.is_due(),
        }
    }

    /// Hands out the next frame. The answer to a goodbye comes behind our own goodbye: once it
    /// arrives, the peer has everything that we sent.
    pub(super) fn take(&mut self) -> Option<Control> {
        let ours = match &mut self.ours {
            Ours::Open => return None,
            Ours::Finished(step) => step.take(Control::Fin),
            Ours::Leaving { code, goodbye, .. } => goodbye.take(Control::Goodbye(*code)),
        };
        let code = self.answer();
        match &mut self.theirs {
            Theirs::Left { answer, .. } if ours.is_none() => answer.take(Control::Goodbye(code)),
            _ => ours,
        }
    }

    /// The answer to the peer's goodbye. A goodbye of our own means that not everything was
    /// delivered.
    const fn answer(&self) -> GoodbyeCode {
        if self.lossy {
            GoodbyeCode::LEAVING
        } else {
            GoodbyeCode::RECEIVED
        }
    }

    // ---- the state -------------------------------------------------------

    /// Whether we may send messages still.
    #[inline]
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.ours, Ours::Open)
    }

    pub(super) const fn is_leaving(&self) -> bool {
        matches!(self.ours, Ours::Leaving { .. })
    }

    /// The time by which the peer has to confirm our goodbye; `MAX` while we don't leave.
    #[inline]
    pub(super) fn until(&self) -> Instant {
        match self.ours {
            Ours::Leaving { until, .. } => until.instant(),
            Ours::Open | Ours::Finished(_) => Instant::MAX,
        }
    }

    /// Whether our goodbye has left.
    pub(super) const fn has_said_goodbye(&self) -> bool {
        let Ours::Leaving { goodbye, .. } = &self.ours else {
            return false;
        };
        matches!(goodbye, Step::Left)
    }

    /// Whether our goodbye was confirmed, and the peer's answered.
    pub(super) const fn is_settled(&self) -> bool {
        let confirmed = matches!(
            self.ours,
            Ours::Leaving {
                confirmed: true,
                ..
            }
        );
        match &self.theirs {
            Theirs::Open | Theirs::Finished => confirmed,
            Theirs::Left { answer, .. } => confirmed && matches!(answer, Step::Left),
        }
    }

    /// Whether neither side sends messages any more, and both know. A peer to which
    /// our Fin leaves after its own answers no goodbye behind it.
    pub(super) const fn have_both_finished(&self) -> bool {
        let (Ours::Finished(fin) | Ours::Leaving { fin, .. }) = &self.ours else {
            return false;
        };
        matches!((fin, &self.theirs), (Step::Left, Theirs::Finished))
    }

    /// The close reason of an end of the connection, whatever its cause: a goodbye that was
    /// confirmed or received never becomes a death.
    pub(super) const fn outcome(&self) -> Option<CloseReason> {
        match (&self.ours, &self.theirs) {
            (
                Ours::Leaving {
                    confirmed: true, ..
                },
                _,
            ) => Some(CloseReason::Local),
            (_, &Theirs::Left { code, .. }) => Some(CloseReason::Peer {
                code,
                detail: NoDetail,
            }),
            (_, Theirs::Open | Theirs::Finished) => None,
        }
    }
}

impl Step {
    const fn is_due(self) -> bool {
        matches!(self, Self::Due)
    }

    /// Hands `frame` out, if it is due.
    fn take(&mut self, frame: Control) -> Option<Control> {
        let due = self.is_due().then_some(frame);
        if due.is_some() {
            *self = Self::InFlight;
        }
        due
    }

    /// Everything that was handed out has left. Returns whether this frame was among it.
    const fn leaves(&mut self) -> bool {
        let was_in_flight = matches!(self, Self::InFlight);
        if was_in_flight {
            *self = Self::Left;
        }
        was_in_flight
    }
}

#[cfg(feature = "testkit")]
impl Leaving {
    pub(super) fn describe(&self, facts: &mut crate::testkit::Facts) {
        let Self {
            ours,
            theirs,
            lossy,
        } = *self;
        facts.number(lossy);
        match ours {
            Ours::Open => facts.number(0),
            Ours::Finished(step) => {
                facts.number(1);
                step.describe(facts);
            }
            Ours::Leaving {
                until,
                code,
                fin,
                goodbye,
                confirmed,
            } => {
                facts.number(2);
                facts.instant(until.instant());
                facts.number(code.0);
                fin.describe(facts);
                goodbye.describe(facts);
                facts.number(confirmed);
            }
        }
        match theirs {
            Theirs::Open => facts.number(0),
            Theirs::Finished => facts.number(1),
            Theirs::Left { code, answer } => {
                facts.number(2);
                facts.number(code.0);
                answer.describe(facts);
            }
        }
    }
}

#[cfg(feature = "testkit")]
impl Step {
    fn describe(self, facts: &mut crate::testkit::Facts) {
        facts.number(match self {
            Self::Due => 0,
            Self::InFlight => 1,
            Self::Left => 2,
        });
    }
}
