//! A stream of which a test decides each read and each write, and which says
//! what was written.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use heartbeat_core::{Control, PART};
use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
};

/// The bytes to read.
#[derive(Clone, Debug)]
pub enum Read {
    /// As many of these bytes as the reader has room for; nothing if none are
    /// left.
    Bytes(Bytes),
    /// These bytes again and again.
    Endless(Bytes),
    /// Nothing yet, and a wake-up at once.
    Pause,
    /// No more will come.
    End,
}

/// The addresses of the memory that calls were given, with one that was pending.
#[derive(Debug, Default)]
pub struct Memory {
    /// What each read could fill.
    pub reads: Vec<Range<usize>>,
    /// The slices of each write.
    pub writes: Vec<Vec<Range<usize>>>,
}

/// The stream. Never counts towards tokio's cooperative budget, allocates
/// nothing by itself unless it records, and is pending for ever when there is
/// nothing left to read.
#[derive(Debug)]
pub struct Scripted(Arc<Mutex<State>>);

/// The test's end of it.
#[derive(Clone, Debug)]
pub struct Script(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    reads: VecDeque<Read>,
    reader: Option<Waker>,
    /// The most bytes that each write takes, in turn; at zero it is pending once.
    takes: Vec<usize>,
    turn: usize,
    /// The number of further bytes that are taken.
    room: usize,
    writer: Option<Waker>,
    vectored: bool,
    /// What is written leaves only when it is flushed.
    buffered: bool,
    flushing: bool,
    /// What the stream took.
    taken: Option<Vec<u8>>,
    /// The number of bytes that have left.
    left: usize,
    calls: usize,
    written: usize,
    memory: Option<Memory>,
    flushes: usize,
}

/// A stream that takes everything at once, and where nothing is to be read
/// yet.
#[must_use]
pub fn scripted() -> (Scripted, Script) {
    let state = Arc::new(Mutex::new(State {
        reads: VecDeque::new(),
        reader: None,
        takes: Vec::new(),
        turn: 0,
        room: usize::MAX,
        writer: None,
        vectored: true,
        buffered: false,
        flushing: false,
        taken: Some(Vec::new()),
        left: 0,
        calls: 0,
        written: 0,
        memory: None,
        flushes: 0,
    }));
    (Scripted(state.clone()), Script(state))
}

impl Script {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends to the bytes to read.
    pub fn give(&self, reads: impl IntoIterator<Item = Read>) {
        let mut state = self.state();
        state.reads.extend(reads);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Gives bytes in one piece.
    pub fn give_bytes(&self, bytes: impl Into<Bytes>) {
        self.give([Read::Bytes(bytes.into())]);
    }

    /// From here on writes take these numbers of bytes, in turn.
    pub fn take_each(&self, takes: impl Into<Vec<usize>>) {
        self.state().takes = takes.into();
    }

    /// Takes this many more bytes, and no more until this is called again.
    pub fn take_only(&self, room: usize) {
        let mut state = self.state();
        state.room = room;
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    /// Whether several slices can be written at once.
    pub fn set_vectored(&self, vectored: bool) {
        self.state().vectored = vectored;
    }

    /// Whether there is a buffer that has to be flushed.
    pub fn set_buffered(&self, buffered: bool) {
        self.state().buffered = buffered;
    }

    /// Forgets what was written, and what will be: then nothing is allocated.
    pub fn record_nothing(&self) {
        self.state().taken = None;
    }

    /// What memory calls were given since this was last asked. From the first time on it is
    /// recorded.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.state()
            .memory
            .replace(Memory::default())
            .unwrap_or_default()
    }

    /// What was taken, whether it has left or not.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.state().taken.as_ref().map_or(0, Vec::len)
    }

    /// What has left.
    #[must_use]
    pub fn sent(&self) -> Vec<u8> {
        let state = self.state();
        let sent = match state.buffered {
            true => state.left,
            false => usize::MAX,
        };
        let taken = state.taken.as_deref().unwrap_or_default();
        taken[..sent.min(taken.len())].to_vec()
    }

    /// How many bytes were written since this was last asked.
    #[must_use]
    pub fn written(&self) -> usize {
        std::mem::take(&mut self.state().written)
    }

