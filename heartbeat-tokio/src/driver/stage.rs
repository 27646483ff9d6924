//! How far a connection is, for the handles that wait for it or watch it.
//!
//! This module decides what its handles need no longer wait for, and what those that watch
//! it are told.

use tokio::sync::watch;

use super::waiting::Wanted;
use crate::{
    Heartbeat, SendError, Status,
    heartbeat::Remains,
    transport::{Protocol, Transport},
};

#[expect(
    clippy::large_enum_variant,
    reason = "each is in one allocation of its own, which a connection keeps to its end"
)]
pub(super) enum Stage<S, C: Protocol> {
    Served(Heartbeat<S, C>),
    /// It is over. What is left of it.
    Over(Remains<C::Message>),
}

impl<S, C: Transport<S>> Stage<S, C> {
    /// Whether a handle needs no longer wait, and what came of it.
    pub(super) fn reached(&self, wanted: Wanted) -> Option<Result<(), SendError>> {
        let heartbeat = match (self, wanted) {
            (Self::Served(heartbeat), _) => heartbeat,
            (Self::Over(_), Wanted::Over) => return Some(Ok(())),
            (Self::Over(remains), _) => return Some(Err(remains.ended.clone().into())),
        };
        if let (Some(ended), true) = (heartbeat.ended(), wanted != Wanted::Over) {
            return Some(Err(ended.clone().into()));
        }
        let is_so = match wanted {
            Wanted::Room => heartbeat.has_room(),
            Wanted::Flushed => heartbeat.is_flushed(),
            Wanted::Finished => heartbeat.is_finished(),
            Wanted::Over => false,
        };
        is_so.then_some(Ok(()))
    }

    fn status(&self) -> Status {
        match self {
            Self::Served(heartbeat) => heartbeat.status(),
            Self::Over(remains) => remains.status,
        }
    }

    /// Counts what there was to tell; `None` once that is all.
    fn news(&self) -> Option<u32> {
        match self {
            Self::Served(heartbeat) => Some(heartbeat.news()),
            Self::Over(_) => None,
        }
    }
}

/// The status at each change, for handles that watch. Made when the first does: it takes
/// half a kilobyte.
#[derive(Debug, Default)]
pub(super) struct Watched(Option<Told>);

#[derive(Debug)]
struct Told {
    /// The last news that were told.
    news: Option<u32>,
    status: watch::Sender<Status>,
}

impl Watched {
    pub(super) fn subscribe<S, C: Transport<S>>(
        &mut self,
        stage: &Stage<S, C>,
    ) -> watch::Receiver<Status> {
        let told = self.0.get_or_insert_with(|| Told {
            news: stage.news(),
            status: watch::Sender::new(stage.status()),
        });
        told.status.subscribe()
    }

    /// Tells what is new.
    pub(super) fn tell<S, C: Transport<S>>(&mut self, stage: &Stage<S, C>) {
        let Some(told) = &mut self.0 else {
            return;
        };
        let news = stage.news();
        if news != told.news {
            told.news = news;
            told.status.send_replace(stage.status());
        }
    }
}
