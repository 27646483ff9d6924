//! What must hold for any bytes and for any use of a monitor.
//!
//! The fuzz targets call these functions with bytes that a fuzzer found, and
//! `tests/machine/fuzz_corpus.rs` with the saved ones and with dice. Each panics if
//! something doesn't hold.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "also a module of a test"
)]

use std::time::Duration;

use heartbeat_core::{
    Cause, CloseReason, Config, Control, End, Event, Evidence, Goodbye, GoodbyeCode, Hello,
    Instant, Monitor, Nonce, Role, State, Tag,
};

// ---- frames --------------------------------------------------------------

/// Decodes `bytes`. What decodes is encoded and decoded again, and must come
/// out the same.
pub fn decode(bytes: &[u8]) {
    goodbye(bytes);
    let Ok(control) = Control::decode(bytes) else {
        return;
    };
    let mut buffer = [0; Control::MAX_ENCODED];
    let encoded = control.encode(&mut buffer).expect("always long enough");
    assert_eq!(Control::decode(encoded), Ok(control));
    assert_eq!(encoded.first(), Some(&control.tag().to_byte()));
    match control {
        // The rest may be anything.
        Control::Reserved => {}
        Control::Hello(_) | Control::Goodbye(_) => assert_eq!(bytes.first(), encoded.first()),
        _ => assert_eq!(bytes, encoded, "only these have more than one form"),
    }
    let mut short = [0; Control::MAX_ENCODED];
    let length = encoded.len();
    for room in 0..length {
        assert!(control.encode(&mut short[..room]).is_err());
    }
}

/// The same with a goodbye's detail.
fn goodbye(bytes: &[u8]) {
    let read = Goodbye::decode(bytes);
    let code = match Control::decode(bytes) {
        Ok(Control::Goodbye(code)) => Some(code),
        _ => None,
    };
    assert_eq!(read.ok().map(|goodbye| goodbye.code), code);
    let Ok(goodbye) = read else { return };
    assert!(goodbye.detail.len() <= Goodbye::MAX_DETAIL);
    let mut buffer = [0; Goodbye::MAX_ENCODED];
    let encoded = goodbye.encode(&mut buffer).expect("always long enough");
    assert_eq!(Goodbye::decode(encoded), Ok(goodbye));
}

// ---- the monitor ---------------------------------------------------------

/// The meaning of each byte of an input to [`monitor`]. Some take one more byte, or a number:
/// one byte for its width, and then its bytes, the lowest first.
pub mod op {
    /// Time goes on by a number.
    pub const LATER: u8 = 0;
    /// Time goes back by a number.
    pub const EARLIER: u8 = 1;
    /// The time of the deadline.
    pub const DEADLINE: u8 = 2;
    /// A microsecond before the deadline.
    pub const BEFORE_DEADLINE: u8 = 3;
    /// A number after the deadline.
    pub const AFTER_DEADLINE: u8 = 4;
    /// The end of time.
    pub const END_OF_TIME: u8 = 5;
    /// The origin.
    pub const ORIGIN: u8 = 6;
    /// `handle_bytes`.
    pub const BYTES: u8 = 7;
    /// `handle_backlog`.
    pub const BACKLOG: u8 = 8;
    /// `handle_message`.
    pub const MESSAGE: u8 = 9;
    /// A ping; the next byte is its nonce.
    pub const PING: u8 = 10;
    /// A pong for the ping that was handed out this many (one byte) before the last.
    pub const PONG: u8 = 11;
    /// A pong for no ping of ours.
    pub const WRONG_PONG: u8 = 12;
    /// A Hello: five numbers, and one byte for its instance; 255 makes it ours.
    pub const HELLO: u8 = 13;
    /// A goodbye; the next byte is its code.
    pub const GOODBYE: u8 = 14;
    /// `handle_flushed`.
    pub const FLUSHED: u8 = 15;
    /// `handle_progress`.
    pub const PROGRESS: u8 = 16;
    /// `handle_blocked`.
    pub const BLOCKED: u8 = 17;
    /// `handle_timeout`.
    pub const TIMEOUT: u8 = 18;
    /// The transport ends; the next byte says how.
    pub const END: u8 = 19;
    /// `handle_paused`.
    pub const PAUSED: u8 = 20;
    /// `handle_resumed`.
    pub const RESUMED: u8 = 21;
    /// `probe`.
    pub const PROBE: u8 = 22;
    /// `close`.
    pub const CLOSE: u8 = 23;
    /// `poll_transmit`, once.
    pub const TRANSMIT: u8 = 24;
    /// `poll_event`, once.
    pub const EVENT: u8 = 25;
    /// What a good driver does: all frames, flushed, all events.
    pub const DRAIN: u8 = 26;
    /// `handle_unnumbered_pong`.
    pub const UNNUMBERED_PONG: u8 = 27;
    /// `handle_acknowledged`, a number ago.
    pub const ACKNOWLEDGED: u8 = 28;
    /// `Control::Alive`.
    pub const ALIVE: u8 = 29;
    /// `Control::Fin`.
    pub const FIN: u8 = 30;
    /// `Control::Reserved`.
    pub const RESERVED: u8 = 31;
    /// `finish`.
    pub const FINISH: u8 = 32;
    /// `handle_discarded`.
    pub const DISCARDED: u8 = 33;
    /// `handle_not_reading`.
    pub const NOT_READING: u8 = 34;
    /// How many there are.
    pub const COUNT: u8 = 35;
}

