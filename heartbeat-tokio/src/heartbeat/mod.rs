//! A stream that knows whether its other end lives.
//!
//! This module decides what its users can ask and do, and what is kept for whoever
//! polls next. The order in which one connection is served is in `events`, what is
//! read in `reading`, what is written in `writing`, and how it ends in `ending`.
//! What is alive and what is dead is the monitor's to say, and how frames lie on the
//! wire is the transport's.

mod ending;
mod events;
mod flags;
mod reading;
mod writing;

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_core::{FusedStream, Stream};
use futures_sink::Sink;
use heartbeat_core::{Config, GoodbyeCode, Instant, Monitor};

pub(crate) use self::ending::Remains;
use self::{
    ending::Ending,
    flags::{Flag, Flags},
};
use crate::{
    CloseError, Detail, PeerEvent, SendError,
    arrivals::Arrivals,
    inbox::{Inbox, READ_AHEAD},
    net::{Net, NetStatus, SocketOf},
    observe::Observe,
    safety_net::{Liveness, SafetyNet},
    timer::{Clock, Timer},
    transport::{Buffered, Protocol, Transport},
    wire::Wire,
};

/// So often is read in one poll in which there is nothing to hand out, before
/// everybody else has a turn. Streams of tokio's stop by themselves after twice
/// as many; others may never.
const READS_AT_ONCE: usize = 64;

/// A stream with a heartbeat.
///
/// It is a [`Stream`] of [`PeerEvent`]s and a [`Sink`] of messages. Wrap a
/// stream on both ends, poll for events, and a peer that hangs, loses power or
/// loses its network is reported as [`PeerEvent::Dead`] within
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
///   system's words.
/// * **Poll it.** Beats are answered and deadlines are kept while this is
///   polled, as a stream or by a pending `send`, `flush` or `close`. An
///   application that works for long between two reads looks hung to its peer
///   and is told of its own [`LocalStall`](PeerEvent::LocalStall).
///   Give each connection a task of its own: many busy ones in one task share
///   its turns.
/// * **No write is awaited** by the stream of events. A peer that stops
///   reading doesn't stop the timer, nor does a `send` that waits for it: it
///   ends with [`SendError::Dead`].
/// * **Control frames overtake** queued messages.
/// * **Cancel safe.** Dropping the future of `next`, `send`, `flush` or
///   `close` loses nothing; a dropped `send` may or may not have queued its
///   message, as with any `Sink`.
/// * **Verdicts are told.** A peer that is given up gets a goodbye that says
///   why, and its stream is closed: on TCP with a reset.
/// * **Dropping** it closes the stream without a goodbye, which the peer sees
///   as [`Cause::Eof`](crate::Cause::Eof). [`close`](Self::close) says goodbye first,
///   and is Ok only if the peer took in everything that was sent.
///
/// A `send` that waits takes in up to 256 KiB of messages for later. If the
/// application goes on sending without reading then, and the peer does the
/// same, each waits for the other and both are alive: give
/// [`write_stall`](heartbeat_core::ConfigBuilder::write_stall) a limit if your
/// protocol can get there.
///
/// # Panics
///
/// None. But tokio's timer needs a runtime with time enabled: polling this
/// outside of one panics in tokio. The timer is that of the runtime in which it was made,
/// whoever polls it.
#[must_use = "nothing is sent, answered or judged unless it is polled"]
pub struct Heartbeat<S, C: Protocol = Wire> {
    /// None once we gave the peer up, or waited too long for its end.
    stream: Option<S>,
    transport: C,
    monitor: Monitor,
    clock: Clock,
    timer: Timer,
    net: Net<S>,
    arrivals: Arrivals,
    observe: Observe,

    /// What `poll_next` has to hand out before anything newer.
    inbox: Inbox<C::Message>,
    /// What there is only at the end of a connection.
    ending: Option<Box<Ending>>,
    /// What there was to tell so far, messages aside; wraps.
    news: u32,
    /// Round trips that were measured; wraps.
    beats: u32,
    /// When the stream last took something, if it doesn't take what is queued.
    blocked_since: Option<Instant>,
    /// Since when it is limited how long messages wait in the inbox, if it is.
    pauses_limited_from: Option<Instant>,
    /// The configuration as it was given, if it asks for no beats: the monitor
    /// tells of them all the same, for those who wait for an answer.
    quiet: Option<Box<Config>>,

    /// Whoever waits for events, and whoever waits to write: they may be two
    /// tasks.
    reader: Option<Waker>,
    writer: Option<Waker>,
    flags: Flags,
}

