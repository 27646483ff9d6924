//! A stream that knows whether its other end lives.
//!
//! This module decides the order in which one connection is served: read what
//! is there, compare the clock with the deadline, write, hand out events, arm
//! the timer. What is alive and what is dead is the monitor's to say, and how
//! frames lie on the wire is the transport's.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    hash::{BuildHasher, Hasher, RandomState},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{Sink, Stream, stream::FusedStream};
use heartbeat_core::{
    Cause, CloseReason, Config, Control, End, Event, Evidence, Instant, Monitor, Nonce,
};
use tokio::task::{coop, unconstrained, yield_now};

use crate::{
    PeerEvent, SendError,
    arrivals::Arrivals,
    error::Ended,
    inbox::{Inbox, READ_AHEAD},
    net::{Net, NetStatus, SocketOf},
    observe::Observe,
    safety_net::{self, SafetyNet},
    timer::{Clock, Timer},
    transport::{Broken, Buffered, Frame, Protocol, Scope, Transport},
    wire::Wire,
};

/// So often is read in one poll in which there is nothing to hand out, before
/// everybody else has a turn. Streams of tokio's stop by themselves after twice
/// as many; others may never.
const READS_AT_ONCE: usize = 64;

/// After a read of so many bytes there is probably more.
const BULK: usize = 16 * 1024;

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
/// * **Dropping** it closes the stream without a goodbye, which the peer sees
///   as [`Cause::Eof`]. [`SinkExt::close`](futures::SinkExt::close) says
///   goodbye first, behind everything that was queued, and waits for the peer to
///   close too. It gives up if writes make no progress for
///   `max_missed · timeout`, or the peer's end doesn't come within that time.
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
/// outside of one panics in tokio.
pub struct Heartbeat<S, C: Protocol = Wire> {
    stream: S,
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

    /// Whoever waits for events, and whoever waits to write: they may be two
    /// tasks.
    reader: Option<Waker>,
    writer: Option<Waker>,
    flags: Flags,
}

/// How a connection ends, and what is left to do. A connection that lives has
/// none of it, and doesn't keep room for it.
#[derive(Debug, Default)]
struct Ending {
    /// The terminal event, until everything before it is handed out.
    terminal: Option<Event>,
    /// How it ended, and how sending fails from now on.
    ended: Option<Ended>,
    /// The error behind the end.
    io_error: Option<Arc<io::Error>>,
    /// Writing failed so; what can still be read is read first.
    write_end: Option<End>,
    /// When ending our direction of the stream is given up.
    shutdown_by: Option<Instant>,
}

/// A fact that is true or not, and takes one bit.
#[derive(Clone, Copy, Debug)]
enum Flag {
    /// The monitor may have frames to send or events to tell.
    Outputs,
    /// Control frames were handed to the transport, and the monitor wasn't
    /// told that they left.
    Flushing,
    /// No message of the last read was taken out yet.
    NewMessage,
    /// The last read wasn't taken apart to its end yet.
    NewBytes,
    /// The last read was large.
    Bulk,
    /// The timer has fired; frames that were there are taken out first.
    Judging,
    /// A sender wants everything written.
    FlushWanted,
    /// The stream took what it could in this poll already.
    Written,
    /// The monitor was told that a write is blocked.
    Blocked,
    /// We don't read: the inbox is full.
    Paused,
    /// The kernel says that the peer is gone: what it sent before is read, full
    /// inbox or not, since nothing can follow it.
    LastWords,
    /// No more frames are taken out: the stream is broken or said goodbye.
    Deaf,
    /// Our direction of the stream has ended.
    Shut,
    /// Writing has failed, or it has ended: whatever was read comes first.
    Ending,
    /// The terminal event was handed out.
    Finished,
}

/// The facts that are true.
#[derive(Clone, Copy, Debug, Default)]
struct Flags(u16);

impl Flags {
    /// With any of these there is more to see to than messages.
    const DISTURBING: u16 = Flag::Outputs.bit()
        | Flag::Flushing.bit()
        | Flag::Judging.bit()
        | Flag::FlushWanted.bit()
        | Flag::Paused.bit()
        | Flag::Deaf.bit()
        | Flag::Ending.bit()
        | Flag::Finished.bit();

    const fn has(self, flag: Flag) -> bool {
        self.0 & flag.bit() != 0
    }

