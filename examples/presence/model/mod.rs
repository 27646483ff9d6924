//! Presence in every order of kills, pauses, late scripts and reconnects.
//!
//! The model has the real `presence/local.rs`, gateways that behave as the keeper in
//! `presence.rs` does, and a store that behaves as `presence.lua` does (`store.rs`, which
//! `same_as_redis.rs` compares with a real Redis). Each connection to the store is a queue
//! of scripts. A gateway that gives a connection up leaves its scripts behind, and they are
//! run at any later time, or never. There is no clock: leases and grace periods end whenever
//! that does most harm.
//!
//! `HEARTBEAT_FULL=1` tells more stories.

mod same_as_redis;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    env,
};

use stateright::{Checker, Model, Property};
use store::{Reply, Said, Script, Store};

use crate::presence::local::{Batch, Ending, Local, Order};

/// What may happen, and how often.
#[derive(Clone)]
struct Fleet {
    /// Gateways; none has a lease yet.
    gateways: u8,
    /// Connections that are opened in all, and users whose they are in turn.
    connections: u8,
    users: u8,
    faults: u8,
    /// Whether losing all data is one of them, and a graceful end.
    loses_data: bool,
    closes: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    store: Store,
    /// Those that live.
    gateways: BTreeMap<u8, Gateway>,
    /// By gateway and epoch: what a connection has carried and the store hasn't run yet.
    scripts: BTreeMap<(u8, u8), VecDeque<Script>>,
    /// Who is present, as the announcements tell it.
    announced: BTreeMap<u8, bool>,
    opened: u8,
    faults: u8,
    /// Some keeper doesn't know what became of its scripts, or of what they told.
    gave_up: bool,
    /// Whose grace period ran when the data were lost, or whose gateway died then: nobody
    /// knows of them any more.
    forgotten: BTreeSet<u8>,
    wrong: Option<&'static str>,
    /// A script came too late; somebody was back before the grace period was over.
    refused: bool,
    came_back: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Gateway {
    local: Local,
    epoch: u8,
    keeper: Keeper,
    /// What it last heard of that.
    is_quiet: bool,
    /// The connections of clients, and their users.
    live: BTreeMap<u64, u8>,
}

/// Where `Keeper::hold` is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Keeper {
    Away,
    Registering,
    Idle {
        store: u8,
    },
    Telling {
        store: u8,
        batch: Batch,
        missing: usize,
    },
    Closing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Open {
        gateway: u8,
    },
    End {
        gateway: u8,
        connection: u64,
        at_once: bool,
    },
    /// A keeper does what is next: it registers, tells what has changed, refreshes or closes.
    Go {
        gateway: u8,
    },
    /// The store runs the next script of a connection.
    Run {
        gateway: u8,
        epoch: u8,
    },
    LeaseEnds {
        gateway: u8,
    },
    GraceEnds {
        user: u8,
    },
    /// A keeper waits no longer. What it has sent is still on its way.
    GiveUp {
        gateway: u8,
    },
    Kill {
        gateway: u8,
    },
    /// A gateway ends as it should.
    Close {
        gateway: u8,
    },
    LoseData,
    /// The store isn't new any more. A lease is long enough for all gateways to tell it
    /// their entries.
    Settle,
}

#[test]
fn no_order_of_a_kill_and_late_scripts_makes_a_ghost_or_tells_anything_twice() {
    check(Fleet {
        gateways: 2,
        connections: 1,
        users: 1,
        faults: 1,
        loses_data: false,
        closes: true,
    });
}

#[test]
fn a_store_that_has_lost_its_data_is_complete_after_one_refresh() {
    check(Fleet {
        gateways: 1,
        connections: 1,
        users: 1,
        faults: 2,
        loses_data: true,
        closes: false,
    });
}

