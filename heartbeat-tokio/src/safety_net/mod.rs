//! What the kernel knows about a TCP connection: keepalive, user timeout, and
//! a look that takes nothing.
//!
//! [`SafetyNet`] sets the socket options, [`check`] looks at one socket and
//! [`sweep`] at many, [`Latch`] learns the error of a connection that is still
//! read from, and [`end_of`] says what an error means for a monitor. [`TcpInfo`] is the
//! kernel's record of acknowledgements, from which [`diagnose`] derives the cause of a
//! silence. This module gives no verdict on a peer: that is the
//! [`Monitor`](heartbeat_core::Monitor)'s.
//!
//! # Why both a heartbeat and a net
//!
//! The net sees the *kernel* of the peer, never its application. A process
//! that hangs or is stopped looks healthy forever, because its kernel goes on
//! acknowledging; only a heartbeat finds it. The heartbeat in turn is blind
//! while our own application has stopped reading; the kernel isn't.
//!
//! # What each of them sees
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
//! Windows takes the idle time and the interval in one option, in which what is
//! left out would become zero; both are in it. macOS calls the idle time
//! `TCP_KEEPALIVE`. The peek interval needs no system.
//!
//! [`Applied`] says of each option whether it is set, failed, or isn't to be had
//! here. Where `idle`, `interval` or `retries` can't be set, the system's own
//! values apply, which often are two hours, 75 s and 8 or 9 probes.

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

/// Whatever has a socket. The crates that set socket options take it by this
/// trait on each system.
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