    const fn disturb(self) -> bool {
        self.0 & Self::DISTURBING != 0
    }

    /// There may be messages, and nothing else.
    const fn tell_of_messages(self) -> bool {
        let messages = Flag::NewBytes.bit();
        self.0 & (Self::DISTURBING | messages) == messages
    }

    const fn set(&mut self, flag: Flag, value: bool) {
        self.0 = match value {
            true => self.0 | flag.bit(),
            false => self.0 & !flag.bit(),
        };
    }

    const fn raise(&mut self, flag: Flag) {
        self.set(flag, true);
    }

    const fn clear(&mut self, flag: Flag) {
        self.set(flag, false);
    }
}

impl Flag {
    const fn bit(self) -> u16 {
        1 << self as u16
    }
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
    /// The second line of defence, in the kernel.
    pub safety_net: NetStatus,
}

/// What a [`Heartbeat`] consists of.
#[derive(Debug)]
#[non_exhaustive] // later versions may hold more
pub struct Parts<S, M> {
    /// The stream itself.
    pub stream: S,
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

/// What is left of a connection that is over.
#[derive(Debug)]
pub(crate) struct Remains<M> {
    pub(crate) inbox: Inbox<M>,
    pub(crate) ended: Option<Ended>,
    pub(crate) io_error: Option<Arc<io::Error>>,
    pub(crate) status: Status,
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Over any transport; see `wrap.rs`.
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
        let monitor = Monitor::new(config, seed, clock.now());
        Self {
            stream,
            transport,
            monitor: match C::HELLO {
                true => monitor,
                false => monitor.without_hello(),
            },
            clock,
            timer: Timer::with_step(config.interval() / 2),
            net,
            arrivals: Arrivals::new(),
            observe: Observe::new(),
            inbox: Inbox::new(),
            ending: None,
            news: 0,
            reader: None,
            writer: None,
            flags: Flags(Flag::Outputs.bit()), // our Hello
        }
    }

    /// Asks the peer now, without waiting for the interval. The answer comes
    /// as [`PeerEvent::Beat`], or else the verdict within
    /// `max_missed · timeout`. See [`Monitor::probe`].
    pub fn probe(&mut self) {
        self.monitor.probe(self.clock.now());
        self.outputs_due();
    }

    /// What is known about the connection right now.
    #[must_use]
    pub fn status(&self) -> Status {
        let peer = self.monitor.status();
        Status {
            silent_for: self.clock.now().saturating_duration_since(peer.last_heard),
            peer,
            safety_net: self.net.status(),
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
        self.monitor.config()
    }

    /// The operating system's error behind [`PeerEvent::Dead`], if there was
    /// one.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        self.ending.as_ref()?.io_error.as_deref()
    }

