//! Reconnecting.
//!
//! This module decides when an attempt begins, what counts as a failure, and that a dropped
//! future loses nothing. `backoff.rs` decides the length of a wait. The application decides
//! how to connect, and what to do with a connection.

use std::{
    fmt,
    future::{Future, Pending},
    pin::Pin,
};

use heartbeat_core::GoodbyeCode;
use tokio::time::{Instant, sleep_until};

use crate::{CloseReason, Learner, PeerEvent};

mod backoff;

pub use backoff::Backoff;

/// Reconnects whenever a connection has ended, with backoff.
///
/// `connect` is called for each attempt, and returns the connection in any form: a
/// [`Heartbeat`](crate::Heartbeat), or one that is [spawned](crate::Heartbeat::spawn). It is
/// any closure that returns a future, such as an `async` closure. If its futures borrow from
/// the closure itself, use [`owning`](Self::owning).
///
/// ```
/// use futures::StreamExt;
/// use heartbeat_tokio::{Backoff, Config, Heartbeat, PeerEvent, Reconnect};
/// use std::io;
/// use tokio::net::TcpStream;
///
/// # async fn example(host: String) {
/// let mut server = Reconnect::new(Backoff::default(), async || {
///     let stream = TcpStream::connect((host.as_str(), 7000)).await?;
///     Ok::<_, io::Error>(Heartbeat::new(stream, Config::default()))
/// });
/// loop {
///     let mut peer = server.connect().await; // as long as it takes
///     while let Some(event) = peer.next().await {
///         server.note(&event); // a peer that restarts is no failure
///         match event {
///             PeerEvent::Message(bytes) => println!("{bytes:?}"),
///             PeerEvent::Dead(death) => println!("{death}; connecting again"),
///             _ => {}
///         }
///     }
/// }
/// # }
/// ```
///
/// # Cancel safety
///
/// The futures of all its methods can be dropped at any point without a loss: a wait goes on
/// meanwhile, and the next call continues an attempt under way. So a branch of `select!` in a
/// loop connects, however often other branches win:
///
/// ```
/// # use heartbeat_tokio::{Backoff, Reconnect, Attempt};
/// # use std::time::Duration;
/// # async fn example(mut server: Reconnect<impl Attempt>) {
/// let mut tick = tokio::time::interval(Duration::from_millis(10));
/// let connection = loop {
///     tokio::select! {
///         connection = server.connect() => break connection,
///         _ = tick.tick() => println!("still connecting"),
///     }
/// };
/// # drop(connection);
/// # }
/// ```
///
/// An attempt makes progress only while it is polled; time limits within it keep running.
///
/// # Its type
///
/// In the signature of a function or a struct, use the trait [`Attempt`]:
/// `Reconnect<impl Attempt<Connection = Heartbeat<TcpStream>>>`.
pub struct Reconnect<A: Attempt = Pending<((), Result<(), ()>)>> {
    backoff: Backoff,
    begin: fn(A::Connect) -> A,
    /// It is polled only in `Phase::Trying`, and owns `connect` all the time.
    attempt: Pin<Box<A>>,
    phase: Phase,
    /// Attempts that failed, and connections that didn't last, in a row.
    failures: u32,
    /// Learns from the ends of connections.
    learner: Option<Learner>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The attempt may be polled.
    Trying,
    /// The attempt begins then.
    Waiting { until: Instant },
    /// A connection was given out then, and its end isn't known.
    InUse { since: Instant },
}

impl Reconnect {
    /// Nothing is connected yet, and the first attempt waits for nothing.
    pub fn new<F, A, T, E>(
        backoff: Backoff,
        connect: F,
    ) -> Reconnect<impl Attempt<Connect = F, Connection = T, Error = E>>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<T, E>>,
    {
        Reconnect::begin(backoff, connect, call)
    }

    /// The same with an async closure whose futures borrow what it owns, or change
    /// what it captured.
    ///
    /// ```
    /// # use heartbeat_tokio::{Attempt, Backoff, Reconnect};
    /// # use std::{io, net::SocketAddr};
    /// # use tokio::net::TcpStream;
    /// fn any_of(servers: Vec<SocketAddr>) -> Reconnect<impl Attempt<Connection = TcpStream>> {
    ///     let mut turn = 0;
    ///     Reconnect::owning(Backoff::default(), async move || {
    ///         turn += 1;
    ///         let server = servers.iter().cycle().nth(turn).ok_or(io::ErrorKind::NotFound)?;
    ///         TcpStream::connect(server).await
    ///     })
    /// }
    /// ```
    ///
    /// [`new`](Self::new) exists because the compiler can't prove that references captured here
    /// are `Send`, which a spawned task needs.
    pub fn owning<F, T, E>(
        backoff: Backoff,
        connect: F,
    ) -> Reconnect<impl Attempt<Connect = F, Connection = T, Error = E>>
    where
        F: AsyncFnMut() -> Result<T, E>,
    {
        Reconnect::begin(backoff, connect, call_async)
    }
}

async fn call<F, A, T, E>(mut connect: F) -> (F, Result<T, E>)
where
    F: FnMut() -> A,
    A: Future<Output = Result<T, E>>,
{
    let result = connect().await;
    (connect, result)
}

async fn call_async<F, T, E>(mut connect: F) -> (F, Result<T, E>)
where
    F: AsyncFnMut() -> Result<T, E>,
{
    let result = connect().await;
    (connect, result)
}

