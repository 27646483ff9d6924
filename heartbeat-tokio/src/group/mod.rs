//! Many connections as one stream.
//!
//! This module decides what a group offers and when a connection is a member. Each member
//! is served by its own task, and what arrives waits in its own inbox. The order in which
//! they are polled is in `ready`, and what is sent to all of them in `broadcast`.

mod broadcast;
mod ready;

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    hash::Hash,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use heartbeat_core::GoodbyeCode;
use tokio::task::consume_budget;

pub use self::broadcast::{Broadcast, Slow};
use self::ready::Ready;
use crate::{Detail, Driver, PeerEvent, Sender, State, safety_net::Liveness};

/// Many connections as one [`Stream`] of `(key, event)`.
///
/// Each connection is served by the task of its [`spawn`](crate::Heartbeat::spawn), on any
/// thread of the runtime. The group takes events from their inboxes. So beats continue
/// while the application works on an event, and a peer that floods us fills the inbox of
/// its own connection only.
///
/// The events of one member are those of its [`Receiver`](crate::Receiver), in their order.
/// The terminal event ends the membership. Members take turns, one event each.
///
/// The stream gives `None` when the group is empty, and goes on after the next
/// [`insert`](Self::insert).
///
/// ```
/// use heartbeat_tokio::{Config, Group, Heartbeat, PeerEvent, Slow};
/// use tokio::net::TcpListener;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// # tokio::spawn(async move {
/// #     let stream = tokio::net::TcpStream::connect(address).await?;
/// #     let peer = Heartbeat::new(stream, Config::default()).spawn();
/// #     peer.sender.send("hello".into()).await?;
/// #     peer.sender.close().await?;
/// #     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
/// # });
/// let mut members = Group::new();
/// loop {
///     tokio::select! {
///         accepted = listener.accept() => {
///             let (stream, address) = accepted?;
///             members.insert(address, Heartbeat::new(stream, Config::default()).spawn());
///         }
///         Some((address, event)) = members.recv() => match event {
///             // A chat: each line goes to all members that have room.
///             PeerEvent::Message(line) => drop(members.broadcast(line, Slow::Drop).await),
///             event if event.is_terminal() => {
///                 println!("{address}: {event}");
/// #               break;
///             }
///             _ => {}
///         },
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Limits
///
/// The inbox of each member holds up to 256 KiB of messages. While it is full, its peer has
/// to wait ([`State::Paused`]); with
/// [`max_pause`](heartbeat_core::ConfigBuilder::max_pause) it is given up in the end.
#[must_use = "nothing is received unless it is polled"]
pub struct Group<K, M> {
    /// The place of each member. An event doesn't need it.
    places: HashMap<K, usize>,
    members: Vec<Option<Member<K, M>>>,
    /// The places that are free.
    free: Vec<usize>,
    ready: Arc<Ready>,
}

struct Member<K, M> {
    key: K,
    connection: Driver<M>,
}

