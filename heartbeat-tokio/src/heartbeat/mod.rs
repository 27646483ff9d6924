//! A stream with a heartbeat.
//!
//! This module defines the API. A connection has these parts:
//!
//! | part | decides |
//! |---|---|
//! | `turn` | the order in which a connection is served: `enum Turn` |
//! | `judge` | when the peer is judged, and the next deadline; owns the monitor, the clock and the timer |
//! | `kernel` | when the kernel is asked about the peer |
//! | `receiving` | which inputs the monitor gets when bytes arrive |
//! | `budget` | how much is taken in before other tasks have a turn |
//! | `keeping` | when events are kept for later, and when reading pauses and resumes; `inbox` decides when it is full |
//! | `sending` | when the transport writes, and which inputs the monitor gets then |
//! | `ending` | what is read before the end is reported, and whether our messages were received |
//! | `last_word` | the last frame that the peer gets |
//! | `parting` | what happens to the stream after an orderly end |
//! | `parts` | what `into_parts` returns |
//! | `wakers` | which of the waiting tasks is woken |
//!
//! Each part has fields of its own that no other part touches, and calls the methods of the
//! others. The monitor decides whether the peer lives, and the transport how frames lie on
//! the wire.

mod budget;
mod ending;
mod judge;
mod keeping;
mod kernel;
mod last_word;
mod parting;
mod parts;
mod receiving;
mod sending;
mod status;
mod turn;
mod wakers;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_sink::Sink;
use heartbeat_core::{Config, ConfigError, GoodbyeCode};

pub(crate) use self::parts::Remains;
use self::{
    budget::Budget, ending::Ending, judge::Judge, receiving::Receiving, sending::Sending,
    wakers::Wakers,
};
pub use self::{parts::Parts, status::Status};
use crate::{
    CloseError, Detail, SendError,
    arrivals::Arrivals,
    inbox::Inbox,
    net::{Net, SocketOf},
    safety_net::{Liveness, SafetyNet},
    transport::{Protocol, Transport},
    wire::Wire,
};

/// Reads per poll without an event to hand out, before yielding. tokio's streams yield by
/// themselves after twice as many; others may never.
const READS_AT_ONCE: usize = 64;

/// A stream with a heartbeat.
///
/// It is a [`Stream`](futures_core::Stream) of [`PeerEvent`](crate::PeerEvent)s and a [`Sink`] of messages. Wrap a
/// stream on both ends, poll for events, and a peer that hangs, loses power or
/// loses its network is reported as [`PeerEvent::Dead`](crate::PeerEvent::Dead) within
/// [`Config::detection_time`].
///
/// ```
/// use futures::{SinkExt, StreamExt};
/// use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (ours, theirs) = tokio::io::duplex(1024);
/// let config = Config::detect_within(Duration::from_millis(200))?;
/// let mut peer = Heartbeat::new(ours, config);
/// # let mut other = Heartbeat::new(theirs, config);
/// # tokio::spawn(async move {
/// #     other.next().await;
/// #     other.send("hello".into()).await.unwrap();
/// #     other.next().await;
/// #     std::future::pending::<()>().await; // and here it hangs
/// # });
///
/// peer.send("hello?".into()).await?;
/// while let Some(event) = peer.next().await {
///     match event {
///         PeerEvent::Message(bytes) => println!("{} bytes", bytes.len()),
///         PeerEvent::Dead(death) => println!("dead: {death}"),
///         other => println!("{other:?}"),
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # How it behaves
///
/// * **Errors are events.** The stream of events ends with exactly one
///   terminal event, then `None`. Every message that arrived before the end
///   is delivered before it. [`io_error`](Self::io_error) keeps the operating
///   system's error.
/// * **Poll it.** Beats are answered and deadlines are kept while this is
///   polled, as a stream or by a pending `send`, `flush` or `close`. An
///   application that works for a long time between two reads looks hung to its
///   peer, and receives a [`LocalStall`](crate::PeerEvent::LocalStall). Give each
///   connection a task of its own: busy connections in one task share its turns.
/// * **No write is awaited** by the stream of events. Neither a peer that
///   stops reading nor a `send` that waits for it stops the timer: the `send`
///   ends with [`SendError::Dead`].
/// * **Control frames overtake** queued messages.
/// * **Cancel safe.** Dropping the future of `next`, `send`, `flush` or
///   `close` loses nothing; a dropped `send` may or may not have queued its
///   message, as with any `Sink`.
/// * **Verdicts are told.** A peer that is given up gets a goodbye with
///   the reason, and its stream is closed: on TCP with a reset.
/// * **Dropping** it closes the stream without a goodbye, which the peer sees
///   as [`Cause::Eof`](crate::Cause::Eof). [`close`](Self::close) says goodbye first,
///   and is Ok only if the peer received everything that was sent.
///
/// A `send` that waits keeps up to 256 KiB of arriving messages. If both applications
/// keep sending without reading, each waits for the other and both are alive. Set
/// [`write_stall`](heartbeat_core::ConfigBuilder::write_stall) if that can happen in your
/// protocol.
///
/// # Panics
///
/// tokio's timer panics if its runtime has no time enabled, and if the connection was neither
/// made nor is polled within a runtime. The timer belongs to the runtime in which the
/// connection was made, whichever runtime polls it.
#[must_use = "nothing is sent, answered or judged unless it is polled"]
pub struct Heartbeat<S, C: Protocol = Wire> {
    /// None once it is closed.
    stream: Option<S>,
    transport: C,
    net: Net<S>,
    judge: Judge,
    arrivals: Arrivals,
    receiving: Receiving,
    budget: Budget,
    inbox: Inbox<C::Message>,
    sending: Sending,
    ending: Ending,
    wakers: Wakers,
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Assembles a connection over any transport; see `constructors.rs`.
    pub(crate) fn with_transport(
        stream: S,
        transport: C,
        config: Config,
        socket: SocketOf<S>,
    ) -> Self {
        let mut made = Self {
            net: Net::derived(socket, &stream, &config),
            stream: Some(stream),
            transport,
            judge: Judge::new(config, C::HELLO),
            arrivals: Arrivals::new(),
            receiving: Receiving::default(),
            budget: Budget::default(),
            inbox: Inbox::new(),
            sending: Sending::new(),
            ending: Ending::new(),
            wakers: Wakers::default(),
        };
        made.note_dialogue();
        made
    }

