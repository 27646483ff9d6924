//! A heartbeat with a real IRC server. Both sides ping, with a word of their own, and before
//! the registration a ping is a mistake.
//!
//! Real processes, real TCP, real time.
#![cfg(unix)]

use std::{fs, time::Instant};

use bytes::BytesMut;
use futures::SinkExt;
use heartbeat_tests::{
    Watched, ms, patient, secs,
    server::{Server, not_as_root},
};
use heartbeat_tokio::{Cause, Codec, Config, Dialect, Frame, Heartbeat, PeerEvent};
use tempfile::NamedTempFile;
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder, LinesCodec, LinesCodecError};

use crate::brokers::program;

#[tokio::test]
async fn both_sides_ping_and_none_of_ours_leaves_before_the_registration() {
    let Some((server, _settings)) = ngircd().await else {
        return;
    };
    let often = patient().to_builder().interval(ms(20)).min_interval(ms(10));
    let mut eager = connect(&server, often.build().unwrap()).await;
    // It takes its time, and would be told of each ping in that.
    eager.go_on_for(ms(300)).await;
    register(&mut eager, "eager").await;
    eager.until_beat().await;
    drop(eager);

    let mut ann = connect(&server, patient()).await;
    // The server pings after five seconds, and gives the client up after five more.
    let seldom = patient().to_builder().interval(secs(300)).build().unwrap();
    let mut bob = connect(&server, seldom).await;
    register(&mut ann, "ann").await;
    register(&mut bob, "bob").await;
    // Its pings to bob are among what ann tells him.
    let flood = async {
        let until = Instant::now() + secs(13);
        let mut sent = 0;
        while Instant::now() < until {
            let message = format!("PRIVMSG bob :PING {sent}");
            ann.peer.send(message).await.unwrap();
            sent += 1;
            ann.go_on_for(ms(250)).await;
        }
        sent
    };
    let (sent, ()) = tokio::join!(flood, bob.go_on_for(secs(13)));
    assert!(ann.beats() > 10, "{:?}", ann.events);
    assert_eq!(bob.beats(), 0, "{:?}", bob.events);
    let last = format!("PRIVMSG bob :PING {}", sent - 1);
    let is_last = |event: &PeerEvent<String>| match event {
        PeerEvent::Message(line) => line.ends_with(&last),
        _ => false,
    };
    bob.until(|events| events.iter().any(is_last)).await;
    ann.assert_alive();
    bob.assert_alive();

    server.process.stop().unwrap();
    let stopped = Instant::now();
    let death = ann.until_dead().await;
    assert_eq!(death.cause, Cause::Silent);
    let took = stopped.elapsed();
    assert!(took < patient().detection_time() + ms(1500), "{took:?}");
}

// ---- the two of them -------------------------------------------------------

type Client = Watched<Heartbeat<TcpStream, Codec<Irc>>, String>;

async fn ngircd() -> Option<(Server, NamedTempFile)> {
    let program = program("ngircd", "/usr/sbin/ngircd")?;
    let settings = NamedTempFile::new().unwrap();
    // It runs as another user, and reads it.
    let all = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    fs::set_permissions(settings.path(), all).unwrap();
    let server = Server::start(env!("CARGO_BIN_EXE_heartbeat-test-guard"), |port| {
        let text = format!(
            "[Global]\nName = irc.example.net\nInfo = A test\nListen = 127.0.0.1\nPorts = {port}\n\
             [Limits]\nPingTimeout = 5\nPongTimeout = 5\nMaxConnectionsIP = 0\n\
             [Options]\nDNS = no\nIdent = no\nPAM = no\n"
        );
        fs::write(settings.path(), text).unwrap();
        let mut command = not_as_root("irc", &program);
        command.arg("-n").arg("-f").arg(settings.path());
        command
    })
    .await;
    Some((server, settings))
}

async fn connect(server: &Server, config: Config) -> Client {
    let stream = server.connect().await;
    Watched::new(Heartbeat::with_codec(stream, Irc::new(), config))
}

async fn register(client: &mut Client, name: &str) {
    let user = format!("USER {name} 0 * :{name}");
    client.peer.feed(format!("NICK {name}")).await.unwrap();
    client.peer.send(user).await.unwrap();
    let welcome = client.message().await;
    assert!(welcome.contains(" 001 "), "{welcome}");
}

/// A token may have colons and spaces within.
#[test]
fn a_ping_is_answered_with_its_whole_token() {
    for (ping, pong) in [
        (
            "PING :irc.example.net:6667",
            "PONG :irc.example.net:6667\r\n",
        ),
        (":irc.example.net PING :two words", "PONG :two words\r\n"),
        ("PING 1A2B3C4D", "PONG 1A2B3C4D\r\n"),
    ] {
        let mut codec = Irc::new();
        let mut arrived = BytesMut::from(format!("{ping}\r\n").as_bytes());
        assert_eq!(codec.decode(&mut arrived).unwrap(), Some(Frame::Ping(None)));
        let mut sent = BytesMut::new();
        codec.encode(Frame::Pong(None), &mut sent).unwrap();
        assert_eq!(&sent[..], pong.as_bytes());
    }
}

// ---- the codec -------------------------------------------------------------

/// A client's codec: lines.
struct Irc {
    lines: LinesCodec,
    /// The server has welcomed us.
    is_registered: bool,
    /// What stands behind the server's last ping, and again behind its answer.
    token: String,
}

impl Irc {
    fn new() -> Self {
        Self {
            lines: LinesCodec::new_with_max_length(1000),
            is_registered: false,
            token: String::new(),
        }
    }
}

impl Dialect for Irc {
    type Message = String;

    fn may_ping(&self) -> bool {
        self.is_registered
    }
}

impl Decoder for Irc {
    type Item = Frame<String>;
    type Error = LinesCodecError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame<String>>, LinesCodecError> {
        let Some(line) = self.lines.decode(bytes)? else {
            return Ok(None);
        };
        let prefix = line.strip_prefix(':').and_then(|line| line.split_once(' '));
        let rest = prefix.map_or(&*line, |(_, rest)| rest).trim_start();
        let (command, arguments) = rest.split_once(' ').unwrap_or((rest, ""));
        Ok(Some(match command {
            "PING" => {
                self.token = arguments.into();
                Frame::Ping(None)
            }
            "PONG" => Frame::Pong(None),
            command => {
                self.is_registered |= command == "001";
                Frame::Data(line)
            }
        }))
    }
}

impl Encoder<Frame<String>> for Irc {
    type Error = LinesCodecError;

    fn encode(&mut self, frame: Frame<String>, to: &mut BytesMut) -> Result<(), LinesCodecError> {
        let line = match frame {
            Frame::Data(line) => line,
            Frame::Ping(_) => "PING :beat".into(),
            Frame::Pong(_) => format!("PONG {}", self.token),
            _ => return Ok(()), // there are no others
        };
        to.extend_from_slice(line.as_bytes());
        to.extend_from_slice(b"\r\n");
        Ok(())
    }
}
