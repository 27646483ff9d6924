//! The bots: this program once more, each in a process of its own.
//!
//! A bot that is killed here is really killed, and one that is frozen really
//! stands still, while its kernel goes on acknowledging. Nothing in here is
//! about heartbeats.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::SocketAddr,
    process::Stdio,
};

use heartbeat_examples::process;
use tokio::process::{Child, Command};

use crate::message::{self, Deed};

/// Where a bot finds its badge.
pub const BADGE: &str = "CHAT_BADGE";

const MOST: usize = 8;

const NAMES: [&str; 8] = [
    "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi", "Ivan",
];

pub struct Bots {
    server: SocketAddr,
    quiet: bool,
    processes: BTreeMap<u32, Bot>,
    /// It identifies a bot's connection. It can't be guessed.
    badges: HashMap<u64, u32>,
    next: u32,
}

struct Bot {
    child: Child,
    process: u32,
    name: &'static str,
    frozen: bool,
}

impl Bots {
    pub fn new(server: SocketAddr, quiet: bool) -> Self {
        Self {
            server,
            quiet,
            processes: BTreeMap::new(),
            badges: HashMap::new(),
            next: 0,
        }
    }

    /// Starts another one. There is a limit.
    pub fn add(&mut self) -> io::Result<()> {
        if self.processes.len() >= MOST {
            return Err(io::Error::other("There are enough bots"));
        }
        let is_free = |name: &&str| self.processes.values().all(|bot| bot.name != *name);
        let name = NAMES.into_iter().find(is_free).unwrap_or("Bot");
        let badge = RandomState::new().build_hasher().finish();

        let mut command = Command::new(env::current_exe()?);
        command.args(["bot", "--name", name, "--server", &self.server.to_string()]);
        // It bears with a server that doesn't read for a while.
        command.args(["--detect-within", "2m"]);
        if self.quiet {
            command.arg("--quiet");
        }
        command.env(BADGE, badge.to_string());
        // However we end, no bot outlives us.
        command.stdin(Stdio::null()).kill_on_drop(true);
        let child = command.spawn()?;

        self.next += 1;
        self.badges.insert(badge, self.next);
        let bot = Bot {
            process: child.id().unwrap_or_default(),
            child,
            name,
            frozen: false,
        };
        self.processes.insert(self.next, bot);
        Ok(())
    }

    /// Which one has this badge, if its process lives.
    pub fn with_badge(&self, badge: u64) -> Option<u32> {
        let number = *self.badges.get(&badge)?;
        self.processes.contains_key(&number).then_some(number)
    }

    /// The process, if it lives.
    pub fn get(&self, number: u32) -> Option<message::Bot> {
        let bot = self.processes.get(&number)?;
        Some(message::Bot {
            number,
            process: bot.process,
            frozen: bot.frozen,
        })
    }

    /// Sends it a signal.
    pub fn act(&mut self, number: u32, deed: Deed) -> io::Result<()> {
        let Some(bot) = self.processes.get_mut(&number) else {
            return Ok(()); // It has ended meanwhile.
        };
        match deed {
            Deed::Kill => bot.child.start_kill()?,
            Deed::Freeze => {
                process::stop(&bot.child)?;
                bot.frozen = true;
            }
            Deed::Thaw => {
                process::go_on(&bot.child)?;
                bot.frozen = false;
            }
            Deed::HangUp | Deed::Hold | Deed::ReadOn => {}
        }
        Ok(())
    }

    /// Takes note of those that have ended.
    pub fn reap(&mut self) {
        let processes = &mut self.processes;
        processes.retain(|_, bot| matches!(bot.child.try_wait(), Ok(None)));
        self.badges
            .retain(|_, number| processes.contains_key(number));
    }

    /// Ends them all.
    pub fn end(&mut self) {
        self.processes.clear();
    }
}