    /// The stream itself. Reading from it or writing to it breaks the
    /// framing; looking at it is fine.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Takes it apart. Nothing that was buffered is lost.
    #[must_use]
    pub fn into_parts(self) -> Parts<S, C::Message> {
        let Buffered {
            received,
            unsent,
            read,
            write,
        } = self.transport.into_buffered();
        let received = received.into_iter().map(PeerEvent::Message);
        let terminal = self
            .ending
            .and_then(|ending| ending.terminal)
            .and_then(PeerEvent::from_core);
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

    // ---- for the constructors -------------------------------------------

    pub(crate) fn move_net(&mut self, socket: SocketOf<S>) {
        self.net
            .move_to(socket, &self.stream, self.monitor.config());
    }

    pub(crate) fn replace_net(&mut self, net: &SafetyNet) {
        self.net.replace(&self.stream, self.monitor.config(), net);
    }

    // ---- for the driver ------------------------------------------------

    /// Counts what there was to tell, messages aside. Wraps.
    pub(crate) fn news(&self) -> u32 {
        self.news
    }

    /// The error behind the end.
    pub(crate) fn shared_io_error(&self) -> Option<Arc<io::Error>> {
        self.ending.as_ref()?.io_error.clone()
    }

    /// Whether something waits in the inbox.
    pub(crate) fn has_events(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Queues a message, to be written as soon as somebody polls.
    pub(crate) fn post(&mut self, message: C::Message) -> Result<(), SendError> {
        self.check_open()?;
        self.transport.push(message)?;
        self.flags.raise(Flag::FlushWanted);
        Ok(())
    }

    /// Whether everything was written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.transport.unwritten() == 0 && !self.flags.has(Flag::FlushWanted)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ending.as_ref()?.ended
    }

    /// How sending fails once the connection has ended.
    #[inline]
    fn check_open(&self) -> Result<(), SendError> {
        match self.ended() {
            Some(ended) => Err(ended.into()),
            None => Ok(()),
        }
    }

    /// Whether the terminal event was handed out, or lies in the inbox.
    pub(crate) fn has_finished(&self) -> bool {
        self.flags.has(Flag::Finished)
    }

    /// Nobody will read what waits in the inbox.
    pub(crate) fn discard(&mut self) {
        self.inbox = Inbox::new();
        self.resume();
    }

    /// Takes it apart and keeps what there is to tell. If it hasn't ended,
    /// nobody serves it any more, and that is its end.
    pub(crate) fn into_remains(mut self) -> Remains<C::Message> {
        if self.ended().is_none() {
            self.end(End::Io);
        }
        while let Some(event) = self.next_output() {
            self.inbox.push(event, 0);
        }
        while let Some(Frame::Data(message)) = self.next_frame() {
            let weight = self.transport.weight();
            self.inbox.push(PeerEvent::Message(message), weight);
        }
        if let Some(terminal) = self.take_terminal().and_then(PeerEvent::from_core) {
            self.inbox.push(terminal, 0);
        }
        Remains {
            status: self.status(),
            ended: self.ended(),
            io_error: self.shared_io_error(),
            inbox: self.inbox,
        }
    }

    /// Somebody must look at the monitor's outputs.
    fn outputs_due(&mut self) {
        self.flags.raise(Flag::Outputs);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    // ---- the inbound side ----------------------------------------------

    /// What there is most often: a message that lies there, and nothing else to
    /// see to.
    #[inline(always)] // so that the message is moved once
    pub(crate) fn next_message(&mut self) -> Option<C::Message> {
        if !self.flags.tell_of_messages() || self.timer.has_fired() || self.has_events() {
            return None;
        }
        self.take_message()
    }

    /// A message, if one lies there.
    #[inline(always)]
    fn take_message(&mut self) -> Option<C::Message> {
        let message = self.transport.next_message()?;
        self.note_message();
        if self.transport.unread() == 0 && !self.flags.has(Flag::Bulk) {
            // There is no backlog, and so nothing more to learn of this read.
            self.flags.clear(Flag::NewBytes);
        }
        Some(message)
    }

    /// The next event, straight from the connection.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<C::Message>>> {
        for _ in 0..READS_AT_ONCE {
            // Most often there is nothing to do until bytes arrive: messages
            // that lay there were handed out before this was called.
            if self.is_undisturbed() && !self.flags.has(Flag::NewBytes) {
                if self.poll_read(cx).is_ready() {
                    if self.flags.tell_of_messages() {
                        if let Some(message) = self.take_message() {
                            return Poll::Ready(Some(PeerEvent::Message(message)));
                        }
                    }
                } else if self.is_waiting(cx) {
                    return Poll::Pending;
                }
            }
            if let Some(event) = self.poll_other_event(cx) {
                return event;
            }
        }
        self.yield_to_others(cx)
    }

    /// There was always more to read. What waits to be written may leave all the
    /// same.
    #[cold]
    fn yield_to_others(&mut self, cx: &mut Context<'_>) -> Poll<Option<PeerEvent<C::Message>>> {
        if self.flags.has(Flag::FlushWanted) && !self.flags.has(Flag::Written) {
            self.write(cx);
        }
        // Wakes this task when all others had a turn.
        let _ = pin!(yield_now()).poll(cx);
        Poll::Pending
    }

    /// Whether the monitor wants something, or the end has come.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.flags.has(Flag::Outputs) || self.flags.has(Flag::Ending)
    }

    /// Whether there is nothing to see to but messages.
    #[inline]
    fn is_undisturbed(&self) -> bool {
        !self.flags.disturb() && !self.timer.has_fired()
    }

