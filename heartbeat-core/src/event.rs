//! The reports of a [`Monitor`](crate::Monitor): events, causes of death, and the ends of
//! a transport.
//!
//! This module only defines the vocabulary. The adapter uses the same names.

use core::{fmt, time::Duration};

use crate::frame::{GoodbyeCode, Hello, ProtocolError};

/// A change that a monitor reports.
///
/// [`Closed`](Event::Closed) and [`Dead`](Event::Dead) are terminal: exactly
/// one of them comes, once, and nothing after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // later versions may observe more
pub enum Event {
    /// The peer's Hello arrived. Comes again when a later Hello announces other timings.
    Connected {
        /// What the peer announced about itself.
        peer: Hello,
    },
    /// A pong came back. Not reported if
    /// [`beat_events`](crate::ConfigBuilder::beat_events) is off.
    ///
    /// Don't rely on it: a peer that sends messages isn't pinged.
    /// [`probe`](crate::Monitor::probe) causes one.
    Beat {
        /// From the moment when the ping had left until its pong arrived.
        rtt: Duration,
    },
    /// A beat is late. The peer may come back; nothing has been given up.
    ///
    /// There is one event for each late beat, so up to `max_missed` before
    /// [`Dead`](Event::Dead).
    Suspect {
        /// Beats missed in a row so far. Zero if the beat is only late by the measured round
        /// trip.
        missed: u32,
        /// The time since the last reported evidence of life.
        silent_for: Duration,
    },
    /// Evidence of life came after [`Suspect`](Event::Suspect).
    Recovered {
        /// How long the silence was.
        silent_for: Duration,
    },
    /// Our own process was late: a deadline was served later than
    /// [`stall_tolerance`](crate::ConfigBuilder::stall_tolerance) allows. The peer isn't
    /// blamed for it.
    LocalStall {
        /// How long after the deadline we woke up.
        late: Duration,
    },
    /// The peer sends no more messages; see [`Monitor::finish`](crate::Monitor::finish).
    /// It still reads and answers.
    Finished,
    /// The connection ended in order: with a goodbye, or because both sides had
    /// finished. Terminal.
    Closed {
        /// How.
        reason: CloseReason,
    },
    /// The connection ended in any other way. Terminal.
    Dead(Death),
}

impl Event {
    /// Whether this is the last event.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Dead(_))
    }
}

impl fmt::Display for Event {
    /// One line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { peer } => {
                let interval = rounded(peer.interval);
                write!(f, "connected, the peer pings after {interval:?}")
            }
            Self::Beat { rtt } => write!(f, "beat, round trip {:?}", rounded(*rtt)),
            Self::Suspect { missed, silent_for } => {
                write!(f, "suspect, silent for {:?}", rounded(*silent_for))?;
                match missed {
                    0 => Ok(()),
                    missed => write!(f, ", beats missed: {missed}"),
                }
            }
            Self::Recovered { silent_for } => {
                write!(f, "recovered after {:?}", rounded(*silent_for))
            }
            Self::LocalStall { late } => {
                write!(f, "our own process was {:?} late", rounded(*late))
            }
            Self::Finished => f.write_str("the peer sends no more messages"),
            Self::Closed { reason } => write!(f, "closed: {reason}"),
            Self::Dead(death) => write!(f, "dead: {death}"),
        }
    }
}

/// The type of a goodbye's detail where details aren't kept.
///
/// A monitor allocates nothing, so it reports the code of a goodbye and leaves the detail
/// to its driver: see [`Goodbye`](crate::Goodbye).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing in it")]
pub struct NoDetail;

impl AsRef<str> for NoDetail {
    fn as_ref(&self) -> &str {
        ""
    }
}

/// How a connection ended in order. `D` is the type of the detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "there are two ends to a connection"
)]
pub enum CloseReason<D = NoDetail> {
    /// The peer said goodbye. If we were leaving too, it didn't confirm ours.
    Peer {
        /// Its reason.
        code: GoodbyeCode,
        /// The peer's text.
        detail: D,
    },
    /// We said goodbye with [`Monitor::close`](crate::Monitor::close), and the peer confirmed
    /// that it received everything; or the protocol can't confirm.
    Local,
    /// We said goodbye, and a live peer didn't confirm it within
    /// [`linger`](crate::ConfigBuilder::linger).
    Unconfirmed,
    /// Neither side had messages left: both had [finished](crate::Monitor::finish).
    Finished,
}

impl<D> CloseReason<D> {
    /// The same with another detail.
    pub fn with_detail<E>(self, detail: E) -> CloseReason<E> {
        match self {
            Self::Peer { code, .. } => CloseReason::Peer { code, detail },
            Self::Local => CloseReason::Local,
            Self::Unconfirmed => CloseReason::Unconfirmed,
            Self::Finished => CloseReason::Finished,
        }
    }
}

