//! What hostile peers do: each line of SECURITY.md as bytes on a connection.
//!
//! An attack is one of many connections at the same time. Where the server ends it, the
//! attacker connects again after 40 ms.
//!
//! `tests/real_time/adversary.rs` has all of them too, and what the server makes of each.

use std::{io, net::SocketAddr, time::Duration};

use heartbeat_core::{Config, Control, Goodbye, GoodbyeCode, Nonce};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, sleep_until, timeout},
};

/// Attacks of which one kind alone keeps a server busy.
pub(crate) const FLOODS: &[&str] = &[
    "pongs",
    "hellos",
    "empty",
    "alives",
    "reserved",
    "fins",
    "parts of a byte",
    "pings",
    "never reads",
    "changing hellos",
    "goodbyes",
    "opens and closes",
];

/// Attacks that hold a connection and send little.
pub(crate) const HOLDS: &[&str] = &[
    "silent",
    "half a hello",
    "dripped hello",
    "dripped frame",
    "begun frames",
    "patient hello",
    "zero window",
    "reads slowly",
    "pings at the limit",
];

/// Attacks that the server ends at once.
pub(crate) const ENDED: &[&str] = &[
    "half-close",
    "resets in frames",
    "no frames",
    "longer than allowed",
    "long control frame",
    "hasty hello",
    "a year of everything",
    "messages behind a fin",
    "echoes",
];

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The server under attack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) to: SocketAddr,
    pub(crate) config: Config,
    /// How long a flood waits after 64 KiB.
    pub(crate) pause: Duration,
}

/// Attacks for as long as it is polled. `opened` is called for each connection.
pub(crate) async fn attack(kind: &str, target: Target, opened: impl Fn()) -> io::Result<()> {
    loop {
        let socket = TcpSocket::new_v4()?;
        if kind == "zero window" {
            socket.set_recv_buffer_size(4096)?;
        }
        let stream = socket.connect(target.to).await?;
        opened();
        // The server may end it at any time.
        let _ = connection(kind, stream, target).await;
        // Loopback has 28,000 ports, which a closed connection holds for a second.
        sleep(Duration::from_millis(40)).await;
    }
}

async fn connection(kind: &str, mut stream: TcpStream, target: Target) -> io::Result<()> {
    let Target { config, pause, .. } = target;
    let hello = hello(config);
    let flood = async |mut stream, frame: &[u8]| repeat(&mut stream, frame, pause).await;
    match kind {
        "silent" => return until_the_end(stream).await,
        "half a hello" => {
            stream.write_all(hello.get(..12).unwrap_or(&hello)).await?;
            return until_the_end(stream).await;
        }
        "dripped hello" => return drip(stream, &hello, 1).await,
        "opens and closes" => return Ok(()),
        "no frames" => return say(stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await,
        "hasty hello" => return say(stream, &hello_of(Duration::from_millis(99))).await,
        "a year of everything" => return say(stream, &hello_of_a_year(YEAR)).await,
        "patient hello" => {
            return say(stream, &hello_of_a_year(config.min_interval())).await;
        }
        "pings at the limit" => return pings_at_the_limit(stream, config).await,
        "echoes" => return echo(stream).await,
        _ => stream.write_all(&hello).await?,
    }
    match kind {
        "pongs" => flood(stream, &control(Control::Pong(Nonce([9; 8])))).await,
        "hellos" => flood(stream, &hello).await,
        "empty" => flood(stream, &framed(&[0])).await,
        "alives" => flood(stream, &control(Control::Alive)).await,
        "reserved" => flood(stream, &framed(&[0x40; 256])).await,
        "fins" => flood(stream, &control(Control::Fin)).await,
        "pings" => flood(stream, &control(Control::Ping(Nonce([9; 8])))).await,
        // The server answers each of these.
        "never reads" => flood(stream, &request()).await,
        "changing hellos" => flood(stream, &two_hellos(config)).await,
        "goodbyes" => flood(stream, &goodbye()).await,
        "parts of a byte" => parts_of_a_byte(stream, pause).await,
        "dripped frame" => {
            stream.write_all(&first_part(65_536)).await?;
            drip(stream, &[7; 1 << 20], 200).await
        }
        "begun frames" => {
            stream.write_all(&first_part(65_536)).await?;
            say(stream, &[7; 17_000]).await
        }
        "zero window" => {
            let asks = async { repeat(&mut stream, &request(), Duration::ZERO).await };
            let _ = timeout(Duration::from_millis(200), asks).await;
            // Nobody tells it that the server has ended it.
            sleep(2 * config.detection_time()).await;
            Ok(())
        }
        "reads slowly" => reads_slowly(stream).await,
        "half-close" => {
            stream.shutdown().await?;
            until_the_end(stream).await
        }
        "longer than allowed" => say(stream, &[0xff; 5]).await,
        "long control frame" => say(stream, &framed(&[2; 300])).await,
        "messages behind a fin" => say(stream, &[control(Control::Fin), request()].concat()).await,
        "resets in frames" => {
            stream.write_all(&[0, 0, 0, 9, 2, 1]).await?;
            // Closes with a reset.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
        }
        _ => Err(io::Error::other(format!("no such attack: {kind}"))),
    }
}

// ---- what is done with a connection -----------------------------------------------

/// Says this, and then nothing.
async fn say(mut stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    until_the_end(stream).await
}

/// Reads until the server ends it.
async fn until_the_end(mut stream: TcpStream) -> io::Result<()> {
    let mut some = [0; 1024];
    while stream.read(&mut some).await? > 0 {}
    Ok(())
}

/// The same frame without end, and reads nothing.
async fn repeat(stream: &mut TcpStream, frame: &[u8], pause: Duration) -> io::Result<()> {
    let many = frame.repeat(64 * 1024 / frame.len());
    loop {
        stream.write_all(&many).await?;
        rest(pause).await;
    }
}

/// A timer costs more than a write.
async fn rest(pause: Duration) {
    if !pause.is_zero() {
        sleep(pause).await;
    }
}

/// This many bytes a second, also where time is short.
async fn drip(mut stream: TcpStream, bytes: &[u8], rate: u32) -> io::Result<()> {
    let mut due = Instant::now();
    for byte in bytes.chunks(1) {
        stream.write_all(byte).await?;
        due += Duration::from_secs(1) / rate;
        sleep_until(due).await;
    }
    until_the_end(stream).await
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await.map(drop)
}

/// As many as a compliant peer could have sent since the connection began, and not one
/// less. It lives.
async fn pings_at_the_limit(stream: TcpStream, config: Config) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let each = config.min_interval();
    let most = config.to_builder().max_missed(255).build();
    writer.write_all(&hello(most.unwrap_or(config))).await?;
    // The server's clock for this connection has begun when its Hello is here.
    reader.readable().await?;
    let mut began = Instant::now();
    let group = control(Control::Ping(Nonce([9; 8]))).repeat(2 * 255);
    let pings = async {
        writer.write_all(&group).await?;
        loop {
            writer.write_all(&group).await?;
            writer.write_all(&control(Control::Alive)).await?;
            began += each;
            sleep_until(began).await;
        }
    };
    let pongs = async {
        let mut some = [0; 1024];
        while reader.read(&mut some).await? > 0 {}
        Ok(())
    };
    tokio::select! { ended = pongs => ended, ended = pings => ended }
}

