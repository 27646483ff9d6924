//! A driver whose inbox is full doesn't read: what the kernel knows of the peer
//! meanwhile. (Everything else of `spawn`: `virtual_time/driver.rs`.)

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use heartbeat_tests::{ms, quick, secs};
use heartbeat_tokio::{Cause, Config, Death, Heartbeat, PeerEvent, State};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

/// The two ends of a connection over loopback.
async fn over_tcp(config: Config) -> (Heartbeat<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (theirs, ours) = tokio::join!(TcpStream::connect(address), listener.accept());
    (Heartbeat::new(ours.unwrap().0, config), theirs.unwrap())
}

/// Fills our inbox and then ends the connection in some way; gives how we
/// learn of it while the receiver isn't read.
async fn ends_while_paused(end: impl FnOnce(TcpStream)) -> (Death, Duration, usize) {
    let (ours, theirs) = over_tcp(quick()).await;
    let driver = ours.spawn();
    let mut peer = Heartbeat::new(theirs, quick());
    let feeding = async {
        loop {
            peer.send(vec![7; 16 * 1024].into()).await.unwrap();
        }
    };
    let mut watch = driver.sender.watch();
    tokio::select! {
        () = feeding => {}
        paused = watch.wait_for(|status| status.peer.state == State::Paused) => {
            paused.unwrap();
        }
    }
    let began = Instant::now();
    end(peer.into_parts().stream.unwrap());
    let death = timeout(secs(10), driver.sender.closed()).await.unwrap();
    let took = began.elapsed();
    let mut receiver = driver.receiver;
    let mut messages = 0;
    while let Some(event) = receiver.next().await {
        messages += usize::from(matches!(event, PeerEvent::Message(_)));
    }
    (death.unwrap_err(), took, messages)
}

#[tokio::test]
async fn a_peer_that_closes_while_we_do_not_read_is_noticed() {
    let (death, took, messages) = ends_while_paused(drop).await;
    assert!(matches!(death.cause, Cause::Eof | Cause::Reset), "{death}");
    // An interval, and what a busy machine takes.
    assert!(took < ms(200) + secs(1), "{took:?}");
    assert!(messages >= 16, "{messages}");
}

#[tokio::test]
async fn a_peer_that_resets_while_we_do_not_read_is_noticed() {
    let reset = |stream: TcpStream| {
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    };
    let (death, took, messages) = ends_while_paused(reset).await;
    assert_eq!(death.cause, Cause::Reset, "{death}");
    assert!(took < ms(200) + secs(1), "{took:?}");
    assert!(messages >= 16, "{messages}");
}
