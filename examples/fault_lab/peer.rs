//! The other end: a process that serves one connection for each detector, in
//! the way that the detector expects, until it is told to do what its fault is.
//!
//! It knows no time: the lab says when.

use std::{
    convert::Infallible,
    error::Error,
    io::{self, BufRead},
    pin::Pin,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::pending};
use heartbeat_examples::process::end_with_parent;
use heartbeat_tokio::{Config, Heartbeat};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream},
    sync::{
        mpsc::{self, UnboundedReceiver, unbounded_channel},
        watch,
    },
    time::{Interval, interval, sleep},
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{detectors::Detector, process::Assignment, scenarios::Fault};

/// Small, so that a peer that doesn't read is soon noticed.
pub const BUFFER: u32 = 64 * 1024;

/// How far it is with its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Preparing,
    Acting,
}

/// Returns when the lab has gone.
pub async fn run(assignment: Assignment) -> Result<(), Box<dyn Error>> {
    end_with_parent();
    let mut orders = orders();
    let budget = Duration::from_millis(assignment.budget);
    let phase = watch::Sender::new(Phase::Serving);
    let (preparing, mut prepared) = mpsc::channel(1);
    for detector in Detector::ALL {
        let stream = connect(&assignment).await?;
        let service = Service::new(detector, stream, budget)?;
        let phase = phase.subscribe();
        tokio::spawn(serve(service, assignment.fault, phase, preparing.clone()));
    }
    drop(preparing);

    while let Some(order) = orders.recv().await {
        if order == "prepare" {
            phase.send_replace(Phase::Preparing);
            // `None` when each has let go of its end.
            let _: Option<Infallible> = prepared.recv().await;
            println!("prepared");
        } else if assignment.fault == Fault::Hang {
            loop {
                thread::park();
            }
        } else {
            phase.send_replace(Phase::Acting);
        }
    }
    Ok(())
}

/// Read by a thread of its own, so that a hung peer also notices when the lab is gone.
fn orders() -> UnboundedReceiver<String> {
    let (given, orders) = unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let _ = given.send(line);
        }
        process::exit(0);
    });
    orders
}

async fn connect(assignment: &Assignment) -> io::Result<TcpStream> {
    let socket = match assignment.address.is_ipv4() {
        true => TcpSocket::new_v4()?,
        false => TcpSocket::new_v6()?,
    };
    socket.set_recv_buffer_size(BUFFER)?;
    socket.connect(assignment.address).await
}

/// Lets go of `preparing` when it may be told to act.
async fn serve(
    mut service: Service,
    fault: Fault,
    mut phase: watch::Receiver<Phase>,
    preparing: mpsc::Sender<Infallible>,
) {
    service.run_until(&mut phase, Phase::Preparing, fault).await;
    if fault == Fault::CloseUnread {
        let Some(stream) = service.into_stream() else {
            return;
        };
        // The lab sends something, or a detector does.
        let _ = stream.inner.peek(&mut [0]).await;
        drop(preparing);
        let _ = phase.wait_for(|phase| *phase == Phase::Acting).await;
        return;
    }
    drop(preparing);
    service.run_until(&mut phase, Phase::Acting, fault).await;

    match fault {
        Fault::Close => {}
        Fault::Goodbye => service.say_goodbye().await,
        Fault::Reset => {
            if let Some(stream) = service.into_stream() {
                let _ = socket2::SockRef::from(&stream.inner).set_linger(Some(Duration::ZERO));
            }
        }
        Fault::HalfClose => {
            if let Some(mut stream) = service.into_stream() {
                let _ = stream.shutdown().await;
                drain(&mut stream).await;
            }
            pending().await
        }
        Fault::StopsReading => pending().await,
        Fault::SlowPeer => {
            service.slow.store(true, Ordering::Relaxed);
            service.run().await;
        }
        Fault::BusyPeer => service.work_long().await,
        _ => service.run().await,
    }
}

