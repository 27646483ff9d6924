//! A heartbeat with a real SMTP server, whose ping is `NOOP`: within a mail it would be text,
//! and nothing is answered while the server works on one.
//!
//! Real processes, real TCP, real time.
#![cfg(unix)]

use std::{collections::VecDeque, process::Command, time::Instant};

use bytes::BytesMut;
use futures::SinkExt;
use heartbeat_tests::{Watched, is_cut_off, ms, needs_python_with, patient, secs, server::Server};
use heartbeat_tokio::{Codec, Config, Dialect, Frame, Heartbeat, PeerEvent, State};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder, LinesCodec, LinesCodecError};

/// The client pauses within a mail for longer than the detection time, and then the server
/// works on it for three times as long.
#[tokio::test]
async fn no_ping_is_in_a_mail_and_a_server_that_works_on_one_lives() {
    let Some((_server, mut client)) = visit(Config::detect_within(secs(2)).unwrap(), &[]).await
    else {
        return;
    };
    assert!(client.message().await.starts_with("220 "));
    client.until_beat().await;
    for (command, answer) in [
        ("HELO localhost", "250 "),
        ("MAIL FROM:<a@localhost>", "250 "),
        ("RCPT TO:<b@localhost>", "250 "),
        ("DATA", "354 "),
    ] {
        client.peer.send(command.into()).await.unwrap();
        let reply = client.message().await;
        assert!(reply.starts_with(answer), "{command}: {reply}");
    }
    client.peer.send("one".into()).await.unwrap();
    client.go_on_for(secs(4)).await;
    client.peer.feed("two".into()).await.unwrap();
    client.peer.send(".".into()).await.unwrap();
    let began = Instant::now();
    client.go_on_for(secs(4)).await;
    assert_eq!(client.peer.status().peer.state, State::Occupied);
    assert_eq!(client.message().await, r#"250 "one\r\ntwo\r\n""#);
    assert!(began.elapsed() > secs(5), "{:?}", began.elapsed());
    client.until_beat().await;
    let is_suspect = |event: &PeerEvent<_>| matches!(event, PeerEvent::Suspect { .. });
    assert!(!client.events.iter().any(is_suspect), "{:?}", client.events);
    client.assert_alive();
}

/// Commands are sent together, and a server that allows three NOOPs says so before it hangs
/// up.
#[tokio::test]
async fn commands_may_be_sent_at_once_and_a_server_that_leaves_is_heard() {
    let often = patient().to_builder().interval(ms(20)).min_interval(ms(10));
    let often = often.build().unwrap();
    let Some((_server, mut client)) = visit(often, &["0"]).await else {
        return;
    };
    let commands = [
        "EHLO localhost",
        "MAIL FROM:<a@localhost>",
        "RCPT TO:<b@localhost>",
        "DATA",
    ];
    for command in commands {
        client.peer.feed(command.into()).await.unwrap();
        client.peer.probe();
    }
    client.peer.flush().await.unwrap();
    while !client.message().await.starts_with("354 ") {}
    client.go_on_for(ms(200)).await;
    client.peer.send("NOOP".into()).await.unwrap();
    client.peer.send(".".into()).await.unwrap();
    assert_eq!(client.message().await, r#"250 "NOOP\r\n""#);
    client.until_beat().await;
    client.assert_alive();

    let Some((_server, mut client)) = visit(often, &["0", "3"]).await else {
        return;
    };
    assert!(client.message().await.starts_with("220 "));
    let farewell = client.message().await;
    assert!(farewell.starts_with("421 "), "{farewell}");
    assert_eq!(client.beats(), 3);
    let death = client.until_dead().await;
    assert!(is_cut_off(&death.cause), "{death}");
}

/// A server of our own, and a connection to it.
async fn visit(config: Config, options: &[&str]) -> Option<(Server, Client)> {
    let python = needs_python_with("aiosmtpd")?;
    let server = Server::start(env!("CARGO_BIN_EXE_heartbeat-test-guard"), |port| {
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/support/smtp.py"));
        command.arg(port.to_string()).args(options);
        command
    })
    .await;
    let stream = server.connect().await;
    let client = Watched::new(Heartbeat::with_codec(stream, Smtp::new(), config));
    Some((server, client))
}

type Client = Watched<Heartbeat<TcpStream, Codec<Smtp>>, String>;

// ---- the codec -------------------------------------------------------------

/// What a reply is the answer to.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Command,
    Mail,
    Ping,
}

/// A client's codec: lines.
struct Smtp {
    lines: LinesCodec,
    /// In this order.
    asked: VecDeque<Asked>,
    /// What is sent is text of a mail.
    is_in_mail: bool,
}

impl Smtp {
    /// The server begins.
    fn new() -> Self {
        Self {
            lines: LinesCodec::new_with_max_length(1000),
            asked: [Asked::Command].into(),
            is_in_mail: false,
        }
    }

    fn put(&mut self, line: &str, bytes: &mut BytesMut) {
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
}

impl Dialect for Smtp {
    type Message = String;

    fn may_ping(&self) -> bool {
        !self.is_in_mail && self.asked.iter().all(|asked| *asked == Asked::Ping)
    }

    fn answers(&self) -> bool {
        !self.asked.contains(&Asked::Mail)
    }
}

impl Decoder for Smtp {
    type Item = Frame<String>;
    type Error = LinesCodecError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame<String>>, LinesCodecError> {
        let Some(line) = self.lines.decode(bytes)? else {
            return Ok(None);
        };
        if line.starts_with("421") {
            return Ok(Some(Frame::Data(line))); // it may come unasked
        }
        // More lines of the same reply follow.
        let is_last = line.as_bytes().get(3) != Some(&b'-');
        self.is_in_mail |= line.starts_with("354");
        Ok(Some(match is_last.then(|| self.asked.pop_front()) {
            Some(Some(Asked::Ping)) => Frame::Pong(None),
            _ => Frame::Data(line),
        }))
    }
}

impl Encoder<Frame<String>> for Smtp {
    type Error = LinesCodecError;

    fn encode(&mut self, frame: Frame<String>, to: &mut BytesMut) -> Result<(), LinesCodecError> {
        match frame {
            Frame::Data(line) if self.is_in_mail => {
                if line == "." {
                    self.is_in_mail = false;
                    self.asked.push_back(Asked::Mail);
                }
                self.put(&line, to);
            }
            Frame::Data(command) => {
                self.asked.push_back(Asked::Command);
                self.put(&command, to);
            }
            Frame::Ping(_) => {
                self.asked.push_back(Asked::Ping);
                self.put("NOOP", to);
            }
            _ => {} // there are no others
        }
        Ok(())
    }
}
