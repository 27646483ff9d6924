//! Applies a [`SafetyNet`] to a socket, and reports the outcome of each option.

use std::{fmt, io, time::Duration};

use socket2::{SockRef, Socket};

use super::{AsSocketHandle, SafetyNet, switch::Switches};

impl SafetyNet {
    /// Switches on keepalive and sets all options on a TCP socket. (The peek
    /// interval isn't one.)
    ///
    /// Takes any type with a socket: a [`TcpStream`](tokio::net::TcpStream) of tokio or of the
    /// standard library, or a [`TcpSocket`](tokio::net::TcpSocket) that isn't connected yet.
    ///
    /// An option that fails, or that this system doesn't have, never prevents the others. The
    /// result has the outcome of each. (On Windows the idle time and the interval are one
    /// option, and the retries need it.)
    ///
    /// ```
    /// # use heartbeat_core::Config;
    /// # use heartbeat_tokio::safety_net::SafetyNet;
    /// # use tokio::net::{TcpListener, TcpStream};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let address = listener.local_addr()?;
    /// let stream = TcpStream::connect(address).await?;
    /// let applied = SafetyNet::from(&Config::default()).apply(&stream);
    /// if !applied.is_complete() {
    ///     eprintln!("safety net: {applied}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn apply(&self, socket: &impl AsSocketHandle) -> Applied {
        self.apply_over(&mut Switches::default(), socket)
    }

    /// The same over an earlier net: an option that only the earlier one had set gets its
    /// original value back.
    pub(crate) fn apply_over(
        &self,
        switches: &mut Switches,
        socket: &impl AsSocketHandle,
    ) -> Applied {
        let options = SockRef::from(socket);
        let keepalive = Outcome::of(options.set_keepalive(true));
        let Probing {
            idle,
            interval,
            retries,
        } = self.apply_probing(&options);
        let millis = |time: Option<Duration>| time.map(|time| time.as_millis());
        Applied {
            keepalive,
            idle,
            interval,
            retries,
            user_timeout: switches
                .user_timeout
                .set(socket, millis(self.user_timeout())),
            max_retransmit_timeout: switches
                .max_retransmit_timeout
                .set(socket, millis(self.max_retransmit_timeout())),
            max_unsent: switches.max_unsent.set(socket, self.max_unsent()),
        }
    }

    /// One call sets both times, and a missing time becomes zero: so each call has both.
    #[cfg(windows)]
    fn apply_probing(&self, socket: &Socket) -> Probing {
        let times = socket2::TcpKeepalive::new()
            .with_time(self.idle())
            .with_interval(self.interval());
        let both = Outcome::of(socket.set_tcp_keepalive(&times));
        let all = times.with_retries(self.retries());
        Probing {
            idle: both,
            interval: both,
            retries: Outcome::of(socket.set_tcp_keepalive(&all)),
        }
    }

    /// One call for each, because the first failure ends a call.
    #[cfg(any(
        target_os = "android",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "fuchsia",
        target_os = "illumos",
        target_os = "ios",
        target_os = "linux",
        target_os = "macos",
        target_os = "netbsd",
        target_os = "tvos",
        target_os = "visionos",
        target_os = "watchos",
    ))]
    fn apply_probing(&self, socket: &Socket) -> Probing {
        let set = |option| Outcome::of(socket.set_tcp_keepalive(&option));
        Probing {
            idle: set(socket2::TcpKeepalive::new().with_time(self.idle())),
            interval: set(socket2::TcpKeepalive::new().with_interval(self.interval())),
            retries: set(socket2::TcpKeepalive::new().with_retries(self.retries())),
        }
    }

    /// These have system-wide values only; `with_time` would do nothing.
    #[cfg(any(target_os = "openbsd", target_os = "haiku", target_os = "vita"))]
    fn apply_probing(&self, _: &Socket) -> Probing {
        Probing {
            idle: Outcome::NotSupported,
            interval: Outcome::NotSupported,
            retries: Outcome::NotSupported,
        }
    }

    #[cfg(not(any(
        windows,
        target_os = "android",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "fuchsia",
        target_os = "illumos",
        target_os = "ios",
        target_os = "linux",
        target_os = "macos",
        target_os = "netbsd",
        target_os = "tvos",
        target_os = "visionos",
        target_os = "watchos",
        target_os = "openbsd",
        target_os = "haiku",
        target_os = "vita",
    )))]
    fn apply_probing(&self, socket: &Socket) -> Probing {
        let idle = socket2::TcpKeepalive::new().with_time(self.idle());
        Probing {
            idle: Outcome::of(socket.set_tcp_keepalive(&idle)),
            interval: Outcome::NotSupported,
            retries: Outcome::NotSupported,
        }
    }
}

/// Acknowledges received data at once, in a packet of its own. Later data is again
/// acknowledged together with its answer.
///
/// Without this, Linux would wait 40 ms for an answer that doesn't come, leave its interactive
/// mode, and acknowledge the next ping in a packet of its own before we answer it: five
/// packets for a beat instead of four.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn acknowledge(socket: &impl AsSocketHandle) {
    /// Not 1, which would end the conversation, and not 0, which acknowledges
    /// nothing.
    const NOW_AND_GO_ON: libc::c_int = 2;

    // If it fails, there is a packet more.
    let _ = super::sockopt::set(socket.as_fd(), libc::TCP_QUICKACK, NOW_AND_GO_ON);
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) fn acknowledge(_: &impl AsSocketHandle) {}

