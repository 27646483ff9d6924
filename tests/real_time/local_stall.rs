//! After a stall of our own the peer isn't blamed. Real time, because a blocked thread is
//! under test.

use std::thread;

use futures::StreamExt;
use heartbeat_tests::{ms, quick};
use heartbeat_tokio::{Heartbeat, PeerEvent};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    time::Instant,
};

#[test]
fn a_blocked_runtime_is_reported_and_the_peer_lives_on() {
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let ours = runtime();
    let listener = ours.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    // So patient that only our side can give up.
    let patient = quick().to_builder().timeout(ms(5000)).build().unwrap();
    let peer = thread::spawn(move || {
        runtime().block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut heartbeat = Heartbeat::new(stream, patient);
            while heartbeat.next().await.is_some() {}
        });
    });

    ours.block_on(async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut heartbeat = Heartbeat::new(stream, quick());
        for _ in 0..3 {
            assert!(matches!(heartbeat.next().await, Some(event) if !event.is_terminal()));
        }
        // Three times the detection time.
        thread::sleep(ms(2400));

        let mut stalls = 0;
        let until = Instant::now() + ms(2000);
        while let Ok(event) = tokio::time::timeout_at(until, heartbeat.next()).await {
            match event.expect("the connection lives") {
                PeerEvent::LocalStall { late } => {
                    assert!(late > ms(1900) && late < ms(2800), "{late:?}");
                    stalls += 1;
                }
                event => assert!(!event.is_terminal(), "{event:?}"),
            }
        }
        assert_eq!(stalls, 1);
        let silent_for = heartbeat.status().silent_for;
        assert!(silent_for < ms(800), "{silent_for:?}");
    });
    drop(ours);
    peer.join().unwrap();
}
