//! A script: a monitor and the calls that are made on it, one after the other.
//!
//! It can be run, shortened, and printed as lines of Rust.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use heartbeat_core::{Config, Control, Dialogue, End, GoodbyeCode, Hello, Instant, Monitor, Nonce};

use crate::terms::micros;

/// One call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op {
    Bytes,
    /// The moment of the acknowledgement.
    Acknowledged(u64),
    /// The moment when the peer's kernel took data ahead of our ping.
    Taken(u64),
    Backlog,
    Message,
    Hello(Hello),
    /// Our own Hello comes back.
    OwnHello(Hello),
    Ping(u64),
    Pong(Answer),
    UnnumberedPong,
    Alive,
    Fin,
    Reserved,
    /// The code.
    Goodbye(u8),
    Flushed,
    /// Messages left.
    Sent,
    /// What the state of a foreign protocol allows.
    Dialogue(Allowed),
    /// I.
    SetInterval(u64),
    Progress,
    Blocked,
    Timeout,
    End(End),
    /// The peer's direction ended; of foreign protocols only.
    HalfClose,
    Paused,
    Resumed,
    Probe,
    Finish,
    NotReading,
    /// The code.
    Close(u8),
    /// It takes no time.
    Discarded,
    /// `poll_transmit`, once.
    Transmit,
    /// `poll_event`, once.
    Event,
}

/// Whether a ping may leave, whether an answer can be expected, and how often the peer
/// sends a beat by itself: 0 if it doesn't.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Allowed {
    pub(crate) ping: bool,
    pub(crate) answer: bool,
    pub(crate) beats: u64,
}

impl Allowed {
    pub(crate) const ALL: Self = Self {
        ping: true,
        answer: true,
        beats: 0,
    };

    /// Whether we can ask.
    pub(crate) const fn asking(self) -> bool {
        self.ping && self.answer
    }
}

/// What a pong answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    /// The ping of that number, counted from 0.
    Ping(usize),
    /// No ping of ours.
    Nobody(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) now: u64,
    pub(crate) op: Op,
}

/// A monitor, and what is called on it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) config: Config,
    pub(crate) seed: u64,
    pub(crate) start: u64,
    pub(crate) hello: bool,
    /// What the counter of pings begins with.
    pub(crate) sent: u32,
    pub(crate) calls: Vec<Call>,
}

pub(crate) fn instant(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

pub(crate) fn nonce(number: u64) -> Nonce {
    Nonce(number.to_be_bytes())
}

/// The Hello that announces I, D, m and N, by way of its bytes; all of them by the
/// same instance.
pub(crate) fn announced(fields: [u64; 4]) -> Hello {
    let mut bytes = b"\x01HBT\0\x01".to_vec();
    for mut field in fields {
        while field > 127 {
            bytes.push(field.to_le_bytes()[0] | 128);
            field >>= 7;
        }
        bytes.push(field.to_le_bytes()[0]);
    }
    // The largest message, and the instance.
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 7]);
    match Control::decode(&bytes) {
        Ok(Control::Hello(hello)) => hello,
        other => panic!("{fields:?} is no hello: {other:?}"),
    }
}

impl Op {
    /// Calls it, unless it is a poll. False: it was refused.
    pub(crate) fn call(self, monitor: &mut Monitor, pings: &[Nonce], now: u64) -> bool {
        let now = instant(now);
        match self {
            Self::Bytes => monitor.handle_bytes(now),
            Self::Acknowledged(at) => monitor.handle_acknowledged(instant(at), now),
            Self::Taken(at) => monitor.handle_taken(instant(at), now),
            Self::Backlog => monitor.handle_backlog(now),
            Self::Message => monitor.handle_message(now),
            Self::Hello(hello) | Self::OwnHello(hello) => {
                monitor.handle_frame(Control::Hello(hello), now);
            }
            Self::Ping(number) => monitor.handle_frame(Control::Ping(nonce(number)), now),
            Self::Pong(answer) => {
                monitor.handle_frame(Control::Pong(answer.nonce(pings)), now);
            }
            Self::UnnumberedPong => monitor.handle_unnumbered_pong(now),
            Self::Alive => monitor.handle_frame(Control::Alive, now),
            Self::Fin => monitor.handle_frame(Control::Fin, now),
            Self::Reserved => monitor.handle_frame(Control::Reserved, now),
            Self::Goodbye(code) => {
                monitor.handle_frame(Control::Goodbye(GoodbyeCode(code)), now);
            }
            Self::Flushed => monitor.handle_flushed(now),
            Self::Sent => monitor.handle_sent(now),
            Self::Dialogue(allowed) => {
                let beats = Duration::from_micros(allowed.beats);
                let dialogue = Dialogue {
                    may_ping: allowed.ping,
                    answers: allowed.answer,
                    beats_every: (allowed.beats > 0).then_some(beats),
                };
                monitor.handle_dialogue(dialogue, now);
            }
            Self::SetInterval(interval) => {
                let interval = Duration::from_micros(interval);
                return monitor.set_interval(interval, now).is_ok();
            }
            Self::Progress => monitor.handle_progress(now),
            Self::Blocked => monitor.handle_blocked(now),
            Self::Timeout => monitor.handle_timeout(now),
            Self::End(end) => monitor.handle_end(end, now),
            Self::HalfClose => monitor.handle_half_close(now),
            Self::Paused => monitor.handle_paused(now),
            Self::Resumed => monitor.handle_resumed(now),
            Self::Probe => monitor.probe(now),
            Self::Finish => monitor.finish(now),
            Self::NotReading => monitor.handle_not_reading(now),
            Self::Close(code) => monitor.close(GoodbyeCode(code), now),
            Self::Discarded => monitor.handle_discarded(),
            Self::Transmit | Self::Event => {}
        }
        true
    }
}

