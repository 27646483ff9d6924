//! Which states are one: those that differ only in what time it is, and in how
//! many pings there were.

use std::time::Duration;

use heartbeat_core::{Control, testkit::Snapshot};

use super::{
    model::{Frame, Message, Rules, Side, World},
    record::{Phase, Record, Round, Timings},
    verdicts::Broken,
};

/// Beyond this many ticks, an instant is long ago. Detection takes 7 ticks at
/// most, and a stall or a pause 12.
const LONG_AGO: u64 = 24;

/// Ages stand for instants: how long before this they were, as a number that
/// isn't negative.
const NOW: u64 = 1 << 32;

/// All that the future of a world depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    budgets: [u8; 4],
    broken: Option<Broken>,
    sides: [Option<SideKey>; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SideKey {
    monitor: Snapshot,
    record: Record,
    outbox: Vec<(u64, u32, u32)>,
    inbox: Vec<(u64, u32, u32)>,
    greetings: usize,
    unreported: Option<u64>,
    asleep_since: Option<u64>,
    hung: bool,
    jammed: bool,
    deaf: bool,
}

impl Key {
    pub(super) fn new(world: &World, rules: &Rules) -> Self {
        let World {
            now: _,
            sides: [a, b],
            faults,
            stalls,
            probes,
            pauses,
            broken,
            key: _,
        } = world;
        Self {
            budgets: [*faults, *stalls, *probes, *pauses],
            broken: *broken,
            sides: [
                SideKey::new(world, rules, 0, a, b),
                SideKey::new(world, rules, 1, b, a),
            ],
        }
    }
}

impl SideKey {
    /// None of a side that will never do anything again.
    fn new(world: &World, rules: &Rules, who: usize, side: &Side, peer: &Side) -> Option<Self> {
        if !side.is_up() {
            // Whether it hangs or left is seen in what it sent.
            return None;
        }
        let Side {
            monitor,
            outbox,
            inbox,
            greetings,
            unreported,
            asleep_since,
            hung,
            jammed,
            deaf,
            record,
        } = side;
        let now = world.now;
        let counts = [record.pings, peer.record.pings];
        let messages = |messages: &mut dyn Iterator<Item = &Message>, limit, counts| {
            messages
                .map(|message| message.key(now, limit, counts))
                .collect()
        };
        let [own, other] = counts;
        Some(Self {
            monitor: monitor.snapshot(
                rules.instant(now),
                Duration::from_micros(LONG_AGO * rules.tick),
            ),
            record: record.aged(now, &rules.timings[who]),
            outbox: messages(&mut outbox.iter(), rules.write_delay[who], counts),
            inbox: messages(&mut inbox.iter(), rules.delay, [other, own]),
            greetings: greetings.len(),
            unreported: unreported.map(|since| age(since, now)),
            asleep_since: asleep_since.map(|since| age(since, now)),
            hung: *hung,
            jammed: *jammed,
            deaf: *deaf,
        })
    }
}

impl Message {
    /// Its age, up to where it is overdue, and what it says.
    fn key(&self, now: u64, limit: u64, [sender, receiver]: [u32; 2]) -> (u64, u32, u32) {
        let (kind, ago) = match self.frame {
            Frame::Ping(_, count) => (0, sender - count),
            Frame::Pong(_, count) => (1, receiver - count),
            Frame::Other(Control::Goodbye(code)) => (4, code.0.into()),
            Frame::Other(control) => (2, control.tag().to_byte().into()),
            Frame::Eof => (3, 0),
        };
        ((now - self.since).min(limit), kind, ago)
    }
}

fn age(instant: u64, now: u64) -> u64 {
    (NOW + now - instant).min(NOW + LONG_AGO)
}

impl Record {
    /// With ages in the place of instants, and pings by how many ago they were.
    fn aged(&self, now: u64, own: &Timings) -> Self {
        let (misses, speaks) = (own.misses, own.speak_within.is_some());
        let Self {
            phase,
            heard_at,
            first,
            met,
            on_its_way,
            left_at,
            alive_on_its_way,
            alive_left_at,
            spoke_at,
            timed,
            pings,
            answered,
            asked,
            stalls,
            excused_until,
            suspected,
            blocked,
            parting,
            owed,
        } = *self;
        let age = |instant| age(instant, now);
        Self {
            phase: match phase {
                Phase::Round(round) => Phase::Round(Round {
                    verdict: age(round.verdict),
                    step: age(round.step),
                    ..round
                }),
                Phase::Paused {
                    since,
                    sign_at,
                    probe,
                } => Phase::Paused {
                    since: age(since),
                    sign_at: sign_at.map(age),
                    probe,
                },
                Phase::Idle { .. } | Phase::Ended => phase,
            },
            heard_at: age(heard_at),
            first,
            met,
            on_its_way,
            left_at: left_at.map(age),
            alive_on_its_way,
            alive_left_at: alive_left_at.map(age),
            spoke_at: match speaks {
                true => age(spoke_at),
                false => 0,
            },
            timed,
            pings: 0,
            answered: (pings - answered).min(u32::try_from(2 * misses).unwrap()),
            asked,
            stalls,
            excused_until: excused_until.map(age),
            suspected,
            blocked: blocked.map(|blocked| blocked.aged(age)),
            parting: parting.aged(age),
            owed,
        }
    }
}