impl<A: Attempt> Reconnect<A> {
    fn begin(backoff: Backoff, connect: A::Connect, begin: fn(A::Connect) -> A) -> Self {
        Self {
            backoff,
            begin,
            attempt: Box::pin(begin(connect)),
            phase: Phase::Trying,
            failures: 0,
            learner: None,
        }
    }

    /// Reports every [noted](Self::note) event and the result of each attempt to this learner.
    /// So its search continues across connections.
    #[must_use]
    pub fn learning(mut self, learner: Learner) -> Self {
        self.learner = Some(learner);
        self
    }

    /// Makes a new connection, with as many attempts as necessary. It hides their errors;
    /// [`connect_while`](Self::connect_while) reports them.
    ///
    /// Cancel safe, as described [above](Self#cancel-safety).
    pub async fn connect(&mut self) -> A::Connection {
        loop {
            if let Ok(connection) = self.attempt().await {
                return connection;
            }
        }
    }

    /// Makes a new connection. `retry` decides after each failed attempt whether another one
    /// follows.
    ///
    /// ```
    /// # use heartbeat_tokio::{Attempt, Reconnect};
    /// # use std::io;
    /// # async fn example<C>(
    /// #     mut server: Reconnect<impl Attempt<Connection = C, Error = io::Error>>,
    /// # ) -> io::Result<C> {
    /// let is_final = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    /// server.connect_while(|error| !is_final(error)).await
    /// # }
    /// ```
    ///
    /// Cancel safe, as described [above](Self#cancel-safety).
    ///
    /// # Errors
    ///
    /// The error for which `retry` returned false. Another call continues after the wait that is
    /// due.
    pub async fn connect_while(
        &mut self,
        mut retry: impl FnMut(&A::Error) -> bool,
    ) -> Result<A::Connection, A::Error> {
        loop {
            match self.attempt().await {
                Err(error) if retry(&error) => {}
                result => return result,
            }
        }
    }

    /// Makes one attempt, after the wait that is due.
    ///
    /// Cancel safe, as described [above](Self#cancel-safety).
    ///
    /// # Errors
    ///
    /// The error of `connect`. The next attempt waits longer.
    pub async fn attempt(&mut self) -> Result<A::Connection, A::Error> {
        if let Phase::InUse { since } = self.phase {
            self.lose(self.backoff.has_lasted(since));
        }
        if let Phase::Waiting { until } = self.phase {
            sleep_until(until).await;
            self.phase = Phase::Trying;
        }
        let (connect, result) = self.attempt.as_mut().await;
        self.attempt.set((self.begin)(connect));
        if let Some(learner) = &self.learner {
            learner.note_attempt(result.is_ok());
        }
        self.phase = match result {
            Ok(_) => Phase::InUse {
                since: Instant::now(),
            },
            Err(_) => {
                self.failures = self.failures.saturating_add(1);
                let until = self.backoff.after_failures(self.failures);
                Phase::Waiting { until }
            }
        };
        result
    }

    /// Notes how the current connection ended. Pass every event; all but the terminal one are
    /// ignored.
    ///
    /// The wait starts at this moment, instead of at the next call. A peer that said goodbye
    /// with [`GoodbyeCode::RESTARTING`] will be back, so its connection is no failure, however
    /// short it was.
    pub fn note<M>(&mut self, event: &PeerEvent<M>) {
        if let Some(learner) = &self.learner {
            learner.note(event);
        }
        let Phase::InUse { since } = self.phase else {
            return;
        };
        if event.is_terminal() {
            self.lose(self.backoff.has_lasted(since) || restarts(event));
        }
    }

    /// The number of failures in a row. A connection that didn't last is one of them.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The current connection has ended.
    fn lose(&mut self, lasted: bool) {
        self.failures = match lasted {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        let until = self.backoff.after_loss(self.failures);
        self.phase = Phase::Waiting { until };
    }
}

/// Whether the peer announced a restart.
fn restarts<M>(event: &PeerEvent<M>) -> bool {
    let PeerEvent::Closed { reason } = event else {
        return false;
    };
    matches!(reason, CloseReason::Peer { code, .. } if *code == GoodbyeCode::RESTARTING)
}

impl<A: Attempt> fmt::Debug for Reconnect<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect")
            .field("backoff", &self.backoff)
            .field("phase", &self.phase)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// An attempt of a [`Reconnect`]: a future that returns the closure that made it, and the
/// result.
///
/// Every future with this output implements it. The trait exists to name the types:
///
/// ```
/// use heartbeat_tokio::{Attempt, Backoff, Config, Heartbeat, Reconnect};
/// use std::{io, net::SocketAddr};
/// use tokio::net::TcpStream;
///
/// type Server = Heartbeat<TcpStream>;
///
/// fn server(at: SocketAddr) -> Reconnect<impl Attempt<Connection = Server, Error = io::Error>> {
///     Reconnect::owning(Backoff::default(), async move || {
///         let stream = TcpStream::connect(at).await?;
///         Ok(Heartbeat::new(stream, Config::default()))
///     })
/// }
///
/// struct Client<A: Attempt<Connection = Server>> {
///     server: Reconnect<A>,
/// }
/// ```
pub trait Attempt:
    Future<
    Output = (
        <Self as Attempt>::Connect,
        Result<<Self as Attempt>::Connection, <Self as Attempt>::Error>,
    ),
>
{
    /// The closure that connects.
    type Connect;
    /// The connection that it makes.
    type Connection;
    /// The error of a failed attempt.
    type Error;
}

impl<A, F, T, E> Attempt for A
where
    A: Future<Output = (F, Result<T, E>)>,
{
    type Connect = F;
    type Connection = T;
    type Error = E;
}