/// As many orders as time allows, each with more of everything.
#[test]
fn no_long_story_makes_a_ghost_or_tells_anything_twice() {
    let mut random = fastrand::Rng::with_seed(21);
    let stories = if full() { 2_000 } else { 300 };
    let mut tried = 0;
    for number in 0..stories {
        let fleet = Fleet {
            gateways: 3,
            connections: 12,
            users: 3,
            faults: 9,
            loses_data: number % 4 == 0,
            closes: true,
        };
        let mut state = fleet.init_states().remove(0);
        let mut story = Vec::new();
        for _ in 0..150 {
            let mut actions = Vec::new();
            fleet.actions(&state, &mut actions);
            // Otherwise nobody is left soon.
            if random.u8(..) > 5 {
                actions.retain(|action| !matches!(action, Action::Kill { .. }));
            }
            let Some(action) = random.choice(actions) else {
                break;
            };
            story.push(format!("{action:?}"));
            state = fleet.next_state(&state, action).expect("it was possible");
            assert_eq!(state.wrong, None, "{story:#?}");
            tried += 1;
        }
        let complete = state.clone().completes_after_a_refresh(&fleet);
        assert!(complete, "{story:#?}\n{state:#?}");
    }
    println!("{tried} steps");
}

fn full() -> bool {
    env::var_os("HEARTBEAT_FULL").is_some()
}

