//! Leaving over real sockets: the kernel's handling of a closed socket must not turn a
//! confirmation into a reset. And a half-close, with a foreign program.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt, future::join, stream};
use heartbeat_tests::{needs_netcat, secs};
use heartbeat_tokio::{CloseReason, Config, Dialect, Frame, Heartbeat, PeerEvent, Receiver};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::codec::{Decoder, Encoder, LinesCodec, LinesCodecError};

const RUNS: usize = 1_000;

/// The connections that run at once.
const AT_ONCE: usize = 20;

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = join(TcpStream::connect(address), listener.accept()).await;
    (ours.unwrap(), theirs.unwrap().0)
}

/// Pings as soon as it may, so that pings and answers follow a goodbye.
fn chatty() -> Config {
    Config::builder()
        .interval(secs(1))
        .timeout(secs(3))
        .build()
        .unwrap()
}

/// Takes everything in: how many messages there were.
async fn take_in(mut receiver: Receiver<Bytes>) -> usize {
    let mut received = 0;
    let mut end = None;
    while let Some(event) = receiver.next().await {
        received += usize::from(matches!(event, PeerEvent::Message(_)));
        end = Some(event);
    }
    let reason = CloseReason::Local;
    assert_eq!(end, Some(PeerEvent::Closed { reason }));
    received
}

/// Both send this many messages, ping, and leave: neither has received the other's goodbye
/// when it sends its own.
async fn both_leave(messages: usize) {
    let (ours, theirs) = connected().await;
    let [ours, theirs] = [ours, theirs].map(|stream| Heartbeat::new(stream, chatty()).spawn());
    let receiving = [ours.receiver, theirs.receiver].map(|end| tokio::spawn(take_in(end)));
    for _ in 0..messages {
        for sender in [&ours.sender, &theirs.sender] {
            sender.send(vec![7; 100_000].into()).await.unwrap();
        }
    }
    // Pings and answers are on their way.
    let asking = [ours.sender.clone(), theirs.sender.clone()];
    let asking = asking.map(|sender| tokio::spawn(async move { drop(sender.probe().await) }));
    tokio::task::yield_now().await;
    let both = join(ours.sender.close(), theirs.sender.close()).await;
    assert_eq!(both, (Ok(CloseReason::Local), Ok(CloseReason::Local)));
    for task in receiving {
        assert_eq!(task.await.unwrap(), messages);
    }
    for task in asking {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn both_leave_at_once_and_each_is_confirmed() {
    for messages in [0, 4] {
        let runs = stream::iter(0..RUNS / 2).map(|_| timeout(secs(60), both_leave(messages)));
        let done: Vec<_> = runs.buffer_unordered(AT_ONCE).collect().await;
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(done.len(), RUNS / 2);
    }
}

/// Lines of text. The end of a direction says that a side has finished.
struct Lines(LinesCodec);

impl Dialect for Lines {
    type Message = String;
    const HALF_CLOSE: bool = true;
}

impl Decoder for Lines {
    type Item = Frame<String>;
    type Error = LinesCodecError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame<String>>, LinesCodecError> {
        Ok(self.0.decode(bytes)?.map(Frame::Data))
    }

    fn decode_eof(
        &mut self,
        bytes: &mut BytesMut,
    ) -> Result<Option<Frame<String>>, LinesCodecError> {
        Ok(self.0.decode_eof(bytes)?.map(Frame::Data))
    }
}

impl Encoder<Frame<String>> for Lines {
    type Error = LinesCodecError;

    fn encode(&mut self, frame: Frame<String>, bytes: &mut BytesMut) -> Result<(), Self::Error> {
        match frame {
            Frame::Data(line) => self.0.encode(line, bytes),
            Frame::Ping(_) => self.0.encode("PING", bytes),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn netcat_half_closes_and_gets_its_answer() {
    if !needs_netcat() {
        return;
    }
    for leaves in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let client = tokio::task::spawn_blocking(move || {
            let mut command = Command::new("nc");
            command.args(["-N", "127.0.0.1", &port]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut process = command.spawn().unwrap();
            let mut input = process.stdin.take().unwrap();
            input.write_all(b"one\ntwo\nthe rest").unwrap();
            drop(input);
            process.wait_with_output().unwrap()
        });

        let (stream, _) = listener.accept().await.unwrap();
        let lines = Lines(LinesCodec::new());
        let mut server = Heartbeat::with_codec(stream, lines, Config::default());
        let mut asked = Vec::new();
        loop {
            match timeout(secs(20), server.next()).await.unwrap() {
                Some(PeerEvent::Message(line)) => asked.push(line),
                Some(PeerEvent::Finished) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(asked, ["one", "two", "the rest"]);
        let answer = "x".repeat(99_999);
        server.send(answer.clone()).await.unwrap();
        if leaves {
            server.close().await.unwrap();
        } else {
            server.finish().await.unwrap();
        }
        let end = timeout(secs(20), server.next()).await.unwrap();
        let reason = match leaves {
            true => CloseReason::Local,
            false => CloseReason::Finished,
        };
        assert_eq!(end, Some(PeerEvent::Closed { reason }));
        let output = timeout(secs(20), client).await.unwrap().unwrap();
        assert!(output.status.success());
        // A line that isn't whole may be the beginning of much: we ping meanwhile.
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = lines.lines().filter(|&line| line != "PING").collect();
        assert_eq!(lines, [answer]);
    }
}
