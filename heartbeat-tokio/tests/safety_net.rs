//! The safety net on real sockets over loopback.

use std::io::{self, ErrorKind};

use heartbeat_core::End;
use heartbeat_tokio::safety_net::end_of;

// ===== end_of =====

#[test]
fn errors_mean_these_ends() {
    let cases = [
        (ErrorKind::ConnectionReset, End::Reset),
        (ErrorKind::ConnectionAborted, End::Reset),
        (ErrorKind::BrokenPipe, End::Reset),
        (ErrorKind::NotConnected, End::Reset),
        (ErrorKind::TimedOut, End::TimedOut),
        (ErrorKind::HostUnreachable, End::Unreachable),
        (ErrorKind::NetworkUnreachable, End::Unreachable),
        (ErrorKind::NetworkDown, End::Unreachable),
        (ErrorKind::UnexpectedEof, End::Eof),
        (ErrorKind::InvalidData, End::Io),
        (ErrorKind::WriteZero, End::Io),
        (ErrorKind::PermissionDenied, End::Io),
    ];
    for (kind, end) in cases {
        assert_eq!(end_of(&kind.into()), end, "{kind:?}");
        assert_eq!(end_of(&io::Error::new(kind, "in a wrapper")), end);
    }
}

/// The kernel's own codes, and not only the kinds that they are mapped to.
#[cfg(target_os = "linux")]
#[test]
fn linux_error_codes_mean_these_ends() {
    let cases = [
        (104, End::Reset),       // ECONNRESET
        (103, End::Reset),       // ECONNABORTED
        (32, End::Reset),        // EPIPE
        (107, End::Reset),       // ENOTCONN
        (110, End::TimedOut),    // ETIMEDOUT
        (113, End::Unreachable), // EHOSTUNREACH
        (101, End::Unreachable), // ENETUNREACH
        (100, End::Unreachable), // ENETDOWN
        (5, End::Io),            // EIO
    ];
    for (errno, end) in cases {
        assert_eq!(end_of(&io::Error::from_raw_os_error(errno)), end, "{errno}");
    }
}
