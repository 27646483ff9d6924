//! The constructors of [`Heartbeat`].
//!
//! This module decides which transport carries the frames of a stream, and where the socket
//! below it is.

use heartbeat_core::Config;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::codec::Framed;

use crate::{
    Heartbeat,
    codec::Codec,
    frames::Frames,
    net::itself,
    safety_net::SafetyNet,
    transport::{Dialect, Transport},
    wire::Wire,
};

impl<S> Heartbeat<S>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    /// Wraps a stream. The peer does the same on its end.
    ///
    /// On a plain [`TcpStream`] TCP keepalive is switched on as the second line of defence, with
    /// times derived from `config`; see [`SafetyNet`]. If that fails the heartbeat works
    /// without it. [`status`](Self::status) reports the failure, and so does the log with the
    /// feature `tracing`.
    ///
    /// `TCP_NODELAY` is left as it is. Set it first ([`TcpStream::set_nodelay`]). Without it a
    /// ping waits until earlier data is acknowledged (RFC 9293, section 3.7.4).
    pub fn new(stream: S, config: Config) -> Self {
        Self::with_transport(stream, Wire::new(&config), config, itself)
    }
}

#[cfg(feature = "postcard")]
#[cfg_attr(docsrs, doc(cfg(feature = "postcard")))]
impl<S, T> Heartbeat<S, crate::Postcard<T>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    /// Wraps a stream that carries messages of one type.
    ///
    /// The framing is that of [`new`](Heartbeat::new), and each message is a `T` in postcard. A
    /// peer that sends anything else is [`Dead`](crate::PeerEvent::Dead) with
    /// [`Cause::Protocol`](crate::Cause::Protocol).
    ///
    /// ```
    /// use futures::{SinkExt, StreamExt};
    /// use heartbeat_tokio::{Config, Heartbeat, PeerEvent, Postcard};
    ///
    /// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    /// enum Order {
    ///     Buy { amount: u32 },
    ///     Cancel,
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (ours, theirs) = tokio::io::duplex(1024);
    /// let mut shop: Heartbeat<_, Postcard<Order>> = Heartbeat::typed(ours, Config::default());
    /// let mut customer = Heartbeat::<_, Postcard<Order>>::typed(theirs, Config::default());
    ///
    /// customer.send(Order::Buy { amount: 3 }).await?;
    /// while let Some(event) = shop.next().await {
    ///     if let PeerEvent::Message(order) = event {
    ///         assert_eq!(order, Order::Buy { amount: 3 });
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn typed(stream: S, config: Config) -> Self {
        let transport = crate::Postcard::new(Wire::new(&config));
        Self::with_transport(stream, transport, config, itself)
    }
}

impl<S, C> Heartbeat<S, Codec<C>>
where
    S: 'static,
    C: Dialect,
    Codec<C>: Transport<S>,
{
    /// Wraps a stream that speaks a protocol with a ping of its own: Redis,
    /// NATS, IRC, STOMP ... The peer needn't know of this crate.
    ///
    /// `codec` is a tokio-util codec: a
    /// [`Decoder`](tokio_util::codec::Decoder) whose item is [`Frame<M>`](crate::Frame)
    /// and an [`Encoder`](tokio_util::codec::Encoder) of the same. As a
    /// [`Dialect`] it says what its protocol lacks.
    ///
    /// [`Config::max_frame`] has no effect: the codec decides how long a frame may be. Bytes
    /// that it can't decode end the connection with
    /// [`Cause::Protocol`](crate::Cause::Protocol), and [`io_error`](Self::io_error) returns the
    /// codec's error. The cause carries the [`ProtocolError`](crate::ProtocolError) among that
    /// error and its sources, and otherwise
    /// [`Undecodable`](crate::ProtocolError::Undecodable).
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use heartbeat_tokio::{Config, Dialect, Frame, Heartbeat};
    /// use std::io;
    /// use tokio_util::codec::{Decoder, Encoder, LinesCodec, LinesCodecError};
    ///
    /// /// Lines of text. `PING` asks, and `PONG` answers.
    /// #[derive(Default)]
    /// struct Lines(LinesCodec);
    ///
    /// impl Dialect for Lines {
    ///     type Message = String;
    /// }
    ///
    /// impl Decoder for Lines {
    ///     type Item = Frame<String>;
    ///     type Error = LinesCodecError;
    ///
    ///     fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Self::Item>, Self::Error> {
    ///         Ok(self.0.decode(bytes)?.map(|line| match &*line {
    ///             "PING" => Frame::Ping(None),
    ///             "PONG" => Frame::Pong(None),
    ///             _ => Frame::Data(line),
    ///         }))
    ///     }
    /// }
    ///
    /// impl Encoder<Frame<String>> for Lines {
    ///     type Error = LinesCodecError;
    ///
    ///     fn encode(&mut self, frame: Frame<String>, bytes: &mut BytesMut) -> Result<(), Self::Error> {
    ///         match frame {
    ///             Frame::Data(line) => self.0.encode(line, bytes),
    ///             Frame::Ping(_) => self.0.encode("PING", bytes),
    ///             Frame::Pong(_) => self.0.encode("PONG", bytes),
    ///             // This dialect doesn't have these frames, so they are never sent.
    ///             Frame::Hello(_) | Frame::Goodbye { .. } | Frame::Alive | Frame::Fin | Frame::Other => Ok(()),
    ///         }
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let (stream, _) = tokio::io::duplex(64);
    /// let peer = Heartbeat::with_codec(stream, Lines::default(), Config::default());
    /// # }
    /// ```
    pub fn with_codec(stream: S, codec: C, config: Config) -> Self {
        Self::with_transport(stream, Codec::new(codec), config, itself)
    }

    /// Takes over a `Framed`, for example after a login. Bytes in its read buffer are decoded
    /// first, and those in its write buffer leave first.
    ///
    /// [`map_codec`](Framed::map_codec) replaces a codec without a ping by one that has it.
    /// [`into_parts`](Self::into_parts) and
    /// [`Parts::into_framed`](crate::Parts::into_framed) give the `Framed` back.
    ///
    /// ```
    /// # use bytes::BytesMut;
    /// use futures::{SinkExt, StreamExt};
    /// use heartbeat_tokio::{Config, Heartbeat, PeerEvent};
    /// # use heartbeat_tokio::{Dialect, Frame};
    /// # use tokio_util::codec::{Decoder, Encoder, LinesCodecError};
    /// use tokio_util::codec::{Framed, LinesCodec};
    ///
    /// # struct Lines(LinesCodec);
    /// # impl Dialect for Lines { type Message = String; }
    /// # impl Decoder for Lines {
    /// #     type Item = Frame<String>;
    /// #     type Error = LinesCodecError;
    /// #     fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Self::Item>, Self::Error> {
    /// #         Ok(self.0.decode(bytes)?.map(Frame::Data))
    /// #     }
    /// # }
    /// # impl Encoder<Frame<String>> for Lines {
    /// #     type Error = LinesCodecError;
    /// #     fn encode(&mut self, _: Frame<String>, _: &mut BytesMut) -> Result<(), Self::Error> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (stream, mut client) = tokio::io::duplex(64);
    /// # tokio::io::AsyncWriteExt::write_all(&mut client, b"LOGIN ann\nhello\n").await?;
    /// let mut framed = Framed::new(stream, LinesCodec::new());
    /// assert_eq!(framed.next().await.unwrap()?, "LOGIN ann");
    /// framed.send("WELCOME").await?;
    ///
    /// let mut peer = Heartbeat::from_framed(framed.map_codec(Lines), Config::default());
    /// assert_eq!(peer.next().await, Some(PeerEvent::Message("hello".into())));
    /// # Ok(()) }
    /// ```
    pub fn from_framed(framed: Framed<S, C>, config: Config) -> Self {
        let parts = framed.into_parts();
        let codec = Codec::resumed(parts.codec, parts.read_buf, parts.write_buf);
        let mut peer = Self::with_transport(parts.io, codec, config, itself);
        peer.flush_soon();
        peer
    }
}

