//! How late this machine is. Nothing in here is about heartbeats.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A thread that only sleeps, and records how late it wakes up: other processes on this
/// machine are about as late.
#[derive(Debug)]
pub struct Witness {
    done: Arc<AtomicBool>,
    thread: thread::JoinHandle<Duration>,
}

impl Witness {
    /// Watches from now on.
    #[must_use]
    pub fn start() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let seen = done.clone();
        let thread = thread::spawn(move || {
            let nap = Duration::from_millis(2);
            let mut worst = Duration::ZERO;
            while !seen.load(Ordering::Relaxed) {
                let asleep = Instant::now();
                thread::sleep(nap);
                worst = worst.max(asleep.elapsed().saturating_sub(nap));
            }
            worst
        });
        Self { done, thread }
    }

    /// By how much it was late at worst.
    #[must_use]
    pub fn late(self) -> Duration {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