impl<K, M> Group<K, M>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    /// Creates a group without members.
    pub fn new() -> Self {
        Self {
            places: HashMap::new(),
            members: Vec::new(),
            free: Vec::new(),
            ready: Ready::new(),
        }
    }

    /// Adds a connection. Returns the one that had this key, with the events that weren't
    /// taken; dropping it says goodbye.
    pub fn insert(&mut self, key: K, connection: Driver<M>) -> Option<Driver<M>> {
        let former = self.remove(&key);
        let place = self.free.pop().unwrap_or(self.members.len());
        self.places.insert(key.clone(), place);
        self.ready.add(place);
        let member = Some(Member { key, connection });
        match self.members.get_mut(place) {
            Some(free) => *free = member,
            None => self.members.push(member),
        }
        former
    }

    /// Removes a member and returns its connection, unread events included. Dropping that
    /// says goodbye.
    pub fn remove(&mut self, key: &K) -> Option<Driver<M>> {
        let place = self.places.remove(key)?;
        self.free.push(place);
        let member = self.members.get_mut(place)?.take()?;
        debug_assert!(member.key == *key, "each is in its place");
        Some(member.connection)
    }

    /// The next event of any member; `None` if there is no member.
    ///
    /// Cancel safe: if the future is dropped, no event is lost.
    pub async fn recv(&mut self) -> Option<(K, PeerEvent<M>)> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// A member's sender.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&Sender<M>> {
        let member = self.members.get(*self.places.get(key)?)?.as_ref()?;
        Some(&member.connection.sender)
    }

    /// All members, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Sender<M>)> {
        let members = self.members.iter().flatten();
        members.map(|member| (&member.key, &member.connection.sender))
    }

    /// The number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether the group has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The number of members in each state. A state without members is left out.
    ///
    /// Every member is asked, which takes its lock.
    #[must_use]
    pub fn counts(&self) -> HashMap<State, usize> {
        let mut counts = HashMap::new();
        for (_, sender) in self.iter() {
            *counts.entry(sender.status().peer.state).or_default() += 1;
        }
        counts
    }

    /// Checks all sockets: returns the members whose peers are [gone](Liveness::is_gone), and
    /// why.
    ///
    /// Never waits, and takes nothing: the terminal events follow by themselves. It finds
    /// a peer that is gone behind a full inbox, from which nothing is read. Members
    /// without a known socket are passed over.
    ///
    /// # Errors
    ///
    /// As [`safety_net::check`](crate::safety_net::check).
    pub fn sweep(&self) -> io::Result<Vec<(K, Liveness)>> {
        let mut gone = Vec::new();
        for (key, sender) in self.iter() {
            if let Some(liveness) = sender.check()?.filter(Liveness::is_gone) {
                gone.push((key.clone(), liveness));
            }
        }
        Ok(gone)
    }

    /// Says goodbye to all members, behind everything that is queued for them, and doesn't
    /// wait. Take events until the group is empty: the terminal event of each says how it
    /// went.
    ///
    /// ```
    /// # async fn example(mut members: heartbeat_tokio::Group<u32, bytes::Bytes>) {
    /// use heartbeat_tokio::GoodbyeCode;
    ///
    /// members.leave(GoodbyeCode::RESTARTING, "back soon");
    /// while let Some((key, event)) = members.recv().await {
    ///     println!("{key}: {event}");
    /// }
    /// # }
    /// ```
    pub fn leave(&self, code: GoodbyeCode, detail: impl Into<Detail>) {
        let detail = detail.into();
        for (_, sender) in self.iter() {
            sender.leave(code, detail.clone());
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<(K, PeerEvent<M>)>> {
        while !self.is_empty() {
            // There may always be more to take.
            ready!(pin!(consume_budget()).poll(cx));
            let turn = ready!(self.ready.poll_next(cx));
            let Some(Some(member)) = self.members.get_mut(turn.place) else {
                continue; // it was removed
            };
            let (waker, mut more) = (turn.into(), false);
            let cx = Context::from_waker(&waker);
            let receiver = &mut member.connection.receiver;
            let Poll::Ready(event) = receiver.poll_taken_in(&mut more, &cx) else {
                continue;
            };
            let key = member.key.clone();
            if event.as_ref().is_none_or(PeerEvent::is_terminal) {
                self.remove(&key);
            } else if more {
                waker.wake_by_ref();
            }
            if let Some(event) = event {
                return Poll::Ready(Some((key, event)));
            }
        }
        Poll::Ready(None)
    }
}

impl<K, M> Default for Group<K, M>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

/// Nothing in it is pinned.
impl<K, M> Unpin for Group<K, M> {}

impl<K, M> Stream for Group<K, M>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    type Item = (K, PeerEvent<M>);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx)
    }
}

impl<K, M> fmt::Debug for Group<K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("members", &self.places.len())
            .finish_non_exhaustive()
    }
}