impl<T> Heartbeat<T, Frames<T>>
where
    T: Dialect,
    Frames<T>: Transport<T>,
{
    /// Wraps a transport of whole frames, such as a WebSocket: a
    /// [`Stream`](futures_core::Stream) of `Result<Frame<M>, E>` that is a `Sink` of
    /// [`Frame<M>`](crate::Frame) too. As a [`Dialect`] it says what its protocol lacks.
    ///
    /// When the connection has ended, the sink is closed and the transport dropped, before the
    /// terminal event.
    ///
    /// The layers below aren't known here, so the transport has three duties:
    ///
    /// * **Long messages.** A message that takes longer to arrive than the detection time is a
    ///   silence, unless the transport yields a [`Frame::Other`](crate::Frame::Other) for each
    ///   part that arrives. Without a [`HELLO`](Dialect::HELLO), and with
    ///   [`Evidence::AnyBytes`](crate::Evidence::AnyBytes), data that reached our kernel is a
    ///   sign of life too, on Linux and Android and if the socket is known.
    /// * **Errors.** An error of the stream or the sink ends the connection. An
    ///   [`io::Error`](std::io::Error), or one among its sources, decides the cause. Any other
    ///   error of the stream, and each with a [`ProtocolError`](crate::ProtocolError), is
    ///   [`Cause::Protocol`](crate::Cause::Protocol) as [with a codec](Self::with_codec).
    ///   Refuse a message that can't be sent before it becomes an `M`.
    /// * **Goodbyes.** After [`Frame::Goodbye`](crate::Frame::Goodbye) the transport isn't
    ///   polled again. If the protocol answers a goodbye, flush the answer before yielding the
    ///   frame.
    ///
    /// [`Dialect::end_of`] overrides the meaning of an error.
    /// [`with_socket`](Self::with_socket) names the socket, if there is one.
    ///
    /// A WebSocket has a constructor of its own, `Heartbeat::websocket`, with the feature
    /// `tungstenite` or `axum`.
    pub fn with_frames(transport: T, config: Config) -> Self {
        Self::with_transport(transport, Frames::new(&config), config, |_| None)
    }
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// Names the socket below a wrapper such as TLS. The safety net is then set on it, as it
    /// is automatically below a plain [`TcpStream`].
    ///
    /// ```
    /// # use heartbeat_tokio::{Config, Heartbeat};
    /// # use tokio::io::BufStream;
    /// # use tokio::net::TcpStream;
    /// # fn wrap(stream: BufStream<TcpStream>) -> Heartbeat<BufStream<TcpStream>> {
    /// Heartbeat::new(stream, Config::default()).with_socket(|stream| Some(stream.get_ref()))
    /// # }
    /// ```
    pub fn with_socket(mut self, socket: fn(&S) -> Option<&TcpStream>) -> Self {
        self.move_net(socket);
        self
    }

    /// Sets this safety net instead of the one derived from the timings.
    pub fn with_safety_net(mut self, net: &SafetyNet) -> Self {
        self.replace_net(net);
        self
    }
}
