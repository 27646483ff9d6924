//! What must hold for any bytes and for any use of the adapter.
//!
//! The fuzz targets call these functions with bytes that a fuzzer found, and
//! `tests/virtual_time/fuzz_corpus.rs` with the saved ones and with dice. Each panics if
//! something doesn't hold.

#![allow(
    clippy::expect_used,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "also a module of a test"
)]

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, future::poll_immediate};
use heartbeat_core::{Control, Nonce};
use heartbeat_tests::{
    codecs::{mqtt::Mqtt, nats::Nats, redis::Resp, stomp::Stomp},
    scripted::{OnWire, Read, control_frame, filler, frames, messages, runtime, scripted},
};
use heartbeat_tokio::{
    Config, ConfigLayer, Frame, Heartbeat, SafetyNet, safety_net::SafetyNetOverrides,
};
use tokio_util::codec::{Decoder, Encoder};

/// An input: what is missing counts as zero.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn pick<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        let nth = usize::from(self.byte()) % N;
        *all.get(nth).expect("one of them")
    }

    /// The rest in pieces: how many and how long they are stands before it.
    fn pieces(&mut self) -> Vec<&'b [u8]> {
        let lengths: Vec<_> = (0..self.byte()).map(|_| self.byte()).collect();
        let mut pieces = Vec::new();
        for length in lengths {
            let (piece, rest) = self.0.split_at(self.0.len().min(length.into()));
            pieces.push(piece);
            self.0 = rest;
        }
        pieces.push(self.0);
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

// ---- what arrives --------------------------------------------------------------

/// However bytes are cut into reads, the application is told the same.
///
/// The head: a byte for the largest message, one for whether the peer has greeted, and
/// the pieces.
pub fn reader(bytes: &[u8]) {
    let mut input = Input(bytes);
    let max_frame = input.pick([65_536, 1, 16, 300, 65_537, 200_000]);
    let greets = input.byte() % 2 == 0;
    let pieces = input.pieces();
    let whole = pieces.concat();
    assert_eq!(
        told(max_frame, greets, &pieces),
        told(max_frame, greets, &[&whole])
    );
}

fn told(max_frame: usize, greets: bool, pieces: &[&[u8]]) -> Vec<String> {
    let config = Config::default().to_builder().max_frame(max_frame).build();
    let config = config.expect("valid");
    let (stream, script) = scripted();
    if greets {
        script.give_bytes(control_frame(Control::Hello(config.hello([7; 8]))));
    }
    for piece in pieces {
        let piece = Bytes::copy_from_slice(piece);
        script.give([Read::Bytes(piece), Read::Pause]);
    }
    script.give([Read::End]);
    let told = block_on(Heartbeat::new(stream, config).collect::<Vec<_>>());
    let last = told.last().expect("an end");
    assert!(last.is_terminal());
    // What was written are whole frames.
    let _ = frames(&script.sent());
    told.iter().map(|event| format!("{event:?}")).collect()
}

fn block_on<T>(task: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = runtime();
    }
    RUNTIME.with(|runtime| runtime.block_on(task))
}

// ---- what leaves ---------------------------------------------------------------

