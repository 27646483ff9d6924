//! A heartbeat over datagrams: the state machine alone, without the adapter.
//!
//! ```text
//! cargo run --example udp
//! ```
//!
//! Two ends beat for two seconds while every third datagram of each is lost. Then one
//! hangs, and the other finds out.

use std::{io, time::Duration};

use heartbeat_tokio::{
    Config,
    heartbeat_core::{Cause, Control, Event, Instant, Monitor, Tag},
};
use tokio::{
    net::UdpSocket,
    time::{self, sleep_until},
};

/// The longest datagram that is taken in.
const LONGEST: usize = 1200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let config = Config::detect_within(Duration::from_secs(1)).map_err(io::Error::other)?;
    let sockets = [
        UdpSocket::bind("127.0.0.1:0").await?,
        UdpSocket::bind("127.0.0.1:0").await?,
    ];
    let [ours, theirs] = &sockets;
    ours.connect(theirs.local_addr()?).await?;
    theirs.connect(ours.local_addr()?).await?;
    let [ours, theirs] = sockets;

    let began = time::Instant::now();
    let other = tokio::spawn(async move {
        let mut peer = Peer::new(theirs, config);
        peer.send(b"hello").await?;
        let lives = async {
            while peer.next().await?.is_some() {}
            Err::<(), _>(io::Error::other("it ended"))
        };
        match time::timeout(Duration::from_secs(2), lives).await {
            Ok(ended) => ended.map(|()| peer),
            Err(_) => Ok(peer), // it is never polled again
        }
    });
    let mut peer = Peer::new(ours, config);
    let (mut messages, mut beats) = (Vec::new(), 0);
    let death = loop {
        match peer.next().await? {
            Some(Told::Message(message)) => messages.push(message),
            Some(Told::Event(Event::Beat { .. })) => beats += 1,
            Some(Told::Event(Event::Dead(death))) => break death,
            Some(Told::Event(event)) => println!("{event:?}"),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    println!("{beats} beats, and then: {death}");
    assert_eq!(messages, [b"hello"]);
    assert_eq!(death.cause, Cause::Silent);
    assert!(beats > 0 && began.elapsed() >= Duration::from_secs(2));
    other.await?.map(drop)
}

/// The pending events of the other end.
enum Told {
    Message(Vec<u8>),
    Event(Event),
}

/// One end. A datagram begins with its tag, as a frame does behind its length.
struct Peer {
    socket: UdpSocket,
    monitor: Monitor,
    began: time::Instant,
    sent: u32,
}

impl Peer {
    fn new(socket: UdpSocket, config: Config) -> Self {
        // In earnest, of the operating system's randomness.
        let seed = u64::from(std::process::id());
        Self {
            socket,
            // A Hello could be lost, and isn't repeated.
            monitor: Monitor::new(config, seed, Instant::ORIGIN).without_hello(),
            began: time::Instant::now(),
            sent: 0,
        }
    }

    fn now(&self) -> Instant {
        let micros = self.began.elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let tag = [Tag::Data.to_byte()];
        self.lose_some(&[&tag, message].concat()).await
    }

    /// The next message or event; `None` after the last one.
    async fn next(&mut self) -> io::Result<Option<Told>> {
        loop {
            if self.monitor.has_transmit() {
                let mut buffer = [0; Control::MAX_ENCODED];
                while let Some(control) = self.monitor.poll_transmit() {
                    let frame = control.encode(&mut buffer).map_err(io::Error::other)?;
                    self.lose_some(frame).await?;
                }
                self.monitor.handle_flushed(self.now());
            }
            if let Some(event) = self.monitor.poll_event() {
                return Ok(Some(Told::Event(event)));
            }
            let Some(deadline) = self.monitor.poll_timeout() else {
                return Ok(None);
            };
            let deadline = self.began + Duration::from_micros(deadline.as_micros());
            let mut datagram = [0; LONGEST];
            let received = tokio::select! {
                biased; // read before the peer is judged
                received = self.socket.recv(&mut datagram) => received?,
                () = sleep_until(deadline) => {
                    self.monitor.handle_timeout(self.now());
                    continue;
                }
            };
            let datagram = datagram.get(..received).unwrap_or_default();
            let now = self.now();
            match datagram.split_first() {
                Some((&tag, message)) if tag == Tag::Data.to_byte() => {
                    self.monitor.handle_message(now);
                    return Ok(Some(Told::Message(message.to_vec())));
                }
                // Any host may send a datagram. One that is no frame isn't the peer's.
                _ => {
                    if let Ok(control) = Control::decode(datagram) {
                        self.monitor.handle_frame(control, now);
                    }
                }
            }
        }
    }

    /// Sends two datagrams of three, as if a network did.
    async fn lose_some(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.sent += 1;
        match self.sent % 3 {
            0 => Ok(()),
            _ => self.socket.send(datagram).await.map(drop),
        }
    }
}