/// What is kept of the events that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All of them. When the inbox is full, nothing more is read.
    All,
    /// All until the inbox is full; messages that come then are thrown away, because
    /// we leave.
    ThereIsRoomFor,
    /// None: nobody will ever take one.
    Nothing,
}

/// What is known about a connection.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive] // later versions may know more
pub struct Status {
    /// The monitor's view of the peer.
    pub peer: heartbeat_core::Status,
    /// Since the last evidence of life. On a busy connection, where not every
    /// read is timed, up to [`Config::arrival_slack`] more than it was.
    pub silent_for: Duration,
    /// Since the stream last took something of what is queued. Zero if nothing waits,
    /// and while the stream takes everything. A peer that reads too slowly shows here
    /// before it is in the way, and in [`queued`](crate::Sender::queued).
    pub blocked_for: Duration,
    /// The second line of defence, in the kernel.
    pub safety_net: NetStatus,
    /// Round trips that were measured; wraps.
    pub(crate) beats: u32,
}

impl Status {
    /// That of a connection with this configuration that has just been made, of which the
    /// socket isn't known. For tests; every field can be set.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            peer: heartbeat_core::Status::new(config),
            silent_for: Duration::ZERO,
            blocked_for: Duration::ZERO,
            safety_net: NetStatus::NoSocket,
            beats: 0,
        }
    }
}

/// What a [`Heartbeat`] consists of.
#[derive(Debug)]
#[non_exhaustive] // later versions may hold more
pub struct Parts<S, M> {
    /// The stream itself; `None` after a verdict of ours, or when parting took too
    /// long: then it was closed.
    pub stream: Option<S>,
    /// Events that weren't handed out yet, in their order.
    pub events: VecDeque<PeerEvent<M>>,
    /// Bytes that were read after those events.
    pub read: Bytes,
    /// Bytes that were to be written.
    pub write: Bytes,
    /// Messages that were to be sent after those bytes. There are some only
    /// [with frames](Heartbeat::with_frames).
    pub unsent: VecDeque<M>,
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Over any transport; see `constructors.rs`.
    pub(crate) fn with_transport(
        stream: S,
        transport: C,
        config: Config,
        socket: SocketOf<S>,
    ) -> Self {
        let net = Net::derived(socket, &stream, &config);
        let clock = Clock::start();
        // Keyed by the operating system's randomness.
        let seed = RandomState::new().build_hasher().finish();
        let (told, quiet) = match config.beat_events() {
            true => (config, None),
            false => (with_beat_events(config), Some(Box::new(config))),
        };
        let monitor = Monitor::new(told, seed, clock.now());
        Self {
            stream: Some(stream),
            transport,
            monitor: match C::HELLO {
                true => monitor,
                false => monitor.without_hello(),
            },
            clock,
            // A backlog arms it for half an interval: see `note_message`.
            timer: Timer::with_step(config.interval() * 5 / 8),
            net,
            arrivals: Arrivals::new(),
            observe: Observe::new(),
            inbox: Inbox::new(),
            ending: None,
            news: 0,
            beats: 0,
            blocked_since: None,
            pauses_limited_from: None,
            quiet,
            reader: None,
            writer: None,
            flags: Flags::of(Flag::Outputs), // our Hello
        }
    }

    /// Asks the peer now, without waiting for the interval. The answer comes
    /// as [`PeerEvent::Beat`], or, if nothing comes, the verdict within
    /// `max_missed · timeout`. See [`Monitor::probe`].
    ///
    /// If the answer comes while we don't read or were asleep, no round trip
    /// can be measured with it: the peer is asked again as soon as it can be.
    pub fn probe(&mut self) {
        self.flags.raise(Flag::Probing);
        self.monitor.probe(self.clock.now());
        self.outputs_due();
    }

    /// Asks again if the answer that somebody waits for is worth nothing.
    fn probe_again(&mut self) {
        if self.flags.has(Flag::Probing) {
            self.monitor.probe(self.clock.now());
            self.flags.raise(Flag::Outputs);
        }
    }

