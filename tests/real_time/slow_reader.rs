//! A peer that reads slowly is alive, although our pings wait behind what we
//! send it: megabytes in the kernels' buffers, more than the detection time
//! lasts. Real sockets, because no simulation has such buffers.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_core::Control;
use heartbeat_tests::{Throttled, data_frame, framed, ms, notable, secs};
use heartbeat_tokio::{CloseReason, Config, Heartbeat, PeerEvent};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const MIB: usize = 1 << 20;

/// Sends all of it to a peer that reads 2 MiB/s, and expects neither side to
/// be blamed.
async fn send_to_a_slow_reader(messages: Vec<Bytes>) {
    let config = Config::detect_within(secs(3)).unwrap();
    let config = config.to_builder().max_frame(16 * MIB).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let mut sender = Heartbeat::new(ours.unwrap(), config);
    let slow = Throttled::new(theirs.unwrap().0, 2 * MIB);
    let mut receiver = Heartbeat::new(slow, config);

    let count = messages.len();
    let sending = async {
        for message in messages {
            sender.send(message).await.unwrap();
        }
        // Everything is in the kernel, and much of it not read yet: from here
        // on only the reader can keep us from giving up.
        let wait = tokio::time::timeout(secs(6), async {
            while let Some(event) = sender.next().await {
                assert!(!event.is_terminal(), "{event:?}");
            }
        });
        assert!(wait.await.is_err());
        sender.close().await.unwrap();
    };
    let (events, ()) = tokio::join!(receiver.by_ref().collect::<Vec<_>>(), sending);
    let notable = notable(&events);
    assert_eq!(notable.len(), count + 1, "{:?}", notable.last());
    assert_eq!(
        notable[count],
        &PeerEvent::Closed {
            reason: CloseReason::Peer
        }
    );
    assert!(receiver.status().silent_for < ms(1000));
}

#[tokio::test]
async fn of_one_large_frame() {
    send_to_a_slow_reader(vec![vec![1; 16 * MIB].into()]).await;
}

#[tokio::test]
async fn of_many_frames() {
    send_to_a_slow_reader(vec![vec![1; 64 * 1024].into(); 256]).await;
}

/// Who says goodbye and drops the stream at once, while megabytes wait in the
/// kernel, and the reader pings as every reader in bulk does: a kernel that got
/// bytes for a closed socket would reset the connection, and lose the rest.
#[tokio::test]
async fn nothing_is_lost_behind_a_goodbye() {
    let config = Config::detect_within(secs(3)).unwrap();
    let config = config.to_builder().max_frame(16 * MIB).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let mut sender = Heartbeat::new(ours.unwrap(), config);
    let slow = Throttled::new(theirs.unwrap().0, 8 * MIB);
    let receiver = Heartbeat::new(slow, config);
    let sending = async {
        for number in 0..64_u8 {
            sender.send(vec![number; 64 * 1024].into()).await.unwrap();
        }
        sender.close().await.unwrap();
        drop(sender);
    };
    let (events, ()) = tokio::join!(receiver.collect::<Vec<_>>(), sending);
    let notable = notable(&events);
    let reason = CloseReason::Peer;
    assert_eq!(notable.last(), Some(&&PeerEvent::Closed { reason }));
    assert_eq!(notable.len(), 65);
}

/// It hears the goodbye only when it has sent what it wanted to send.
#[tokio::test]
async fn a_peer_that_goes_on_sending_is_heard_out_after_our_goodbye() {
    let config = Config::detect_within(secs(8)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let mut heartbeat = Heartbeat::new(ours.unwrap(), config);
    let mut peer = theirs.unwrap().0;
    let talking = async move {
        let hello = hello_of(config);
        let frame = data_frame(&[7; 64 * 1024]);
        peer.write_all(&hello).await.unwrap();
        for _ in 0..32 * 16 {
            peer.write_all(&frame).await.expect("we hear it out");
        }
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.expect("no reset");
        drop(peer);
        heard
    };
    let closing = async {
        heartbeat.close().await.unwrap();
        drop(heartbeat);
    };
    let (heard, ()) = tokio::join!(talking, closing);
    // A goodbye is the last of it.
    assert_eq!(heard[heard.len() - 5..], [0, 0, 0, 1, 4]);
}

fn hello_of(config: Config) -> Vec<u8> {
    let mut buffer = [0; Control::MAX_ENCODED];
    framed(Control::Hello(config.hello()).encode(&mut buffer).unwrap())
}
