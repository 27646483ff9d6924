//! The bytes that one side wrote and the other one hasn't read.
//!
//! This module decides what the kernel takes, in which order, and how much of it:
//! control frames overtake messages, and a window limits what isn't read yet.
//! When it arrives is `network`'s.

use std::collections::VecDeque;

use super::{network::NEVER, pop_front_if};
use crate::frame::{Control, PART};

/// The size of a control frame with the length in front of it: all are about
/// this large.
const CONTROL_BYTES: u32 = 13;

/// What a message is cut into.
#[expect(clippy::cast_possible_truncation, reason = "65,536")]
const LONGEST_PART: u32 = PART as u32;

/// How many messages may wait before the application waits too.
const MESSAGES_QUEUED: usize = 4;

/// What one side has on its way to the other.
#[derive(Debug)]
pub(super) struct Pipe {
    // The driver's: not written yet.
    control: VecDeque<Control>,
    /// Bytes to go of each message.
    messages: VecDeque<u32>,
    /// Bytes to go of the part that is partly written: nothing may come between.
    /// A message that isn't longer is one part.
    begun: u32,

    // The kernels'.
    window: u32,
    used: u32,
    /// When how many bytes of the window are free again, if all segments up to
    /// this one are known to have arrived.
    freed: VecDeque<(u64, u32, u64)>,
    segments: VecDeque<Segment>,
    /// How many were read by the other side.
    taken: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    bytes: u32,
    pub(super) ends: Ends,
}

/// What is complete with the last byte of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ends {
    Nothing,
    /// A part of a message of which more are to come.
    Part,
    Message,
    Control(Control),
    Stream,
}