/// Makes a monitor as the first bytes say, and does with it what the others
/// say.
///
/// The head: interval, timeout and `min_interval` as numbers, a byte each for
/// `max_missed`, jitter (in 255ths), evidence and role, the switches, then
/// a number for `stall_tolerance`, one for `write_stall`, one for `linger`, a byte for
/// `max_stretch` and a number for `min_rate`, each of these if it is switched on,
/// and numbers for the seed and the start.
///
/// Gives the state that it ends in, and what it told; `None` if the head is no
/// valid configuration.
pub fn monitor(bytes: &[u8]) -> Option<(State, Vec<Event>)> {
    let mut input = Input(bytes);
    let mut subject = Subject::read(&mut input)?;
    while let Some(byte) = input.byte() {
        subject.perform(byte % op::COUNT, &mut input);
        subject.check();
    }
    Some((subject.monitor.status().state, subject.told))
}

struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// What is missing counts as zero.
    fn or_zero(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        let width = self.or_zero() % 9;
        (0..width).fold(0, |number, place| {
            number | u64::from(self.or_zero()) << (8 * place)
        })
    }

    fn duration(&mut self) -> Duration {
        Duration::from_micros(self.number())
    }
}

/// A monitor, and a record of what it was told and what it said.
struct Subject {
    monitor: Monitor,
    now: Instant,
    /// What it was told, where time doesn't run backwards.
    latest: Instant,
    /// The ping that may be answered; only the latest.
    owed: Option<Nonce>,
    pings: u32,
    handed_out: Vec<Nonce>,
    /// Ours, once the Hello was handed out.
    instance: Option<[u8; 8]>,
    suspected: bool,
    terminal: Option<Event>,
    /// The latest evidence of life that it can have known of.
    last_input: Instant,
    /// Something happened after which the bound of accuracy doesn't apply: a
    /// probe.
    excepted: bool,
    /// The most that a Hello announced.
    most_missed: Option<u32>,
    parting: Parting,
    told: Vec<Event>,
}

/// What both sides said of leaving before the end.
#[derive(Default)]
struct Parting {
    /// When we said that we leave.
    left: Option<Instant>,
    /// Our goodbye was handed out.
    said: bool,
    /// It was confirmed after that.
    confirmed: bool,
    /// The codes with which the peer left.
    heard: Vec<GoodbyeCode>,
    /// The peer was answered.
    answered: bool,
    discarded: bool,
    finished: bool,
    peer_finished: bool,
    told_finished: bool,
}

