//! The task of a gateway: it keeps the lease, and tells the store what changes.
//!
//! This module decides when a new epoch begins, and when the store is told and looked at.

use std::{sync::Arc, time::Duration};

use metrics::{counter, gauge};
use redis::{Client, Cmd, ErrorKind, Pipeline, RedisResult, Script, aio::MultiplexedConnection};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    FENCED, PREFIX, SCRIPT, Shared, Standing, Terms,
    local::{Batch, Order},
    millis, open, random, refusal, replace, within,
};

/// Keeps the lease, and tells the store what changes.
pub(super) struct Keeper {
    store: Client,
    name: String,
    terms: Terms,
    shared: Arc<Shared>,
    script: Script,
    /// This process; with the epoch, its incarnation.
    gateway: String,
}

impl Keeper {
    pub(super) fn new(store: Client, name: String, terms: Terms, shared: Arc<Shared>) -> Self {
        Self {
            store,
            name,
            terms,
            shared,
            script: Script::new(SCRIPT),
            gateway: random(),
        }
    }

    /// Until the lease is given up.
    pub(super) async fn keep(self) {
        let epochs = async {
            let mut epoch = 0;
            loop {
                epoch += 1;
                let Err(error) = self.hold(epoch).await else {
                    return;
                };
                counter!("presence_store_errors_total").increment(1);
                let refusal = refusal(&error);
                if refusal.as_ref().is_some_and(|it| it.code() == FENCED) {
                    // The store knows it better than our clock.
                    self.shared.lease.send_replace(Some(Instant::now()));
                } else if *self.shared.standing.borrow() == Standing::Held {
                    replace(&self.shared.standing, Standing::Stale);
                }
                let said = refusal.map_or_else(|| error.to_string(), |it| it.to_string());
                replace(&self.shared.trouble, said);
                sleep(self.terms.look()).await;
            }
        };
        tokio::select! {
            () = epochs => {}
            () = self.shared.watch_lease() => {}
        }
        gauge!("presence_lease").set(0);
        replace(&self.shared.standing, Standing::Closed);
    }

    /// One epoch: one connection to the store, from its beginning to an error, or `Ok` when
    /// the lease has been given up.
    async fn hold(&self, epoch: u64) -> RedisResult<()> {
        let mut store = open(&self.store, Instant::now() + self.terms.refresh()).await?;
        let number = self.register(&mut store, epoch).await?;
        let mut refresh_at = Instant::now();
        loop {
            let batch = self.shared.local().tell(&number);
            let is_due = refresh_at <= Instant::now();
            if batch.is_empty() && !is_due {
                if self.shared.local().is_closing() {
                    return self.close(&mut store, epoch).await;
                }
                tokio::select! {
                    () = sleep_until(refresh_at) => {}
                    () = self.shared.changed.notified() => {}
                }
                continue;
            }
            let sent = Instant::now();
            let orders = self.orders(epoch, &batch, is_due);
            // Then there is still time for another connection.
            let patience = sent + self.terms.refresh();
            let asked = within(patience, orders.query_async(&mut store));
            let replies: Vec<(usize, i64, bool)> = asked.await?;
            self.shared.local().confirm(&number, &batch);
            if has_grace(&batch) {
                refresh_at = refresh_at.min(sent + self.terms.grace);
            }
            if let Some(&(entries, more_in, is_quiet)) = replies.first() {
                self.refreshed(sent);
                refresh_at = sent + self.look_again(more_in);
                self.shared.local().hear(is_quiet);
                self.compare(entries)?;
            }
        }
    }

    /// Takes the lease in a new epoch. Returns the store's number.
    async fn register(&self, store: &mut MultiplexedConnection, epoch: u64) -> RedisResult<String> {
        let sent = Instant::now();
        let mut register = self.script.key(PREFIX);
        register.arg("register").arg(&self.gateway).arg(epoch);
        register.arg(millis(self.terms.lease()));
        register.arg(millis(self.terms.grace));
        register.arg(&self.name).arg(random());
        // It loads the script where it isn't known.
        let replied = within(sent + self.terms.lease(), register.invoke_async(store));
        let (number, is_quiet): (String, bool) = replied.await?;
        self.shared.local().begin(&number, is_quiet);
        self.refreshed(sent);
        Ok(number)
    }

    /// The lease holds for so long from when this was sent. The store counts from later.
    fn refreshed(&self, sent: Instant) {
        let until = sent + self.terms.lease();
        let before = self.shared.lease.send_replace(Some(until));
        if before.is_some_and(|before| until > before + 2 * self.terms.refresh()) {
            counter!("presence_late_refreshes_total").increment(1);
        }
        replace(&self.shared.trouble, String::new());
        replace(&self.shared.standing, Standing::Held);
        gauge!("presence_lease").set(1);
    }

    /// When the store has to be looked at again: it said in how many milliseconds there is
    /// more to do, if at all.
    fn look_again(&self, more_in: i64) -> Duration {
        let more_in = u64::try_from(more_in).map_or(Duration::MAX, Duration::from_millis);
        more_in.clamp(self.terms.look(), self.terms.refresh())
    }

    /// The store has exactly the entries that it was told, or it isn't the only one to
    /// change them: a new epoch puts that right.
    fn compare(&self, entries: usize) -> RedisResult<()> {
        let told = self.shared.local().entries();
        gauge!("presence_entries").set(u32::try_from(told).unwrap_or(u32::MAX));
        if entries == told {
            return Ok(());
        }
        let ghosts = u64::try_from(entries.saturating_sub(told)).unwrap_or(0);
        counter!("presence_ghosts_total").increment(ghosts);
        Err((ErrorKind::Client, "the store has other entries").into())
    }

    async fn close(&self, store: &mut MultiplexedConnection, epoch: u64) -> RedisResult<()> {
        let mut close = self.order("close", epoch);
        close.arg(millis(self.terms.grace)).arg(&self.name);
        let patience = Instant::now() + self.terms.refresh();
        within(patience, close.query_async(store)).await
    }

    /// All that is told in one go. Only a refresh has a reply.
    fn orders(&self, epoch: u64, batch: &Batch, refresh: bool) -> Pipeline {
        let mut orders = Pipeline::new();
        for order in batch {
            let told = match order {
                Order::Enter {
                    connection,
                    user,
                    again,
                } => {
                    let mut enter = self.order("enter", epoch);
                    enter.arg(connection).arg(user).arg(u8::from(*again));
                    enter
                }
                Order::Leave { connection, ending } => {
                    let grace = if ending.at_once {
                        0
                    } else {
                        millis(self.terms.grace)
                    };
                    let mut leave = self.order("leave", epoch);
                    leave.arg(connection).arg(grace).arg(&ending.why);
                    leave
                }
            };
            orders.add_command(told).ignore();
        }
        if refresh {
            let mut refresh = self.order("refresh", epoch);
            refresh
                .arg(millis(self.terms.lease()))
                .arg(millis(self.terms.grace));
            orders.add_command(refresh);
        }
        orders
    }

    fn order(&self, operation: &str, epoch: u64) -> Cmd {
        let mut order = redis::cmd("EVALSHA");
        order.arg(self.script.get_hash()).arg(1).arg(PREFIX);
        order.arg(operation).arg(&self.gateway).arg(epoch);
        order
    }
}

fn has_grace(batch: &Batch) -> bool {
    let has_grace = |order: &Order| matches!(order, Order::Leave { ending, .. } if !ending.at_once);
    batch.iter().any(has_grace)
}
