//! A peer that reads slowly is alive, although our pings wait behind what we
//! send it: megabytes in the kernels' buffers, more than the detection time
//! lasts. Real sockets, because no simulation has such buffers.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_core::Control;
use heartbeat_tests::{by_peer, data_frame, framed, ms, notable, secs, throttled};
use heartbeat_tokio::{Cause, Config, Heartbeat, PeerEvent, SendError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, interval, timeout},
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
    let slow = throttled(theirs.unwrap().0, 2 << 20);
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
    assert_eq!(notable[count], &PeerEvent::Closed { reason: by_peer() });
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

/// Our pings wait behind what we send, in the kernels' buffers, and arrive in
/// bunches. With one beat there is no room for any mistake about them.
#[tokio::test]
async fn that_reads_steadily_never_takes_us_for_a_flood() {
    let config = Config::builder()
        .interval(ms(200))
        .timeout(ms(200))
        .max_missed(1)
        .build()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let mut sender = Heartbeat::new(ours.unwrap(), config);
    let slow = throttled(theirs.unwrap().0, 1 << 20);
    let mut receiver = Heartbeat::new(slow, config);

    let began = Instant::now();
    let lasting = secs(6);
    let message = Bytes::from(vec![1; 16 * 1024]);
    let sending = async {
        while began.elapsed() < lasting {
            if let Ok(sent) = timeout(ms(50), sender.send(message.clone())).await {
                sent.unwrap();
            }
        }
        let mut told = Vec::new();
        while let Ok(event) = timeout(ms(1), sender.next()).await {
            told.push(event.unwrap());
        }
        told
    };
    let receiving = async {
        let mut told = Vec::new();
        while began.elapsed() < lasting {
            if let Ok(event) = timeout(ms(50), receiver.next()).await {
                told.push(event.unwrap());
            }
        }
        told
    };
    let (sent, received) = tokio::join!(sending, receiving);
    for told in [&sent, &received] {
        assert!(!told.iter().any(PeerEvent::is_terminal), "{told:?}");
    }
    let messages = received
        .iter()
        .filter(|event| matches!(event, PeerEvent::Message(_)));
    assert!(messages.count() > 100);
}

/// A side says goodbye and drops the stream at once, while megabytes wait in its kernel, and
/// the reader pings as every bulk reader does: a kernel that receives bytes for a closed
/// socket would reset the connection, and lose the rest.
#[tokio::test]
async fn nothing_is_lost_behind_a_goodbye() {
    let config = Config::detect_within(secs(3)).unwrap();
    let config = config.to_builder().max_frame(16 * MIB).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let mut sender = Heartbeat::new(ours.unwrap(), config);
    let slow = throttled(theirs.unwrap().0, 8 << 20);
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
    let reason = by_peer();
    assert_eq!(notable.last(), Some(&&PeerEvent::Closed { reason }));
    assert_eq!(notable.len(), 65);
}

/// It hears the goodbye, and confirms it, only when it has sent what it wanted to send.
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
        let received = [0, 0, 0, 3, 4, 8, 0];
        peer.write_all(&received).await.expect("we wait for it");
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
    // Behind the goodbye are only signs of life: it was heard for long.
    let goodbye = heard
        .windows(7)
        .position(|bytes| bytes == [0, 0, 0, 3, 4, 0, 0]);
    let behind = &heard[goodbye.expect("it is said") + 7..];
    assert!(behind.chunks(5).all(|frame| frame == [0, 0, 0, 1, 5]));
}

/// A peer that reads nothing, says that it lives and goes on pinging is alive, and of no use. Small
/// buffers, so that the kernels take little before it shows.
#[tokio::test]
async fn that_reads_nothing_and_pings_is_given_up_if_writes_have_a_limit() {
    let limit = ms(500);
    let config = Config::builder()
        .interval(ms(100))
        .timeout(secs(1))
        .write_stall(limit)
        .build()
        .unwrap();
    let accepting = TcpSocket::new_v4().unwrap();
    accepting.set_recv_buffer_size(4096).unwrap();
    accepting.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = accepting.listen(1).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(8192).unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(socket.connect(address), listener.accept());
    let mut heartbeat = Heartbeat::new(ours.unwrap(), config);
    let mut peer = theirs.unwrap().0;
    let pinging = tokio::spawn(async move {
        peer.write_all(&hello_of(config)).await.unwrap();
        let mut buffer = [0; Control::MAX_ENCODED];
        let ping = Control::Ping(heartbeat_core::Nonce([1; 8]));
        let mut lively = framed(ping.encode(&mut buffer).unwrap());
        lively.extend(framed(Control::Alive.encode(&mut buffer).unwrap()));
        let mut often = interval(ms(150));
        while peer.write_all(&lively).await.is_ok() {
            often.tick().await;
        }
    });

    // How much the kernels took, and since when it is no more.
    let mut last = (
        heartbeat.get_ref().unwrap().writable().await,
        Instant::now(),
    )
        .1;
    let death = loop {
        let sending = heartbeat.send(vec![0; 2048].into());
        match timeout(secs(20), sending).await.expect("it is given up") {
            Ok(()) => last = Instant::now(),
            Err(SendError::Dead(death)) => break death,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(death.cause, Cause::WriteStalled);
    // `send` takes messages in before they are written, so the last byte was
    // written then or before.
    let took = last.elapsed();
    assert!(took < limit + ms(700), "{took:?}");
    assert!(death.silent_for < ms(400), "it was heard: {death}");
    pinging.abort();
}

fn hello_of(config: Config) -> Vec<u8> {
    let mut buffer = [0; Control::MAX_ENCODED];
    framed(
        Control::Hello(config.hello([7; 8]))
            .encode(&mut buffer)
            .unwrap(),
    )
}