impl Subject {
    fn read(input: &mut Input) -> Option<Self> {
        let mut builder = Config::builder()
            .interval(input.duration())
            .timeout(input.duration())
            .min_interval(input.duration())
            .max_missed(input.or_zero().into())
            .jitter(f64::from(input.or_zero()) / 255.0)
            .evidence(match input.or_zero() % 4 {
                0 => Evidence::AnyBytes,
                1 => Evidence::Frame,
                2 => Evidence::Echo,
                _ => Evidence::Acknowledgement,
            })
            .role(match input.or_zero() % 3 {
                0 | 1 => Role::Both,
                _ => Role::Passive,
            });
        let switches = input.or_zero();
        builder = builder
            .adaptive(switches & 1 != 0)
            .beat_events(switches & 2 != 0)
            .stall_tolerance(input.duration());
        if switches & 4 != 0 {
            builder = builder.write_stall(input.duration());
        }
        if switches & 8 != 0 {
            builder = builder.linger(input.duration());
        }
        if switches & 16 != 0 {
            builder = builder.max_stretch(input.or_zero().into());
        }
        if switches & 32 != 0 {
            builder = builder.min_rate(u32::try_from(input.number()).unwrap_or(u32::MAX));
        }
        let config = builder.build().ok()?;
        let seed = input.number();
        let now = Instant::from_micros(input.number());
        Some(Self {
            monitor: Monitor::new(config, seed, now),
            now,
            latest: now,
            owed: None,
            pings: 0,
            handed_out: Vec::new(),
            instance: None,
            suspected: false,
            terminal: None,
            last_input: now,
            excepted: false,
            most_missed: None,
            parting: Parting::default(),
            told: Vec::new(),
        })
    }

    fn perform(&mut self, op: u8, input: &mut Input) {
        let deadline = self.monitor.poll_timeout().unwrap_or(self.now);
        match op {
            op::LATER => self.now = self.now + input.duration(),
            op::EARLIER => self.now = self.now - input.duration(),
            op::DEADLINE => self.now = deadline,
            op::BEFORE_DEADLINE => self.now = deadline - Duration::from_micros(1),
            op::AFTER_DEADLINE => self.now = deadline + input.duration(),
            op::END_OF_TIME => self.now = Instant::MAX,
            op::ORIGIN => self.now = Instant::ORIGIN,
            op::BYTES => self.monitor.handle_bytes(self.now),
            op::BACKLOG => self.monitor.handle_backlog(self.now),
            op::MESSAGE => self.monitor.handle_message(self.now),
            op::PING => {
                let nonce = Nonce([input.or_zero(); 8]);
                self.frame(Control::Ping(nonce));
            }
            op::PONG => {
                let back = usize::from(input.or_zero());
                let Some(&nonce) = self.handed_out.iter().rev().nth(back) else {
                    return;
                };
                self.frame(Control::Pong(nonce));
            }
            op::WRONG_PONG => self.frame(Control::Pong(Nonce([0xEE; 8]))),
            op::HELLO => {
                let Some(mut hello) = hello(input) else {
                    return;
                };
                if let (Control::Hello(hello), Some(ours)) = (&mut hello, self.instance) {
                    if hello.instance == [u8::MAX; 8] {
                        hello.instance = ours;
                    }
                }
                self.frame(hello);
            }
            op::GOODBYE => {
                let code = GoodbyeCode(input.or_zero());
                self.frame(Control::Goodbye(code));
            }
            op::ALIVE => self.frame(Control::Alive),
            op::FIN => self.frame(Control::Fin),
            op::RESERVED => self.frame(Control::Reserved),
            op::FLUSHED => self.monitor.handle_flushed(self.now),
            op::PROGRESS => self.monitor.handle_progress(self.now),
            op::BLOCKED => self.monitor.handle_blocked(self.now),
            op::TIMEOUT => self.timeout(),
            op::END => self.end(input.or_zero()),
            op::PAUSED => self.monitor.handle_paused(self.now),
            op::RESUMED => self.monitor.handle_resumed(self.now),
            op::PROBE => {
                self.excepted = true;
                self.monitor.probe(self.now);
            }
            op::CLOSE => {
                if !self.monitor.has_ended() {
                    let now = self.now.max(self.latest);
                    self.parting.left.get_or_insert(now);
                }
                self.monitor.close(GoodbyeCode::LEAVING, self.now);
            }
            op::FINISH => {
                self.parting.finished = true;
                self.monitor.finish(self.now);
            }
            op::DISCARDED => {
                self.parting.discarded |= !self.monitor.has_ended();
                self.monitor.handle_discarded();
            }
            op::TRANSMIT => {
                self.transmit();
            }
            op::EVENT => {
                self.event();
            }
            op::NOT_READING => self.not_reading(),
            op::UNNUMBERED_PONG => self.monitor.handle_unnumbered_pong(self.now),
            op::ACKNOWLEDGED => {
                let ago = input.number();
                let at = Instant::from_micros(self.now.as_micros().saturating_sub(ago));
                self.monitor.handle_acknowledged(at, self.now);
            }
            _ => self.drain(),
        }
        let told_no_time = matches!(
            op,
            op::LATER
                | op::EARLIER
                | op::DEADLINE
                | op::BEFORE_DEADLINE
                | op::AFTER_DEADLINE
                | op::END_OF_TIME
                | op::ORIGIN
                | op::TRANSMIT
                | op::EVENT
                | op::DISCARDED
        );
        if !told_no_time {
            self.latest = self.latest.max(self.now);
        }
    }