impl<D: AsRef<str>> fmt::Display for CloseReason<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer { code, detail } => {
                f.write_str("the peer said goodbye")?;
                if *code != GoodbyeCode::LEAVING {
                    write!(f, ", {code}")?;
                }
                quoted(detail.as_ref(), f)
            }
            Self::Local => f.write_str("we said goodbye"),
            Self::Unconfirmed => f.write_str("we said goodbye, which wasn't confirmed"),
            Self::Finished => f.write_str("both sides had finished"),
        }
    }
}

/// The peer's text, if it sent any: escaped, because it isn't trusted.
fn quoted(detail: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if detail.is_empty() {
        return Ok(());
    }
    write!(f, ": {detail:?}")
}

/// The verdict: why the peer is dead, and what was known about it.
///
/// ```
/// use core::time::Duration;
/// use heartbeat_core::{Cause, Death, NoDetail};
///
/// // A death made by hand, for a test of an application.
/// let mut death = Death::<NoDetail>::new(Cause::Silent);
/// death.silent_for = Duration::from_secs(14);
/// death.missed = 3;
/// assert_eq!(death.to_string(), "silent for 14s, 3 beats missed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // adapters on some systems can say more about a death
pub struct Death<D = NoDetail> {
    /// The cause.
    pub cause: Cause<D>,
    /// The time from the last evidence of life to the verdict. Evidence may have been reported
    /// up to [`Config::arrival_slack`](crate::Config::arrival_slack) too early.
    pub silent_for: Duration,
    /// Beats missed in a row.
    pub missed: u32,
    /// The last measured round trip, if any.
    pub last_rtt: Option<Duration>,
    /// What the operating system knew about a silent peer. A monitor leaves it
    /// [`Unknown`](Diagnosis::Unknown). A driver that has a socket fills it in.
    pub diagnosis: Diagnosis,
    /// False if not a byte has ever arrived: perhaps no application took the connection, as
    /// behind a proxy whose backend is down. A monitor leaves it true, as the driver does if
    /// the operating system doesn't tell.
    pub was_heard: bool,
}

impl<D> Death<D> {
    /// A death of this cause, with nothing else known. For tests; every field can be set.
    #[must_use]
    pub const fn new(cause: Cause<D>) -> Self {
        Self {
            cause,
            silent_for: Duration::ZERO,
            missed: 0,
            last_rtt: None,
            diagnosis: Diagnosis::Unknown,
            was_heard: true,
        }
    }

    /// The same with another detail.
    pub fn with_detail<E>(self, detail: E) -> Death<E> {
        Death {
            cause: self.cause.with_detail(detail),
            silent_for: self.silent_for,
            missed: self.missed,
            last_rtt: self.last_rtt,
            diagnosis: self.diagnosis,
            was_heard: self.was_heard,
        }
    }
}

impl<D: AsRef<str>> fmt::Display for Death<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(self.cause, Cause::Silent) {
            write!(f, "{}, ", self.cause)?;
        }
        write!(f, "silent for {:?}", rounded(self.silent_for))?;
        match self.missed {
            0 => {}
            1 => f.write_str(", 1 beat missed")?,
            missed => write!(f, ", {missed} beats missed")?,
        }
        if let Some(rtt) = self.last_rtt {
            write!(f, ", last round trip {:?}", rounded(rtt))?;
        }
        if !self.was_heard {
            f.write_str(", nothing ever arrived")?;
        }
        match self.diagnosis {
            Diagnosis::Unknown => Ok(()),
            Diagnosis::AppHung if !self.was_heard => f.write_str(": only its kernel answers"),
            known => write!(f, ": {known}"),
        }
    }
}

/// Shows whole milliseconds, unless the duration is only a few of them.
fn rounded(time: Duration) -> Duration {
    match u64::try_from(time.as_millis()) {
        Ok(millis) if millis >= 10 => Duration::from_millis(millis),
        _ => time,
    }
}

impl<D: AsRef<str> + fmt::Debug> core::error::Error for Death<D> {}

/// The cause of an end that wasn't orderly. `D` is the type of a goodbye's detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // later versions may tell more causes apart
pub enum Cause<D = NoDetail> {
    /// All `max_missed` pings went unanswered.
    Silent,
    /// Nothing arrived, and the pings couldn't be written.
    ///
    /// A peer that hangs while we send to it ends like this once the buffers are full, and
    /// as [`Silent`](Self::Silent) otherwise.
    WriteStalled,
    /// The peer gave *us* up and told us.
    GivenUp {
        /// Its verdict.
        code: GoodbyeCode,
        /// The peer's text.
        detail: D,
    },
    /// The stream ended without a goodbye, as after the peer's process was killed.
    Eof,
    /// The peer's kernel reset the connection (`ECONNRESET`, `ECONNABORTED`).
    Reset,
    /// Our kernel gave up waiting for the peer's (`ETIMEDOUT`).
    TimedOut,
    /// The network says that the peer can't be reached (`EHOSTUNREACH`,
    /// `ENETUNREACH`, `ENETDOWN`).
    Unreachable,
    /// The peer sent something that isn't this protocol.
    Protocol(ProtocolError),
    /// The peer pinged far more often than our `min_interval` allows.
    PingFlood,
    /// The peer announced timings that we refuse: see
    /// [`Config::refusal`](crate::Config::refusal). A detection time below 100 ms would
    /// make us send without end, and a long `min_interval` would make us ask too rarely.
    Refused,
    /// Our own application took no message for longer than
    /// [`max_pause`](crate::ConfigBuilder::max_pause).
    NotReading,
    /// Any other failure of the transport.
    Io,
}