    /// Pings the peer now, without waiting for the interval. The answer comes as
    /// [`PeerEvent::Beat`](crate::PeerEvent::Beat), or, if nothing comes, the verdict
    /// within `max_missed · timeout`. See
    /// [`Monitor::probe`](heartbeat_core::Monitor::probe).
    ///
    /// An answer that comes during a pause or a local stall gives no round trip: the peer
    /// is pinged again as soon as possible.
    pub fn probe(&mut self) {
        self.judge.probe();
        self.wakers.wake_reader();
    }

    /// Sets another [`interval`](heartbeat_core::ConfigBuilder::interval) from now on. Another
    /// Hello tells the peer, if the protocol has one. The detection time changes by the same
    /// amount, and the safety net follows. See
    /// [`Monitor::set_interval`](heartbeat_core::Monitor::set_interval). Setting the current
    /// interval does nothing.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a configuration can't have it, or if the peer would be refused
    /// with it. Nothing has changed then.
    pub fn set_interval(&mut self, interval: Duration) -> Result<(), ConfigError> {
        if interval == self.config().interval() {
            return Ok(());
        }
        self.judge.set_interval(interval)?;
        self.adapt_net();
        self.wakers.wake_reader();
        Ok(())
    }

    /// Ends our messages behind everything that was queued, and waits until the Fin has
    /// left. The peer is told with [`PeerEvent::Finished`](crate::PeerEvent::Finished),
    /// and can go on sending.
    ///
    /// When both sides have finished, the connection is
    /// [`Closed`](crate::PeerEvent::Closed). Only [`close`](Self::close), before that,
    /// confirms that the peer received everything.
    ///
    /// Cancel safe. The Fin is sent even if the future is dropped.
    ///
    /// # Errors
    ///
    /// The end of the connection; [`SendError::Unfinishable`] if the protocol has no such
    /// end.
    pub async fn finish(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    /// Says goodbye behind everything that was queued, and waits until the peer
    /// confirms that it received everything.
    ///
    /// The peer is judged as before meanwhile, so this ends within
    /// [`detection_time`](Self::detection_time) if it dies, and within
    /// [`linger`](heartbeat_core::ConfigBuilder::linger) if it lives. Up to 256 KiB of
    /// arriving messages are kept for [`next`](futures_core::Stream). Later ones are
    /// discarded, and the goodbye of a peer that leaves too isn't confirmed then. If both
    /// sides discarded messages, each waits for linger and reports that nothing is
    /// confirmed.
    ///
    /// With a protocol of your own, see [`Dialect`](crate::Dialect).
    ///
    /// # Errors
    ///
    /// [`CloseError`]: the peer may lack some of what was sent.
    pub async fn close(&mut self) -> Result<(), CloseError> {
        self.close_with(GoodbyeCode::LEAVING, Detail::default())
            .await
    }

    /// Leaves as [`close`](Self::close) does, with a reason. The codes of leaving are 0, 1 and 64
    /// to 127; any other counts as 0.
    ///
    /// # Errors
    ///
    /// See [`close`](Self::close).
    pub async fn close_with(
        &mut self,
        code: GoodbyeCode,
        detail: Detail,
    ) -> Result<(), CloseError> {
        self.leave(code, detail);
        poll_fn(|cx| self.poll_left(cx)).await.map(drop)
    }

    /// A snapshot of the connection.
    #[must_use]
    pub fn status(&self) -> Status {
        let peer = self.judge.monitor().status();
        let now = self.judge.now();
        let blocked_since = self.sending.blocked_since().unwrap_or(now);
        Status {
            silent_for: now.saturating_duration_since(peer.last_heard),
            blocked_for: now.saturating_duration_since(blocked_since),
            peer,
            safety_net: self.net.status(),
            beats: self.judge.beats(),
        }
    }

    /// The silence after which the peer is dead at the latest:
    /// [`Config::detection_time`], or longer if the peer accepts only slower
    /// pings.
    #[must_use]
    pub fn detection_time(&self) -> Duration {
        self.judge.monitor().status().detection_time
    }

    /// The configuration, with the interval that was [set](Self::set_interval) last.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.judge.config()
    }

