//! Real browsers. A starting browser occupies the processors: they start one after another,
//! and never while a test [`measures`] short times.

#![cfg(target_os = "linux")] // a browser's processes and their ends

mod chat;
mod devtools;
mod heartbeat_js;
mod presence;
mod slow_line;
mod websocket;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static STARTING: RwLock<()> = RwLock::const_new(());

/// Held while a browser starts.
async fn starts() -> RwLockWriteGuard<'static, ()> {
    STARTING.write().await
}

/// Held by a test of short times, which no browser that starts may disturb. A test whose limits
/// are seconds does without.
async fn measures() -> RwLockReadGuard<'static, ()> {
    STARTING.read().await
}
