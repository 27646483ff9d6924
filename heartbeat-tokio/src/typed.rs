//! Messages of a serde type over this project's own framing.
//!
//! This module decides how a message becomes the body of a frame. The framing does the rest.

use std::{
    fmt, io,
    marker::PhantomData,
    task::{Context, Poll},
};

use bytes::Bytes;
use heartbeat_core::{Control, GoodbyeCode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Detail, SendError, Wire,
    codec::catch,
    error::EncodeError,
    transport::{Broken, Buffered, Failure, Frame, Protocol, Scope, Transport},
};

/// The transport of [`Heartbeat::typed`](crate::Heartbeat::typed): messages
/// are `T`, in [postcard](https://postcard.jamesmunns.com/wire-format), framed
/// as [`docs/protocol.md`] says.
///
#[doc = concat!("[`docs/protocol.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/protocol.md")]
pub struct Postcard<T> {
    wire: Wire,
    messages: PhantomData<fn(T) -> T>,
}

impl<T> Postcard<T> {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            wire,
            messages: PhantomData,
        }
    }
}

impl<T: Serialize + DeserializeOwned> Protocol for Postcard<T> {
    type Message = T;
    type Codec = ();
    const HELLO: bool = Wire::HELLO;
    const HALF_CLOSE: bool = Wire::HALF_CLOSE;
}

impl<S, T> Transport<S> for Postcard<T>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    T: Serialize + DeserializeOwned,
{
    fn poll_read(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.wire.poll_read(stream, cx)
    }

    fn next_frame(&mut self) -> Result<Option<Frame<T>>, Failure> {
        let frame: Option<Frame<Bytes>> = Transport::<S>::next_frame(&mut self.wire)?;
        let decode = |bytes: Bytes| {
            let decoded = catch(|| postcard::from_bytes(&bytes));
            decoded.map_err(Broken::by_codec)?.map_err(Broken::by_codec)
        };
        Ok(frame.map(|frame| frame.try_map(decode)).transpose()?)
    }

    fn weight(&self) -> usize {
        Transport::<S>::weight(&self.wire)
    }

    fn has_room(&self) -> bool {
        Transport::<S>::has_room(&self.wire)
    }

    fn is_resting(&self) -> bool {
        Transport::<S>::is_resting(&self.wire)
    }

    fn unread(&self) -> usize {
        Transport::<S>::unread(&self.wire)
    }

    fn push(&mut self, message: T) -> Result<(), SendError> {
        // A type that panics leaves our state consistent, and the connection goes on.
        let encoded = catch(|| postcard::to_stdvec(&message))
            .map_err(EncodeError::new)
            .and_then(|encoded| encoded.map_err(EncodeError::new))
            .map_err(SendError::Unencodable)?;
        Transport::<S>::push(&mut self.wire, encoded.into())
    }

    fn is_in_message(&self) -> bool {
        Transport::<S>::is_in_message(&self.wire)
    }

    fn incomplete(&self) -> usize {
        Transport::<S>::incomplete(&self.wire)
    }

    fn push_goodbye(&mut self, code: GoodbyeCode, detail: Detail) {
        Transport::<S>::push_goodbye(&mut self.wire, code, detail);
    }

    fn give_up(&mut self) {
        Transport::<S>::give_up(&mut self.wire);
    }

    fn has_messages(&self) -> bool {
        Transport::<S>::has_messages(&self.wire)
    }

    fn push_control(&mut self, control: Control) {
        Transport::<S>::push_control(&mut self.wire, control);
    }

    fn unwritten(&self) -> usize {
        Transport::<S>::unwritten(&self.wire)
    }

    fn control_unwritten(&self) -> bool {
        Transport::<S>::control_unwritten(&self.wire)
    }

    fn poll_write(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        scope: Scope,
    ) -> (usize, Poll<io::Result<()>>) {
        self.wire.poll_write(stream, cx, scope)
    }

    fn poll_shutdown(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_shutdown(stream, cx)
    }

    fn into_buffered(self) -> Buffered<T> {
        let Buffered { read, write, .. } = Transport::<S>::into_buffered(self.wire);
        Buffered {
            read,
            write,
            ..Buffered::default()
        }
    }
}

impl<T> fmt::Debug for Postcard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Postcard").field(&self.wire).finish()
    }
}
