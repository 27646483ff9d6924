//! One message to all.
//!
//! This module decides what becomes of those who have no room for it.

use std::{future::poll_fn, hash::Hash, pin::Pin, sync::Arc, task::Context, task::Poll};

use futures_sink::Sink;
use heartbeat_core::GoodbyeCode;

use super::{Group, ready::Ready};
use crate::{SendError, Sender, TrySendError};

/// What becomes of a member that has no room for a message: its peer reads more slowly
/// than we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be other ways
pub enum Slow {
    /// It misses the message.
    Drop,
    /// It is left with this code: a goodbye behind everything that is queued for it. It
    /// has [`linger`](heartbeat_core::ConfigBuilder::linger) to take that.
    Disconnect(GoodbyeCode),
    /// It is waited for. All others get the message meanwhile.
    ///
    /// A peer that lives and never reads is waited for for ever: limit that with
    /// [`write_stall`](heartbeat_core::ConfigBuilder::write_stall), or the waiting with
    /// [`tokio::time::timeout`].
    Wait,
}

/// Who got a [broadcast](Group::broadcast) message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // later versions may tell more
pub struct Broadcast<K> {
    /// For so many it was queued.
    pub sent: usize,
    /// These had no room, and missed it or were left.
    pub slow: Vec<K>,
    /// These couldn't be sent it at all. Those whose connection has ended tell so by
    /// their last event.
    pub failed: Vec<(K, SendError)>,
}

impl<K, M> Group<K, M>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    M: Clone,
{
    /// Sends a message to all members. Only with [`Slow::Wait`] this waits for anything.
    ///
    /// A message that is cheap to clone, such as [`Bytes`](bytes::Bytes), is one buffer for
    /// all of them.
    ///
    /// Cancel safe as far as each member gets the message once or not at all.
    pub async fn broadcast(&self, message: M, slow: Slow) -> Broadcast<K> {
        let mut result = Broadcast {
            sent: 0,
            slow: Vec::new(),
            failed: Vec::new(),
        };
        let mut waiting = Vec::new();
        for (key, member) in &self.members {
            let sender = &member.connection.sender;
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

/// Each gets the message as soon as it has room.
async fn wait<K, M: Clone>(
    mut waiting: Vec<Option<(K, Sender<M>)>>,
    message: M,
    result: &mut Broadcast<K>,
) {
    let ready = Ready::new();
    // Kept, or nobody could call.
    let turns: Vec<_> = (0..waiting.len()).map(|place| ready.add(place)).collect();
    let mut left = turns.len();
    poll_fn(|cx| {
        while left > 0 {
            let turn = std::task::ready!(ready.poll_next(cx));
            let Some(slot) = waiting.get_mut(turn.key) else {
                continue;
            };
            let Some((_, sender)) = slot else { continue };
            let mut sender = Pin::new(sender);
            let waker = Arc::clone(&turn).into();
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
