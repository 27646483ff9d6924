//! Control frames that wait to be written.
//!
//! This module decides how they lie in memory: contiguously, and without a buffer while
//! there are none. It doesn't decide what they are, nor what they overtake.

use heartbeat_core::{Control, Goodbye, GoodbyeCode};

/// The control frames of one round of outputs. They always fit, because the monitor is asked
/// for more only when these have left. When empty, it has the size of a pointer.
#[derive(Debug, Default)]
pub(super) struct Lane(Option<Box<Unwritten>>);

/// Invariant: `start < end <= SIZE`, so at least one byte wasn't written yet.
#[derive(Debug)]
struct Unwritten {
    bytes: [u8; Self::SIZE],
    start: u16,
    end: u16,
}

impl Unwritten {
    /// A Hello, a pong, a ping, an Alive, a goodbye and its answer, each with its
    /// length; and the goodbye that tells a verdict behind all of them.
    const SIZE: usize = 4 + Control::MAX_ENCODED + 2 * 13 + 5 + 2 * (4 + Goodbye::MAX_ENCODED) + 7;
}

impl Lane {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes that weren't written yet.
    #[inline]
    pub(super) fn len(&self) -> usize {
        match &self.0 {
            None => 0,
            Some(lane) => usize::from(lane.end - lane.start),
        }
    }

    /// The same bytes; `None` if there are none.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        let lane = self.0.as_ref()?;
        lane.bytes.get(lane.start.into()..lane.end.into())
    }

    pub(super) fn push_control(&mut self, control: Control) {
        let mut buffer = [0; Control::MAX_ENCODED];
        // The buffer is long enough for every control frame.
        if let Ok(frame) = control.encode(&mut buffer) {
            self.push(frame);
        }
    }

    pub(super) fn push_goodbye(&mut self, code: GoodbyeCode, detail: &str) {
        let mut buffer = [0; Goodbye::MAX_ENCODED];
        // The buffer is long enough for every goodbye.
        if let Ok(frame) = Goodbye::new(code, detail).encode(&mut buffer) {
            self.push(frame);
        }
    }

    /// Adds a frame, and its length in front.
    fn push(&mut self, frame: &[u8]) {
        let lane = self.0.get_or_insert_with(|| {
            Box::new(Unwritten {
                bytes: [0; Unwritten::SIZE],
                start: 0,
                end: 0,
            })
        });
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        for part in [&length.to_be_bytes(), frame] {
            let end = usize::from(lane.end) + part.len();
            debug_assert!(end <= Unwritten::SIZE, "a round of outputs fits");
            if let Some(free) = lane.bytes.get_mut(lane.end.into()..end) {
                free.copy_from_slice(part);
                lane.end = u16::try_from(end).unwrap_or(u16::MAX);
            }
        }
    }

    /// Removes the `written` bytes at the front.
    pub(super) fn advance(&mut self, written: usize) {
        debug_assert!(written <= self.len(), "more was written than there is");
        if written >= self.len() {
            self.0 = None;
        } else if let Some(lane) = &mut self.0 {
            lane.start += u16::try_from(written).unwrap_or(u16::MAX);
        }
    }
}
