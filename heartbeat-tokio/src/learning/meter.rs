//! Measures the idle times of a stream.
//!
//! This module decides when bytes have passed: when the inner stream accepts or returns
//! them. [`heartbeat_core::IdleGauge`] decides what idle times mean.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use heartbeat_core::{IdleGauge, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Measures how long a connection carries nothing. Clones measure the same connection.
///
/// Put it [over](Self::over) the stream that is nearest to the network, such as below TLS.
#[derive(Clone, Debug)]
pub struct IdleMeter {
    began_at: tokio::time::Instant,
    gauge: Arc<Mutex<IdleGauge>>,
}

impl IdleMeter {
    pub(super) fn new() -> Self {
        Self {
            began_at: tokio::time::Instant::now(),
            gauge: Arc::new(Mutex::new(IdleGauge::new(Instant::ORIGIN))),
        }
    }

    /// Measures this stream from now on.
    pub fn over<S>(&self, stream: S) -> Metered<S> {
        // The time to connect isn't idle time.
        *self.gauge() = IdleGauge::new(self.now());
        Metered {
            stream,
            meter: self.clone(),
        }
    }

    /// See [`IdleGauge::take_survived`].
    pub(super) fn take_survived(&self) -> Option<Duration> {
        self.gauge().take_survived()
    }

    /// See [`IdleGauge::unanswered`].
    pub(super) fn unanswered(&self) -> Duration {
        self.gauge().unanswered(self.now())
    }

    fn now(&self) -> Instant {
        Instant::ORIGIN + self.began_at.elapsed()
    }

    fn gauge(&self) -> MutexGuard<'_, IdleGauge> {
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream whose idle times are measured by an [`IdleMeter`].
///
/// Name the socket, and a [`Heartbeat`](crate::Heartbeat) over it has its safety net:
///
/// ```
/// # use heartbeat_tokio::{Config, Heartbeat, Learner, Metered};
/// # use tokio::net::TcpStream;
/// # fn example(learner: &Learner, stream: TcpStream) -> Heartbeat<Metered<TcpStream>> {
/// let config = learner.config(&Config::mobile());
/// let stream = learner.meter().over(stream);
/// Heartbeat::new(stream, config).with_socket(|stream| Some(stream.get_ref()))
/// # }
/// ```
#[derive(Debug)]
pub struct Metered<S> {
    stream: S,
    meter: IdleMeter,
}

impl<S> Metered<S> {
    /// The inner stream.
    pub const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Returns the inner stream, which isn't measured any more.
    pub fn into_inner(self) -> S {
        self.stream
    }

    fn sent(&self, written: usize) {
        if written > 0 {
            self.meter.gauge().handle_sent(self.meter.now());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.meter.gauge().handle_received(self.meter.now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