    fn frame(&mut self, control: Control) {
        let had_ended = self.monitor.has_ended();
        self.monitor.handle_frame(control, self.now);
        match control {
            _ if had_ended => {}
            Control::Ping(nonce) => {
                self.pings += 1;
                self.owed = Some(nonce);
            }
            Control::Goodbye(code) => self.goodbye(code),
            Control::Fin => self.parting.peer_finished = true,
            Control::Hello(hello) => {
                let before = self.most_missed.unwrap_or(0);
                self.most_missed = Some(before.max(hello.max_missed));
                self.check_greeting(hello);
            }
            _ => {}
        }
    }

    /// The peer left, gave us up, or confirmed our goodbye.
    fn goodbye(&mut self, code: GoodbyeCode) {
        let parting = &mut self.parting;
        let ended = self.monitor.has_ended();
        if code.is_verdict() || parting.left.is_none() {
            assert!(ended, "a goodbye is the end, unless both leave");
        }
        if code == GoodbyeCode::RECEIVED && parting.said {
            parting.confirmed = true;
            let owes = parting.heard.iter().any(|&code| is_answered(code)) && !parting.answered;
            assert!(ended || owes, "a confirmation is the end");
        } else if !code.is_verdict() {
            parting.heard.push(code);
        }
    }

    /// A goodbye was handed out.
    fn said_goodbye(&mut self, code: GoodbyeCode) {
        let answer = match self.parting.discarded {
            false => GoodbyeCode::RECEIVED,
            true => GoodbyeCode::LEAVING,
        };
        let parting = &mut self.parting;
        if self.monitor.status().state == State::Dead {
            return assert!(code.is_verdict(), "a verdict is told with the end");
        }
        if !self.monitor.has_ended() && !std::mem::replace(&mut parting.said, true) {
            assert!(parting.left.is_some(), "nobody left");
            return assert_eq!(code, GoodbyeCode::LEAVING, "our own goodbye");
        }
        assert_eq!(code, answer, "an answer");
        assert!(parting.heard.first().is_some_and(|&code| is_answered(code)));
        let again = std::mem::replace(&mut parting.answered, true);
        assert!(!again, "a second answer");
    }

    /// It ended in order.
    fn check_closed(&self, reason: CloseReason) {
        assert_eq!(self.monitor.status().state, State::Closed);
        let parting = &self.parting;
        match reason {
            CloseReason::Local => assert!(parting.confirmed, "nobody confirmed it"),
            CloseReason::Unconfirmed => {
                let linger = self.monitor.config().linger();
                let until = parting.left.map(|left| left + linger);
                let end_of_time = Instant::from_micros(u64::MAX - 1);
                assert!(until.is_some_and(|until| until.min(end_of_time) <= self.latest));
                assert!(parting.heard.is_empty() && !parting.confirmed);
            }
            CloseReason::Finished => {
                assert!(
                    parting.finished && parting.peer_finished,
                    "not both finished"
                );
            }
            CloseReason::Peer { code, .. } => {
                assert_eq!(parting.heard.first(), Some(&code));
                assert!(!parting.confirmed, "it confirmed ours");
            }
        }
    }