impl Answer {
    pub(crate) fn nonce(self, pings: &[Nonce]) -> Nonce {
        match self {
            Self::Nobody(number) => nonce(number),
            Self::Ping(number) => pings.get(number).copied().unwrap_or(nonce(0)),
        }
    }
}

impl fmt::Display for Call {
    /// A line of Rust.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = format!("at({})", self.now);
        match self.op {
            Op::Bytes => write!(f, "monitor.handle_bytes({now});"),
            Op::Acknowledged(at) => write!(f, "monitor.handle_acknowledged(at({at}), {now});"),
            Op::Taken(at) => write!(f, "monitor.handle_taken(at({at}), {now});"),
            Op::Backlog => write!(f, "monitor.handle_backlog({now});"),
            Op::Message => write!(f, "monitor.handle_message({now});"),
            Op::OwnHello(_) => write!(f, "monitor.handle_frame(ours, {now});"),
            Op::Hello(hello) => write!(
                f,
                "monitor.handle_frame(hello([{}, {}, {}, {}]), {now}); // I, D, m, N",
                micros(hello.interval),
                micros(hello.detection_time),
                micros(hello.min_interval),
                hello.max_missed
            ),
            Op::Ping(number) => write!(
                f,
                "monitor.handle_frame(Control::Ping(Nonce({number}u64.to_be_bytes())), {now});"
            ),
            Op::Pong(Answer::Nobody(number)) => write!(
                f,
                "monitor.handle_frame(Control::Pong(Nonce({number}u64.to_be_bytes())), {now});"
            ),
            Op::Pong(Answer::Ping(number)) => write!(
                f,
                "monitor.handle_frame(Control::Pong(pings[{number}]), {now});"
            ),
            Op::UnnumberedPong => write!(f, "monitor.handle_unnumbered_pong({now});"),
            Op::Alive | Op::Fin | Op::Reserved => {
                write!(f, "monitor.handle_frame(Control::{:?}, {now});", self.op)
            }
            Op::Goodbye(code) => write!(
                f,
                "monitor.handle_frame(Control::Goodbye(GoodbyeCode({code})), {now});"
            ),
            Op::Flushed => write!(f, "monitor.handle_flushed({now});"),
            Op::Sent => write!(f, "monitor.handle_sent({now});"),
            Op::Dialogue(Allowed {
                ping,
                answer,
                beats,
            }) => write!(
                f,
                "monitor.handle_dialogue(dialogue({ping}, {answer}, {beats}), {now});"
            ),
            Op::SetInterval(interval) => write!(
                f,
                "let _ = monitor.set_interval(Duration::from_micros({interval}), {now});"
            ),
            Op::Progress => write!(f, "monitor.handle_progress({now});"),
            Op::Blocked => write!(f, "monitor.handle_blocked({now});"),
            Op::Timeout => write!(f, "monitor.handle_timeout({now});"),
            Op::End(end) => write!(f, "monitor.handle_end(End::{end:?}, {now});"),
            Op::HalfClose => write!(f, "monitor.handle_half_close({now});"),
            Op::Paused => write!(f, "monitor.handle_paused({now});"),
            Op::Resumed => write!(f, "monitor.handle_resumed({now});"),
            Op::Probe => write!(f, "monitor.probe({now});"),
            Op::Finish => write!(f, "monitor.finish({now});"),
            Op::Discarded => write!(f, "monitor.handle_discarded();"),
            Op::NotReading => write!(f, "monitor.handle_not_reading({now});"),
            Op::Close(code) => write!(f, "monitor.close(GoodbyeCode({code}), {now});"),
            Op::Transmit => write!(f, "transmit(&mut monitor, &mut pings);"),
            Op::Event => write!(f, "monitor.poll_event();"),
        }
    }
}

