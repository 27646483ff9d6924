//! The members, and those that have left.
//!
//! This module decides what the others are told of a member, what the page
//! shows of it, and what "check connections" does. Whether a member is alive
//! its own task knows.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use heartbeat_tokio::{Config, PeerEvent, State as PeerState, Status, safety_net};
use metrics::{counter, gauge};
use tokio::{
    net::TcpStream,
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::{interval, sleep},
};

use crate::{
    bots::Bots,
    member::{Command, How},
    message::{self, Checked, Condition, Deed, Departed, Kind, Message, Request, Roster, Row},
};

const MAX_MEMBERS: usize = 64;

/// The number of round trips that are shown.
const ROUND_TRIPS: usize = 40;

/// How long a member that has left is shown, unless its process lives longer.
const SHOWN_FOR: Duration = Duration::from_secs(20);
const SHOWN: usize = 8;

/// How often pages are told what hasn't changed.
const EACH: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct Room(Arc<Inner>);

struct Inner {
    config: Config,
    state: Mutex<State>,
    /// Something that the page shows has changed.
    changed: Notify,
    ending: AtomicBool,
}

struct State {
    members: BTreeMap<u64, Member>,
    left: VecDeque<Left>,
    bots: Bots,
    next: u64,
}

struct Member {
    name: String,
    kind: Kind,
    bot: Option<u32>,
    commands: mpsc::Sender<Command>,
    hold: watch::Sender<bool>,
    socket: Weak<TcpStream>,
    condition: Condition,
    heard: Instant,
    missed: u32,
    rtts: VecDeque<Option<f32>>,
    /// A check has found that it is gone.
    found: bool,
}

struct Left {
    id: u64,
    name: String,
    kind: Kind,
    bot: Option<u32>,
    how: How,
}

impl Room {
    /// Bots will be started for the server at this address.
    pub fn new(config: Config, server: SocketAddr, quiet: bool) -> Self {
        let state = State {
            members: BTreeMap::new(),
            left: VecDeque::new(),
            bots: Bots::new(server, quiet),
            next: 0,
        };
        Self(Arc::new(Inner {
            config,
            state: Mutex::new(state),
            changed: Notify::new(),
            ending: AtomicBool::new(false),
        }))
    }

    pub fn config(&self) -> Config {
        self.0.config
    }

    pub fn add_bot(&self) -> io::Result<()> {
        self.lock().bots.add()
    }

