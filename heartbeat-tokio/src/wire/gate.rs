//! Checks which frames the peer may send.
//!
//! This module decides whether a frame may come now, and how long it may be, as soon as its
//! header has arrived. No memory is reserved before that. The monitor interprets frames.

use heartbeat_core::{Control, PART, ProtocolError, Tag};

use super::VARINT;

/// The longest control frame, tag included.
const MAX_CONTROL: u32 = 256;
const _: () = assert!(MAX_CONTROL as usize == Control::MAX_ACCEPTED);

/// The most bytes of a message in one frame.
const MAX_PART: u32 = 65_536;
const _: () = assert!(MAX_PART as usize == PART);

/// The longest first part, tag included.
const MAX_FIRST_PART: u32 = 1 + VARINT + MAX_PART;

#[derive(Debug)]
pub(super) struct Gate {
    peer: Peer,
    /// The largest message.
    max_frame: u32,
}

/// The frames that the peer may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// Its Hello, and nothing else.
    Stranger,
    /// Everything.
    Speaks,
    /// Control frames only: the peer has sent a Fin.
    Finished,
}

impl Gate {
    pub(super) fn new(max_frame: u32) -> Self {
        Self {
            peer: Peer::Stranger,
            max_frame,
        }
    }

    /// Whether a data frame with a body of this size may come.
    #[inline]
    pub(super) fn admits_data(&self, body: u32) -> bool {
        self.peer == Peer::Speaks && body <= self.max_data()
    }

    /// The largest body of a data frame.
    #[inline]
    fn max_data(&self) -> u32 {
        self.max_frame.min(MAX_PART)
    }

    /// Checks a header, once both its fields have arrived. With `in_message` an incomplete message
    /// precedes it.
    pub(super) fn check(
        &self,
        length: u32,
        tag: Option<u8>,
        in_message: bool,
    ) -> Result<Option<Tag>, ProtocolError> {
        let at_most = |max| match length {
            0 => Err(ProtocolError::EmptyFrame),
            length if length > max => Err(ProtocolError::FrameTooLong { length, max }),
            _ => Ok(()),
        };
        let max_data = 1 + self.max_data();
        at_most(match self.peer {
            Peer::Stranger => MAX_CONTROL,
            _ if self.max_frame > MAX_PART => MAX_FIRST_PART,
            _ => max_data.max(MAX_CONTROL),
        })?;
        let Some(byte) = tag else { return Ok(None) };
        if self.peer == Peer::Stranger && byte != Tag::Hello.to_byte() {
            return Err(ProtocolError::HelloExpected { tag: byte });
        }
        let tag = Tag::from_byte(byte)?;
        at_most(match tag {
            Tag::Data => max_data,
            Tag::Part if in_message => 1 + MAX_PART,
            Tag::Part => MAX_FIRST_PART,
            _ => MAX_CONTROL,
        })?;
        match tag {
            Tag::Data | Tag::Part if self.peer == Peer::Finished => Err(ProtocolError::AfterFin),
            Tag::Data if in_message => Err(ProtocolError::BrokenParts),
            tag => Ok(Some(tag)),
        }
    }

    /// Checks the first part of a message, in a frame of this length: the length of the message,
    /// which takes `digits` bytes, and the number of its bytes in the part.
    pub(super) fn check_first_part(
        &self,
        length: u32,
        announced: u32,
        digits: u32,
    ) -> Result<usize, ProtocolError> {
        let too_long = |length, max| Err(ProtocolError::FrameTooLong { length, max });
        match length - 1 - digits {
            _ if announced <= MAX_PART => Err(ProtocolError::BrokenParts),
            _ if announced > self.max_frame => too_long(announced, self.max_frame),
            0 => Err(ProtocolError::BrokenParts),
            bytes if bytes > MAX_PART => too_long(length, 1 + digits + MAX_PART),
            bytes => Ok(bytes as usize),
        }
    }

    /// A control frame was received.
    pub(super) fn note(&mut self, control: &Control) {
        self.peer = match control {
            Control::Goodbye(_) | Control::Fin => Peer::Finished,
            Control::Hello(_) if self.peer == Peer::Stranger => Peer::Speaks,
            _ => self.peer,
        };
    }
}