    /// Everything there may be to do. `None` if something was read, of which
    /// nothing was taken out yet.
    fn poll_other_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Option<Poll<Option<PeerEvent<C::Message>>>> {
        if self.flags.has(Flag::Finished) {
            return Some(Poll::Ready(None));
        }
        loop {
            if self.flags.has(Flag::Outputs) {
                self.write_outputs(cx);
                if let Some(event) = self.next_output() {
                    return Some(Poll::Ready(Some(event)));
                }
            }
            if self.timer.has_fired() && self.ended().is_none() && !self.flags.has(Flag::Judging) {
                self.read_before_judging(cx);
                continue;
            }
            if !self.flags.has(Flag::Paused) && self.flags.has(Flag::NewBytes) {
                match self.next_frame() {
                    Some(Frame::Data(message)) => {
                        self.note_message();
                        return Some(Poll::Ready(Some(PeerEvent::Message(message))));
                    }
                    Some(frame) => self.note_control(frame),
                    None => self.note_backlog(),
                }
                if self.flags.has(Flag::Outputs) {
                    continue;
                }
            }
            if self.flags.has(Flag::Judging) {
                self.judge(cx);
                continue;
            }
            if let Some(terminal) = self.take_terminal() {
                self.flags.raise(Flag::Finished);
                let left = matches!(self.ended(), Some(Ended::Closed(CloseReason::Peer)));
                if left && !self.flags.has(Flag::Shut) {
                    // Who said goodbye waits for it. An error changes nothing,
                    // and if it takes time, dropping the stream will do.
                    let done = self.transport.poll_shutdown(&mut self.stream, cx);
                    self.flags.set(Flag::Shut, done.is_ready());
                }
                return Some(Poll::Ready(PeerEvent::from_core(terminal)));
            }
            if !self.flags.has(Flag::Paused) && self.poll_read(cx).is_ready() {
                return None;
            }
            let unwritten = self.flags.has(Flag::FlushWanted) || self.flags.has(Flag::Flushing);
            if unwritten && !self.flags.has(Flag::Written) {
                self.write(cx);
            }
            if let Some(end) = self.write_end() {
                self.end_after_reading(end, cx);
            }
            if self.flags.has(Flag::Outputs) {
                continue;
            }
            if self.timer.arm(self.clock, self.next_deadline(), cx) {
                self.wait();
                return Some(Poll::Pending);
            }
        }
    }

    /// A frame out of what was read, as long as frames are of interest.
    fn next_frame(&mut self) -> Option<Frame<C::Message>> {
        while !self.flags.has(Flag::Deaf) {
            match self.transport.next_frame() {
                Ok(Some(Frame::Data(message))) => return Some(Frame::Data(message)),
                // After the end only messages are.
                Ok(Some(_)) if self.ended().is_some() => {}
                Ok(frame) => return frame,
                Err(Broken { error, words }) => {
                    self.flags.raise(Flag::Deaf);
                    if let Some(words) = words {
                        self.ending().io_error.get_or_insert(Arc::new(words));
                    }
                    self.end(End::Protocol(error));
                }
            }
        }
        None
    }

    /// A frame was taken out that isn't a message.
    fn note_control(&mut self, frame: Frame<C::Message>) {
        self.note_news(); // a pong, perhaps
        self.settle_arrivals();
        // In a protocol whose pings carry nothing, so do the pongs.
        let or_empty = |nonce: Option<Nonce>| nonce.unwrap_or(Nonce([0; 8]));
        let control = match frame {
            Frame::Hello(hello) => Control::Hello(hello),
            Frame::Ping(nonce) => Control::Ping(or_empty(nonce)),
            Frame::Pong(Some(nonce)) => Control::Pong(nonce),
            Frame::Goodbye => Control::Goodbye,
            Frame::Pong(None) => {
                self.monitor.handle_unnumbered_pong(self.arrivals.last());
                self.flags.raise(Flag::Outputs);
                return;
            }
            Frame::Data(_) | Frame::Other => {
                self.monitor.handle_message(self.arrivals.last());
                return self.note_outputs();
            }
        };
        self.monitor.handle_frame(control, self.arrivals.last());
        self.flags.raise(Flag::Outputs);
    }

    /// A message was taken out. One for each read is enough to know of.
    #[inline]
    fn note_message(&mut self) {
        if self.flags.has(Flag::NewMessage) {
            self.flags.clear(Flag::NewMessage);
            self.monitor.handle_message(self.arrivals.last());
            self.note_outputs();
        }
    }