    /// Says behind everything that was queued that no more messages follow, and waits
    /// until that has left. The peer is told with
    /// [`PeerEvent::Finished`](crate::PeerEvent::Finished), and can go on sending.
    ///
    /// When both sides have finished, the connection is
    /// [`Closed`](crate::PeerEvent::Closed). Whether the peer took everything in,
    /// only [`close`](Self::close) tells, and only until then.
    ///
    /// Cancel safe. If the future is dropped, it is said all the same.
    ///
    /// # Errors
    ///
    /// How the connection ended; [`SendError::Unfinishable`] if the protocol can't say
    /// it.
    pub async fn finish(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    /// Leaves: says goodbye behind everything that was queued, and waits until the
    /// peer has taken everything in and said so.
    ///
    /// The peer is judged as before meanwhile, so this ends within
    /// [`detection_time`](Self::detection_time) if it dies, and within
    /// [`linger`](heartbeat_core::ConfigBuilder::linger) if it lives. What arrives is
    /// kept for [`next`](futures_core::Stream), up to 256 KiB. What comes then is
    /// thrown away; a peer that leaves too isn't confirmed that. If both threw something
    /// away, each waits for linger and reports that nothing is confirmed.
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

    /// The same as [`close`](Self::close), with a reason: 0, 1 and 64 to 127 are the
    /// codes with which a side leaves. Any other is taken for 0.
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

    /// What is known about the connection right now.
    #[must_use]
    pub fn status(&self) -> Status {
        let peer = self.monitor.status();
        let now = self.clock.now();
        let blocked_since = self.blocked_since.unwrap_or(now);
        Status {
            silent_for: now.saturating_duration_since(peer.last_heard),
            blocked_for: now.saturating_duration_since(blocked_since),
            peer,
            safety_net: self.net.status(),
            beats: self.beats,
        }
    }

    /// The silence after which the peer is dead at the latest:
    /// [`Config::detection_time`], or longer if the peer accepts only slower
    /// pings.
    #[must_use]
    pub fn detection_time(&self) -> Duration {
        self.monitor.status().detection_time
    }

    /// The configuration that this was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.quiet
            .as_deref()
            .unwrap_or_else(|| self.monitor.config())
    }

    /// The operating system's error behind [`PeerEvent::Dead`], if there was
    /// one.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        self.ending.as_ref()?.io_error.as_deref()
    }

    /// The stream itself; `None` after a verdict of ours, or when parting took too
    /// long: then it was closed. Reading from it or writing to it breaks the framing; looking at
    /// it is fine.
    #[must_use]
    pub fn get_ref(&self) -> Option<&S> {
        self.stream.as_ref()
    }

    /// Takes it apart. Nothing that was buffered is lost.
    #[must_use]
    pub fn into_parts(mut self) -> Parts<S, C::Message> {
        if let Some(stream) = &self.stream {
            self.net.calm(stream);
        }
        let Buffered {
            received,
            unsent,
            read,
            write,
        } = self.transport.into_buffered();
        let received = received.into_iter().map(PeerEvent::Message);
        let terminal = self
            .ending
            .and_then(|ending| PeerEvent::from_core(ending.terminal?, &ending.detail));
        Parts {
            stream: self.stream,
            events: self
                .inbox
                .into_events()
                .chain(received)
                .chain(terminal)
                .collect(),
            read,
            write,
            unsent,
        }
    }

    /// It runs on this machine, which sleeps when a test says so.
    #[cfg(feature = "testkit")]
    #[cfg_attr(docsrs, doc(cfg(feature = "testkit")))]
    pub fn on_machine(mut self, machine: crate::testkit::Machine) -> Self {
        self.clock.move_to(machine.inner());
        self.timer.move_to(machine.inner());
        self
    }

    pub(crate) fn move_net(&mut self, socket: SocketOf<S>) {
        if let Some(stream) = &self.stream {
            self.net.move_to(socket, stream, self.monitor.config());
        }
    }

    pub(crate) fn replace_net(&mut self, net: &SafetyNet) {
        if let Some(stream) = &self.stream {
            self.net.replace(stream, self.monitor.config(), net);
        }
    }

    /// Looks at the socket, if it is known.
    pub(crate) fn check(&self) -> io::Result<Option<Liveness>> {
        let stream = self.stream.as_ref();
        stream.map_or(Ok(None), |stream| self.net.check(stream))
    }

    /// Whether we don't read, because the inbox is full.
    pub(crate) fn is_paused(&self) -> bool {
        self.flags.has(Flag::Paused)
    }

    /// Counts what there was to tell, messages aside. Wraps.
    pub(crate) fn news(&self) -> u32 {
        self.news
    }

    /// Whether something waits in the inbox.
    pub(crate) fn has_events(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Nobody will read what waits in the inbox, which this gives.
    pub(crate) fn discard(&mut self) -> Inbox<C::Message> {
        self.flags.raise(Flag::Unheard);
        let waiting = std::mem::replace(&mut self.inbox, Inbox::new());
        if waiting.has_messages() {
            self.monitor.handle_discarded();
        }
        self.resume();
        waiting
    }

    /// Somebody must look at the monitor's outputs.
    fn outputs_due(&mut self) {
        self.flags.raise(Flag::Outputs);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn note_news(&mut self) {
        self.news = self.news.wrapping_add(1);
    }

    /// Whether the monitor has something that can be dealt with now.
    fn note_outputs(&mut self) {
        if self.has_control() || self.monitor.has_event() {
            self.flags.raise(Flag::Outputs);
        }
    }

    /// While a sender waits the connection is served all the same; what
    /// arrives is kept for whoever reads.
    fn serve(&mut self, keep: Keep, cx: &mut Context<'_>) {
        self.take_in(keep, cx);
        if let Some(reader) = self.reader.take() {
            // If it is another task, it has to ask for its wake-ups again.
            if !reader.will_wake(cx.waker()) || !self.inbox.is_empty() {
                reader.wake();
            }
        }
    }

    /// Serves the connection as long as there is something to do, and keeps
    /// what there is to tell.
    pub(crate) fn take_in(&mut self, keep: Keep, cx: &mut Context<'_>) {
        // Other tasks have a turn after `READ_AHEAD` bytes that were thrown away.
        let mut thrown_away = 0;
        while thrown_away < READ_AHEAD {
            let keep = match keep {
                Keep::All if self.flags.has(Flag::Overflowing) => Keep::ThereIsRoomFor,
                keep => keep,
            };
            let goes_on = self.has_ended()
                || self.write_end().is_some()
                || self.flags.has(Flag::LastWords)
                || keep != Keep::All;
            if self.inbox.is_full() && !goes_on {
                self.pause();
            }
            let Poll::Ready(Some(event)) = self.poll_event(cx) else {
                return;
            };
            let is_message = matches!(event, PeerEvent::Message(_));
            let is_kept = match keep {
                Keep::All => true,
                Keep::ThereIsRoomFor => !is_message || !self.inbox.is_full(),
                Keep::Nothing => event.is_terminal(),
            };
            if is_kept {
                self.keep(event);
            } else if is_message {
                self.monitor.handle_discarded();
                thrown_away += size_of::<PeerEvent<C::Message>>() + self.transport.weight();
            }
        }
        let _ = self.yield_to_others(cx);
    }

    /// Puts an event that was taken out just now behind the others.
    fn keep(&mut self, event: PeerEvent<C::Message>) {
        let (weight, kept_at) = match event {
            PeerEvent::Message(_) => (self.transport.weight(), self.kept_at()),
            _ => (0, None),
        };
        self.inbox.push(event, weight, kept_at);
    }

    /// Remembers the task that waits for events. A driver remembers its own.
    fn note_reader(&mut self, cx: &Context<'_>) {
        if self.flags.has(Flag::Driven) {
            return;
        }
        let reader = self.reader.as_ref();
        if !reader.is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.reader = Some(cx.waker().clone());
        }
    }

    pub(crate) fn take_from_inbox(&mut self) -> Option<PeerEvent<C::Message>> {
        let event = self.inbox.pop();
        if self.inbox.is_empty() {
            self.resume();
        }
        event
    }
}

