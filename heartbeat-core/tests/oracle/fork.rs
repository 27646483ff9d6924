//! Choices that the documents leave open.
//!
//! A rule that can be read in two ways is asked for here by its name. Every
//! reading is followed; those that the monitor's answers refute are dropped.
//! The first reading is the one that favours users.

/// What is left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Open {
    /// Where an interval ends, or a random value lies: not a question, but
    /// hidden.
    Hidden,
    /// A late call that ends or pauses the judgement tells of the stall, or not.
    EndTellsStall,
    /// The next step of a round is W after the call, or after the step.
    StepFromNow,
    /// While a ping is in flight no other is queued behind it, or one is.
    FlightServes,
    /// After a stall a fresh ping is queued behind one in flight, or that one
    /// counts as fresh.
    FreshBehind,
    /// Evidence before a probe's ping was handed out: it leaves all the same,
    /// or not, or the probe waits.
    ProbeKept,
    /// A keepalive ping that became a round's first is sent after evidence, or
    /// not.
    MergedKept,
    /// A keepalive ping that wasn't handed out in the pause is sent, or not.
    ResumeKeeps,
    /// A round's ping that wasn't handed out before the pause isn't sent, or is.
    PauseDrops,
    /// So with `close`.
    CloseDropsPing,
    /// A pong that is owed leaves before the goodbye, or not.
    CloseKeepsPong,
    /// Progress begins the limit of blocked writes anew, or ends it until
    /// `handle_blocked`.
    ProgressRestarts,
    /// A stall that needn't move the limit of blocked writes isn't counted, or is.
    IdleMoveCounts,
    /// A flush without the goodbye begins the N·W of `Leaving` anew, or not.
    LeavingFlush,
    /// A ping that left before its round, longer ago than the round trip
    /// allows: suspicious at once, or the time counts from the round, or never.
    AdoptedLate,
    /// A keepalive ping that is due now is given at once, or at the deadline now.
    DueNow,
    /// A probe that joins an overdue interval is a probe, or that round's.
    ProbeJoins,
    /// At the verdict a ping that hadn't its whole W is missed, or not.
    LastMissed,
    /// A probe that is overdue when evidence ends a stall begins its round at
    /// once, or when its ping leaves.
    OverdueProbe,
    /// A probe whose ping hadn't left before the pause waits in it, or not.
    PauseKeepsProbe,
    /// A ping that left at the very time of the evidence left after it, or before.
    LeftAtOnce,
    /// A ping that left before a probe serves it as any round, or not.
    ProbeAdopts,
    /// A ping flushed exactly at the verdict is before it, or not.
    FlushAtVerdict,
    /// Both the round and the limit of blocked writes are over.
    BothOver,
    /// A verdict that evidence moved into the past is given at once, or at the
    /// next `handle_timeout`.
    PastVerdict,
    /// A pong of another than the latest ping, or in a pause, is a round trip.
    OldSample,
    /// A probe's deadline that is over at once is served by the input, or not.
    ProbeNow,
    /// A refused Hello is told as `Connected` first, or not.
    RefusedTold,
    /// A `Suspect` that wasn't given is given before the terminal event, or not.
    EndKeepsSuspect,
    /// A late call that means nothing in this state shows the stall, or not.
    IdleCallTells,
    /// A Hello with which the interval ends now begins the round, or leaves it
    /// to the deadline now.
    HelloServes,
}

pub(crate) const OPEN: usize = Open::HelloServes as usize + 1;

/// One way through the open questions of one call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fork {
    taken: [u8; 12],
    arity: [u8; 12],
    name: [u8; 12],
    at: usize,
    length: usize,
}

impl Fork {
    /// One of `ways` readings.
    pub(crate) fn pick(&mut self, open: Open, ways: u8) -> u8 {
        let at = self.at;
        self.at += 1;
        if at == self.length {
            assert!(at < self.taken.len(), "too many open questions in one call");
            self.taken[at] = 0;
            self.arity[at] = ways;
            self.name[at] = open as u8;
            self.length += 1;
        }
        self.taken[at]
    }

    /// The first of two readings.
    pub(crate) fn first(&mut self, open: Open) -> bool {
        self.pick(open, 2) == 0
    }

    /// The way after this one. False: that was the last.
    pub(crate) fn advance(&mut self) -> bool {
        self.at = 0;
        while self.length > 0 {
            let last = self.length - 1;
            self.taken[last] += 1;
            if self.taken[last] < self.arity[last] {
                return true;
            }
            self.length = last;
        }
        false
    }

    /// The questions that were asked, and what was taken.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (usize, u8)> + '_ {
        (0..self.length).map(|at| (usize::from(self.name[at]), self.taken[at]))
    }
}

/// How often each reading was the only one that fits.
#[derive(Clone, Debug)]
pub(crate) struct Readings(pub(crate) [[u64; 3]; OPEN]);

impl Default for Readings {
    fn default() -> Self {
        Self([[0; 3]; OPEN])
    }
}

const NAMES: [&str; OPEN] = [
    "Hidden",
    "EndTellsStall",
    "StepFromNow",
    "FlightServes",
    "FreshBehind",
    "ProbeKept",
    "MergedKept",
    "ResumeKeeps",
    "PauseDrops",
    "CloseDropsPing",
    "CloseKeepsPong",
    "ProgressRestarts",
    "IdleMoveCounts",
    "LeavingFlush",
    "AdoptedLate",
    "DueNow",
    "ProbeJoins",
    "LastMissed",
    "OverdueProbe",
    "PauseKeepsProbe",
    "LeftAtOnce",
    "ProbeAdopts",
    "FlushAtVerdict",
    "BothOver",
    "PastVerdict",
    "OldSample",
    "ProbeNow",
    "RefusedTold",
    "EndKeepsSuspect",
    "IdleCallTells",
    "HelloServes",
];

impl std::fmt::Display for Readings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("readings that fitted alone:")?;
        for (name, counts) in NAMES.iter().zip(&self.0) {
            write!(f, " {name} {counts:?}")?;
        }
        Ok(())
    }
}
