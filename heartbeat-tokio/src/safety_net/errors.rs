//! What an error of the transport means for a monitor.

use std::io::{self, ErrorKind};

use heartbeat_core::End;

/// `WSAENETRESET`: how Windows says that keepalive gave the connection up. The
/// standard library has no kind for it.
#[cfg(windows)]
const KEEPALIVE_GAVE_UP: i32 = 10_052;

/// How a transport that failed with this error has ended: what to tell
/// [`Monitor::handle_end`](heartbeat_core::Monitor::handle_end).
///
/// | error | end |
/// |---|---|
/// | `ECONNRESET`, `ECONNABORTED`, `EPIPE`, `ENOTCONN` | [`End::Reset`] |
/// | `ETIMEDOUT`; on Windows also `WSAENETRESET` | [`End::TimedOut`] |
/// | `EHOSTUNREACH`, `ENETUNREACH`, `ENETDOWN` | [`End::Unreachable`] |
/// | [`UnexpectedEof`](ErrorKind::UnexpectedEof) | [`End::Eof`] |
/// | any other | [`End::Io`] |
///
/// It goes by the [`ErrorKind`], so Windows' own codes are covered, and so are
/// the errors that a wrapper such as TLS makes of them if it keeps the kind.
///
/// The same cut cable shows as `ETIMEDOUT`, `EHOSTUNREACH` or `ENETUNREACH`,
/// depending on who noticed first: don't read too much into the difference.
///
/// ```
/// use std::io;
/// use heartbeat_core::End;
/// use heartbeat_tokio::safety_net::end_of;
///
/// assert_eq!(end_of(&io::ErrorKind::BrokenPipe.into()), End::Reset);
/// ```
#[must_use]
pub fn end_of(error: &io::Error) -> End {
    #[cfg(windows)]
    if error.raw_os_error() == Some(KEEPALIVE_GAVE_UP) {
        return End::TimedOut;
    }
    match error.kind() {
        // Some systems say that a connection which was reset isn't connected.
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected => End::Reset,
        ErrorKind::TimedOut => End::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            End::Unreachable
        }
        ErrorKind::UnexpectedEof => End::Eof,
        _ => End::Io,
    }
}
