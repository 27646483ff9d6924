//! The kernel's view of a TCP connection: keepalive, user timeout, and checks that read
//! nothing.
//!
//! [`SafetyNet`] sets the socket options, [`check`] checks one socket and [`sweep`] many,
//! [`Latch`] takes the error of a connection that is still read from, and [`end_of`] maps an
//! error to an end for a monitor. [`TcpInfo`] has the kernel's counters, from which
//! [`diagnose`] derives the cause of a silence. This module gives no verdict on a peer: the
//! [`Monitor`](heartbeat_core::Monitor) does.
//!
//! # Why both a heartbeat and a net
//!
//! The net sees the *kernel* of the peer, never its application. A process that hangs or is
//! stopped looks healthy forever, because its kernel still acknowledges; only a heartbeat
//! detects it. The heartbeat is blind while our own application doesn't read; the kernel
//! isn't.
//!
//! # What each of them detects
//!
//! Measured on Linux 6.18.
//!
//! | what happened | [`check`] | keepalive | user timeout |
//! |---|---|---|---|
//! | the peer closed, or was killed | at once | – | – |
//! | the peer closed with unread data, or reset | at once | – | – |
//! | the peer's host rebooted | after a probe | first probe | – |
//! | cable cut, packets dropped, idle | after a probe's verdict | `idle + interval · retries` | needs keepalive |
//! | the same while our data is unacknowledged | after the kernel's verdict | **never** | yes |
//! | the peer's process hangs or is stopped | never | never | never |
//! | a live peer reads slowly | – | – | **false alarm** |
//!
//! # What can be set where
//!
//! | system | keepalive | idle | interval | retries | user timeout | longest retransmission | most unsent |
//! |---|---|---|---|---|---|---|---|
//! | Linux, Android | yes | yes | yes | yes | yes | since Linux 6.15 | yes |
//! | Fuchsia | yes | yes | yes | yes | yes | no | no |
//! | macOS, iOS and kin | yes | yes | yes | yes | no | no | no |
//! | FreeBSD, NetBSD, `DragonFly` BSD, illumos, Fuchsia | yes | yes | yes | yes | no | no | no |
//! | Windows | yes | yes | yes | since Windows 10, version 1703 | no | no | no |
//! | OpenBSD, Haiku, Vita | yes | no | no | no | no | no | no |
//! | any other | yes | yes | no | no | no | no | no |
//!
//! Windows takes the idle time and the interval in one option, in which a missing value would
//! become zero, so both are always given. macOS calls the idle time `TCP_KEEPALIVE`. The peek
//! interval is no socket option.
//!
//! [`Applied`] has the outcome of each option: set, failed, or not supported here. Where
//! `idle`, `interval` or `retries` can't be set, the system's own values apply, often two
//! hours, 75 s and 8 or 9 probes.

mod apply;
mod bounds;
mod check;
mod derived;
mod diagnosis;
mod errors;
mod pace;
#[cfg(feature = "serde")]
mod serialized;
mod settings;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod sockopt;
pub(crate) mod switch;
mod tcp_info;

/// Any type with a socket: the trait by which the crates for socket options take it on this
/// system.
#[cfg(not(windows))]
use std::os::fd::AsFd as AsSocketHandle;
#[cfg(windows)]
use std::os::windows::io::AsSocket as AsSocketHandle;

pub(crate) use apply::acknowledge;
pub use apply::{Applied, Outcome};
pub use bounds::SafetyNetError;
pub use check::{Latch, Liveness, check, sweep};
pub use diagnosis::diagnose;
pub(crate) use diagnosis::diagnose_since;
pub use errors::end_of;
pub(crate) use pace::Pace;
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub use serialized::SafetyNetOverrides;
pub use settings::SafetyNet;
pub(crate) use switch::Switches;
pub use tcp_info::TcpInfo;