    fn check_greeting(&self, hello: Hello) {
        let config = self.monitor.config();
        let status = self.monitor.status();
        let shortest = Duration::from_millis(100);
        let ours = config.detection_time();
        let slower = config.interval().max(hello.min_interval);
        let stretched = slower + config.timeout() * config.max_missed();
        let refused = hello.detection_time < shortest && ours >= shortest
            || stretched > ours * config.max_stretch()
            || self.instance == Some(hello.instance);
        assert_eq!(self.monitor.has_ended(), refused, "{hello:?}");
        if refused {
            let has_left = !self.parting.heard.is_empty();
            return assert_ne!(status.state == State::Dead, has_left);
        }
        assert_eq!(status.peer, Some(hello));
        assert_eq!(status.interval, slower, "the slower interval wins");
    }

    /// A call before the deadline does nothing; after any call the next
    /// deadline is later.
    fn timeout(&mut self) {
        let before = self.monitor.poll_timeout();
        let said = |monitor: &Monitor| {
            (
                monitor.poll_timeout(),
                monitor.status(),
                monitor.has_transmit(),
                monitor.has_event(),
            )
        };
        let was = said(&self.monitor);
        self.monitor.handle_timeout(self.now);
        if before.is_none_or(|deadline| deadline > self.now.max(self.latest)) {
            assert_eq!(said(&self.monitor), was, "an early call does nothing");
        }
        let next = self.monitor.poll_timeout();
        assert!(
            next.is_none_or(|deadline| deadline > self.now),
            "the next deadline is later: {next:?} at {:?}",
            self.now
        );
    }

    fn end(&mut self, how: u8) {
        let end = match how % 5 {
            0 => End::Eof,
            1 => End::Reset,
            2 => End::TimedOut,
            3 => End::Unreachable,
            _ => End::Io,
        };
        self.monitor.handle_end(end, self.now);
        assert!(self.monitor.has_ended());
    }

    fn not_reading(&mut self) {
        let watched = matches!(
            self.monitor.status().state,
            State::Alive | State::Suspect | State::Paused | State::HalfClosed
        );
        self.monitor.handle_not_reading(self.now);
        let is_dead = self.monitor.status().state == State::Dead;
        assert!(is_dead || !watched, "who is watched is given up");
    }

    fn transmit(&mut self) -> Option<Control> {
        let expected = self.monitor.has_transmit();
        let control = self.monitor.poll_transmit();
        assert_eq!(control.is_some(), expected, "has_transmit tells");
        match control {
            Some(Control::Ping(nonce)) => {
                assert!(!self.handed_out.contains(&nonce), "a nonce twice");
                self.handed_out.push(nonce);
            }
            Some(Control::Hello(hello)) => self.instance = Some(hello.instance),
            Some(Control::Pong(nonce)) => {
                assert_eq!(self.owed.take(), Some(nonce), "one pong for one ping");
            }
            Some(Control::Goodbye(code)) => self.said_goodbye(code),
            Some(Control::Fin) => assert!(self.parting.finished && !self.parting.said),
            _ => {}
        }
        control
    }

    fn event(&mut self) -> Option<Event> {
        let expected = self.monitor.has_event();
        let event = self.monitor.poll_event();
        assert_eq!(event.is_some(), expected, "has_event tells");
        let event = event?;
        assert_eq!(self.terminal, None, "{event:?} after the end");
        match event {
            Event::Suspect { .. } => self.suspected = true,
            Event::Recovered { .. } => {
                assert!(self.suspected, "recovered from nothing");
                self.suspected = false;
            }
            Event::Beat { .. } => {
                assert!(self.monitor.config().beat_events());
                assert!(self.monitor.status().pongs > 0);
            }
            Event::Connected { peer } => {
                assert_eq!(self.monitor.status().peer, Some(peer));
            }
            Event::Dead(death) => {
                assert_eq!(self.monitor.status().state, State::Dead);
                assert!(self.parting.heard.is_empty(), "it had said goodbye");
                let config = self.monitor.config();
                assert!(death.missed <= config.max_missed());
                let at_once = 4 * self.most_missed.unwrap_or(255);
                assert!(
                    death.cause != Cause::PingFlood || self.pings > at_once,
                    "a flood of {}",
                    self.pings
                );
                let by_silence = match death.cause {
                    Cause::Silent => true,
                    Cause::WriteStalled => config.write_stall().is_none(),
                    _ => false,
                };
                if by_silence && !self.excepted {
                    let least = accuracy(config);
                    assert!(death.silent_for >= least, "{death} before {least:?}");
                }
            }
            Event::Closed { reason } => self.check_closed(reason),
            Event::Finished => {
                let again = std::mem::replace(&mut self.parting.told_finished, true);
                assert!(self.parting.peer_finished && !again);
            }
            _ => {}
        }
        if event.is_terminal() {
            self.terminal = Some(event);
        }
        self.told.push(event);
        Some(event)
    }

