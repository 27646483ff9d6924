//! The announcement of each side.
//!
//! This module decides how a Hello lies in its frame, and which values no valid
//! configuration can announce. It doesn't decide what they mean for the receiver.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ProtocolError, Tag};
use crate::{
    config::{MAX_DURATION, MAX_FRAME, MAX_MISSED},
    time::micros,
};

/// The timings and limits that a side announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // a later version of the protocol may announce more
pub struct Hello {
    /// Silence after which the sender pings.
    pub interval: Duration,
    /// Silence after which the sender gives up, at the latest.
    pub detection_time: Duration,
    /// The fastest idle pings that the sender accepts.
    pub min_interval: Duration,
    /// How many pings in a row the sender sends before it gives up. The
    /// receiver's flood limit leaves room for them.
    pub max_missed: u32,
    /// The largest message that the sender accepts, in bytes.
    pub max_frame: u32,
    /// Random bytes that identify one end of a connection. A side that receives its own
    /// is connected to itself.
    pub instance: [u8; 8],
}

impl Hello {
    /// The first bytes of every Hello's body.
    pub const MAGIC: [u8; 4] = *b"HBT\0";

    /// The version of the protocol that this crate speaks.
    pub const VERSION: u8 = 1;

    pub(super) fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let malformed = ProtocolError::Malformed {
            tag: Tag::Hello.to_byte(),
        };
        let (prefix, rest) = postcard::take_from_bytes::<Prefix>(body).map_err(|_| malformed)?;
        if prefix.magic != Self::MAGIC {
            return Err(ProtocolError::WrongMagic);
        }
        if prefix.version != Self::VERSION {
            return Err(ProtocolError::WrongVersion {
                version: prefix.version,
            });
        }
        // What follows the fields is a later version's: ignored.
        let (fields, _) = postcard::take_from_bytes::<Fields>(rest).map_err(|_| malformed)?;
        fields.try_into()
    }
}

/// A Hello's body up to where versions may differ.
#[derive(Serialize, Deserialize)]
struct Prefix {
    magic: [u8; 4],
    version: u8,
}

/// The rest of a version 1 Hello: microseconds, a count and bytes, all varints;
/// and eight bytes.
#[derive(Serialize, Deserialize)]
struct Fields {
    interval: u64,
    detection_time: u64,
    min_interval: u64,
    max_missed: u32,
    max_frame: u32,
    instance: [u8; 8],
}

#[derive(Serialize)]
pub(super) struct HelloBody {
    prefix: Prefix,
    fields: Fields,
}

impl From<&Hello> for HelloBody {
    fn from(hello: &Hello) -> Self {
        Self {
            prefix: Prefix {
                magic: Hello::MAGIC,
                version: Hello::VERSION,
            },
            fields: Fields {
                interval: micros(hello.interval),
                detection_time: micros(hello.detection_time),
                min_interval: micros(hello.min_interval),
                max_missed: hello.max_missed,
                max_frame: hello.max_frame,
                instance: hello.instance,
            },
        }
    }
}

impl TryFrom<Fields> for Hello {
    type Error = ProtocolError;

    /// Refuses what no valid [`Config`](crate::Config) can announce, so that
    /// a lie here can't reach the arithmetic of the monitor.
    fn try_from(fields: Fields) -> Result<Self, ProtocolError> {
        let hello = Self {
            interval: Duration::from_micros(fields.interval),
            detection_time: Duration::from_micros(fields.detection_time),
            min_interval: Duration::from_micros(fields.min_interval),
            max_missed: fields.max_missed,
            max_frame: fields.max_frame,
            instance: fields.instance,
        };
        // The longest of any configuration with this number of misses.
        let longest = MAX_DURATION.saturating_mul(fields.max_missed.saturating_add(1));
        let possible = !hello.interval.is_zero()
            && hello.interval <= MAX_DURATION
            && hello.interval < hello.detection_time
            && hello.detection_time <= longest
            && !hello.min_interval.is_zero()
            && hello.min_interval <= MAX_DURATION
            && (1..=MAX_MISSED).contains(&hello.max_missed)
            && (1..=MAX_FRAME).contains(&hello.max_frame);
        possible
            .then_some(hello)
            .ok_or(ProtocolError::ImpossibleHello)
    }
}