    /// How often it was read from since this was last asked.
    #[must_use]
    pub fn reads(&self) -> usize {
        std::mem::take(&mut self.state().calls)
    }

    /// How often it was flushed since this was last asked.
    #[must_use]
    pub fn flushes(&self) -> usize {
        std::mem::take(&mut self.state().flushes)
    }

    /// How many bytes were given and not read.
    #[must_use]
    pub fn unread(&self) -> usize {
        let state = self.state();
        let lengths = state.reads.iter().map(|read| match read {
            Read::Bytes(bytes) => bytes.len(),
            Read::Endless(_) | Read::Pause | Read::End => 0,
        });
        lengths.sum()
    }
}

/// A heartbeat over such a stream that has heard the peer's greeting.
///
/// # Panics
///
/// If it says something else first.
pub async fn greeted(config: Config) -> (Heartbeat<Scripted>, Script) {
    greeted_by(config, |stream| Heartbeat::new(stream, config)).await
}

/// The same, however it is made of the stream.
///
/// # Panics
///
/// If it says something else first.
pub async fn greeted_by<H>(peer: Config, make: impl FnOnce(Scripted) -> H) -> (H, Script)
where
    H: Stream<Item = PeerEvent<Bytes>> + Unpin,
{
    let (stream, script) = scripted();
    let mut heartbeat = make(stream);
    script.give_bytes(control_frame(Control::Hello(peer.hello([7; 8]))));
    let first = heartbeat.next().await;
    assert!(matches!(first, Some(PeerEvent::Connected { .. })));
    (heartbeat, script)
}

/// A runtime for one thread whose clock is paused.
///
/// # Panics
///
/// If there is none to be had.
#[must_use]
pub fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    let builder = builder.enable_time().start_paused(true);
    builder.build().expect("a runtime")
}

impl Scripted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many bytes this write takes.
    fn take(&mut self, cx: &Context<'_>) -> Poll<usize> {
        let turn = self.turn;
        self.turn += 1;
        let take = match self.takes.len() {
            0 => usize::MAX,
            turns => self.takes[turn % turns],
        };
        if take == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.room == 0 {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(take.min(self.room))
    }

    fn record_write<'s>(&mut self, slices: impl IntoIterator<Item = &'s [u8]>) {
        if let Some(memory) = &mut self.memory {
            memory
                .writes
                .push(slices.into_iter().map(addresses).collect());
        }
    }

    fn write(&mut self, slices: &[&[u8]], take: usize) -> usize {
        let mut left = take;
        for slice in slices {
            let some = &slice[..slice.len().min(left)];
            left -= some.len();
            if let Some(taken) = &mut self.taken {
                taken.extend_from_slice(some);
            }
        }
        let written = take - left;
        self.written += written;
        if self.room != usize::MAX {
            self.room -= written;
        }
        written
    }
}

/// Where these bytes are.
fn addresses(bytes: &[u8]) -> Range<usize> {
    let begin = bytes.as_ptr() as usize;
    begin..begin + bytes.len()
}