/// What the printed calls use.
const HELPERS: &str = r#"let at = Instant::from_micros;
let hello = |fields: [u64; 4]| {
    let mut bytes = b"\x01HBT\0\x01".to_vec();
    for mut field in fields {
        while field > 127 { bytes.push(field as u8 | 128); field >>= 7; }
        bytes.push(field as u8);
    }
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 7]);
    Control::decode(&bytes).unwrap()
};
let dialogue = |may_ping: bool, answers: bool, beats: u64| Dialogue {
    may_ping, answers, beats_every: (beats > 0).then(|| Duration::from_micros(beats)),
};
let mut pings: Vec<Nonce> = Vec::new();
let transmit = |monitor: &mut Monitor, pings: &mut Vec<Nonce>| {
    if let Some(Control::Ping(nonce)) = monitor.poll_transmit() { pings.push(nonce); }
};
"#;

impl Script {
    /// The same calls without those from `from` to before `to`.
    pub(crate) fn without(&self, from: usize, to: usize) -> Self {
        let mut shorter = self.clone();
        shorter.calls.drain(from..to);
        shorter
    }

    /// What our side says first.
    pub(crate) fn own_hello(&self) -> Option<Hello> {
        match self.monitor().poll_transmit() {
            Some(Control::Hello(hello)) => Some(hello),
            _ => None,
        }
    }

    pub(crate) fn monitor(&self) -> Monitor {
        let mut monitor = Monitor::new(self.config, self.seed, instant(self.start));
        if !self.hello {
            monitor = monitor.without_hello();
        }
        assert!(crate::api::set_pings_sent(&mut monitor, self.sent));
        monitor
    }

    /// Lines of Rust that make the same calls.
    pub(crate) fn lines(&self) -> String {
        let config = &self.config;
        let mut text = String::new();
        let knob = |text: &mut String, name: &str, time: Duration| {
            let _ = writeln!(text, "    .{name}(Duration::from_micros({}))", micros(time));
        };
        text.push_str(HELPERS);
        text.push_str("let config = Config::builder()\n");
        knob(&mut text, "interval", config.interval());
        knob(&mut text, "timeout", config.timeout());
        let _ = writeln!(text, "    .max_missed({})", config.max_missed());
        let _ = writeln!(text, "    .jitter({:?})", config.jitter());
        knob(&mut text, "min_interval", config.min_interval());
        knob(&mut text, "stall_tolerance", config.stall_tolerance());
        if config.adaptive() {
            knob(&mut text, "adaptive_floor", config.adaptive_floor());
        } else {
            text.push_str("    .adaptive(false)\n");
        }
        if let Some(limit) = config.write_stall() {
            knob(&mut text, "write_stall", limit);
        }
        if let Some(limit) = config.speak_within() {
            knob(&mut text, "speak_within", limit);
        }
        knob(&mut text, "linger", config.linger());
        let _ = writeln!(text, "    .evidence(Evidence::{:?})", config.evidence());
        let _ = writeln!(text, "    .role(Role::{:?})", config.role());
        let _ = writeln!(text, "    .beat_events({})", config.beat_events());
        let _ = writeln!(text, "    .min_rate({})", config.min_rate());
        let _ = writeln!(text, "    .max_stretch({})", config.max_stretch());
        text.push_str("    .build().unwrap();\n");
        let (seed, start) = (self.seed, self.start);
        let _ = write!(
            text,
            "let mut monitor = Monitor::new(config, {seed}, at({start}))"
        );
        text.push_str(if self.hello {
            ";\nlet ours = monitor.clone().poll_transmit().unwrap();\n"
        } else {
            ".without_hello();\n"
        });
        if self.sent > 0 {
            let _ = writeln!(text, "monitor.set_pings_sent({});", self.sent);
        }
        let ping = |call: &&Call| matches!(call.op, Op::Ping(_));
        let mut rest = &self.calls[..];
        while let Some((first, others)) = rest.split_first() {
            let same = |call: &&Call| ping(call) && call.now == first.now;
            let many = others.iter().take_while(same).count();
            if many > 0 && ping(&first) {
                // Their nonces don't matter.
                let frame = "Control::Ping(Nonce(n.to_be_bytes()))";
                let count = many + 1;
                let now = first.now;
                let _ = writeln!(
                    text,
                    "for n in 0..{count}u64 {{ monitor.handle_frame({frame}, at({now})); }}"
                );
                rest = &others[many..];
            } else {
                let _ = writeln!(text, "{first}");
                rest = others;
            }
        }
        text
    }
}