impl<D> Cause<D> {
    /// The same with another detail.
    pub fn with_detail<E>(self, detail: E) -> Cause<E> {
        match self {
            Self::GivenUp { code, .. } => Cause::GivenUp { code, detail },
            Self::Silent => Cause::Silent,
            Self::WriteStalled => Cause::WriteStalled,
            Self::Eof => Cause::Eof,
            Self::Reset => Cause::Reset,
            Self::TimedOut => Cause::TimedOut,
            Self::Unreachable => Cause::Unreachable,
            Self::Protocol(error) => Cause::Protocol(error),
            Self::PingFlood => Cause::PingFlood,
            Self::Refused => Cause::Refused,
            Self::NotReading => Cause::NotReading,
            Self::Io => Cause::Io,
        }
    }

    /// The code of the goodbye that tells the peer of this verdict; `None` if it isn't our
    /// verdict.
    #[must_use]
    pub const fn goodbye(&self) -> Option<GoodbyeCode> {
        match self {
            Self::Silent => Some(GoodbyeCode::SILENT),
            Self::WriteStalled => Some(GoodbyeCode::WRITE_STALLED),
            Self::Protocol(_) => Some(GoodbyeCode::PROTOCOL),
            Self::PingFlood => Some(GoodbyeCode::PING_FLOOD),
            Self::Refused => Some(GoodbyeCode::REFUSED),
            Self::NotReading => Some(GoodbyeCode::NOT_READING),
            Self::GivenUp { .. }
            | Self::Eof
            | Self::Reset
            | Self::TimedOut
            | Self::Unreachable
            | Self::Io => None,
        }
    }
}

impl<D: AsRef<str>> fmt::Display for Cause<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GivenUp { code, detail } => {
                write!(f, "given up by the peer, {code}")?;
                quoted(detail.as_ref(), f)
            }
            Self::Silent => f.write_str("beats unanswered"),
            Self::WriteStalled => f.write_str("pings could not be written"),
            Self::Eof => f.write_str("closed without goodbye"),
            Self::Reset => f.write_str("connection reset"),
            Self::TimedOut => f.write_str("connection timed out"),
            Self::Unreachable => f.write_str("peer unreachable"),
            Self::Protocol(error) => write!(f, "protocol violated: {error}"),
            Self::PingFlood => f.write_str("ping flood"),
            Self::Refused => f.write_str("its timings are refused"),
            Self::NotReading => f.write_str("our application takes no messages"),
            Self::Io => f.write_str("transport failed"),
        }
    }
}

/// Why a peer was silent, according to the operating system.
///
/// It explains a verdict and never changes one. It is the view of the host at which the
/// TCP connection ends: behind a proxy, of the proxy's kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive] // other systems may tell more
pub enum Diagnosis {
    /// There is no socket, this system doesn't tell, or its data prove nothing.
    #[default]
    Unknown,
    /// The peer's kernel acknowledged all that we sent, no packet seems to have been lost,
    /// and its application sent nothing: it hangs or was stopped.
    ///
    /// An application that sends only packets too large for the path looks the same: they all
    /// vanish, and neither end can see that. If [`was_heard`](Death::was_heard) is false,
    /// there may be no application.
    AppHung,
    /// Our data was repeated and isn't acknowledged. The network is cut, the peer's host is
    /// gone, or our packets are too large for the path.
    PathDead,
    /// The peer's application doesn't read: its kernel answers, but its receive buffer is
    /// full.
    PeerNotReading,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "no diagnosis",
            Self::AppHung => "the peer's application hangs",
            Self::PathDead => "the path to the peer is dead",
            Self::PeerNotReading => "the peer doesn't read",
        })
    }
}

/// How a transport ended, as its driver saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // mirrors `Cause`
pub enum End {
    /// The stream ended, or a write met its end (`EPIPE`).
    Eof,
    /// `ECONNRESET`, `ECONNABORTED`.
    Reset,
    /// `ETIMEDOUT`.
    TimedOut,
    /// `EHOSTUNREACH`, `ENETUNREACH`, `ENETDOWN`.
    Unreachable,
    /// What arrived isn't this protocol.
    Protocol(ProtocolError),
    /// Any other error.
    Io,
}

impl From<End> for Cause {
    fn from(end: End) -> Self {
        match end {
            End::Eof => Self::Eof,
            End::Reset => Self::Reset,
            End::TimedOut => Self::TimedOut,
            End::Unreachable => Self::Unreachable,
            End::Protocol(error) => Self::Protocol(error),
            End::Io => Self::Io,
        }
    }
}