    fn drain(&mut self) {
        // Hello, pong, ping, Alive, a goodbye and an answer.
        let frames = std::iter::from_fn(|| self.transmit()).take(7).count();
        assert!(frames <= 6, "output without end");
        self.monitor.handle_flushed(self.now);
        let events = std::iter::from_fn(|| self.event()).take(8).count();
        assert!(events <= 7, "events without end");
    }

    /// What holds at any moment.
    fn check(&mut self) {
        let status = self.monitor.status();
        let config = self.monitor.config();
        let budget = config.timeout() * config.max_missed();
        assert!(
            status.missed <= config.max_missed(),
            "{} missed of {}",
            status.missed,
            config.max_missed()
        );
        assert!(status.interval >= config.interval());
        assert_eq!(status.detection_time, status.interval + budget);
        assert!(status.pongs <= status.pings, "more answers than questions");
        assert_eq!(
            status.pings as usize,
            self.handed_out.len(),
            "each ping counts"
        );
        assert_eq!(status.last_rtt.is_some(), status.smoothed_rtt.is_some());
        assert!(
            status.last_heard >= self.last_input,
            "life isn't taken back"
        );
        self.last_input = status.last_heard;
        let silence = self.latest.saturating_duration_since(status.last_heard);
        let exact = silence.as_micros() * u128::from(config.min_rate());
        let wanted = u128::from(self.monitor.bytes_wanted(self.latest));
        assert!(wanted >= 1 && wanted * 1_000_000 >= exact.min(u64::MAX.into()));
        assert!(wanted == 1 || (wanted - 1) * 1_000_000 < exact);
        assert!(status.detection_time <= config.detection_time() * config.max_stretch());
        let ended = matches!(status.state, State::Dead | State::Closed);
        assert_eq!(ended, self.monitor.has_ended());
        if let Some(terminal) = self.terminal {
            let dead = matches!(terminal, Event::Dead(_));
            let state = if dead { State::Dead } else { State::Closed };
            assert_eq!(status.state, state, "the end is final");
            assert!(!self.monitor.has_event(), "nothing after the end");
        }
        if ended {
            assert_eq!(self.monitor.poll_timeout(), None);
            let mut copy = self.monitor.clone();
            let left = std::iter::from_fn(|| copy.poll_transmit());
            let told = left.filter(|control| !matches!(control, Control::Hello(_)));
            let told: Vec<_> = told.collect();
            // Until the end is told to us, it may be told to the peer.
            let is_dead = status.state == State::Dead;
            let is_last_word = |control: &Control| matches!(control, Control::Goodbye(code) if code.is_verdict() == is_dead);
            assert!(told.len() <= 1 && told.iter().all(is_last_word), "{told:?}");
            if self.terminal.is_some() {
                assert!(!self.monitor.has_transmit());
                assert_eq!(told, []);
            }
        }
    }
}

/// Whether a peer that leaves with this code is answered.
const fn is_answered(code: GoodbyeCode) -> bool {
    !code.is_verdict() && code.0 != GoodbyeCode::RECEIVED.0
}

/// I·(1 − J) + N·W: no silence shorter than this is a death.
fn accuracy(config: &Config) -> Duration {
    let shortest = config.interval().as_micros() as f64 * (1.0 - config.jitter());
    // A microsecond for the rounding here.
    let shortest = Duration::from_micros((shortest as u64).saturating_sub(1));
    shortest + config.timeout() * config.max_missed()
}

/// A Hello that decodes, made of five numbers and a byte.
fn hello(input: &mut Input) -> Option<Control> {
    let mut bytes = vec![Tag::Hello.to_byte()];
    bytes.extend(Hello::MAGIC);
    bytes.push(Hello::VERSION);
    for _ in 0..5 {
        let mut number = input.number();
        while number > 0x7f {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    }
    bytes.extend([input.or_zero(); 8]);
    Control::decode(&bytes).ok()
}