impl Pipe {
    pub(super) const fn new(window: u32) -> Self {
        Self {
            control: VecDeque::new(),
            messages: VecDeque::new(),
            begun: 0,
            window,
            used: 0,
            freed: VecDeque::new(),
            segments: VecDeque::new(),
            taken: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.messages.is_empty()
    }

    /// Whether no control frame waits to be written.
    pub(super) fn has_no_control(&self) -> bool {
        self.control.is_empty()
    }

    /// One more message, unless the last ones are still to be written.
    pub(super) fn offer_message(&mut self, bytes: u32) {
        if self.messages.len() < MESSAGES_QUEUED {
            self.messages.push_back(bytes);
        }
    }

    /// Whether the application may add a control frame of its own.
    pub(super) fn has_room_for_control(&self) -> bool {
        self.control.len() < MESSAGES_QUEUED
    }

    pub(super) fn push_control(&mut self, control: Control) {
        self.control.push_back(control);
    }

    /// The kernel took this piece.
    pub(super) fn send(&mut self, bytes: u32, ends: Ends) {
        self.used += bytes;
        self.segments.push_back(Segment { bytes, ends });
    }

    /// There is room again for what is known to have been read by `now`, if
    /// `acknowledged` segments are known to have arrived.
    pub(super) fn free(&mut self, now: u64, acknowledged: u64) {
        while let Some((_, bytes, _)) = pop_front_if(&mut self.freed, |&(at, _, number)| {
            at <= now && number <= acknowledged
        }) {
            self.used -= bytes;
        }
    }

    /// Whether there is something for the other side to read, of which the
    /// kernel has `delivered` this number of segments.
    pub(super) fn is_readable(&self, delivered: u64) -> bool {
        self.taken < delivered && !self.segments.is_empty()
    }

    /// When there is room again, if `acknowledged` segments are known
    /// to have arrived.
    pub(super) fn next_freed(&self, acknowledged: u64) -> u64 {
        match self.freed.front() {
            Some(&(at, _, number)) if number <= acknowledged => at,
            _ => NEVER,
        }
    }

    pub(super) fn arrived(&mut self, delivered: u64) -> Option<Segment> {
        if !self.is_readable(delivered) {
            return None;
        }
        self.taken += 1;
        self.segments.pop_front()
    }

    /// The receiver read `segment`: its sender learns of it.
    pub(super) fn read(&mut self, segment: &Segment, now: u64, one_way: u64) {
        let told = now.saturating_add(one_way);
        self.freed.push_back((told, segment.bytes, self.taken));
    }

    /// How many messages and control frames wait, and how many segments.
    #[cfg(test)]
    pub(super) fn lengths(&self) -> [usize; 3] {
        [self.messages.len(), self.control.len(), self.segments.len()]
    }

    /// The next piece that the kernel takes.
    pub(super) fn take(&mut self) -> Option<(u32, Ends)> {
        let room = self.window - self.used;
        if self.begun == 0 && !self.control.is_empty() {
            if room < CONTROL_BYTES {
                return None;
            }
            let control = self.control.pop_front()?;
            return Some((CONTROL_BYTES, Ends::Control(control)));
        }
        let left = self.messages.front_mut()?;
        let part = match self.begun {
            0 => LONGEST_PART.min(*left),
            begun => begun,
        };
        let piece = room.min(part);
        if piece == 0 {
            return None;
        }
        *left -= piece;
        self.begun = part - piece;
        if self.begun > 0 {
            return Some((piece, Ends::Nothing));
        }
        if *left > 0 {
            return Some((piece, Ends::Part));
        }
        self.messages.pop_front();
        Some((piece, Ends::Message))
    }

    pub(super) fn has_no_messages(&self) -> bool {
        self.messages.is_empty()
    }

    /// Only what was begun is still written, and control frames behind it.
    pub(super) fn drop_messages(&mut self) {
        self.messages.clear();
        if self.begun > 0 {
            self.messages.push_back(self.begun);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{GoodbyeCode, Nonce};

    const GOODBYE: Control = Control::Goodbye(GoodbyeCode::LEAVING);

    const PING: Control = Control::Ping(Nonce([7; 8]));

    fn pipe(window: u32, messages: &[u32], control: &[Control]) -> Pipe {
        let mut pipe = Pipe::new(window);
        pipe.messages.extend(messages);
        pipe.control.extend(control);
        pipe
    }

    #[test]
    fn a_control_frame_overtakes_messages() {
        let mut pipe = pipe(1_000, &[10, 20], &[PING]);
        assert!(!pipe.is_empty());
        assert!(matches!(pipe.take(), Some((13, Ends::Control(PING)))));
        assert!(matches!(pipe.take(), Some((10, Ends::Message))));
        assert!(matches!(pipe.take(), Some((20, Ends::Message))));
        assert!(pipe.take().is_none());
        assert!(pipe.is_empty());
    }

    #[test]
    fn nothing_comes_between_the_pieces_of_a_message() {
        let mut pipe = pipe(100, &[150], &[]);
        assert!(matches!(pipe.take(), Some((100, Ends::Nothing))));
        pipe.control.push_back(PING);
        pipe.used = 100;
        assert!(pipe.take().is_none());
        pipe.used = 60;
        assert!(matches!(pipe.take(), Some((40, Ends::Nothing))));
        pipe.used = 0;
        assert!(matches!(pipe.take(), Some((10, Ends::Message))));
        assert!(matches!(pipe.take(), Some((13, Ends::Control(PING)))));
    }

    #[test]
    fn a_control_frame_goes_between_the_parts_of_a_message() {
        let mut pipe = pipe(200_000, &[150_000], &[]);
        assert!(matches!(pipe.take(), Some((65_536, Ends::Part))));
        pipe.control.push_back(PING);
        assert!(matches!(pipe.take(), Some((13, Ends::Control(PING)))));
        pipe.used = 190_000;
        assert!(matches!(pipe.take(), Some((10_000, Ends::Nothing))));
        pipe.control.push_back(PING);
        pipe.used = 0;
        assert!(matches!(pipe.take(), Some((55_536, Ends::Part))));
        assert!(matches!(pipe.take(), Some((13, Ends::Control(PING)))));
        assert!(matches!(pipe.take(), Some((18_928, Ends::Message))));
        assert!(pipe.take().is_none());
    }

    #[test]
    fn a_message_of_one_part_is_no_part() {
        let mut pipe = pipe(200_000, &[65_536], &[]);
        assert!(matches!(pipe.take(), Some((65_536, Ends::Message))));
        assert!(pipe.is_empty());
    }

    #[test]
    fn a_verdict_is_said_behind_what_was_begun() {
        let mut pipe = pipe(100, &[150_000, 20], &[]);
        assert!(matches!(pipe.take(), Some((100, Ends::Nothing))));
        pipe.used = 0;
        pipe.window = 200_000;
        pipe.drop_messages();
        pipe.control.push_back(GOODBYE);
        assert!(matches!(pipe.take(), Some((65_436, Ends::Message))));
        assert!(matches!(pipe.take(), Some((13, Ends::Control(GOODBYE)))));
        assert!(pipe.is_empty());
        pipe.messages.push_back(20);
        pipe.drop_messages();
        assert!(pipe.is_empty());
    }

    #[test]
    fn a_control_frame_is_written_whole_or_not_at_all() {
        let mut pipe = pipe(13, &[10], &[PING]);
        for used in [13, 5, 1] {
            pipe.used = used;
            assert!(pipe.take().is_none(), "{used}");
        }
        pipe.used = 0;
        assert!(matches!(pipe.take(), Some((13, Ends::Control(PING)))));
    }

    #[test]
    fn a_segment_is_there_when_it_was_delivered_and_not_before() {
        let mut pipe = Pipe::new(1_000);
        assert!(!pipe.is_readable(1));
        for ends in [Ends::Message, Ends::Stream] {
            pipe.segments.push_back(Segment { bytes: 13, ends });
        }
        assert!(pipe.arrived(0).is_none());
        assert!(pipe.arrived(1).is_some());
        assert!(pipe.arrived(1).is_none());
        assert!(pipe.arrived(2).is_some());
    }

    #[test]
    fn the_window_opens_when_the_sender_knows_that_it_was_read() {
        let mut pipe = Pipe::new(1_000);
        assert_eq!(pipe.next_freed(9), NEVER);
        let segment = Segment {
            bytes: 13,
            ends: Ends::Message,
        };
        pipe.taken = 1;
        pipe.read(&segment, 5, 10);
        pipe.taken = 2;
        pipe.read(&segment, 6, 10);
        assert_eq!(pipe.freed, [(15, 13, 1), (16, 13, 2)]);
        assert_eq!(pipe.next_freed(0), NEVER);
        assert_eq!(pipe.next_freed(1), 15);
    }
}