    /// Sends the list of members to the pages, for ever.
    pub async fn show(&self) {
        let mut each = interval(EACH);
        loop {
            tokio::select! {
                () = self.0.changed.notified() => {}
                _ = each.tick() => {}
            }
            self.show_once();
            // Not for each of many that come at once.
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn show_once(&self) {
        let mut state = self.lock();
        state.bots.reap();
        state.forget();
        let roster = state.roster(&self.0.config);
        for member in state.members.values() {
            if member.kind == Kind::Browser {
                member.tell(Message::Roster(roster.clone()));
            }
        }
    }

    /// Says goodbye to all members. Returns when they have gone, or refuse.
    pub async fn close(&self) {
        self.0.ending.store(true, Ordering::Relaxed);
        for member in self.lock().members.values() {
            member.hold.send_replace(false);
            let _ = member.commands.try_send(Command::Close);
        }
        for _ in 0..40 {
            if self.lock().members.is_empty() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.lock().bots.end();
    }

    // ---- for a member's task ---------------------------------------------

    /// A member joins. `None` if the room is full.
    pub fn enter(
        &self,
        name: &str,
        badge: Option<u64>,
        kind: Kind,
        commands: mpsc::Sender<Command>,
        hold: watch::Sender<bool>,
        socket: Weak<TcpStream>,
    ) -> Option<u64> {
        let mut state = self.lock();
        if state.members.len() >= MAX_MEMBERS || self.0.ending.load(Ordering::Relaxed) {
            return None;
        }
        let bot = badge.and_then(|badge| state.bots.with_badge(badge));
        let kind = if bot.is_some() { Kind::Bot } else { kind };
        let name = state.free_name(&message::name(name));
        state.next += 1;
        let id = state.next;
        let member = Member {
            name: name.clone(),
            kind,
            bot,
            commands,
            hold,
            socket,
            condition: Condition::Alive,
            heard: Instant::now(),
            missed: 0,
            rtts: VecDeque::new(),
            found: false,
        };
        member.tell(Message::Welcome {
            id,
            name: name.clone(),
        });
        state
            .left
            .retain(|left| left.bot.is_none() || left.bot != bot);
        state.notice(format!("{name} has joined"));
        state.members.insert(id, member);
        gauge!("chat_members", "kind" => word(kind)).increment(1.0);
        self.0.changed.notify_one();
        Some(id)
    }

    /// It says something.
    pub fn hear(&self, id: u64, message: Message) {
        let mut state = self.lock();
        let Some(member) = state.members.get(&id) else {
            return;
        };
        match message {
            Message::Say { text } => {
                let text = message::text(&text);
                let from = member.name.clone();
                counter!("chat_messages_total", "kind" => word(member.kind)).increment(1);
                state.tell_all(&Message::Said { from, text });
            }
            Message::Ask(Request::AddBot) => {
                if let Err(error) = state.bots.add() {
                    let text = error.to_string();
                    state.tell(id, Message::Notice { text });
                }
            }
            Message::Ask(Request::CheckConnections) => {
                let checked = state.check();
                state.tell(id, checked);
            }
            Message::Ask(Request::Do { bot, deed }) => {
                if let Err(error) = state.act(bot, deed) {
                    let text = format!("bot {bot}: {error}");
                    state.tell(id, Message::Notice { text });
                }
            }
            // What only the server says.
            _ => {}
        }
        self.0.changed.notify_one();
    }

    /// Something else that was told of it.
    pub fn observe(&self, id: u64, event: &PeerEvent<Message>) {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&id) else {
            return;
        };
        let beat = match event {
            PeerEvent::Beat { rtt } => Some(rtt.as_secs_f32() * 1000.0),
            PeerEvent::Suspect { missed: 1.., .. } => None,
            _ => return,
        };
        member.rtts.push_back(beat);
        if member.rtts.len() > ROUND_TRIPS {
            member.rtts.pop_front();
        }
    }

    /// How it is.
    pub fn note(&self, id: u64, status: &Status, held: bool) {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&id) else {
            return;
        };
        let condition = match status.peer.state {
            _ if held => Condition::Held,
            PeerState::Suspect => Condition::Suspect,
            _ => Condition::Alive,
        };
        if member.condition != condition || member.missed != status.peer.missed {
            self.0.changed.notify_one();
        }
        member.condition = condition;
        member.missed = status.peer.missed;
        member.heard = Instant::now() - status.silent_for;
    }

    /// It has left, and all members are told how.
    pub fn leave(&self, id: u64, how: How) {
        let mut state = self.lock();
        let Some(member) = state.members.remove(&id) else {
            return;
        };
        let Member {
            name,
            kind,
            bot,
            found,
            ..
        } = member;
        let words = match how.words.strip_prefix("cut off: ") {
            Some(rest) if found => format!("found by a check: {rest}"),
            _ => how.words,
        };
        counter!("chat_departures_total", "cause" => how.cause).increment(1);
        gauge!("chat_members", "kind" => word(kind)).decrement(1.0);
        state.notice(format!("{name} has left ({words})"));
        let how = How { words, ..how };
        state.left.push_front(Left {
            id,
            name,
            kind,
            bot,
            how,
        });
        self.0.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Checks every socket at once, and probes the members that are still connected.
    fn check(&mut self) -> Message {
        let members = self.members.iter();
        let sockets: Vec<(u64, Arc<TcpStream>)> = members
            .filter_map(|(id, member)| Some((*id, member.socket.upgrade()?)))
            .collect();
        let looked_at = sockets.iter().map(|(id, socket)| (*id, &**socket));
        let swept = safety_net::sweep(looked_at).unwrap_or_else(|error| {
            eprintln!("the kernel can't be asked: {error}");
            Vec::new()
        });

        let mut gone = Vec::new();
        for (id, why) in swept {
            if let Some(member) = self.members.get_mut(&id) {
                member.found = true;
                // Nothing can follow what is there: it is read now, to the end.
                member.hold.send_replace(false);
                gone.push((member.name.clone(), why.to_string()));
            }
        }
        let mut asked = 0;
        for member in self.members.values().filter(|member| !member.found) {
            asked += usize::from(member.condition != Condition::Held);
            let _ = member.commands.try_send(Command::Probe);
        }
        Message::Checked(Checked {
            sockets: sockets.len(),
            gone,
            asked,
        })
    }

    fn act(&mut self, bot: u32, deed: Deed) -> io::Result<()> {
        let member = self.members.values().find(|member| member.bot == Some(bot));
        match (deed, member) {
            (Deed::HangUp, Some(member)) => {
                let _ = member.commands.try_send(Command::Send(Message::Leave));
            }
            (Deed::Hold | Deed::ReadOn, Some(member)) => {
                member.hold.send_replace(deed == Deed::Hold);
            }
            (Deed::HangUp | Deed::Hold | Deed::ReadOn, None) => {}
            (Deed::Kill | Deed::Freeze | Deed::Thaw, _) => self.bots.act(bot, deed)?,
        }
        Ok(())
    }

    /// Removes entries that are too old to show.
    fn forget(&mut self) {
        let bots = &self.bots;
        self.left.retain(|left| {
            let lives = left.bot.is_some_and(|bot| bots.get(bot).is_some());
            lives || left.how.at.elapsed() < SHOWN_FOR
        });
        self.left.truncate(SHOWN);
    }

    fn roster(&self, config: &Config) -> Roster {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bot = |number: &Option<u32>| number.and_then(|number| self.bots.get(number));
        let members = self.members.iter().map(|(id, member)| Row {
            id: *id,
            name: member.name.clone(),
            kind: member.kind,
            condition: member.condition,
            silent_ms: millis(member.heard.elapsed()),
            missed: member.missed,
            rtts: member.rtts.iter().copied().collect(),
            bot: bot(&member.bot),
        });
        let left = self.left.iter().map(|left| Departed {
            id: left.id,
            name: left.name.clone(),
            kind: left.kind,
            cause: left.how.cause.into(),
            how: left.how.words.clone(),
            ago_ms: millis(left.how.at.elapsed()),
            bot: bot(&left.bot),
        });
        Roster {
            detection_ms: millis(config.detection_time()),
            max_missed: config.max_missed(),
            members: members.collect(),
            left: left.collect(),
        }
    }

    /// This name, or a similar one that is free.
    fn free_name(&self, name: &str) -> String {
        let is_taken = |name: &str| self.members.values().any(|member| member.name == name);
        let mut candidate = name.to_owned();
        let mut number = 1;
        while is_taken(&candidate) {
            number += 1;
            candidate = format!("{name} {number}");
        }
        candidate
    }

    fn notice(&self, text: String) {
        println!("{text}");
        self.tell_all(&Message::Notice { text });
    }

    fn tell_all(&self, message: &Message) {
        for member in self.members.values() {
            member.tell(message.clone());
        }
    }

    fn tell(&self, id: u64, message: Message) {
        if let Some(member) = self.members.get(&id) {
            member.tell(message);
        }
    }
}

impl Member {
    /// Never waits: a member that doesn't read for long misses lines.
    fn tell(&self, message: Message) {
        if let Err(TrySendError::Full(_)) = self.commands.try_send(Command::Send(message)) {
            counter!("chat_unsent_total").increment(1);
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Browser => "browser",
        Kind::Terminal => "terminal",
        Kind::Bot => "bot",
    }
}
