//! What the peer's kernel says counts as it should: real sockets over loopback, in virtual
//! time. A silence takes no time then, so that whatever a kernel says was said just now.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic too"
)]

use std::{
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use heartbeat_tests::{RawPeer, ms, quick};
use heartbeat_tokio::{
    Cause, Codec, Death, Dialect, Evidence, Frame, Heartbeat, PeerEvent, safety_net::TcpInfo,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    task::{spawn_blocking, yield_now},
    time::{Instant, sleep, timeout},
};
use tokio_util::codec::{Decoder, Encoder};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // A much longer message waits in our own buffers.
    let buffer = SockRef::from(&listener);
    buffer.set_recv_buffer_size(256 << 10).unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (ours.unwrap(), accepted.unwrap().0)
}

/// The same socket once more.
fn twin(stream: TcpStream) -> (TcpStream, std::net::TcpStream) {
    let stream = stream.into_std().unwrap();
    let twin = stream.try_clone().unwrap();
    (TcpStream::from_std(stream).unwrap(), twin)
}

/// Waits until the kernel says so, and no time passes.
fn wait_until(socket: &std::net::TcpStream, is_so: impl Fn(TcpInfo) -> bool) {
    let began = std::time::Instant::now();
    while !is_so(TcpInfo::of(socket).unwrap()) {
        assert!(began.elapsed() < ms(20_000), "the kernel doesn't say so");
        thread::sleep(ms(1));
    }
}

/// How the connection dies, if it does so within ten times the detection time of `quick()`.
async fn death<M>(mut events: impl Stream<Item = PeerEvent<M>> + Unpin) -> Option<Death> {
    let death = async {
        loop {
            if let PeerEvent::Dead(death) = events.next().await.unwrap() {
                return death;
            }
        }
    };
    timeout(10 * quick().detection_time(), death).await.ok()
}

/// Bytes, of which `?` asks and `!` answers.
#[derive(Default)]
struct Marks;

impl Dialect for Marks {
    type Message = Bytes;
}

impl Decoder for Marks {
    type Item = Frame<Bytes>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Frame<Bytes>>> {
        let frame = |mark| match mark {
            b'!' => Frame::Pong(None),
            _ => Frame::Other,
        };
        Ok(bytes.has_remaining().then(|| frame(bytes.get_u8())))
    }
}

impl Encoder<Frame<Bytes>> for Marks {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame<Bytes>, bytes: &mut BytesMut) -> io::Result<()> {
        match frame {
            Frame::Data(message) => bytes.put(message),
            Frame::Ping(_) => bytes.put_u8(b'?'),
            other => panic!("{other:?}"),
        }
        Ok(())
    }
}

fn with_marks(stream: TcpStream, evidence: Evidence) -> Heartbeat<TcpStream, Codec<Marks>> {
    let config = quick().to_builder().evidence(evidence).build().unwrap();
    Heartbeat::with_codec(stream, Marks, config)
}

// ---- acknowledgements --------------------------------------------------------

