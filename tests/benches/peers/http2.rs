//! One HTTP/2 request, whose body carries messages in one direction and that of
//! its response in the other, and HTTP/2's own PING.
//!
//! Each message stands behind its length. Small ones share a DATA frame, large
//! ones have theirs and aren't copied. Flow control's windows are raised, and
//! the budget of small frames, which would end the connection.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Sink, Stream};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream, client, server};
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{INTERVAL, SILENCE};
use crate::harness::{End, KIB, MIB};

/// What flow control lets the peer send before it hears of it.
const WINDOW: u32 = 4 * MIB as u32;

/// The largest frame that the peer may send.
const FRAME: u32 = 64 * KIB as u32;

/// From here on a message isn't copied into a frame with others.
const LARGE: usize = 4 * KIB;

/// How much is gathered before it is sent without a flush.
const GATHERED: usize = 16 * KIB;

pub(crate) struct Bodies {
    sending: SendStream<Bytes>,
    receiving: RecvStream,
    /// Small messages, and the length of a large one.
    gathered: BytesMut,
    /// What flow control hasn't let through yet.
    waiting: VecDeque<Bytes>,
    arrived: Arrived,
    /// The connection's driver, and the task that pings.
    _tasks: [AbortOnDropHandle<()>; 2],
}

pub(crate) async fn bodies<S>(stream: S, end: End) -> Bodies
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match end {
        End::Asking => request(stream).await,
        End::Answering => response(stream).await,
    }
    .expect("a connection")
}

async fn request<S>(stream: S) -> Result<Bodies, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (requests, mut connection) = client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .data_frame_budget(usize::MAX)
        .handshake(stream)
        .await?;
    let pings = connection.ping_pong();
    let driver = tokio::spawn(async move { connection.await.unwrap_or_default() });
    let request = Request::post("http://localhost/")
        .body(())
        .expect("a request");
    let (response, sending) = requests.ready().await?.send_request(request, false)?;
    let receiving = response.await?.into_body();
    Ok(Bodies::new(sending, receiving, driver, pings))
}

async fn response<S>(stream: S) -> Result<Bodies, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = server::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .data_frame_budget(usize::MAX)
        .handshake(stream)
        .await?;
    let pings = connection.ping_pong();
    let (request, mut answer) = connection.accept().await.expect("a request")?;
    let sending = answer.send_response(Response::new(()), false)?;
    let driver = tokio::spawn(async move { while connection.accept().await.is_some() {} });
    Ok(Bodies::new(sending, request.into_body(), driver, pings))
}

impl Bodies {
    fn new(
        sending: SendStream<Bytes>,
        receiving: RecvStream,
        driver: tokio::task::JoinHandle<()>,
        pings: Option<PingPong>,
    ) -> Self {
        let connection = driver.abort_handle();
        let mut pings = pings.expect("nobody has taken it");
        let beats = tokio::spawn(async move {
            let mut interval = tokio::time::interval(INTERVAL);
            loop {
                interval.tick().await;
                let pong = timeout(SILENCE - INTERVAL, pings.ping(Ping::opaque())).await;
                if !matches!(pong, Ok(Ok(_))) {
                    connection.abort();
                    return;
                }
            }
        });
        Self {
            sending,
            receiving,
            gathered: BytesMut::new(),
            waiting: VecDeque::new(),
            arrived: Arrived::default(),
            _tasks: [driver, beats].map(AbortOnDropHandle::new),
        }
    }

    /// Hands all messages to the connection, as flow control allows.
    fn poll_hand_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if !self.gathered.is_empty() {
            self.waiting.push_back(self.gathered.split().freeze());
        }
        while let Some(next) = self.waiting.front_mut() {
            self.sending.reserve_capacity(next.len());
            while self.sending.capacity() == 0 {
                ready!(self.sending.poll_capacity(cx)).ok_or(Reason::CANCEL)??;
            }
            let now = next.split_to(self.sending.capacity().min(next.len()));
            if next.is_empty() {
                self.waiting.pop_front();
            }
            self.sending.send_data(now, false)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream for Bodies {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(message) = self.arrived.next_message() {
                return Poll::Ready(Some(message));
            }
            let Some(Ok(data)) = ready!(self.receiving.poll_data(cx)) else {
                return Poll::Ready(None);
            };
            let read = self.receiving.flow_control().release_capacity(data.len());
            if read.is_err() {
                return Poll::Ready(None);
            }
            self.arrived.push(data);
        }
    }
}

impl Sink<Bytes> for Bodies {
    type Error = h2::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if self.waiting.is_empty() && self.gathered.len() < GATHERED {
            return Poll::Ready(Ok(()));
        }
        self.poll_hand_over(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Bytes) -> Result<(), h2::Error> {
        let length = u32::try_from(message.len()).expect("a length");
        self.gathered.put_u32(length);
        if message.len() < LARGE {
            self.gathered.extend_from_slice(&message);
        } else {
            let before = self.gathered.split().freeze();
            self.waiting.extend([before, message]);
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.poll_hand_over(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        ready!(self.poll_hand_over(cx))?;
        Poll::Ready(self.sending.send_data(Bytes::new(), true))
    }
}

/// Makes messages of DATA frames. One that lies in a single frame isn't copied.
#[derive(Default)]
struct Arrived {
    frame: Bytes,
    /// The beginning of a message, whose end isn't in the same frame. While
    /// there is one, `frame` is empty.
    begun: BytesMut,
}

/// How long a message's length is.
const LENGTH: usize = size_of::<u32>();

impl Arrived {
    fn push(&mut self, frame: Bytes) {
        if self.begun.is_empty() {
            self.frame = frame;
        } else {
            self.begun.extend_from_slice(&frame);
        }
    }

    fn next_message(&mut self) -> Option<Bytes> {
        if !self.begun.is_empty() {
            let length = whole(&self.begun)?;
            self.begun.advance(LENGTH);
            return Some(self.begun.split_to(length).freeze());
        }
        if self.frame.is_empty() {
            return None;
        }
        if let Some(length) = whole(&self.frame) {
            self.frame.advance(LENGTH);
            return Some(self.frame.split_to(length));
        }
        let begun = std::mem::take(&mut self.frame);
        let length = begun.clone().try_get_u32().unwrap_or_default() as usize;
        self.begun.reserve(LENGTH + length.max(begun.len()));
        self.begun.extend_from_slice(&begun);
        None
    }
}

/// The length of the first message, if all of it is there.
fn whole(mut arrived: &[u8]) -> Option<usize> {
    let length = arrived.try_get_u32().ok()? as usize;
    (length <= arrived.len()).then_some(length)
}
