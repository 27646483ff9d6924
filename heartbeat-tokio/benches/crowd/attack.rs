//! What hostile peers do: each line of SECURITY.md as bytes on a connection.
//!
//! An attack is one of many connections at the same time. Where the server ends it, the
//! attacker connects again at once, or after a pause that its name says.

use std::{net::SocketAddr, time::Duration};

use heartbeat_core::{Config, Control, Goodbye, GoodbyeCode, Nonce};
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// All of them, in the order of the table.
pub(crate) const ALL: &[&str] = &[
    "pongs",
    "hellos",
    "empty",
    "alives",
    "reserved",
    "pings",
    "pings at the limit",
    "silent",
    "half a hello",
    "dripped hello",
    "dripped frame",
    "begun frames",
    "never reads",
    "half-close",
    "changing hellos",
    "goodbyes",
    "opens and closes",
    "resets in frames",
];

/// Attacks for as long as it is polled.
pub(crate) async fn attack(kind: &str, to: SocketAddr) -> io::Result<()> {
    loop {
        let stream = TcpStream::connect(to).await?;
        // The server may end it at any time.
        let _ = connection(kind, stream).await;
        // Loopback has 28,000 ports, which a closed connection holds for a minute.
        sleep(Duration::from_millis(40)).await;
    }
}

async fn connection(kind: &str, mut stream: TcpStream) -> io::Result<()> {
    let hello = control(Control::Hello(Config::default().hello([7; 8])));
    match kind {
        "silent" => return forever(&mut stream).await,
        "half a hello" => {
            stream.write_all(hello.get(..12).unwrap_or(&hello)).await?;
            return forever(&mut stream).await;
        }
        "dripped hello" => return drip(&mut stream, &hello, 1).await,
        "opens and closes" => return Ok(()),
        _ => stream.write_all(&hello).await?,
    }
    match kind {
        "pongs" => repeat(stream, &control(Control::Pong(Nonce([9; 8])))).await,
        "hellos" => repeat(stream, &hello).await,
        "empty" => repeat(stream, &framed(&[0])).await,
        "alives" => repeat(stream, &control(Control::Alive)).await,
        "reserved" => repeat(stream, &framed(&[0x40; 256])).await,
        "pings" => repeat(stream, &control(Control::Ping(Nonce([9; 8])))).await,
        "pings at the limit" => pings_at_the_limit(stream).await,
        "dripped frame" => {
            stream.write_all(&first_part()).await?;
            drip(&mut stream, &[7; 1 << 20], 200).await
        }
        "begun frames" => {
            let some = [7; 17_000];
            stream.write_all(&first_part()).await?;
            stream.write_all(&some).await?;
            forever(&mut stream).await
        }
        // The server answers each of these.
        "never reads" => repeat(stream, &framed(&[[0].as_slice(), &[7; 16]].concat())).await,
        "half-close" => {
            stream.shutdown().await?;
            forever(&mut stream).await
        }
        "changing hellos" => changing_hellos(stream).await,
        "goodbyes" => {
            let mut memory = [0; Goodbye::MAX_ENCODED];
            let goodbye = Goodbye::new(GoodbyeCode::LEAVING, "for the hundredth time");
            let goodbye = framed(goodbye.encode(&mut memory).unwrap_or_default());
            repeat(stream, &goodbye).await
        }
        _ => {
            stream.write_all(&[0, 0, 0, 9, 2, 1]).await?;
            // Closes with a reset.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
        }
    }
}

/// The same frame without end, and reads nothing.
async fn repeat(mut stream: TcpStream, frame: &[u8]) -> io::Result<()> {
    let many = frame.repeat(64 * 1024 / frame.len());
    loop {
        stream.write_all(&many).await?;
    }
}

/// Bytes a second.
async fn drip(stream: &mut TcpStream, bytes: &[u8], rate: usize) -> io::Result<()> {
    for some in bytes.chunks(rate.div_ceil(10)) {
        stream.write_all(some).await?;
        sleep(Duration::from_secs(1).mul_f64(some.len() as f64 / rate as f64)).await;
    }
    forever(stream).await
}

/// Reads until the server ends it.
async fn forever(stream: &mut TcpStream) -> io::Result<()> {
    let mut some = [0; 1024];
    while stream.read(&mut some).await? > 0 {}
    Ok(())
}

/// As many as a peer that complies may send, all of them at once, again and again.
async fn pings_at_the_limit(stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let each = Config::default().min_interval();
    let burst = control(Control::Ping(Nonce([9; 8]))).repeat(10);
    let pongs = async {
        let mut some = [0; 1024];
        while reader.read(&mut some).await? > 0 {}
        Ok(())
    };
    let pings = async {
        loop {
            writer.write_all(&burst).await?;
            sleep(each * 10).await;
        }
    };
    tokio::select! { ended = pongs => ended, ended = pings => ended }
}

/// Hellos that stretch the detection time as far as is accepted, and back.
async fn changing_hellos(mut stream: TcpStream) -> io::Result<()> {
    let mut slow = Config::default().hello([7; 8]);
    slow.min_interval = Duration::from_secs(40);
    let slow = control(Control::Hello(slow));
    let normal = control(Control::Hello(Config::default().hello([7; 8])));
    let both = [slow, normal].concat().repeat(500);
    loop {
        stream.write_all(&both).await?;
    }
}

/// The length and the header of a message of 8 MiB in parts.
fn first_part() -> Vec<u8> {
    let header = [7, 0x80, 0x80, 0x80, 0x04];
    let length = u32::try_from(header.len() + 65_536).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), header.as_slice()].concat()
}

fn control(control: Control) -> Vec<u8> {
    let mut memory = [0; Control::MAX_ENCODED];
    framed(control.encode(&mut memory).expect("there is room"))
}

/// A frame behind its length.
fn framed(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), frame].concat()
}