fn check(fleet: Fleet) {
    let checker = fleet.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

impl Model for Fleet {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let gateway = || Gateway {
            local: Local::default(),
            epoch: 0,
            keeper: Keeper::Away,
            is_quiet: false,
            live: BTreeMap::new(),
        };
        vec![State {
            gateways: (0..self.gateways)
                .map(|number| (number, gateway()))
                .collect(),
            ..State::default()
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (&gateway, it) in &state.gateways {
            let Gateway { keeper, live, .. } = it;
            if state.opened < self.connections && !it.local.is_closing() {
                actions.push(Action::Open { gateway });
            }
            for &connection in live.keys() {
                for at_once in [false, true] {
                    actions.push(Action::End {
                        gateway,
                        connection,
                        at_once,
                    });
                }
            }
            match keeper {
                Keeper::Away | Keeper::Idle { .. } => actions.push(Action::Go { gateway }),
                _ if state.faults < self.faults => actions.push(Action::GiveUp { gateway }),
                _ => {}
            }
            if state.faults < self.faults {
                actions.push(Action::Kill { gateway });
            }
            if self.closes && state.faults < self.faults && !it.local.is_closing() {
                actions.push(Action::Close { gateway });
            }
        }
        let scripts = state.scripts.keys();
        actions.extend(scripts.map(|&(gateway, epoch)| Action::Run { gateway, epoch }));
        for &gateway in state.store.leases.keys() {
            // That of a dead one ends sooner or later.
            if state.faults < self.faults || !state.gateways.contains_key(&gateway) {
                actions.push(Action::LeaseEnds { gateway });
            }
        }
        for (&user, is_over) in &state.store.leaving {
            if !is_over {
                actions.push(Action::GraceEnds { user });
            }
        }
        if self.loses_data && state.store.losses == 0 && state.faults < self.faults {
            actions.push(Action::LoseData);
        }
        if state.store.settling && state.gateways.values().all(Gateway::has_told) {
            actions.push(Action::Settle);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Open { gateway } => {
                let user = state.opened % self.users;
                state.opened += 1;
                let gateway = state.gateways.get_mut(&gateway)?;
                gateway.live.insert(gateway.local.enter(&name(user)), user);
            }
            Action::End {
                gateway,
                connection,
                at_once,
            } => {
                let gateway = state.gateways.get_mut(&gateway)?;
                gateway.live.remove(&connection);
                let why = String::new();
                gateway.local.end(connection, &Ending { at_once, why });
            }
            Action::Go { gateway } => state.go(gateway),
            Action::Run { gateway, epoch } => state.run(gateway, epoch),
            Action::LeaseEnds { gateway } => {
                state.store.leases.remove(&gateway);
                state.faults += u8::from(state.gateways.contains_key(&gateway));
            }
            Action::GraceEnds { user } => drop(state.store.leaving.insert(user, true)),
            Action::GiveUp { gateway } => {
                state.gateways.get_mut(&gateway)?.keeper = Keeper::Away;
                state.gave_up = true;
                state.faults += 1;
            }
            Action::Kill { gateway } => {
                state.gateways.remove(&gateway);
                state.forget();
                state.faults += 1;
            }
            Action::Close { gateway } => {
                state.gateways.get_mut(&gateway)?.local.close();
                state.faults += 1;
            }
            Action::Settle => state.store.settling = false,
            Action::LoseData => {
                let losses = state.store.losses + 1;
                // It may have announced some of them, or not.
                let settled = !state.store.settling;
                state.gave_up |= settled && state.gateways.values().any(|it| it.is_quiet);
                state.forgotten.extend(state.store.leaving.keys());
                state.store = Store {
                    losses,
                    ..Store::default()
                };
                state.forget();
                state.scripts.clear();
                for gateway in state.gateways.values_mut() {
                    state.gave_up |= matches!(gateway.keeper, Keeper::Telling { .. });
                    gateway.keeper = Keeper::Away;
                }
                state.faults += 1;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is wrong", |_, state: &State| match state.wrong {
                Some(wrong) => {
                    eprintln!("{wrong}");
                    false
                }
                None => true,
            }),
            Property::always(
                "one refresh later all is complete",
                |fleet: &Self, state: &State| state.clone().completes_after_a_refresh(fleet),
            ),
            // Or the others mean nothing.
            Property::sometimes("a late script is refused", |_, state: &State| state.refused),
            Property::sometimes("a user comes back in time", |_, state: &State| {
                state.came_back
            }),
        ]
    }
}

impl State {
    /// A keeper that waits for nothing.
    fn go(&mut self, number: u8) {
        let Some(gateway) = self.gateways.get_mut(&number) else {
            return;
        };
        let scripts = match gateway.keeper {
            Keeper::Away => {
                gateway.epoch += 1;
                gateway.keeper = Keeper::Registering;
                vec![Script::Register]
            }
            Keeper::Idle { store } => {
                let batch = gateway.local.tell(&store.to_string());
                let mut scripts: Vec<_> = batch.iter().map(script).collect();
                if scripts.is_empty() && gateway.local.is_closing() {
                    gateway.keeper = Keeper::Closing;
                    return self.send(number, vec![Script::Close]);
                }
                if scripts.is_empty() {
                    scripts.push(Script::Refresh);
                }
                let missing = scripts.len();
                gateway.keeper = Keeper::Telling {
                    store,
                    batch,
                    missing,
                };
                scripts
            }
            _ => return,
        };
        self.send(number, scripts);
    }

    fn send(&mut self, number: u8, scripts: Vec<Script>) {
        let epoch = self.gateways[&number].epoch;
        let waiting = self.scripts.entry((number, epoch)).or_default();
        waiting.extend(scripts);
    }

    /// Nobody can tell a store that has lost its data of users without a connection.
    fn forget(&mut self) {
        if self.store.losses > 0 {
            let is_live = |user: &u8| {
                let mut live = self.gateways.values().flat_map(|it| it.live.values());
                live.any(|it| it == user)
            };
            let lost = self.announced.keys().filter(|user| !is_live(user));
            self.forgotten.extend(lost);
        }
    }

    /// The store runs a script; whoever still waits for the reply gets it.
    fn run(&mut self, gateway: u8, epoch: u8) {
        let waiting = self.scripts.get_mut(&(gateway, epoch));
        let Some(script) = waiting.and_then(VecDeque::pop_front) else {
            return;
        };
        self.scripts.retain(|_, scripts| !scripts.is_empty());
        let (away, mut said) = (self.store.leaving.len(), Vec::new());
        let reply = self.store.run(gateway, epoch, &script, &mut said);
        self.refused |= reply == Reply::Fenced;
        let entered = matches!(script, Script::Enter { .. });
        self.came_back |= entered && self.store.leaving.len() < away;
        self.hear(&said);
        if self.store.ghosts() {
            self.wrong = Some("a ghost");
        }
        if matches!(reply, Reply::Refreshed(..)) {
            let has_lease = |gateway: &u8| self.store.leases.contains_key(gateway);
            let over = self.store.leaving.values().any(|is_over| *is_over);
            if (over && !self.store.settling) || !self.store.entries.keys().all(has_lease) {
                self.wrong = Some("an entry outlives its lease, or a user the grace period");
            }
        }
        let sender = self.gateways.get_mut(&gateway);
        if let Some(sender) = sender.filter(|sender| sender.epoch == epoch) {
            if !sender.answered(reply) {
                self.wrong = Some("the store has other entries than it was told");
            }
            if script == Script::Close && reply == Reply::Done {
                self.gateways.remove(&gateway);
                self.forget();
            }
        }
    }

    fn hear(&mut self, said: &[Said]) {
        for said in said {
            let (user, now, twice) = match said {
                Said::Joined(user) => (*user, true, "joined twice"),
                Said::Left(user) => (*user, false, "left twice"),
                Said::Lost(_) => continue,
            };
            let was = self.announced.insert(user, now).unwrap_or(false);
            // If a reply was lost together with the data, a gateway doesn't know what the
            // old store had announced, and rather has it told again than not at all.
            let is_forgotten = self.forgotten.contains(&user);
            let may_not_know = self.store.losses > 0 && (is_forgotten || self.gave_up);
            if was == now && !may_not_know {
                self.wrong = Some(twice);
            }
        }
    }

    /// Without further faults, and a refresh of each gateway.
    fn completes_after_a_refresh(mut self, fleet: &Fleet) -> bool {
        let numbers: Vec<_> = self.gateways.keys().copied().collect();
        // It may be fenced, register, tell and refresh.
        for round in 0..6 {
            for &number in &numbers {
                let keeper = self.gateways.get(&number).map(|it| &it.keeper);
                if matches!(keeper, Some(Keeper::Idle { .. })) || round > 0 {
                    self.go(number);
                }
                let Some(epoch) = self.gateways.get(&number).map(|it| it.epoch) else {
                    continue;
                };
                while self.scripts.contains_key(&(number, epoch)) {
                    self.run(number, epoch);
                }
            }
            if round == 4 {
                self.store.settling = false;
            }
        }
        let complete = |(number, gateway): (&u8, &Gateway)| {
            let entries = self.store.entries.get(number).cloned().unwrap_or_default();
            entries == gateway.live
                && entries
                    .values()
                    .all(|user| self.announced.get(user) == Some(&true))
        };
        // What is announced is so. After a loss of data nobody tells of those who died with
        // the store or whose grace period ran; readers look at the roster for that. And an
        // end that may not have been announced is, after a grace period.
        let all_live = self.gateways.len() == usize::from(fleet.gateways);
        let as_announced = |(user, announced): (&u8, &bool)| {
            let dead = *announced && (!all_live || self.forgotten.contains(user));
            let again = !*announced && self.store.leaving.contains_key(user);
            let lost_data = self.store.losses > 0;
            self.store.is_present(*user) == *announced || (lost_data && (dead || again))
        };
        self.wrong.is_none()
            && self.gateways.iter().all(complete)
            && self.announced.iter().all(as_announced)
    }
}

impl Gateway {
    /// Whether the store knows all of its connections.
    fn has_told(&self) -> bool {
        let Keeper::Idle { store } = self.keeper else {
            return false;
        };
        self.local.clone().tell(&store.to_string()).is_empty()
    }

    /// Whether the reply is as expected, or says that we are fenced.
    fn answered(&mut self, reply: Reply) -> bool {
        match (&mut self.keeper, reply) {
            (Keeper::Away | Keeper::Idle { .. }, _) => {}
            (_, Reply::Fenced) => self.keeper = Keeper::Away,
            (Keeper::Registering, Reply::Registered(store, is_quiet)) => {
                self.is_quiet = is_quiet;
                self.local.begin(&store.to_string(), is_quiet);
                self.keeper = Keeper::Idle { store };
            }
            (
                Keeper::Telling {
                    store,
                    batch,
                    missing,
                },
                reply,
            ) => {
                *missing -= 1;
                if *missing == 0 {
                    let store = *store;
                    self.local.confirm(&store.to_string(), batch);
                    self.keeper = Keeper::Idle { store };
                }
                if let Reply::Refreshed(entries, is_quiet) = reply {
                    self.is_quiet = is_quiet;
                    self.local.hear(is_quiet);
                    return entries == self.local.entries();
                }
            }
            (Keeper::Closing, _) => {}
            (Keeper::Registering, _) => return false,
        }
        true
    }
}

/// The order as a script. Users are told apart by the last digit of their names.
fn script(order: &Order) -> Script {
    match order {
        Order::Enter {
            connection,
            user,
            again,
        } => Script::Enter {
            connection: *connection,
            user: user.bytes().last().map_or(0, |digit| digit - b'0'),
            again: *again,
        },
        Order::Leave { connection, ending } => Script::Leave {
            connection: *connection,
            at_once: ending.at_once,
        },
    }
}

fn name(user: u8) -> String {
    format!("user{user}")
}
