//! What a link does to the segments on it.
//!
//! This module decides which packets arrive, and when. It knows segments only by their
//! number. `pipe` has their bytes, `tcp` decides retransmissions, and `cuts` the outages.

use core::ops::Range;
use std::{collections::VecDeque, vec::Vec};

use super::{
    Direction, Link, Side,
    cuts::Cuts,
    dice::Dice,
    pop_front_if,
    tcp::{Acknowledgement, Receiver, Sender},
};
use crate::time::micros;

/// Later than everything.
pub(super) const NEVER: u64 = u64::MAX;

/// Both directions of one link.
#[derive(Clone, Debug)]
pub(super) struct Network {
    one_way: u64,
    jitter: u64,
    loss: f64,
    dice: Dice,
    cuts: Cuts,
    ways: [Way; 2],
}

/// One direction.
#[derive(Clone, Debug)]
struct Way {
    sender: Sender,
    /// In the order of arrival.
    packets: VecDeque<Packet>,
    receiver: Receiver,
}

#[derive(Clone, Debug)]
struct Packet {
    arrives: u64,
    /// The segments in it; none are in an acknowledgement alone.
    segments: Range<u64>,
    is_large: bool,
    /// Of the other direction.
    acknowledgement: Acknowledgement,
}

impl Way {
    fn new(link: &Link) -> Self {
        let handshake = micros(link.rtt).saturating_add(micros(link.jitter));
        Self {
            sender: Sender::new(handshake, micros(link.retransmit_within)),
            packets: VecDeque::new(),
            receiver: Receiver::new(),
        }
    }

    fn next_event(&self) -> u64 {
        let arrives = self.packets.front().map_or(NEVER, |packet| packet.arrives);
        arrives
            .min(self.sender.fires_at)
            .min(self.receiver.acknowledges_at)
    }
}

impl Network {
    pub(super) fn new(link: &Link, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        Self {
            one_way: micros(link.rtt) / 2,
            jitter: micros(link.jitter),
            loss: link.loss,
            cuts: Cuts::new(link, dice.roll()),
            dice,
            ways: [Way::new(link), Way::new(link)],
        }
    }

    /// Nothing gets through from `from` until before `until`.
    pub(super) fn cut(&mut self, direction: Direction, from: u64, until: u64) {
        self.cuts.plan(direction, from, until);
    }

    /// How long a window update takes, after the receiver has read.
    pub(super) const fn one_way(&self) -> u64 {
        self.one_way
    }

    /// How many segments of `sender` are there for the other side to read.
    pub(super) fn delivered(&self, sender: Side) -> u64 {
        self.way(sender).receiver.delivered()
    }

    /// How many segments of `sender` it knows to be there.
    pub(super) fn acknowledged(&self, sender: Side) -> u64 {
        self.way(sender).sender.acknowledged()
    }

    /// When [`step`](Self::step) has something to do.
    pub(super) fn next_event(&self) -> u64 {
        let [a, b] = &self.ways;
        a.next_event().min(b.next_event())
    }

    /// `sender` writes one more segment. Calls come in the order of time.
    pub(super) fn write(&mut self, sender: Side, bytes: u32, now: u64) {
        self.cuts.forget_before(now);
        let mut sent = Vec::new();
        let way = self.way_mut(sender);
        way.sender.write(bytes, now, |numbers| sent.push(numbers));
        self.send(sender, sent, now);
    }

    /// Does what is due at `now`.
    pub(super) fn step(&mut self, now: u64) {
        while self.next_event() <= now {
            for side in [Side::A, Side::B] {
                self.arrive(side, now);
                self.fire(side, now);
                if self.way(side).receiver.acknowledges_at <= now {
                    self.transmit(side.other(), 0..0, now);
                }
            }
        }
    }

    fn arrive(&mut self, from: Side, now: u64) {
        while let Some(packet) = pop_front_if(&mut self.way_mut(from).packets, |packet| {
            packet.arrives <= now
        }) {
            if !packet.segments.is_empty() {
                let long = self.way(from.other()).sender.timeout();
                let receiver = &mut self.way_mut(from).receiver;
                receiver.receive(packet.segments, packet.is_large, long, now);
            }
            let mut sent = Vec::new();
            let sender = &mut self.way_mut(from.other()).sender;
            sender.acknowledge(&packet.acknowledgement, now, |numbers| sent.push(numbers));
            self.send(from.other(), sent, now);
        }
    }

    fn fire(&mut self, side: Side, now: u64) {
        let sender = &mut self.way_mut(side).sender;
        if sender.fires_at > now {
            return;
        }
        let mut sent = Vec::new();
        let backs_off = sender.fire(now, |numbers| sent.push(numbers));
        self.send(side, sent, now);
        if backs_off {
            // What is lost for certain needn't be simulated.
            let forth = self.cuts.until(side, now);
            let first = self.acknowledged(side);
            let back = match self.delivered(side) > first {
                true => self.cuts.until(side.other(), now),
                false => None,
            };
            if let Some(useful) = forth.max(back) {
                self.way_mut(side).sender.skip_until(useful);
            }
        }
    }

