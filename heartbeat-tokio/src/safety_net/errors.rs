//! Maps errors of the transport to ends of the connection.

use std::io::{self, ErrorKind};

use heartbeat_core::{End, ProtocolError};

/// Maps an error of the transport to the [`End`] for
/// [`Monitor::handle_end`](heartbeat_core::Monitor::handle_end).
///
/// | error | end |
/// |---|---|
/// | `ECONNRESET`, `ECONNABORTED`, `ENOTCONN` | [`End::Reset`] |
/// | `WSAECONNRESET`, `WSAECONNABORTED`, `WSAESHUTDOWN`, `WSAENOTCONN` | [`End::Reset`] |
/// | `ETIMEDOUT`, `ENETRESET`; `WSAETIMEDOUT`, `WSAENETRESET` | [`End::TimedOut`] |
/// | `EHOSTUNREACH`, `EHOSTDOWN`, `ENETUNREACH`, `ENETDOWN` | [`End::Unreachable`] |
/// | `WSAEHOSTUNREACH`, `WSAEHOSTDOWN`, `WSAENETUNREACH`, `WSAENETDOWN` | [`End::Unreachable`] |
/// | `EPIPE`; [`UnexpectedEof`](ErrorKind::UnexpectedEof) | [`End::Eof`] |
/// | [`InvalidData`](ErrorKind::InvalidData): a layer in between, such as TLS, can't read the peer's bytes, or was told of an alert | [`End::Protocol`], [`Undecodable`](ProtocolError::Undecodable) |
/// | any other | [`End::Io`] |
///
/// A writer gets `EPIPE` where a reader gets the end of the stream: the peer has closed.
/// (Windows reports `WSAECONNRESET` instead.)
///
/// The [`ErrorKind`] decides, so an error that was wrapped, by TLS for example, is covered if
/// it keeps its kind. The code decides where the standard library has no kind for it.
///
/// Windows and some BSDs report `NETRESET` when keepalive gave the connection up. Windows
/// reports `WSAECONNABORTED` both for a reset during a write and for its own verdict.
///
/// The same cut cable shows as `ETIMEDOUT`, `EHOSTUNREACH` or `ENETUNREACH`, depending on
/// which side noticed first. The difference means little.
///
/// ```
/// use std::io;
/// use heartbeat_core::End;
/// use heartbeat_tokio::safety_net::end_of;
///
/// assert_eq!(end_of(&io::ErrorKind::BrokenPipe.into()), End::Eof);
/// ```
#[must_use]
pub fn end_of(error: &io::Error) -> End {
    if let Some(end) = error.raw_os_error().and_then(end_of_code) {
        return end;
    }
    match error.kind() {
        // Some systems say that a connection which was reset isn't connected.
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::NotConnected => {
            End::Reset
        }
        ErrorKind::TimedOut => End::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            End::Unreachable
        }
        ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => End::Eof,
        ErrorKind::InvalidData => End::Protocol(ProtocolError::Undecodable),
        _ => End::Io,
    }
}

/// Codes that the standard library has no kind for.
#[cfg(unix)]
fn end_of_code(code: i32) -> Option<End> {
    use rustix::io::Errno;

    match Errno::from_raw_os_error(code) {
        Errno::NETRESET => Some(End::TimedOut),
        Errno::HOSTDOWN => Some(End::Unreachable),
        _ => None,
    }
}

/// Codes that the standard library has no kind for.
#[cfg(windows)]
fn end_of_code(code: i32) -> Option<End> {
    match code {
        10_052 => Some(End::TimedOut),    // WSAENETRESET
        10_058 => Some(End::Reset),       // WSAESHUTDOWN
        10_064 => Some(End::Unreachable), // WSAEHOSTDOWN
        _ => None,
    }
}

#[cfg(not(any(unix, windows)))]
fn end_of_code(_: i32) -> Option<End> {
    None
}