    /// Every whole frame was taken out.
    fn note_backlog(&mut self) {
        self.flags.clear(Flag::NewBytes);
        if self.flags.has(Flag::Bulk) || self.transport.unread() > 0 {
            self.monitor.handle_backlog(self.arrivals.last());
            self.note_outputs();
        }
    }

    /// Reads once; `Pending` if there is nothing.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.transport.poll_read(&mut self.stream, cx)) {
            Ok(0) => {
                self.flags.raise(Flag::NewBytes); // a codec may have something to say of the end
                self.end(self.write_end().unwrap_or(End::Eof));
            }
            Ok(read) => {
                self.flags.raise(Flag::NewBytes);
                self.flags.set(Flag::Bulk, read >= BULK);
                if self.arrivals.is_to_be_timed() {
                    self.time_arrival();
                }
            }
            Err(error) => {
                let end = safety_net::end_of(&error);
                self.ending().io_error = Some(Arc::new(error));
                self.end(end);
            }
        }
        Poll::Ready(())
    }

    /// What was read came now.
    fn time_arrival(&mut self) {
        let now = self.clock.now();
        self.arrivals.time(self.monitor.config(), now);
        self.flags.raise(Flag::NewMessage);
        self.monitor.handle_bytes(now);
        self.note_outputs();
    }

    /// From here on arrivals are to be known exactly.
    fn settle_arrivals(&mut self) {
        if self.arrivals.are_relaxed() {
            let now = self.clock.now();
            if let Some(at) = self.arrivals.settle(self.monitor.config(), now) {
                self.monitor.handle_bytes(at);
            }
        }
    }

    /// Reads once, also when tokio's cooperative budget is used up: that this
    /// task has had its turn says nothing about the peer.
    fn read_regardless(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        pin!(unconstrained(poll_fn(|cx| self.poll_read(cx)))).poll(cx)
    }

    /// The timer has fired. What is there is read before anybody is judged,
    /// and if bytes alone are no evidence, its frames are taken out too.
    fn read_before_judging(&mut self, cx: &mut Context<'_>) {
        if self.flags.has(Flag::Paused) {
            if self.net.is_gone(&self.stream, self.clock.now()) {
                self.flags.raise(Flag::LastWords);
                self.resume();
            }
        } else if self.transport.unread() > READ_AHEAD {
            // The application is behind with what lies here, and behind that
            // there may be more: nothing can be held against the peer.
            self.monitor.handle_bytes(self.clock.now());
        } else {
            // Whether there was anything, the monitor knows now.
            let _ = self.read_regardless(cx);
        }
        self.flags.raise(Flag::Judging);
        if !matches!(self.config().evidence(), Evidence::Frame | Evidence::Echo) {
            self.judge(cx);
        }
    }

    /// Judges, and arms the timer again.
    fn judge(&mut self, cx: &mut Context<'_>) {
        self.flags.clear(Flag::Judging);
        self.settle_arrivals();
        self.ask_the_kernel();
        self.monitor.handle_timeout(self.clock.now());
        self.flags.raise(Flag::Outputs);
        // If that is over already, the timer has fired again.
        self.timer.served();
        self.timer.arm(self.clock, self.next_deadline(), cx);
    }

    /// An acknowledgement of the peer's kernel counts, if that was asked for.
    fn ask_the_kernel(&mut self) {
        if self.config().evidence() == Evidence::Acknowledgement && !self.flags.has(Flag::Paused) {
            let heard_at = self.monitor.status().last_heard;
            let now = self.clock.now();
            if let Some(at) = self.net.acknowledged_at(&self.stream, heard_at, now) {
                self.monitor.handle_acknowledged(at, now);
            }
        }
    }

    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        let mut deadline = self.monitor.poll_timeout();
        let at_latest = |deadline: Option<Instant>, at: Instant| {
            Some(deadline.map_or(at, |deadline| deadline.min(at)))
        };
        if let Some(look_at) = self.net.look_at() {
            deadline = at_latest(deadline, look_at);
        }
        if self.needs_no_times() {
            deadline = at_latest(deadline, self.arrivals.deadline(self.config()));
        }
        deadline
    }

    /// Whether the timer is armed already, and wakes this task. As long as
    /// arrivals aren't timed nothing has moved the deadline.
    #[inline]
    fn is_waiting(&mut self, cx: &Context<'_>) -> bool {
        if self.arrivals.are_relaxed() {
            return self.timer.wakes(cx);
        }
        let armed = self.timer.is_armed(self.next_deadline(), cx);
        if armed {
            self.wait();
        }
        armed
    }

    /// Nothing is to be done until the timer fires or bytes arrive.
    #[inline]
    fn wait(&mut self) {
        if self.needs_no_times() {
            self.arrivals.relax();
        }
    }

    /// Whether reads needn't be timed until the timer fires: there are many,
    /// and nothing but silence is waited for.
    #[inline]
    fn needs_no_times(&self) -> bool {
        let any_bytes = || !matches!(self.config().evidence(), Evidence::Frame | Evidence::Echo);
        self.arrivals.are_many() && self.monitor.is_idle() && any_bytes()
    }

    // ---- the outbound side ---------------------------------------------

    /// Writes the control frames that the monitor wants sent.
    fn write_outputs(&mut self, cx: &mut Context<'_>) {
        self.queue_outputs();
        if self.flags.has(Flag::Flushing) {
            self.write(cx);
        }
    }

    fn queue_outputs(&mut self) {
        // One batch at a time, so that what hasn't left can't pile up.
        if !self.transport.control_unwritten() {
            while let Some(control) = self.monitor.poll_transmit() {
                self.observe.sent(&control);
                self.transport.push_control(control);
                self.flags.raise(Flag::Flushing);
                // Its answer's round trip is measured.
                self.settle_arrivals();
            }
        }
    }

    /// Writes as much as the stream takes, and tells the monitor.
    fn write(&mut self, cx: &mut Context<'_>) {
        if self.ended().is_some() || self.write_end().is_some() {
            return;
        }
        let scope = match self.flags.has(Flag::FlushWanted) {
            true => Scope::All,
            false => Scope::Control,
        };
        let waits_for_room = self.writer.is_some() && !self.has_room();
        let (taken, result) = self.transport.poll_write(&mut self.stream, cx, scope);
        match result {
            Poll::Ready(Ok(())) => {
                if scope == Scope::All {
                    self.flags.clear(Flag::FlushWanted);
                    self.wake_writer();
                }
                if self.flags.has(Flag::Flushing) || self.flags.has(Flag::Blocked) {
                    self.flushed();
                }
            }
            Poll::Ready(Err(error)) => {
                self.flags.raise(Flag::Ending);
                let end = match error.kind() {
                    // The peer had closed before we wrote: what it looks like
                    // from the reading side is the better description.
                    io::ErrorKind::BrokenPipe => End::Eof,
                    _ => safety_net::end_of(&error),
                };
                let ending = self.ending();
                ending.write_end = Some(end);
                ending.io_error = Some(Arc::new(error));
                // Whatever arrived before is read first.
                self.resume();
            }
            Poll::Pending => self.write_blocked(taken, cx),
        }
        if waits_for_room && self.has_room() {
            self.wake_writer();
        }
    }

    fn write_blocked(&mut self, taken: usize, cx: &mut Context<'_>) {
        if taken == 0 && !coop::has_budget_remaining() {
            // Not the stream: this task has had its turn.
            return;
        }
        if self.monitor.is_idle() && self.config().write_stall().is_none() {
            // How long writing takes is of no interest.
            return;
        }
        let now = self.clock.now();
        if taken > 0 {
            self.monitor.handle_progress(now);
        }
        if self.flags.has(Flag::Flushing) && !self.transport.control_unwritten() {
            // Only messages wait. The control frames have left, unless the
            // stream has a buffer of its own.
            let (_, flushed) = self
                .transport
                .poll_write(&mut self.stream, cx, Scope::Control);
            if let Poll::Ready(Ok(())) = flushed {
                self.flushed();
            }
        }
        self.monitor.handle_blocked(now);
        self.flags.raise(Flag::Blocked);
        self.note_outputs();
    }

    fn note_news(&mut self) {
        self.news = self.news.wrapping_add(1);
    }

    /// Whether the monitor has something that can be dealt with now.
    fn note_outputs(&mut self) {
        let transmit = self.monitor.has_transmit() && !self.transport.control_unwritten();
        if transmit || self.monitor.has_event() {
            self.flags.raise(Flag::Outputs);
        }
    }

    fn flushed(&mut self) {
        self.monitor.handle_flushed(self.clock.now());
        self.flags.clear(Flag::Flushing);
        self.flags.clear(Flag::Blocked);
        self.note_outputs();
    }

    /// While a sender waits the connection is served all the same; what
    /// arrives is kept for whoever reads.
    fn serve(&mut self, cx: &mut Context<'_>) {
        self.take_in(cx);
        if let Some(reader) = self.reader.take() {
            // If it is another task, it has to ask for its wake-ups again.
            if !reader.will_wake(cx.waker()) || !self.inbox.is_empty() {
                reader.wake();
            }
        }
    }

    /// Serves the connection as long as there is something to do, and keeps
    /// what there is to tell.
    pub(crate) fn take_in(&mut self, cx: &mut Context<'_>) {
        loop {
            if self.inbox.is_full()
                && self.write_end().is_none()
                && !self.flags.has(Flag::LastWords)
            {
                self.pause();
            }
            let Poll::Ready(Some(event)) = self.poll_event(cx) else {
                break;
            };
            let message = match event {
                PeerEvent::Message(_) => self.transport.weight(),
                _ => 0,
            };
            self.inbox.push(event, message);
        }
    }

    /// Whether something lies there that may be a message.
    pub(crate) fn has_unread(&self) -> bool {
        self.transport.unread() > 0
    }

    /// Whether a message may be queued.
    pub(crate) fn has_room(&self) -> bool {
        self.transport.has_room()
    }

    /// Writes what is queued, as far as the stream takes it.
    #[inline]
    pub(crate) fn write_now(&mut self, cx: &mut Context<'_>) {
        self.flags.raise(Flag::FlushWanted);
        if self.flags.has(Flag::Outputs) {
            // Our Hello comes before any message.
            self.queue_outputs();
        }
        self.write(cx);
    }

    /// Writes until `enough`, and serves the connection while that takes
    /// time.
    fn poll_write_until(
        &mut self,
        cx: &mut Context<'_>,
        enough: impl Fn(&Self) -> bool,
    ) -> Poll<Result<(), SendError>> {
        self.writer = None;
        match enough(self) {
            true => Poll::Ready(self.check_open()),
            false => self.poll_write_more(cx, enough),
        }
    }

    fn poll_write_more(
        &mut self,
        cx: &mut Context<'_>,
        enough: impl Fn(&Self) -> bool,
    ) -> Poll<Result<(), SendError>> {
        if self.ended().is_none() {
            self.write_now(cx);
            if !enough(self) {
                self.flags.raise(Flag::Written);
                self.serve(cx);
                self.flags.clear(Flag::Written);
                if self.ended().is_none() && !enough(self) {
                    self.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(self.check_open())
    }

    /// Ends our direction of the stream and waits for the peer to end its own,
    /// in bounded time.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.config().timeout() * self.config().max_missed();
        let by = match self.ending().shutdown_by {
            Some(by) => by,
            None => {
                self.timer.served();
                let by = self.clock.now() + patience;
                *self.ending().shutdown_by.insert(by)
            }
        };
        if !self.flags.has(Flag::Shut) {
            // The goodbye has left: an error here changes nothing.
            let done = self.transport.poll_shutdown(&mut self.stream, cx);
            self.flags.set(Flag::Shut, done.is_ready());
        }
        let done = self.flags.has(Flag::Shut) && self.poll_peers_end(cx).is_ready();
        if done || self.timer.has_fired() || !self.timer.arm(self.clock, Some(by), cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Waits for the end of the peer's direction. If the socket were closed
    /// before, the peer's next ping would be answered with a reset, and what
    /// the kernel has of us and the peer hasn't read yet would be lost.
    fn poll_peers_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_AT_ONCE {
            if let Ok(0) | Err(_) = ready!(self.transport.poll_read(&mut self.stream, cx)) {
                return Poll::Ready(());
            }
            // Who goes on sending is heard out, and what he sends is of no use
            // to anybody.
            while self.transport.unread() > READ_AHEAD {
                match self.transport.next_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Poll::Ready(()),
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Whoever waits for events is called.
    fn note_reader(&mut self, cx: &Context<'_>) {
        let reader = self.reader.as_ref();
        if !reader.is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.reader = Some(cx.waker().clone());
        }
    }

    fn take_from_inbox(&mut self) -> Option<PeerEvent<C::Message>> {
        let event = self.inbox.pop();
        if self.inbox.is_empty() {
            self.resume();
        }
        event
    }

    // ---- pauses --------------------------------------------------------

    /// Stops reading.
    fn pause(&mut self) {
        if !self.flags.has(Flag::Paused) {
            self.flags.raise(Flag::Paused);
            self.note_news();
            self.settle_arrivals();
            let now = self.clock.now();
            self.monitor.handle_paused(now);
            self.net.begin_looking(&self.stream, now);
            self.flags.raise(Flag::Outputs);
        }
    }

    /// Reads again.
    fn resume(&mut self) {
        if self.flags.has(Flag::Paused) {
            self.flags.clear(Flag::Paused);
            self.note_news();
            self.monitor.handle_resumed(self.clock.now());
            self.net.end_looking();
            self.flags.raise(Flag::Outputs);
        }
    }

    // ---- ends ----------------------------------------------------------

    fn ending(&mut self) -> &mut Ending {
        self.ending.get_or_insert_default()
    }

    fn write_end(&self) -> Option<End> {
        self.ending.as_ref()?.write_end
    }

    fn take_terminal(&mut self) -> Option<Event> {
        self.ending.as_mut()?.terminal.take()
    }

    /// The transport ended.
    fn end(&mut self, end: End) {
        self.monitor.handle_end(end, self.clock.now());
        self.flags.raise(Flag::Outputs);
    }

    /// Writing has failed. That is the end, as soon as there is nothing left
    /// to read.
    fn end_after_reading(&mut self, end: End, cx: &mut Context<'_>) {
        if self.ended().is_none() && self.read_regardless(cx).is_pending() {
            self.end(end);
        }
    }

    /// The next of the monitor's events; a terminal one is put aside, for
    /// messages that arrived before it.
    fn next_output(&mut self) -> Option<PeerEvent<C::Message>> {
        self.observe.look(&self.monitor, &self.net, &self.stream);
        while let Some(mut event) = self.monitor.poll_event() {
            self.note_news();
            self.observe.event(&event);
            match event {
                Event::Closed { reason } => {
                    self.ending().ended = Some(Ended::Closed(reason));
                    if reason == CloseReason::Peer {
                        self.flags.raise(Flag::Deaf);
                    }
                }
                Event::Dead(ref mut death) => {
                    self.net.diagnose(&self.stream, death);
                    self.ending().ended = Some(Ended::Dead(*death));
                    if matches!(death.cause, Cause::Protocol(_) | Cause::PingFlood) {
                        self.flags.raise(Flag::Deaf);
                    }
                }
                Event::Connected { .. } => {
                    let interval = self.monitor.status().interval;
                    self.net
                        .adapt(&self.stream, self.monitor.config(), interval);
                    return PeerEvent::from_core(event);
                }
                event => match PeerEvent::from_core(event) {
                    Some(event) => return Some(event),
                    None => continue,
                },
            }
            let ending = self.ending.get_or_insert_default();
            self.observe.end(&event, ending.io_error.as_deref());
            ending.terminal = Some(event);
            self.flags.raise(Flag::Ending);
            // Messages that wait in the inbox and behind come before it.
            self.flags.clear(Flag::Paused);
            self.net.end_looking();
            self.wake_writer();
        }
        self.flags.clear(Flag::Outputs);
        None
    }
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
        if this.has_events() {
            return Poll::Ready(this.take_from_inbox());
        }
        let event = this.poll_event(cx);
        if event.is_pending() {
            this.note_reader(cx);
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
        let this = self.get_mut();
        this.check_open()?;
        this.transport.push(message)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_write_until(cx, Self::is_flushed)
    }

    /// Says goodbye behind everything that was queued, ends our direction of
    /// the stream, and waits for the peer to end its own: until then what
    /// waits in the kernel could be lost. Gives up if writes make no progress
    /// for `max_missed · timeout`, and if the peer's end doesn't come within
    /// that time.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let this = self.get_mut();
        this.writer = None;
        if this.ended().is_none() {
            this.monitor.close(this.clock.now());
            this.flags.raise(Flag::Outputs);
            this.flags.raise(Flag::FlushWanted);
            this.serve(cx);
        }
        match this.ended() {
            None => {
                this.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Ended::Closed(_)) if this.transport.unwritten() == 0 => {
                this.poll_shutdown(cx).map(Ok)
            }
            Some(ended) => Poll::Ready(Err(ended.into())),
        }
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
