//! The knobs that are no numbers: what counts as life, and which side asks.

/// What counts as a sign of life from the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[expect(
    clippy::exhaustive_enums,
    reason = "acknowledgements, bytes, frames and answers are all that a peer's host can send"
)]
pub enum Evidence {
    /// Any byte, and also a fresh acknowledgement of the peer's kernel: that
    /// its host and the network are there. It says nothing of its application:
    /// a process that is stopped or hangs is never found, as long as its
    /// kernel acknowledges. For those who serve slow readers that send
    /// nothing; only adapters that can ask the kernel know it
    /// ([`Monitor::handle_acknowledged`](crate::Monitor::handle_acknowledged)).
    Acknowledgement,
    /// Any byte, also in the middle of a frame. Right for nearly everybody: a
    /// peer that sends is alive, whatever else may be late.
    #[default]
    AnyBytes,
    /// A whole frame. A peer that trickles one byte a minute into an endless
    /// frame is found; one large frame over a slow network must fit into the
    /// detection time.
    Frame,
    /// Only a pong that answers one of our pings. Bytes that lay in a buffer
    /// while this machine was suspended prove nothing then. We ping once an
    /// interval, whatever else arrives.
    Echo,
}

/// Whether we leave the asking to the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[expect(
    clippy::exhaustive_enums,
    reason = "we ask as soon as anybody, or as late as the bound allows"
)]
pub enum Role {
    /// We ping when we hear nothing, after an interval that jitter shortens.
    #[default]
    Both,
    /// We ping only after the whole, unshortened interval, so that a peer with
    /// the same timings usually asks first. For servers with many connections.
    ///
    /// Bounds and the number of our pings are those of [`Both`](Self::Both).
    Passive,
}