    fn send(&mut self, side: Side, packets: Vec<Range<u64>>, now: u64) {
        for segments in packets {
            self.transmit(side, segments, now);
        }
    }

    /// Sends one packet, which gets there or doesn't.
    fn transmit(&mut self, side: Side, segments: Range<u64>, now: u64) {
        let acknowledgement = self.way_mut(side.other()).receiver.acknowledge();
        if self.cuts.until(side, now).is_some() || self.dice.happens(self.loss) {
            return;
        }
        let is_large = self.way(side).sender.are_large(&segments);
        let takes = self.one_way.saturating_add(self.dice.up_to(self.jitter));
        let packets = &mut self.way_mut(side).packets;
        let last = packets.back().map_or(0, |packet| packet.arrives);
        packets.push_back(Packet {
            arrives: now.saturating_add(takes).max(last),
            segments,
            is_large,
            acknowledgement,
        });
    }

    const fn way(&self, sender: Side) -> &Way {
        let [a, b] = &self.ways;
        match sender {
            Side::A => a,
            Side::B => b,
        }
    }

    const fn way_mut(&mut self, sender: Side) -> &mut Way {
        let [a, b] = &mut self.ways;
        match sender {
            Side::A => a,
            Side::B => b,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{ms, secs};

    const SECOND: u64 = 1_000_000;

    /// When each segment is there that `sender` writes at these times, until
    /// `end`; and when the sender knows it.
    fn arrivals(
        network: &mut Network,
        sender: Side,
        written: impl IntoIterator<Item = u64>,
        end: u64,
    ) -> (Vec<u64>, Vec<u64>) {
        let mut written = written.into_iter().peekable();
        let (mut there, mut known) = (Vec::new(), Vec::new());
        loop {
            let next = network
                .next_event()
                .min(written.peek().copied().unwrap_or(NEVER));
            if next > end || next == NEVER {
                return (there, known);
            }
            network.step(next);
            while written.next_if(|&at| at <= next).is_some() {
                network.write(sender, 13, next);
            }
            network.step(next);
            let counts = [network.delivered(sender), network.acknowledged(sender)];
            for (times, count) in [&mut there, &mut known].into_iter().zip(counts) {
                times.resize(usize::try_from(count).unwrap(), next);
            }
        }
    }

    #[test]
    fn silence_lasts_longer_than_an_outage_because_retransmission_backs_off() {
        // What a kernel does with a write each second through an outage.
        for (outage, longest) in [(4, 8), (8, 16), (16, 32)] {
            let mut network = Network::new(&Link::new().rtt(ms(1)), 1);
            network.cut(Direction::Both, 10 * SECOND, (10 + outage) * SECOND);
            let written = (0..60).map(|at| at * SECOND);
            let (there, _) = arrivals(&mut network, Side::A, written, NEVER);
            assert!(there.is_sorted());
            let gaps = there.windows(2).map(|pair| pair[1] - pair[0]);
            let silence = gaps.max().unwrap();
            assert!(silence > outage * SECOND, "{outage}: {silence}");
            assert!(silence < longest * SECOND, "{outage}: {silence}");
        }
    }

    #[test]
    fn the_staircase_ends_where_the_link_says() {
        let link = Link::new().retransmit_within(secs(1));
        let mut network = Network::new(&link, 1);
        let year = 365 * 86_400 * SECOND;
        network.cut(Direction::AToB, 0, year);
        // A probe after 0.2 s, then after 0.4, 0.8 and 1.6 s, and each second
        // from there on.
        let (there, _) = arrivals(&mut network, Side::A, [0], NEVER);
        assert_eq!(there, [year + 600_000]);
    }

    #[test]
    fn what_is_lost_is_sent_again_after_a_timeout_that_doubles() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        network.cut(Direction::AToB, 0, SECOND);
        // The probe comes two round trips after the second one, and then what is
        // sent 210, 420 and 840 ms apart.
        let (there, known) = arrivals(&mut network, Side::A, [0, 100_000, 2 * SECOND], NEVER);
        assert_eq!(there, [1_597_000, 1_597_000, 2_005_000]);
        assert_eq!(known[..2], [1_602_000, 1_602_000]);
    }

    #[test]
    fn what_arrives_later_tells_of_a_loss() {
        let mut network = Network::new(&Link::new().rtt(ms(100)), 1);
        network.cut(Direction::AToB, 0, 1);
        // The second one arrives after 200 ms, and after 250 ms its sender knows
        // that it overtook the first one; the timer would take 300.
        let (there, _) = arrivals(&mut network, Side::A, [0, 150_000], NEVER);
        assert_eq!(there, [300_000, 300_000]);
    }

    #[test]
    fn after_a_timeout_what_is_new_waits_for_what_was_lost() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        network.cut(Direction::AToB, 0, 500_000);
        // The timer fires at 420 ms, and again at 840. What is written in
        // between would get through, and isn't sent.
        let (there, _) = arrivals(&mut network, Side::A, [0, 600_000], NEVER);
        assert_eq!(there, [845_000, 855_000]);
    }