/// A message of 8 MiB, with a header for each of its bytes.
async fn parts_of_a_byte(mut stream: TcpStream, pause: Duration) -> io::Result<()> {
    let many = framed(&[7, 7]).repeat(8 * 1024);
    stream.write_all(&first_part(1)).await?;
    stream.write_all(&[7]).await?;
    for _ in 0..1023 {
        stream.write_all(&many).await?;
        rest(pause).await;
    }
    until_the_end(stream).await
}

/// Asks for more than it reads, and lives.
async fn reads_slowly(stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let asks = async {
        writer.write_all(&request().repeat(50_000)).await?;
        loop {
            writer.write_all(&control(Control::Alive)).await?;
            sleep(Duration::from_millis(500)).await;
        }
    };
    let reads = async {
        let mut some = [0; 100];
        while reader.read(&mut some).await? > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    tokio::select! { ended = asks => ended, ended = reads => ended }
}

// ---- bytes ------------------------------------------------------------------------

fn hello(config: Config) -> Vec<u8> {
    control(Control::Hello(config.hello([7; 8])))
}

fn hello_of(detection: Duration) -> Vec<u8> {
    hello(Config::detect_within(detection).unwrap_or_default())
}

/// A peer that waits for years, and accepts a ping each `min_interval`.
fn hello_of_a_year(min_interval: Duration) -> Vec<u8> {
    let patient = Config::builder().interval(YEAR).timeout(YEAR);
    let patient = patient.max_missed(255).min_interval(min_interval);
    hello(patient.build().unwrap_or_default())
}

/// One that stretches the detection time nearly as far as is accepted, and one that takes
/// that back.
fn two_hellos(config: Config) -> Vec<u8> {
    let mut slow = config.hello([7; 8]);
    slow.min_interval = 3 * config.detection_time();
    [control(Control::Hello(slow)), hello(config)].concat()
}

fn request() -> Vec<u8> {
    framed(&[[0].as_slice(), &[7; 16]].concat())
}

fn goodbye() -> Vec<u8> {
    let mut memory = [0; Goodbye::MAX_ENCODED];
    let goodbye = Goodbye::new(GoodbyeCode::LEAVING, "for the hundredth time");
    framed(goodbye.encode(&mut memory).unwrap_or_default())
}

/// The headers of a message of 8 MiB, and of its first part with this many bytes.
fn first_part(bytes: usize) -> Vec<u8> {
    let header = [7, 0x80, 0x80, 0x80, 0x04];
    [&length(header.len() + bytes), header.as_slice()].concat()
}

fn control(control: Control) -> Vec<u8> {
    let mut memory = [0; Control::MAX_ENCODED];
    framed(control.encode(&mut memory).unwrap_or_default())
}

/// A frame behind its length.
fn framed(frame: &[u8]) -> Vec<u8> {
    [&length(frame.len()), frame].concat()
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}