impl AsyncRead for Scripted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state();
        state.calls += 1;
        if let Some(memory) = &mut state.memory {
            memory.reads.push(addresses(buffer.initialize_unfilled()));
        }
        match state.reads.front_mut() {
            Some(Read::Bytes(bytes)) => {
                let some = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..some]);
                bytes.advance(some);
                if bytes.is_empty() {
                    state.reads.pop_front();
                }
                Poll::Ready(Ok(()))
            }
            Some(Read::Endless(bytes)) => {
                let some = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..some]);
                Poll::Ready(Ok(()))
            }
            Some(Read::Pause) => {
                state.reads.pop_front();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Read::End) => Poll::Ready(Ok(())),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        state.record_write([bytes]);
        state
            .take(cx)
            .map(|take| Ok(state.write(&[bytes], take.min(bytes.len()))))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        assert!(state.vectored, "nobody said that it can");
        state.record_write(slices.iter().map(|slice| &**slice));
        state.take(cx).map(|take| {
            let mut written = 0;
            for slice in slices {
                written += state.write(&[slice], (take - written).min(slice.len()));
            }
            Ok(written)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.state().vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        state.flushes += 1;
        let all = state.taken.as_ref().map_or(0, Vec::len);
        if state.buffered && state.left < all {
            state.flushing = !state.flushing;
            if state.flushing {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        state.left = all;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// A frame as it lies on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnWire {
    /// A message.
    Data(Bytes),
    /// Some of a message, which the first part announces the length of.
    Part {
        /// The message's length.
        announced: Option<usize>,
        /// Its next bytes.
        bytes: Bytes,
    },
    /// A control frame.
    Control(Control),
}

/// What was written, frame by frame, each with where it begins.
///
/// # Panics
///
/// If it isn't a sequence of whole, valid frames.
#[must_use]
pub fn frames(mut wire: &[u8]) -> Vec<(usize, OnWire)> {
    let all = wire.len();
    let mut frames = Vec::new();
    // Of the message that comes in parts.
    let mut missing = 0;
    while !wire.is_empty() {
        let begin = all - wire.len();
        let (length, rest) = wire.split_first_chunk().expect("a whole length");
        let length = u32::from_be_bytes(*length) as usize;
        let frame = rest.get(..length).expect("a whole frame");
        frames.push((
            begin,
            match frame.split_first().expect("a tag") {
                (0, body) => {
                    assert_eq!(missing, 0, "data in the middle of a message");
                    OnWire::Data(Bytes::copy_from_slice(body))
                }
                (7, body) => part(body, &mut missing),
                _ => OnWire::Control(Control::decode(frame).expect("a control frame")),
            },
        ));
        wire = &rest[length..];
    }
    frames
}

/// A part of a message that lacks this many bytes.
fn part(mut body: &[u8], missing: &mut usize) -> OnWire {
    let mut announced = None;
    if *missing == 0 {
        for digit in 0.. {
            let (&byte, rest) = body.split_first().expect("its length");
            *missing |= usize::from(byte & 0x7f) << (7 * digit);
            body = rest;
            if byte < 0x80 {
                break;
            }
        }
        assert!(*missing > PART, "it fits in one frame");
        announced = Some(*missing);
    }
    assert!((1..=PART).contains(&body.len()), "{} bytes", body.len());
    *missing = missing.checked_sub(body.len()).expect("no more than that");
    let bytes = Bytes::copy_from_slice(body);
    OnWire::Part { announced, bytes }
}

/// The messages among frames; none of which only some was written.
#[must_use]
pub fn messages(frames: &[(usize, OnWire)]) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let (mut length, mut whole) = (0, Vec::new());
    for (_, frame) in frames {
        match frame {
            OnWire::Data(message) => messages.push(message.clone()),
            OnWire::Part { announced, bytes } => {
                length = announced.unwrap_or(length);
                whole.extend_from_slice(bytes);
                if whole.len() == length {
                    messages.push(std::mem::take(&mut whole).into());
                }
            }
            OnWire::Control(_) => {}
        }
    }
    messages
}

/// A control frame, length included.
///
/// # Panics
///
/// Never: the buffer is long enough.
#[must_use]
pub fn control_frame(control: Control) -> Vec<u8> {
    let mut buffer = [0; Control::MAX_ENCODED];
    super::framed(control.encode(&mut buffer).expect("long enough"))
}

/// Bytes that differ between messages and within one: at `index` stands the
/// lowest byte of `31 * nth + 7 * index + index / 251`. Written row by row, as tests aren't
/// optimised and a closure for each byte would take most of their time.
#[must_use]
pub fn filler(nth: usize, length: usize) -> Bytes {
    const ROW: usize = 251;
    /// Steps of 7, twice around.
    const STEPS: [u8; 512] = {
        let mut steps = [0; 512];
        let mut at = 1;
        while at < steps.len() {
            steps[at] = u8::wrapping_add(steps[at - 1], 7);
            at += 1;
        }
        steps
    };
    let mut bytes = Vec::with_capacity(length);
    for row in 0..length.div_ceil(ROW) {
        // 7 * 41 is 31, and 7 * 178 is 7 * 251 + 1, modulo 256.
        let begin = (41 * nth + 178 * row) % 256;
        let rest = length - bytes.len();
        bytes.extend_from_slice(&STEPS[begin..begin + ROW.min(rest)]);
    }
    bytes.into()
}
