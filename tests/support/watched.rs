//! A peer, and everything that was told of it.

use std::{fmt::Debug, time::Duration};

use futures::{Stream, StreamExt};
use heartbeat_tokio::{Cause, Death, PeerEvent};
use tokio::time::timeout;

use crate::secs;

/// A stream of events whose events are kept.
#[derive(Debug)]
pub struct Watched<P, M> {
    /// The heartbeat.
    pub peer: P,
    /// What was told so far.
    pub events: Vec<PeerEvent<M>>,
}

impl<P, M> Watched<P, M>
where
    P: Stream<Item = PeerEvent<M>> + Unpin,
    M: Clone + Debug,
{
    /// Nothing was told yet.
    pub fn new(peer: P) -> Self {
        Self {
            peer,
            events: Vec::new(),
        }
    }

    /// The next message; other events are only kept.
    ///
    /// # Panics
    ///
    /// If the connection ends before, or nothing comes for 20 s.
    pub async fn message(&mut self) -> M {
        let known = self.events.len();
        self.until(|events| {
            let new = events.get(known..).unwrap_or_default();
            new.iter()
                .any(|event| matches!(event, PeerEvent::Message(_)))
        })
        .await;
        match self.events.last() {
            Some(PeerEvent::Message(message)) => message.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until `done` of everything that was told.
    ///
    /// # Panics
    ///
    /// If the connection ends before, or it takes more than 20 s.
    pub async fn until(&mut self, done: impl Fn(&[PeerEvent<M>]) -> bool) {
        let all = async {
            while !done(&self.events) {
                match self.peer.next().await {
                    Some(event) => self.events.push(event),
                    None => return false,
                }
            }
            true
        };
        let done = timeout(secs(20), all).await;
        assert_eq!(done, Ok(true), "{:?}", self.events);
    }

    /// Waits for a `beat` more.
    ///
    /// # Panics
    ///
    /// As [`until`](Self::until).
    pub async fn until_beat(&mut self) {
        let known = self.events.len();
        self.until(|events| {
            let new = events.get(known..).unwrap_or_default();
            new.iter()
                .any(|event| matches!(event, PeerEvent::Beat { .. }))
        })
        .await;
    }

    /// Lets time go by.
    pub async fn go_on_for(&mut self, time: Duration) {
        let all = async {
            while let Some(event) = self.peer.next().await {
                self.events.push(event);
            }
        };
        // If it ends, the tests see it in what was told.
        let _ = timeout(time, all).await;
    }

    /// Waits for the last event.
    ///
    /// # Panics
    ///
    /// As [`until`](Self::until); or if something comes after it.
    pub async fn until_ended(&mut self) -> PeerEvent<M> {
        self.until(|events| events.last().is_some_and(PeerEvent::is_terminal))
            .await;
        assert!(self.peer.next().await.is_none());
        self.events.last().cloned().expect("the terminal event")
    }

    /// Waits for a death, and says of what.
    ///
    /// # Panics
    ///
    /// As [`until_ended`](Self::until_ended); or if it ends with a goodbye.
    pub async fn until_dead(&mut self) -> Death {
        match self.until_ended().await {
            PeerEvent::Dead(death) => death,
            other => panic!("{other:?}"),
        }
    }

    /// The number of answered pings.
    #[must_use]
    pub fn beats(&self) -> usize {
        let beats = self.events.iter();
        beats
            .filter(|event| matches!(event, PeerEvent::Beat { .. }))
            .count()
    }

    /// Nothing was given up.
    ///
    /// # Panics
    ///
    /// If something was.
    pub fn assert_alive(&self) {
        let ended = self.events.iter().any(PeerEvent::is_terminal);
        assert!(!ended, "{:?}", self.events);
    }
}

/// Whether that is how it looks when a process is killed: a reset if it had
/// left something unread.
#[must_use]
pub fn is_cut_off(cause: &Cause) -> bool {
    matches!(cause, Cause::Eof | Cause::Reset)
}
