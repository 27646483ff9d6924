//! What a [`Heartbeat`](crate::Heartbeat) asks of the thing that carries its
//! frames.
//!
//! This module decides the seam between judging a peer and moving frames. It
//! is private: users choose a transport by choosing a constructor.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use heartbeat_core::{Control, ProtocolError};

/// One frame that arrived.
#[derive(Debug)]
pub enum Frame<M> {
    /// The application's.
    Data(M),
    /// For the monitor.
    Control(Control),
}

/// A message exceeds what the configuration allows.
#[derive(Clone, Copy, Debug)]
pub struct TooLong {
    /// Its length in bytes.
    pub length: usize,
    /// The limit in bytes.
    pub max: usize,
}

/// What is to be written before a write is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Control frames, and of a data frame only the rest of one that was
    /// begun.
    Control,
    /// Everything.
    All,
}

/// What a transport held when it was taken apart.
#[derive(Debug, Default)]
pub struct Buffered {
    /// Bytes that were read and not handed out.
    pub read: Bytes,
    /// Bytes that were to be written.
    pub write: Bytes,
}

/// What kind of messages there are, whatever carries them.
pub trait Protocol {
    /// The application's messages.
    type Message;

    /// The bytes that a message keeps in memory.
    fn weight(message: &Self::Message) -> usize;
}

/// Carries frames over a stream `S`.
pub trait Transport<S>: Protocol {
    /// Reads once. Zero bytes are the end of the stream.
    fn poll_read(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;

    /// Takes one frame out of what was read.
    fn next_frame(&mut self) -> Result<Option<Frame<Self::Message>>, ProtocolError>;

    /// Bytes read and not taken out.
    fn unread(&self) -> usize;

    /// Queues a message.
    fn push(&mut self, message: Self::Message) -> Result<(), TooLong>;

    /// Queues a control frame: ahead of messages, but for a goodbye, which
    /// comes last.
    fn push_control(&mut self, control: Control);

    /// Bytes queued and not written.
    fn unwritten(&self) -> usize;

    /// Whether a control frame is queued and not written.
    fn control_unwritten(&self) -> bool;

    /// Writes, and flushes the stream if everything in scope was written.
    /// Says too how many bytes the stream took.
    fn poll_write(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> (usize, Poll<io::Result<()>>);

    /// Ends our direction of the stream.
    fn poll_shutdown(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Takes the buffers out.
    fn into_buffered(self) -> Buffered;
}
