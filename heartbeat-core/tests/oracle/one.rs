//! One monitor under an arbitrary driver: calls that are late, early and
//! repeated, in any order, mostly at the very times at which something is due.

use heartbeat_core::{End, Hello, ProtocolError, State};

use crate::{
    api,
    dice::{self, Dice, Scale},
    judge::{Failure, Judge, failure},
    ops::{Allowed, Answer, Call, Op, Script},
    tally::Tally,
};

/// How a driver behaves for the length of a script.
#[derive(Clone, Copy, Debug)]
struct Habits {
    scale: Scale,
    /// Chances in percent: that frames are handed out at once, and flushed,
    /// that events are drained, and that the peer answers.
    hands_out: u64,
    flushes: u64,
    drains: u64,
    answers: u64,
    /// That it calls at the deadline and not somewhen.
    punctual: u64,
    calls: u64,
    fails: u64,
    leaves: u64,
    /// That the peer sends all the pings that it may at once.
    floods: u64,
}

/// Starts a script.
pub(crate) fn script(dice: &mut Dice, scale: Scale) -> Script {
    let start = match dice.below(12) {
        0 => u64::MAX - dice.below(100),
        1 => dice.number() >> 8,
        _ => dice.below(50),
    };
    let near = if dice.chance(3) { u32::MAX - 2 } else { 0 };
    Script {
        config: dice::config(dice, scale),
        seed: dice.number(),
        start,
        hello: dice.chance(85),
        sent: if api::REBUILT { near } else { 0 },
        calls: Vec::new(),
    }
}

/// Plays one script of random calls.
pub(crate) fn play(seed: u64, tally: &mut Tally) -> Result<(), Failure> {
    let mut dice = Dice::new(seed);
    let scale = dice::scale(&mut dice);
    let mut script = script(&mut dice, scale);
    let habits = Habits {
        scale,
        hands_out: dice.one(&[100, 95, 80, 30]),
        flushes: dice.one(&[100, 95, 70, 30]),
        drains: dice.one(&[100, 90, 50, 10]),
        answers: dice.one(&[0, 30, 80]),
        punctual: dice.one(&[100, 90, 60, 20]),
        calls: dice.within(5, 90),
        fails: dice.one(&[0, 0, 1, 5]),
        leaves: dice.one(&[0, 0, 2, 20]),
        floods: dice.one(&[0, 0, 0, 20]),
    };
    let mut judge = Judge::new(&script);
    let ours = script.own_hello();
    for _ in 0..habits.calls {
        let call = choose(&mut dice, &habits, &judge, ours);
        script.calls.push(call);
        judge
            .call(call, tally)
            .map_err(|violation| failure(&script, violation))?;
        if matches!(call.op, Op::Ping(_)) && dice.chance(habits.floods) {
            flood(&mut dice, &mut judge, &mut script, tally)?;
        }
        while let Some(call) = follow_up(&mut dice, &habits, &judge, script.calls.last().copied()) {
            script.calls.push(call);
            judge
                .call(call, tally)
                .map_err(|violation| failure(&script, violation))?;
        }
        if judge.has_ended() && dice.chance(70) {
            break;
        }
    }
    Ok(())
}

/// As many pings as are accepted, so that the next is one too many, or not.
fn flood(
    dice: &mut Dice,
    judge: &mut Judge,
    script: &mut Script,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let now = judge.facts.now;
    let room = judge.facts.flood.room(now);
    for _ in 0..room.min(60) {
        let call = Call {
            now,
            op: Op::Ping(dice.number()),
        };
        script.calls.push(call);
        judge
            .call(call, tally)
            .map_err(|violation| failure(script, violation))?;
    }
    Ok(())
}

/// What a driver does after a call, by its habits.
fn follow_up(dice: &mut Dice, habits: &Habits, judge: &Judge, last: Option<Call>) -> Option<Call> {
    let now = judge.facts.now;
    let last = last?.op;
    let call = |op| Some(Call { now, op });
    if !judge.seen.frames.is_empty() && dice.chance(habits.hands_out) {
        return call(Op::Transmit);
    }
    if last == Op::Transmit && dice.chance(habits.flushes) {
        return call(Op::Flushed);
    }
    if !judge.seen.events.is_empty() && dice.chance(habits.drains) {
        return call(Op::Event);
    }
    None
}

fn choose(dice: &mut Dice, habits: &Habits, judge: &Judge, ours: Option<Hello>) -> Call {
    let now = when(dice, habits, judge);
    let due = judge.seen.deadline.is_some_and(|deadline| deadline <= now);
    if due && dice.chance(70) {
        return Call {
            now,
            op: Op::Timeout,
        };
    }
    Call {
        now,
        op: what(dice, habits, judge, ours, now),
    }
}

