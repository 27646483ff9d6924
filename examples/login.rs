//! A login by lines of text, and then the same lines with a heartbeat.
//!
//! ```text
//! cargo run --example login
//! ```
//!
//! The client says `LOGIN` and its first line at once, answers a few beats, and hangs. The
//! server loses nothing of that, and finds out.

use std::{error::Error, io, time::Duration};

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Cause, Config, Dialect, Frame, Heartbeat, PeerEvent};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::codec::{Decoder, Encoder, Framed, LinesCodec, LinesCodecError};

/// A login and a death are known within this time.
const PATIENCE: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    tokio::spawn(client(TcpStream::connect(listener.local_addr()?).await?));
    serve(listener.accept().await?.0).await
}

async fn serve(stream: TcpStream) -> Result<(), Box<dyn Error>> {
    stream.set_nodelay(true)?;
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(1000));
    let login = timeout(PATIENCE, lines.next()).await?;
    let login = login.ok_or("no login")??;
    let name = login.strip_prefix("LOGIN ").ok_or("no login")?;
    lines.send("WELCOME").await?;

    // From here on with a heartbeat.
    let config = Config::detect_within(PATIENCE)?;
    let mut peer = Heartbeat::from_framed(lines.map_codec(Lines), config);
    let mut said = Vec::new();
    while let Some(event) = peer.next().await {
        println!("{name}: {event}");
        match event {
            PeerEvent::Message(line) => said.push(line),
            PeerEvent::Dead(death) => assert_eq!(death.cause, Cause::Silent),
            _ => {}
        }
    }
    assert_eq!(said, ["hello"]);
    Ok(())
}

async fn client(mut stream: TcpStream) -> io::Result<()> {
    let (reading, mut writing) = stream.split();
    writing.write_all(b"LOGIN ann\nhello\n").await?;
    let mut lines = BufReader::new(reading).lines();
    let mut beats = 0;
    while let Some(line) = lines.next_line().await? {
        if line == "PING" && beats < 3 {
            writing.write_all(b"PONG\n").await?;
            beats += 1;
        }
    }
    Ok(())
}

/// Lines of text. `PING` asks, and `PONG` answers.
struct Lines(LinesCodec);

impl Dialect for Lines {
    type Message = String;
}

impl Decoder for Lines {
    type Item = Frame<String>;
    type Error = LinesCodecError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame<String>>, LinesCodecError> {
        Ok(self.0.decode(bytes)?.map(|line| match &*line {
            "PING" => Frame::Ping(None),
            "PONG" => Frame::Pong(None),
            _ => Frame::Data(line),
        }))
    }
}

impl Encoder<Frame<String>> for Lines {
    type Error = LinesCodecError;

    fn encode(&mut self, frame: Frame<String>, to: &mut BytesMut) -> Result<(), LinesCodecError> {
        match frame {
            Frame::Data(line) => self.0.encode(line, to),
            Frame::Ping(_) => self.0.encode("PING", to),
            Frame::Pong(_) => self.0.encode("PONG", to),
            // This dialect doesn't have these frames, so they are never sent.
            Frame::Hello(_) | Frame::Goodbye { .. } | Frame::Alive | Frame::Fin | Frame::Other => {
                Ok(())
            }
        }
    }
}
