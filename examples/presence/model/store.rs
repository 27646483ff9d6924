//! What `presence.lua` does, without Redis and without time: a lease ends and a grace
//! period is over whenever the model wants that. `same_as_redis` holds the two together.

use std::collections::{BTreeMap, BTreeSet};

/// A script, as the gateway calls it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Script {
    Register,
    Refresh,
    Enter {
        connection: u64,
        user: u8,
        again: bool,
    },
    Leave {
        connection: u64,
        at_once: bool,
    },
    Close,
}

/// What it replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    Done,
    /// The store's number, and whether somebody isn't announced yet because it is new.
    Registered(u8, bool),
    /// The gateway's entries, and the same.
    Refreshed(usize, bool),
    Fenced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Said {
    Joined(u8),
    Left(u8),
    Lost(u8),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    /// Zero before the first registration.
    pub number: u8,
    /// How often the data were lost.
    pub losses: u8,
    pub leases: BTreeMap<u8, u8>,
    pub gateways: BTreeSet<u8>,
    pub entries: BTreeMap<u8, BTreeMap<u64, u8>>,
    pub users: BTreeMap<u8, usize>,
    /// Whether the grace period is over, though nobody has looked.
    pub leaving: BTreeMap<u8, bool>,
    /// While it is new, it announces no user.
    pub settling: bool,
    /// The users that are announced once it has settled.
    pub joining: BTreeSet<u8>,
}

impl Store {
    /// Runs a script of this gateway and epoch. What it announces is appended to `said`.
    pub fn run(&mut self, gateway: u8, epoch: u8, script: &Script, said: &mut Vec<Said>) -> Reply {
        let held = self.leases.get(&gateway).copied();
        match script {
            Script::Register => {
                if held.is_some_and(|held| held >= epoch) {
                    return Reply::Fenced;
                }
                if self.number == 0 {
                    self.number = 1 + self.losses;
                    self.settling = true;
                }
                self.clear(gateway);
                self.leases.insert(gateway, epoch);
                self.gateways.insert(gateway);
                Reply::Registered(self.number, self.is_quiet())
            }
            _ if held != Some(epoch) => Reply::Fenced,
            Script::Refresh => {
                self.sweep(said);
                let entries = self.entries.get(&gateway).map_or(0, BTreeMap::len);
                Reply::Refreshed(entries, self.is_quiet())
            }
            Script::Enter {
                connection,
                user,
                again,
            } => {
                let entries = self.entries.entry(gateway).or_default();
                if entries.insert(*connection, *user).is_none() {
                    let count = self.users.entry(*user).or_default();
                    *count += 1;
                    let is_back = self.leaving.remove(user).is_some();
                    if self.settling && *again {
                        self.joining.remove(user);
                    } else if *count == 1 && !is_back {
                        if self.settling {
                            self.joining.insert(*user);
                        } else {
                            said.push(Said::Joined(*user));
                        }
                    }
                }
                Reply::Done
            }
            Script::Leave {
                connection,
                at_once,
            } => {
                let entries = self.entries.entry(gateway).or_default();
                if let Some(user) = entries.remove(connection) {
                    self.lose(user, *at_once, said);
                }
                Reply::Done
            }
            Script::Close => {
                self.clear(gateway);
                self.leases.remove(&gateway);
                self.gateways.remove(&gateway);
                Reply::Done
            }
        }
    }

    fn lose(&mut self, user: u8, at_once: bool, said: &mut Vec<Said>) {
        let count = self.users.get_mut(&user).expect("it is counted");
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.users.remove(&user);
        if at_once && !self.settling {
            self.announce_left(user, said);
        } else {
            self.leaving.insert(user, at_once);
        }
    }

    fn announce_left(&mut self, user: u8, said: &mut Vec<Said>) {
        if self.joining.remove(&user) {
            said.push(Said::Joined(user));
        }
        said.push(Said::Left(user));
    }

    fn clear(&mut self, gateway: u8) {
        for user in self
            .entries
            .remove(&gateway)
            .unwrap_or_default()
            .into_values()
        {
            self.lose(user, false, &mut Vec::new());
        }
    }

    fn sweep(&mut self, said: &mut Vec<Said>) {
        for gateway in self.gateways.clone() {
            if !self.leases.contains_key(&gateway) {
                self.gateways.remove(&gateway);
                self.clear(gateway);
                said.push(Said::Lost(gateway));
            }
        }
        if self.settling {
            return;
        }
        let joined = std::mem::take(&mut self.joining);
        said.extend(joined.into_iter().map(Said::Joined));
        let leaving = std::mem::take(&mut self.leaving);
        for (user, is_over) in leaving {
            if is_over {
                self.announce_left(user, said);
            } else {
                self.leaving.insert(user, false);
            }
        }
    }

    /// Entries that nobody would ever remove, and users who are counted wrong.
    pub fn ghosts(&self) -> bool {
        let mut users = BTreeMap::new();
        for (gateway, entries) in &self.entries {
            if !entries.is_empty() && !self.gateways.contains(gateway) {
                return true;
            }
            entries
                .values()
                .for_each(|user| *users.entry(*user).or_default() += 1);
        }
        users != self.users || users.keys().any(|user| self.leaving.contains_key(user))
    }

    fn is_quiet(&self) -> bool {
        self.settling || !self.joining.is_empty()
    }

    pub fn is_present(&self, user: u8) -> bool {
        self.users.contains_key(&user) || self.leaving.contains_key(&user)
    }
}
