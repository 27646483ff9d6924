//! Senders for registries.
//!
//! This module decides when a weak handle becomes a strong one.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use super::{Sender, connection::Connection};

/// A [`Sender`] that doesn't keep the connection alive.
///
/// It is for registries: maps of connections from which other tasks send. A `Sender` in such
/// a map would keep a connection alive after its handler has panicked: beats go on, and the
/// peer waits forever. With a `WeakSender` only the handler's own handles count. When the
/// handler ends in any way, the peer is told at once.
///
/// ```
/// # async fn example(driver: heartbeat_tokio::Driver<bytes::Bytes>) {
/// use heartbeat_tokio::{Driver, WeakSender};
///
/// let Driver { sender, mut receiver, .. } = driver;
/// let mut members: Vec<WeakSender<_>> = vec![sender.downgrade()];
/// tokio::spawn(async move {
///     let _sender = sender; // The strong handles are the handler's.
///     while let Some(event) = receiver.recv().await {
///         println!("{event}");
///     }
/// });
/// for member in members.iter().filter_map(WeakSender::upgrade) {
///     let _ = member.send("hello".into()).await;
/// }
/// members.retain(|member| member.upgrade().is_some());
/// # }
/// ```
pub struct WeakSender<M>(Weak<dyn Connection<M>>);

impl<M> WeakSender<M> {
    pub(super) fn of(connection: &Arc<dyn Connection<M>>) -> Self {
        Self(Arc::downgrade(connection))
    }

    /// A strong handle; `None` if no strong handle is left.
    #[must_use]
    pub fn upgrade(&self) -> Option<Sender<M>> {
        let connection = self.0.upgrade()?;
        let is_alive = connection.add_sender();
        is_alive.then(|| Sender::first(connection))
    }
}

impl<M> Clone for WeakSender<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> fmt::Debug for WeakSender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakSender")
    }
}