    /// The error behind [`PeerEvent::Dead`](crate::PeerEvent::Dead), if there was one: the operating
    /// system's, or that of a codec or a library.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        self.ending.io_error().map(|error| &**error)
    }

    /// The stream itself, for inspection: reading from it or writing to it breaks the framing.
    ///
    /// `None` after it was closed: by our own verdict, or because an orderly end took too long.
    /// [With frames](Self::with_frames), and so with a WebSocket, it is closed at every end.
    #[must_use]
    pub fn get_ref(&self) -> Option<&S> {
        self.stream.as_ref()
    }

    /// Puts the connection on this machine, which sleeps on command.
    #[cfg(feature = "testkit")]
    #[cfg_attr(docsrs, doc(cfg(feature = "testkit")))]
    pub fn on_machine(mut self, machine: crate::testkit::Machine) -> Self {
        self.judge.move_to(machine.inner());
        self
    }

    /// Checks the socket, if it is known.
    pub(crate) fn check(&self) -> io::Result<Option<Liveness>> {
        let stream = self.stream.as_ref();
        stream.map_or(Ok(None), |stream| self.net.check(stream))
    }

    pub(crate) fn move_net(&mut self, socket: SocketOf<S>) {
        if let Some(stream) = &self.stream {
            self.net
                .move_to(socket, stream, self.judge.monitor().config());
        }
    }

    pub(crate) fn replace_net(&mut self, net: &SafetyNet) {
        if let Some(stream) = &self.stream {
            self.net.replace(stream, self.judge.monitor().config(), net);
        }
    }

    // ---- for the driver --------------------------------------------------

    /// A task of this runtime serves it from now on, and keeps what arrives for the
    /// application. How long messages wait there may be limited.
    pub(crate) fn prepare_spawn(&mut self) {
        self.judge.move_here();
        self.wakers.leave_to_driver();
        if self.config().max_pause().is_some() {
            self.inbox.limit_from(self.judge.now());
        }
    }

    /// The number of events so far, messages aside. Wraps.
    pub(crate) fn news(&self) -> u32 {
        self.judge.news()
    }

    /// No more frames are taken out: a codec has panicked.
    pub(crate) fn stop_decoding(&mut self) {
        self.receiving.stop_decoding();
    }
}

/// Nothing in it is pinned: everything that is polled is `Unpin`.
impl<S, C: Protocol> Unpin for Heartbeat<S, C> {}

/// Sending waits while 48 KiB of small messages or 192 KiB in all are queued (8 KiB with a
/// codec of your own, 128 KiB with frames), and ends with an error as soon as the connection
/// does.
impl<S, C> Sink<C::Message> for Heartbeat<S, C>
where
    C: Transport<S>,
{
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_write_until(cx, Self::has_room)
    }

    fn start_send(self: Pin<&mut Self>, message: C::Message) -> Result<(), SendError> {
        self.get_mut().queue(message)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_write_until(cx, Self::is_flushed)
    }

    /// The same as [`Heartbeat::close`].
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let this = self.get_mut();
        this.leave(GoodbyeCode::LEAVING, Detail::default());
        let closed = ready!(this.poll_left(cx));
        Poll::Ready(closed.map(drop).map_err(SendError::from))
    }
}