    #[test]
    fn a_lost_acknowledgement_has_the_segment_sent_again() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        network.cut(Direction::BToA, 0, SECOND / 10);
        let (there, known) = arrivals(&mut network, Side::A, [0], NEVER);
        assert_eq!(there, [5_000]);
        assert_eq!(known, [220_000]);
    }

    #[test]
    fn without_a_way_back_the_first_segment_arrives_and_so_do_others_until_the_timer_fires() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        network.cut(Direction::BToA, 0, NEVER);
        let (there, known) = arrivals(&mut network, Side::A, [0, 1, 600_000], NEVER);
        assert_eq!(there, [5_000, 5_001]);
        assert!(known.is_empty());
    }

    #[test]
    fn a_segment_takes_half_of_the_round_trip_and_its_acknowledgement_the_other() {
        for sender in [Side::A, Side::B] {
            let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
            assert_eq!(network.one_way(), 5_000);
            // After a silence it is acknowledged at once, and else 40 ms later.
            let (there, known) = arrivals(&mut network, sender, [SECOND, SECOND + 50_000], NEVER);
            assert_eq!(there, [1_005_000, 1_055_000]);
            assert_eq!(known, [1_010_000, 1_100_000]);
        }
    }

    #[test]
    fn an_acknowledgement_travels_with_what_is_sent() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        network.write(Side::A, 13, 0);
        network.step(5_000);
        network.write(Side::B, 13, 5_000);
        network.step(10_000);
        assert_eq!(network.acknowledged(Side::A), 1);
        assert_eq!(network.delivered(Side::B), 1);
    }

    #[test]
    fn jitter_delays_by_up_to_so_much() {
        let mut network = Network::new(&Link::new().rtt(ms(10)).jitter(ms(20)), 1);
        let written = (0..1000).map(|at| at * SECOND);
        let (there, _) = arrivals(&mut network, Side::A, written, NEVER);
        let delays = there.iter().zip(0..).map(|(there, at)| there - at * SECOND);
        let delays: Vec<_> = delays.collect();
        assert!(delays.iter().all(|delay| (5_000..=25_000).contains(delay)));
        assert!(delays.iter().any(|&delay| delay < 6_000));
        assert!(delays.iter().any(|&delay| delay > 24_000));
    }

    #[test]
    fn order_is_kept() {
        let mut network = Network::new(&Link::new().jitter(secs(1)), 1);
        let (there, _) = arrivals(&mut network, Side::A, 0..1000, NEVER);
        assert_eq!(there.len(), 1000);
        assert!(there.is_sorted());
    }

    #[test]
    fn a_cut_holds_from_its_start_until_before_its_end() {
        for (at, arrives) in [(9, 9), (10, 200_010), (999, 200_999), (1_000, 1_000)] {
            let mut network = Network::new(&Link::new(), 1);
            network.cut(Direction::AToB, 10, 1_000);
            assert_eq!(arrivals(&mut network, Side::B, [at], NEVER).0, [at]);
            let mut network = Network::new(&Link::new(), 1);
            network.cut(Direction::AToB, 10, 1_000);
            assert_eq!(arrivals(&mut network, Side::A, [at], NEVER).0, [arrives]);
        }
    }

    #[test]
    fn nothing_is_left_to_chance_where_nothing_gets_through() {
        let link = Link::new().jitter(secs(1)).loss(0.5);
        let mut idle = Network::new(&link, 1);
        let mut busy = idle.clone();
        for network in [&mut idle, &mut busy] {
            network.cut(Direction::AToB, 0, NEVER);
        }
        for now in 0..3 {
            busy.write(Side::A, 13, now);
        }
        let there = |network: &mut Network| arrivals(network, Side::B, [5], NEVER).0;
        assert_eq!(there(&mut busy), there(&mut idle));
    }

    #[test]
    fn time_has_an_end() {
        let mut network = Network::new(&Link::new().rtt(ms(10)), 1);
        network.write(Side::A, 13, NEVER - 1);
        network.step(NEVER - 1);
        assert_eq!(network.delivered(Side::A), 0);
    }

    #[test]
    fn a_part_of_the_packets_is_lost() {
        let mut network = Network::new(&Link::new().loss(0.25), 1);
        // An hour apart, so that each is on its own.
        let hours: Vec<_> = (0..10_000).map(|hour| hour * 3_600 * SECOND).collect();
        let (there, _) = arrivals(&mut network, Side::A, hours.clone(), NEVER);
        let late = there.iter().zip(hours).filter(|&(&there, at)| there > at);
        let late = late.count();
        assert!((2_300..2_700).contains(&late), "{late}");
    }

    #[test]
    fn a_cut_without_an_end_lets_nothing_through() {
        let mut network = Network::new(&Link::new(), 1);
        network.cut(Direction::AToB, 7, NEVER);
        assert_eq!(arrivals(&mut network, Side::A, [6, 7], NEVER).0, [6]);
        assert_eq!(arrivals(&mut network, Side::B, [8], NEVER).0, [8]);
    }
}