/// The outcomes for how keepalive probes.
struct Probing {
    idle: Outcome,
    interval: Outcome,
    retries: Outcome,
}

/// The outcome of each option of a [`SafetyNet`] on one socket.
///
/// Its text, for a log, names the requested options that aren't set, as in
/// `user_timeout: not supported on this system`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // later versions may set more
#[must_use = "options can fail, and only this value says so"]
pub struct Applied {
    /// Keepalive itself (`SO_KEEPALIVE`).
    pub keepalive: Outcome,
    /// [`SafetyNet::idle`].
    pub idle: Outcome,
    /// [`SafetyNet::interval`].
    pub interval: Outcome,
    /// [`SafetyNet::retries`].
    pub retries: Outcome,
    /// [`SafetyNet::user_timeout`].
    pub user_timeout: Outcome,
    /// [`SafetyNet::max_retransmit_timeout`].
    pub max_retransmit_timeout: Outcome,
    /// [`SafetyNet::max_unsent`].
    pub max_unsent: Outcome,
}

impl Applied {
    /// The names of the options, in the order of the fields.
    pub(crate) const OPTIONS: [&'static str; 7] = [
        "keepalive",
        "idle",
        "interval",
        "retries",
        "user_timeout",
        "max_retransmit_timeout",
        "max_unsent",
    ];

    /// Whether no option failed. An option that this system doesn't have is no failure:
    /// [`missing`](Self::missing) lists it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed().next().is_none()
    }

    /// The names of the options that failed, with the outcome.
    pub(crate) fn failed(&self) -> impl Iterator<Item = (&'static str, Outcome)> + use<> {
        self.missing()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
    }

    /// The names of the requested options that aren't set, with the outcome: they failed, or
    /// this system doesn't have them.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, Outcome)> + use<> {
        let outcomes = [
            self.keepalive,
            self.idle,
            self.interval,
            self.retries,
            self.user_timeout,
            self.max_retransmit_timeout,
            self.max_unsent,
        ];
        Self::OPTIONS
            .into_iter()
            .zip(outcomes)
            .filter(|(_, outcome)| !matches!(outcome, Outcome::Set | Outcome::NotAsked))
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing().next().is_none() {
            return f.write_str("all is set");
        }
        for (i, (name, outcome)) in self.missing().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{name}: {outcome}")?;
        }
        Ok(())
    }
}

/// The outcome of one option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "an option that is wanted is set, or it can't be, or it failed"
)]
pub enum Outcome {
    /// It is set.
    Set,
    /// Not requested; the socket keeps its value.
    NotAsked,
    /// This operating system doesn't have it for a single socket.
    NotSupported,
    /// The system refused, with this error code:
    /// [`io::Error::from_raw_os_error`] tells more. The socket keeps what it
    /// had.
    Failed(i32),
}

/// The error codes of an unknown option (`ENOPROTOOPT`, `WSAENOPROTOOPT`).
#[cfg(unix)]
const NO_SUCH_OPTION: i32 = rustix::io::Errno::NOPROTOOPT.raw_os_error();
#[cfg(not(unix))]
const NO_SUCH_OPTION: i32 = 10_042;

impl Outcome {
    pub(super) fn of(result: io::Result<()>) -> Self {
        match result.map_err(|error| error.raw_os_error()) {
            Ok(()) => Self::Set,
            Err(Some(NO_SUCH_OPTION)) => Self::NotSupported,
            // Setting an option is a system call, and its errors have a code.
            Err(code) => Self::Failed(code.unwrap_or_default()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Set => f.write_str("set"),
            Self::NotAsked => f.write_str("not requested"),
            Self::NotSupported => f.write_str("not supported on this system"),
            Self::Failed(errno) => io::Error::from_raw_os_error(errno).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_doesnt_know_isnt_supported_and_doesnt_fail() {
        let code = if cfg!(windows) {
            10_042
        } else {
            NO_SUCH_OPTION
        };
        let outcome = Outcome::of(Err(io::Error::from_raw_os_error(code)));
        assert_eq!(outcome, Outcome::NotSupported);
        let outcome = Outcome::of(Err(io::Error::from_raw_os_error(1)));
        assert_eq!(outcome, Outcome::Failed(1));

        let mut applied = Applied {
            keepalive: Outcome::Set,
            idle: Outcome::Set,
            interval: Outcome::Set,
            retries: Outcome::NotSupported,
            user_timeout: Outcome::NotAsked,
            max_retransmit_timeout: Outcome::NotAsked,
            max_unsent: Outcome::NotSupported,
        };
        assert!(applied.is_complete(), "{applied}");
        assert_eq!(applied.missing().count(), 2);
        let words = "retries: not supported on this system; \
                     max_unsent: not supported on this system";
        assert_eq!(applied.to_string(), words);

        applied.interval = Outcome::Failed(1);
        assert!(!applied.is_complete(), "{applied}");
        let failed: Vec<_> = applied.failed().collect();
        assert_eq!(failed, [("interval", Outcome::Failed(1))]);
    }
}