fn when(dice: &mut Dice, habits: &Habits, judge: &Judge) -> u64 {
    let now = judge.facts.now;
    let terms = &judge.facts.terms;
    let deadline = judge.seen.deadline.unwrap_or(now.saturating_add(10));
    if dice.chance(25) {
        return now;
    }
    if dice.chance(habits.punctual) {
        return match dice.below(8) {
            0 => deadline.saturating_sub(1),
            1 => now.saturating_add(1),
            2 => now.saturating_add(deadline.saturating_sub(now) / 2),
            3 => now.saturating_add(dice.below(deadline.saturating_sub(now).max(1))),
            _ => deadline,
        }
        .max(now);
    }
    let late = match dice.below(10) {
        0 => 1,
        1 => terms.tolerance,
        2 => terms.tolerance.saturating_add(1),
        3 => terms.budget(),
        4 => terms.budget() - 1,
        5 => terms.timeout,
        6 => terms.interval,
        7 => dice.below(terms.budget()),
        8 => dice::time(dice, habits.scale),
        _ => {
            return match dice.below(20) {
                0 => u64::MAX,
                1 => 0,
                2..8 => now.saturating_sub(dice::time(dice, habits.scale)),
                _ => now.saturating_add(dice::time(dice, habits.scale)),
            };
        }
    };
    deadline.saturating_add(late)
}

fn what(dice: &mut Dice, habits: &Habits, judge: &Judge, ours: Option<Hello>, now: u64) -> Op {
    let paused = judge.facts.paused;
    let unanswered = judge.facts.unanswered();
    if unanswered > 0 && dice.chance(habits.answers) {
        return pong(dice, judge);
    }
    if dice.chance(habits.leaves) {
        return parting(dice, judge);
    }
    match dice.below(100) {
        0..12 => Op::Bytes,
        12..18 => Op::Message,
        18..26 => pong(dice, judge),
        26..33 => Op::Ping(dice.number()),
        33..40 => Op::Hello(dice::hello(dice, habits.scale)),
        40..42 => Op::SetInterval(interval(dice, habits, judge)),
        42..48 => Op::Timeout,
        48..50 if judge.facts.terms.foreign => Op::Dialogue(allowed(dice, habits)),
        48..54 => Op::Flushed,
        54..58 => Op::Blocked,
        58..60 => Op::Progress,
        60 => Op::Sent,
        61..67 => Op::Backlog,
        67..74 => Op::Probe,
        74..80 if paused => Op::Resumed,
        74..78 => Op::Paused,
        78..81 => Op::Resumed,
        81..83 if judge.facts.terms.foreign => Op::Taken(acknowledged(dice, habits, judge, now)),
        81..85 => Op::Acknowledged(acknowledged(dice, habits, judge, now)),
        85..87 => dice.one(&[Op::Alive, Op::Alive, Op::Fin, Op::Reserved]),
        87..90 => Op::Transmit,
        90..94 => Op::Event,
        94 => Op::UnnumberedPong,
        _ if dice.chance(habits.fails) => ending(dice, ours),
        _ => Op::Timeout,
    }
}

/// Another interval, the same one, or one that is none.
fn interval(dice: &mut Dice, habits: &Habits, judge: &Judge) -> u64 {
    match dice.below(20) {
        0 => dice.one(&[0, dice::YEAR + 1]),
        1 => judge.facts.terms.interval,
        _ => dice::time(dice, habits.scale),
    }
}

fn allowed(dice: &mut Dice, habits: &Habits) -> Allowed {
    let beats = dice.one(&[0, 0, 1]) * dice::time(dice, habits.scale);
    Allowed {
        ping: dice.chance(60),
        answer: dice.chance(60),
        beats,
    }
}

fn acknowledged(dice: &mut Dice, habits: &Habits, judge: &Judge, now: u64) -> u64 {
    let last = judge.facts.last;
    match dice.below(6) {
        0 => last,
        1 => last.saturating_add(1),
        2 => now.saturating_add(1),
        3 => now.saturating_sub(dice::time(dice, habits.scale)),
        4 => last.saturating_add(dice.below(now.saturating_sub(last).max(1))),
        _ => now,
    }
}

fn pong(dice: &mut Dice, judge: &Judge) -> Op {
    let sent = judge.pings.len() as u64;
    // Older ones may or may not be remembered.
    let kept = judge.facts.terms.remembered().min(sent);
    if kept == 0 || dice.chance(10) {
        return Op::Pong(Answer::Nobody(dice.number()));
    }
    let back = if dice.chance(70) {
        1
    } else {
        dice.within(1, kept)
    };
    Op::Pong(Answer::Ping(usize::try_from(sent - back).unwrap_or(0)))
}

/// What either side may say of its leaving.
fn parting(dice: &mut Dice, judge: &Judge) -> Op {
    match dice.below(10) {
        0..3 => Op::Close(dice.one(&[0, 0, 1, 64, 3, 8, 63, 128])),
        3 => Op::Finish,
        4 if judge.facts.terms.foreign => Op::HalfClose,
        4 => Op::Fin,
        5 => Op::Discarded,
        _ if judge.state() == State::Closing => Op::Goodbye(dice.one(&[8, 8, 0, 1])),
        6 => Op::Goodbye(dice.one(&[0, 1, 64])),
        _ => Op::Flushed,
    }
}

fn ending(dice: &mut Dice, ours: Option<Hello>) -> Op {
    match dice.below(10) {
        0..2 => Op::Close(dice.one(&[0, 0, 1, 64, 3, 8, 63, 128])),
        2..4 => Op::Goodbye(dice.one(&[0, 1, 2, 7, 8, 64, 255])),
        4 => Op::End(End::Reset),
        6 => Op::NotReading,
        7 => ours.map_or(Op::NotReading, Op::OwnHello),
        5 => Op::End(End::Protocol(ProtocolError::EmptyFrame)),
        _ => Op::End(End::Eof),
    }
}
