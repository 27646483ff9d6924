//! What the kernel knows about a TCP connection: keepalive and user timeout.
//!
//! [`SafetyNet`] sets the socket options, and [`end_of`] says what an error
//! means for a monitor.
//!
//! # What can be set where
//!
//! | system | keepalive | idle | interval | retries | user timeout |
//! |---|---|---|---|---|---|
//! | Linux, Android, Fuchsia | yes | yes | yes | yes | yes |
//! | macOS, iOS and kin | yes | yes | yes | yes | no |
//! | FreeBSD, NetBSD, `DragonFly` BSD, illumos | yes | yes | yes | yes | no |
//! | Windows | yes | yes | yes | since Windows 10, version 1703 | no |
//! | OpenBSD, Haiku, Vita | yes | no | no | no | no |
//! | any other | yes | yes | no | no | no |
//!
//! What can't be set is never skipped in silence: [`Applied`] says so for each
//! option. Where `idle`, `interval` or `retries` can't be set, the system's own
//! values apply, which often are two hours, 75 s and 8 or 9 probes.

mod apply;
mod errors;
mod keepalive;

pub use apply::{Applied, Outcome};
pub use errors::end_of;
pub use keepalive::{SafetyNet, SafetyNetError};