/// One connection, served as its detector expects it.
struct Service {
    speaks: Speaks,
    budget: Duration,
    slow: Arc<AtomicBool>,
}

enum Speaks {
    Heartbeat(Box<Heartbeat<Stream>>),
    HandWritten(Framed<Stream, LengthDelimitedCodec>),
    Nothing(Stream),
}

impl Service {
    fn new(detector: Detector, inner: TcpStream, budget: Duration) -> Result<Self, Box<dyn Error>> {
        let slow = Arc::new(AtomicBool::new(false));
        let stream = Stream {
            inner,
            slow: slow.clone(),
            // 16 KiB within the budget.
            tick: interval(budget / 32),
        };
        let speaks = match detector {
            Detector::Heartbeat => {
                let config = Config::detect_within(budget)?;
                Speaks::Heartbeat(Box::new(Heartbeat::new(stream, config)))
            }
            Detector::HandWritten => {
                Speaks::HandWritten(Framed::new(stream, LengthDelimitedCodec::new()))
            }
            _ => Speaks::Nothing(stream),
        };
        Ok(Self {
            speaks,
            budget,
            slow,
        })
    }

    /// Serves until the peer is gone.
    async fn run(&mut self) {
        match &mut self.speaks {
            Speaks::Heartbeat(heartbeat) => while heartbeat.next().await.is_some() {},
            Speaks::HandWritten(framed) => {
                while let Some(Ok(frame)) = framed.next().await {
                    if frame.as_ref() == b"ping"
                        && framed.send(Bytes::from_static(b"pong")).await.is_err()
                    {
                        return;
                    }
                }
            }
            Speaks::Nothing(stream) => drain(stream).await,
        }
    }

    async fn run_until(
        &mut self,
        phases: &mut watch::Receiver<Phase>,
        wanted: Phase,
        fault: Fault,
    ) {
        let reached = phases.wait_for(|phase| *phase >= wanted);
        // What was sent to it at the start is what will be unread.
        if fault == Fault::CloseUnread && matches!(self.speaks, Speaks::Nothing(_)) {
            let _ = reached.await;
            return;
        }
        tokio::select! {
            () = async { self.run().await; pending().await } => {}
            _ = reached => {}
        }
    }

    /// None if the heartbeat has given the lab up.
    fn into_stream(self) -> Option<Stream> {
        match self.speaks {
            Speaks::Heartbeat(heartbeat) => heartbeat.into_parts().stream,
            Speaks::HandWritten(framed) => Some(framed.into_inner()),
            Speaks::Nothing(stream) => Some(stream),
        }
    }

    async fn say_goodbye(self) {
        match self.speaks {
            Speaks::Heartbeat(mut heartbeat) => {
                let _ = heartbeat.close().await;
            }
            _ => {
                if let Some(mut stream) = self.into_stream() {
                    let _ = stream.shutdown().await;
                }
            }
        }
    }

    /// Its application has something to do, and doesn't ask for messages
    /// meanwhile.
    async fn work_long(mut self) {
        let work = 2 * self.budget;
        match self.speaks {
            // Made for this: a task that beats while the application works.
            Speaks::Heartbeat(heartbeat) => {
                let mut driver = heartbeat.spawn();
                sleep(work).await;
                while driver.receiver.next().await.is_some() {}
            }
            _ => {
                sleep(work).await;
                self.run().await;
            }
        }
    }
}

async fn drain(stream: &mut Stream) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

/// Reads slowly when it is told to.
struct Stream {
    inner: TcpStream,
    slow: Arc<AtomicBool>,
    tick: Interval,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.slow.load(Ordering::Relaxed) {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        ready!(self.tick.poll_tick(cx));
        let mut little = [0; 512];
        let room = little.len().min(buf.remaining());
        let mut some = ReadBuf::new(&mut little[..room]);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut some))?;
        buf.put_slice(some.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
