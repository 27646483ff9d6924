//! A machine that a test can suspend.
//!
//! Connections on it behave as on a real machine when it wakes up.

use std::time::Duration;

use crate::suspend;

/// A machine that can be suspended, such as a laptop, for tests of a program's behaviour when
/// it wakes up.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), heartbeat_tokio::ConfigError> {
/// use std::time::Duration;
///
/// use futures::StreamExt;
/// use heartbeat_tokio::{
///     Config, Heartbeat, PeerEvent,
///     testkit::{Line, Machine},
/// };
///
/// let (ours, theirs, _line) = Line::pair();
/// let _peer = Heartbeat::new(theirs, Config::default()).spawn();
/// let laptop = Machine::new();
/// let mut program = Heartbeat::new(ours, Config::default()).on_machine(laptop);
///
/// let mut stalled = false;
/// while let Some(event) = program.next().await {
///     match event {
///         PeerEvent::Connected { .. } => laptop.sleep(Duration::from_secs(3600)),
///         PeerEvent::LocalStall { .. } => stalled = true,
///         PeerEvent::Beat { .. } if stalled => break, // asked at once, and answered
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Machine(&'static suspend::Machine);

impl Machine {
    /// A machine that hasn't slept. Its few bytes are kept to the end of the process.
    #[must_use]
    pub fn new() -> Self {
        Self(Box::leak(Box::new(suspend::Machine::new())))
    }

    /// Sleeps for `time`, at once: tokio's clock stands still meanwhile, as on Linux and
    /// Apple's systems, and so do connections that aren't on this machine.
    ///
    /// What their ends do while it sleeps is up to the test: it may cut the
    /// [`Line`](super::Line) before.
    pub fn sleep(&self, time: Duration) {
        self.0.wake_up(time);
    }

    pub(crate) const fn inner(self) -> &'static suspend::Machine {
        self.0
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}