/// The same timings; nothing else changes.
fn with_beat_events(config: Config) -> Config {
    let told = config.to_builder().beat_events(true).build();
    // It was valid before.
    told.unwrap_or(config)
}

/// Nothing in it is pinned: what is polled is `Unpin` by itself.
impl<S, C: Protocol> Unpin for Heartbeat<S, C> {}

impl<S, C> Stream for Heartbeat<S, C>
where
    C: Transport<S>,
{
    type Item = PeerEvent<C::Message>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(message) = this.next_message() {
            return Poll::Ready(Some(PeerEvent::Message(message)));
        }
        if this.is_overdue() {
            this.catch_up(cx);
        }
        if this.has_events() {
            return Poll::Ready(this.take_from_inbox());
        }
        let event = this.poll_event(cx);
        if this.has_events() {
            if let Poll::Ready(Some(event)) = event {
                this.keep(event);
            }
            return Poll::Ready(this.take_from_inbox());
        }
        match &event {
            Poll::Ready(Some(event)) => this.inbox.note_taken(event),
            Poll::Ready(None) => {}
            Poll::Pending => this.note_reader(cx),
        }
        event
    }
}

impl<S, C> FusedStream for Heartbeat<S, C>
where
    C: Transport<S>,
{
    fn is_terminated(&self) -> bool {
        self.flags.has(Flag::Finished) && self.inbox.is_empty()
    }
}

/// Sending waits while 48 KiB of small messages or 192 KiB in all are queued (8
/// KiB with a codec or frames of your own), and ends with an error as soon as
/// the connection does.
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

impl<S: fmt::Debug, C: Transport<S>> fmt::Debug for Heartbeat<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat")
            .field("stream", &self.stream)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