/// The peer's application says hello, or not, and then hangs.
async fn hangs(evidence: Evidence, greets: bool) -> Option<Death> {
    let (ours, theirs) = pair().await;
    let config = quick().to_builder().evidence(evidence).build().unwrap();
    let mut peer = RawPeer::new(theirs);
    if greets {
        peer.greet(config).await;
    }
    death(Heartbeat::new(ours, config)).await
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_acknowledges_is_alive_where_that_counts_once_it_said_hello() {
    assert_eq!(hangs(Evidence::Acknowledgement, true).await, None);
    for (evidence, greets) in [
        (Evidence::Acknowledgement, false),
        (Evidence::AnyBytes, false),
        (Evidence::AnyBytes, true),
    ] {
        let death = hangs(evidence, greets).await.unwrap();
        assert_eq!(death.cause, Cause::Silent);
        assert_eq!(death.silent_for, quick().detection_time());
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_protocol_without_a_hello_a_kernel_that_acknowledges_is_alive_at_once() {
    let (ours, _theirs) = pair().await;
    let lives = death(with_marks(ours, Evidence::Acknowledgement)).await;
    assert_eq!(lives, None);
    let (ours, _theirs) = pair().await;
    let death = death(with_marks(ours, Evidence::AnyBytes)).await.unwrap();
    assert_eq!(death.silent_for, quick().detection_time());
}

// ---- data ahead of a ping ----------------------------------------------------

/// That it took the ping that was answered is no news.
#[tokio::test(start_paused = true)]
async fn a_silence_begins_with_the_last_answer_and_not_when_a_kernel_last_spoke() {
    let (ours, mut theirs) = pair().await;
    let answers = async {
        assert_eq!(theirs.read_u8().await.unwrap(), b'?');
        theirs.write_all(b"!").await.unwrap();
    };
    let (death, ()) = tokio::join!(death(with_marks(ours, Evidence::AnyBytes)), answers);
    assert_eq!(death.unwrap().silent_for, quick().detection_time());
}

/// Two and a half timeouts into the silence it takes all at once, and hangs again.
#[tokio::test(start_paused = true)]
async fn a_ping_behind_data_has_its_time_from_when_the_peers_kernel_has_taken_it() {
    let (ours, theirs) = pair().await;
    let (ours, socket) = twin(ours);
    let mut theirs = theirs.into_std().unwrap();
    theirs.set_nonblocking(false).unwrap();
    let began = Instant::now();
    let driver = with_marks(ours, Evidence::AnyBytes).spawn();
    let message = Bytes::from(vec![b'm'; 1 << 20]);
    let mut all = vec![0; message.len() + 1];
    let sends = driver.sender.send(message);
    let takes = async {
        let began = std::time::Instant::now();
        while !TcpInfo::of(&socket).unwrap().is_window_closed() {
            assert!(began.elapsed() < ms(20_000), "there is room");
            thread::sleep(ms(1));
            yield_now().await;
        }
        sleep(ms(500)).await;
        // No time passes meanwhile.
        spawn_blocking(move || {
            theirs.read_exact(&mut all).unwrap();
            assert_eq!(all.last(), Some(&b'?'));
            wait_until(&socket, |info| !info.has_unacknowledged());
            theirs
        })
        .await
        .unwrap()
    };
    let (death, sent, _theirs) = tokio::join!(death(driver.receiver), sends, takes);
    sent.unwrap();
    assert_eq!(death.unwrap().cause, Cause::Silent);
    // We look after 600 ms.
    let bound = ms(600) + quick().timeout() * quick().max_missed();
    assert_eq!(began.elapsed().as_millis(), bound.as_millis());
}

// ---- bytes below a wrapper ---------------------------------------------------

/// A stream that passes on nothing, as TLS does until a record is complete.
struct Withholds {
    socket: TcpStream,
    /// What makes it more than another name of the socket.
    _record: [u8; 16],
}

impl AsyncRead for Withholds {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Withholds {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The peer sends a byte this often.
async fn trickles(pause: Duration) -> Option<Death> {
    let (ours, mut theirs) = pair().await;
    let (ours, socket) = twin(ours);
    let ours = Withholds {
        socket: ours,
        _record: [0; 16],
    };
    let slow = quick().to_builder().min_rate(1).build().unwrap();
    let heartbeat =
        Heartbeat::with_codec(ours, Marks, slow).with_socket(|stream| Some(&stream.socket));
    let sends = async {
        for sent in 1.. {
            sleep(pause).await;
            theirs.write_all(b".").await.unwrap();
            wait_until(&socket, |info| info.bytes_received >= Some(sent));
        }
    };
    tokio::select! {
        death = death(heartbeat) => death,
        () = sends => None,
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_bytes_below_a_wrapper_as_the_minimum_rate_asks_for_are_a_sign_of_life() {
    // One in each second is asked for, and at least one.
    assert_eq!(trickles(ms(250)).await, None);
    let death = trickles(quick().detection_time()).await.unwrap();
    assert_eq!(death.silent_for, quick().detection_time());
}