/// However little a stream takes at a time, the wire has whole frames, each message that
/// was accepted in its turn, and the answer to the last ping.
///
/// The head: a byte for whether the stream is vectored and whether it is buffered, and
/// four for how much it takes in turn. Then one or two bytes for each step.
pub fn writer(bytes: &[u8]) {
    let mut input = Input(bytes);
    let kind = input.byte();
    let sizes = [0, 1, 4, 5, 6, 100, 1029, 4096, 65_536, 65_541, 1 << 20];
    let takes: Vec<_> = (0..4).map(|_| input.pick(sizes)).collect();
    let config = Config::default();
    let (stream, script) = scripted();
    script.set_vectored(kind & 1 != 0);
    script.set_buffered(kind & 2 != 0);
    // More would be a flood.
    let mut pings_left = 8;
    let (mut accepted, mut asked) = (Vec::new(), None);
    block_on(async {
        let mut heartbeat = Heartbeat::new(stream, config);
        script.give_bytes(control_frame(Control::Hello(config.hello([7; 8]))));
        heartbeat.next().await.expect("its greeting");
        script.take_each(takes);
        while !input.0.is_empty() {
            match input.byte() % 6 {
                0 | 1 => {
                    let length = usize::from(input.byte()) * input.pick([1, 5, 17, 257, 600]);
                    let message = filler(accepted.len(), length);
                    let fed = poll_immediate(heartbeat.feed(message.clone())).await;
                    if matches!(fed, Some(Ok(()))) {
                        accepted.push(message);
                    }
                }
                2 => heartbeat.probe(),
                3 if pings_left > 0 => {
                    pings_left -= 1;
                    let nonce = Nonce([input.byte(); 8]);
                    script.give_bytes(control_frame(Control::Ping(nonce)));
                    asked = Some(nonce);
                    let _ = poll_immediate(heartbeat.next()).await;
                }
                4 => drop(poll_immediate(heartbeat.flush()).await),
                _ => script.take_only(usize::from(input.byte()) * 11),
            }
        }
        script.take_each([]);
        script.take_only(usize::MAX);
        heartbeat.flush().await.expect("it takes everything");
        let event = poll_immediate(heartbeat.next()).await;
        assert!(event.is_none(), "{event:?}");
        heartbeat.flush().await.expect("it takes everything");
    });
    let frames = frames(&script.sent());
    assert!(messages(&frames) == accepted, "messages are as they were");
    let answers = frames.iter().filter_map(|(_, frame)| match frame {
        OnWire::Control(Control::Pong(nonce)) => Some(*nonce),
        _ => None,
    });
    assert_eq!(answers.last(), asked, "the last ping is answered");
}

// ---- codecs --------------------------------------------------------------------

/// However bytes are cut, a codec makes the same of them.
///
/// The head: a byte for the codec, one for whether it has asked, and the pieces.
pub fn codecs(bytes: &[u8]) {
    let mut input = Input(bytes);
    let codec = input.byte();
    let asked = input.byte() % 2 == 1;
    let pieces = input.pieces();
    match codec % 4 {
        0 => decodes::<Resp, _>(asked, &pieces),
        1 => decodes::<Nats, _>(asked, &pieces),
        2 => decodes::<Mqtt, _>(asked, &pieces),
        _ => decodes::<Stomp, _>(asked, &pieces),
    }
}

fn decodes<C, M>(asked: bool, pieces: &[&[u8]])
where
    C: Default + Decoder<Item = Frame<M>> + Encoder<Frame<M>>,
    M: Debug,
{
    let whole = pieces.concat();
    assert_eq!(
        decoded::<C, M>(asked, pieces),
        decoded::<C, M>(asked, &[&whole])
    );
}

fn decoded<C, M>(asked: bool, pieces: &[&[u8]]) -> Vec<String>
where
    C: Default + Decoder<Item = Frame<M>> + Encoder<Frame<M>>,
    M: Debug,
{
    let mut codec = C::default();
    if asked {
        // Some say nothing before a login.
        let _ = codec.encode(Frame::Ping(Some(Nonce([1; 8]))), &mut BytesMut::new());
    }
    let (mut buffer, mut items) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => items.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(_) => {
                    items.push("an error".into());
                    return items;
                }
            }
        }
    }
    items
}

// ---- configuration files -------------------------------------------------------

/// What loads is valid, and the same again when it is written and loaded. A layer by
/// itself loads exactly if the file does.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let toml = toml::from_str::<Config>(text).ok();
    let layer = toml::from_str::<ConfigLayer>(text).ok();
    check(toml, layer, |config| {
        let text = toml::to_string(config).expect("it can be written");
        toml::from_str(&text).expect("it can be read")
    });
    let json = serde_json::from_str::<Config>(text).ok();
    let layer = serde_json::from_str::<ConfigLayer>(text).ok();
    check(json, layer, |config| {
        let text = serde_json::to_string(config).expect("it can be written");
        serde_json::from_str(&text).expect("it can be read")
    });
    if let Ok(overrides) = toml::from_str::<SafetyNetOverrides>(text) {
        let _ = overrides.over(SafetyNet::from(&Config::default()));
    }
}

fn check(config: Option<Config>, layer: Option<ConfigLayer>, again: fn(&Config) -> Config) {
    let layered = layer.and_then(|layer| Config::try_from(layer).ok());
    assert_eq!(layered, config, "by itself and in layers");
    let Some(config) = config else { return };
    assert_eq!(config.to_builder().build(), Ok(config), "valid");
    assert_eq!(again(&config), config, "written and read");
}
