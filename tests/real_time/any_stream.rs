//! Whatever the stream is: a Unix socket, memory, a box of any of them. Each is
//! greeted, carries messages both ways, is asked, says goodbye; and each is
//! found dead when its other end hangs.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{by_peer, ms, notable, quick};
use heartbeat_tokio::{Cause, CloseReason, Heartbeat, NetStatus, PeerEvent};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// What a program holds that doesn't care.
trait AsyncReadWrite: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> AsyncReadWrite for S {}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket() {
    let pair = || tokio::net::UnixStream::pair().unwrap();
    lives_and_leaves(pair()).await;
    hangs(pair()).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_with_a_name() {
    let folder = std::env::temp_dir().join(format!("heartbeat-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (ours, theirs) = tokio::join!(tokio::net::UnixStream::connect(&path), listener.accept());
    std::fs::remove_dir_all(&folder).unwrap();
    lives_and_leaves((ours.unwrap(), theirs.unwrap().0)).await;
}

#[tokio::test]
async fn memory() {
    lives_and_leaves(tokio::io::duplex(1024)).await;
    hangs(tokio::io::duplex(1024)).await;
}

#[tokio::test]
async fn a_box_of_any_stream() {
    let pair = || {
        let (ours, theirs) = tokio::io::duplex(1024);
        let boxed: [Box<dyn AsyncReadWrite>; 2] = [Box::new(ours), Box::new(theirs)];
        let [ours, theirs] = boxed;
        (ours, theirs)
    };
    lives_and_leaves(pair()).await;
    hangs(pair()).await;
}

/// The two ends needn't be of one type.
#[tokio::test]
async fn a_box_at_one_end() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let boxed: Box<dyn AsyncReadWrite> = Box::new(ours);
    lives_and_leaves((boxed, theirs)).await;
}

/// Two halves that never were one stream.
#[tokio::test]
async fn a_reader_joined_with_a_writer() {
    let (one, other) = (tokio::io::simplex(1024), tokio::io::simplex(1024));
    let ours = tokio::io::join(one.0, other.1);
    let theirs = tokio::io::join(other.0, one.1);
    lives_and_leaves((ours, theirs)).await;
}

/// A box hides the socket, and the status says so; `with_socket` names it.
#[tokio::test]
async fn a_boxed_socket_has_no_safety_net_unless_it_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let hidden: Box<dyn AsyncReadWrite> = Box::new(ours.unwrap());
    let hidden = Heartbeat::new(hidden, quick());
    assert!(matches!(hidden.status().safety_net, NetStatus::NoSocket));
    let named = Box::new(theirs.unwrap().0);
    let named = Heartbeat::new(named, quick()).with_socket(|boxed| Some(&**boxed));
    assert!(matches!(named.status().safety_net, NetStatus::Applied(_)));
}

async fn lives_and_leaves<A, B>((ours, theirs): (A, B))
where
    A: AsyncRead + AsyncWrite + Unpin + 'static,
    B: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut ours, mut theirs) = (
        Heartbeat::new(ours, quick()),
        Heartbeat::new(theirs, quick()),
    );
    let messages = || (0..50_u8).map(|n| Bytes::from(vec![n; usize::from(n) * 100]));
    let asking = async {
        let greeted = ours.next().await;
        assert!(
            matches!(greeted, Some(PeerEvent::Connected { .. })),
            "{greeted:?}"
        );
        ours.probe();
        let beat = ours.next().await;
        assert!(matches!(beat, Some(PeerEvent::Beat { .. })), "{beat:?}");
        for message in messages() {
            ours.send(message).await.unwrap();
        }
        let mut echoed = Vec::new();
        while echoed.len() < 50 {
            match ours.next().await.unwrap() {
                PeerEvent::Message(message) => echoed.push(message),
                event => assert!(!event.is_terminal(), "{event:?}"),
            }
        }
        assert!(echoed.into_iter().eq(messages()));
        ours.close().await.unwrap();
        ours.collect::<Vec<_>>().await.pop()
    };
    let answering = async {
        let mut seen = Vec::new();
        while let Some(event) = theirs.next().await {
            if let PeerEvent::Message(message) = &event {
                theirs.send(message.clone()).await.unwrap();
            }
            seen.push(event);
        }
        seen
    };
    let (end, seen) = tokio::join!(asking, answering);
    let closed = |reason| PeerEvent::Closed { reason };
    assert_eq!(end, Some(closed(CloseReason::Local)));
    assert_eq!(notable(&seen).last(), Some(&&closed(by_peer())));
}

async fn hangs<A: AsyncRead + AsyncWrite + Unpin + 'static, B>((ours, theirs): (A, B)) {
    let began = Instant::now();
    let events = Heartbeat::new(ours, quick()).collect::<Vec<_>>().await;
    assert!(
        matches!(events.last(), Some(PeerEvent::Dead(death)) if death.cause == Cause::Silent),
        "{events:?}"
    );
    // In real time, for the sockets' sake.
    let took = began.elapsed();
    assert!(took >= ms(800) && took < ms(1_800), "{took:?}");
    drop(theirs);
}
