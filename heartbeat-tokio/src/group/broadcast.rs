//! One message to all members.
//!
//! This module decides what happens to a member that has no room for it.

use std::{future::poll_fn, hash::Hash, pin::Pin, task::Context, task::Poll};

use futures_sink::Sink;
use heartbeat_core::GoodbyeCode;

use super::{Group, ready::Ready};
use crate::{SendError, Sender, TrySendError};

/// What a [broadcast](Group::broadcast) does with a member that has no room for the
/// message: its peer reads more slowly than we send.
///
/// ```
/// use bytes::Bytes;
/// use heartbeat_tokio::{GoodbyeCode, Group, Slow};
///
/// /// A feed in which a gap is an error: a slow subscriber starts over.
/// async fn publish(subscribers: &Group<u64, Bytes>, line: Bytes) {
///     let slow = Slow::Disconnect(GoodbyeCode(64));
///     let published = subscribers.broadcast(line, slow).await;
///     println!("{} got it, {:?} have to come back", published.sent, published.slow);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be other ways
pub enum Slow {
    /// The member misses the message.
    Drop,
    /// The member is closed with this code: a goodbye follows everything that is queued
    /// for it. Its peer has [`linger`](heartbeat_core::ConfigBuilder::linger) to take that.
    Disconnect(GoodbyeCode),
    /// The broadcast waits for the member. All others get the message meanwhile.
    ///
    /// A peer that dies ends the wait within its detection time. A peer that lives and
    /// never reads doesn't end it: set
    /// [`write_stall`](heartbeat_core::ConfigBuilder::write_stall), or use
    /// [`tokio::time::timeout`].
    Wait,
}

/// The result of a [broadcast](Group::broadcast).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // later versions may tell more
pub struct Broadcast<K> {
    /// The number of members for which it was queued.
    pub sent: usize,
    /// The members that had no room: they missed it, or were closed.
    pub slow: Vec<K>,
    /// The members to which it can't be sent. One whose connection has ended has its
    /// terminal event waiting.
    pub failed: Vec<(K, SendError)>,
}

impl<K, M> Group<K, M>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    M: Clone,
{
    /// Sends a message to all members. It waits for nothing, except with [`Slow::Wait`].
    ///
    /// The message is cloned for each member. Clones of [`Bytes`](bytes::Bytes) share one
    /// buffer.
    ///
    /// Cancel safe: each member gets the message once or not at all.
    pub async fn broadcast(&self, message: M, slow: Slow) -> Broadcast<K> {
        let mut result = Broadcast {
            sent: 0,
            slow: Vec::new(),
            failed: Vec::new(),
        };
        let mut waiting = Vec::new();
        for (key, sender) in self.iter() {
            match (sender.try_send(message.clone()), slow) {
                (Ok(()), _) => result.sent += 1,
                (Err(TrySendError::Failed(error)), _) => result.failed.push((key.clone(), error)),
                (Err(TrySendError::Full(_)), Slow::Wait) => {
                    waiting.push(Some((key.clone(), sender.clone())));
                }
                (Err(TrySendError::Full(_)), Slow::Disconnect(code)) => {
                    sender.leave(code, "too slow".into());
                    result.slow.push(key.clone());
                }
                (Err(TrySendError::Full(_)), Slow::Drop) => result.slow.push(key.clone()),
            }
        }
        wait(waiting, message, &mut result).await;
        result
    }
}

/// Sends the message to each as soon as it has room.
async fn wait<K, M: Clone>(
    mut waiting: Vec<Option<(K, Sender<M>)>>,
    message: M,
    result: &mut Broadcast<K>,
) {
    let ready = Ready::new();
    (0..waiting.len()).for_each(|place| drop(ready.add(place)));
    let mut left = waiting.len();
    poll_fn(|cx| {
        while left > 0 {
            let turn = std::task::ready!(ready.poll_next(cx));
            let Some(slot) = waiting.get_mut(turn.place) else {
                continue;
            };
            let Some((_, sender)) = slot else { continue };
            let mut sender = Pin::new(sender);
            let waker = turn.into();
            let has_room = sender.as_mut().poll_ready(&mut Context::from_waker(&waker));
            let Poll::Ready(has_room) = has_room else {
                continue;
            };
            let sent = has_room.and_then(|()| sender.start_send(message.clone()));
            let key = slot.take().map(|(key, _)| key);
            left -= 1;
            match (sent, key) {
                (Err(error), Some(key)) => result.failed.push((key, error)),
                _ => result.sent += 1,
            }
        }
        Poll::Ready(())
    })
    .await;
}
