//! The end of a connection.
//!
//! This module decides what is read before the end is reported, which error is reported, and
//! whether our messages were received. It owns the texts of both goodbyes, and touches no
//! field of another module. The monitor decides when and why a connection ends, and
//! `parting` what happens to the stream then.

use std::{
    fmt::Display,
    future::Future,
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use heartbeat_core::{End, Event, GoodbyeCode};
use tokio::task::yield_now;

use super::{Heartbeat, parting::Parting};
use crate::{
    Cause, CloseError, CloseReason, Detail, SendError, error::Ended, safety_net,
    transport::Transport,
};

/// The progress of the end, and the texts and errors that belong to it.
#[derive(Debug)]
pub(super) struct Ending {
    stage: Stage,
    /// Most connections have none yet.
    words: Option<Box<Words>>,
}

#[derive(Debug)]
enum Stage {
    /// The connection lives.
    Open,
    /// Writing has failed like this. Everything that has arrived is read first.
    WriteFailed(Box<WriteFailed>),
    /// The monitor has reported the end.
    Ended(Box<Epilogue>),
}

#[derive(Debug)]
struct WriteFailed {
    end: End,
    /// The reactor had a turn since, so readiness is up to date.
    has_waited: bool,
}

/// The facts about a connection that has ended.
#[derive(Debug)]
struct Epilogue {
    how: Ended,
    parting: Parting,
    /// The terminal event was handed out, or lies in the inbox.
    is_told: bool,
}

#[derive(Debug, Default)]
struct Words {
    /// What the goodbye says that ends it, ours or the peer's.
    said: Option<Detail>,
    /// The text of our goodbye when we leave.
    farewell: Detail,
    /// The error behind the end.
    io_error: Option<Arc<io::Error>>,
    /// The bytes of discarded messages.
    given_up: usize,
    /// The bytes of our last word, which goes behind everything that is still written.
    last_word: usize,
}

impl Ending {
    pub(super) const fn new() -> Self {
        Self {
            stage: Stage::Open,
            words: None,
        }
    }

    fn words(&mut self) -> &mut Words {
        self.words.get_or_insert_default()
    }

    // ---- the progress ----------------------------------------------------

    /// Whether the connection lives, as far as is known.
    #[inline]
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// How it ended, if it has.
    #[inline]
    pub(super) fn ended(&self) -> Option<&Ended> {
        match &self.stage {
            Stage::Ended(epilogue) => Some(&epilogue.how),
            Stage::Open | Stage::WriteFailed(_) => None,
        }
    }

    /// How writing failed, unless the connection has ended.
    pub(super) fn write_failed(&self) -> Option<End> {
        match &self.stage {
            Stage::WriteFailed(failed) => Some(failed.end),
            Stage::Open | Stage::Ended(_) => None,
        }
    }

    pub(super) fn fail_writing(&mut self, error: io::Error) {
        debug_assert!(self.is_open(), "nothing is written afterwards");
        self.stage = Stage::WriteFailed(Box::new(WriteFailed {
            end: safety_net::end_of(&error),
            has_waited: false,
        }));
        self.note_error(error);
    }

    /// Whether the terminal event was handed out.
    pub(super) fn is_told(&self) -> bool {
        match &self.stage {
            Stage::Ended(epilogue) => epilogue.is_told,
            Stage::Open | Stage::WriteFailed(_) => false,
        }
    }

    /// How it ended, once.
    pub(super) fn tell(&mut self) -> Option<Ended> {
        match &mut self.stage {
            Stage::Ended(epilogue) if !epilogue.is_told => {
                epilogue.is_told = true;
                Some(epilogue.how.clone())
            }
            _ => None,
        }
    }

    /// The work that is left with the stream, once the connection has ended.
    pub(super) fn parting(&mut self) -> Option<&mut Parting> {
        match &mut self.stage {
            Stage::Ended(epilogue) => Some(&mut epilogue.parting),
            Stage::Open | Stage::WriteFailed(_) => None,
        }
    }

    // ---- texts and errors --------------------------------------------------

    /// The operating system's error, or a codec's.
    pub(super) fn note_error(&mut self, error: io::Error) {
        self.words().io_error = Some(Arc::new(error));
    }

    pub(super) fn io_error(&self) -> Option<&Arc<io::Error>> {
        self.words.as_ref()?.io_error.as_ref()
    }

    /// A codec's error about an end, which may be known already. The first error counts, and
    /// none explains an end of our own.
    pub(super) fn explain(&mut self, error: io::Error) {
        let is_ours = match self.ended() {
            None => false,
            Some(Ended::Closed(reason)) => !matches!(reason, CloseReason::Peer { .. }),
            Some(Ended::Dead(death)) => death.cause.goodbye().is_some(),
        };
        if !is_ours {
            self.words().io_error.get_or_insert_with(|| Arc::new(error));
        }
    }

    /// The received bytes break the protocol like this. Keeps the codec's error.
    pub(super) fn refuse(&mut self, why: &impl Display, words: Option<io::Error>) {
        self.words().said = Some(Detail::from(&*why.to_string()));
        if let Some(words) = words {
            self.explain(words);
        }
    }

    /// The peer says goodbye. The first one counts.
    pub(super) fn note_goodbye(&mut self, detail: Detail) {
        self.words().said.get_or_insert(detail);
    }

    /// Messages of `given_up` bytes were discarded, for a last word of `last_word` bytes.
    pub(super) fn note_last_word(&mut self, given_up: usize, last_word: usize) {
        let words = self.words();
        words.given_up = given_up;
        words.last_word = last_word;
    }

    /// The unwritten bytes of messages, if `left` bytes are unwritten in all.
    fn unwritten(&self, left: usize) -> usize {
        self.words.as_ref().map_or(left, |words| {
            left.saturating_sub(words.last_word) + words.given_up
        })
    }

    /// What the goodbye says that ends it, ours or the peer's.
    pub(super) fn said(&self) -> Option<Detail> {
        self.words.as_ref()?.said.clone()
    }

    /// The text of our goodbye.
    pub(super) fn take_farewell(&mut self) -> Detail {
        let words = self.words.as_mut();
        words.map_or_else(Detail::default, |words| std::mem::take(&mut words.farewell))
    }
}

impl<S, C: Transport<S>> Heartbeat<S, C> {
    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ending.ended()
    }

    /// Whether it has ended.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended().is_some()
    }

    /// Whether the terminal event was handed out, or lies in the inbox.
    pub(crate) fn has_finished(&self) -> bool {
        self.ending.is_told()
    }

    /// The error of sending once the connection has ended.
    #[inline]
    pub(super) fn check_open(&self) -> Result<(), SendError> {
        match self.ended() {
            Some(ended) => Err(ended.clone().into()),
            None => Ok(()),
        }
    }

    /// The error of sending a message once none may follow.
    #[inline]
    pub(crate) fn check_sending(&self) -> Result<(), SendError> {
        self.check_open()?;
        match self.sending.is_finished() {
            true => Err(SendError::Finished),
            false => Ok(()),
        }
    }

    /// The transport ended.
    pub(super) fn end(&mut self, end: End) {
        self.judge.tell(|monitor, now| monitor.handle_end(end, now));
    }

    /// If writing has failed, the connection ends as soon as nothing is left to read.
    pub(super) fn end_after_reading(&mut self, cx: &mut Context<'_>) {
        let Some(end) = self.ending.write_failed() else {
            return;
        };
        if self.read_regardless(cx).is_ready() {
            return;
        }
        match &mut self.ending.stage {
            Stage::WriteFailed(failed) if !failed.has_waited => {
                failed.has_waited = true;
                // A process that slept serves its timers first, and then reads.
                let _ = pin!(yield_now()).poll(cx);
            }
            _ => self.end(end),
        }
    }

    // ---- leaving ---------------------------------------------------------

    /// We leave, with a goodbye behind everything that was queued. Returns whether this is the
    /// first call.
    pub(crate) fn leave(&mut self, code: GoodbyeCode, detail: Detail) -> bool {
        if self.has_ended() || self.judge.monitor().leaves_until().is_some() {
            return false;
        }
        if !detail.is_empty() {
            self.ending.words().farewell = detail;
        }
        self.sending.finish();
        self.sending.want_flush();
        self.judge.tell(|monitor, now| monitor.close(code, now));
        self.observe_state();
        self.limit_pause();
        self.wakers.wake_reader();
        true
    }

    /// After we have left, serves the connection until it is over.
    pub(super) fn poll_left(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<CloseReason, CloseError>> {
        self.wakers.set_writer(None);
        if !self.has_finished() {
            self.discard_excess();
            self.serve(cx);
        }
        if self.has_finished() {
            return Poll::Ready(self.close_result());
        }
        self.wakers.set_writer(Some(cx.waker()));
        Poll::Pending
    }

    /// The queued bytes that the stream hasn't taken; once the connection has ended, those that
    /// it never took.
    pub(crate) fn unwritten(&self) -> usize {
        self.ending.unwritten(self.transport.unwritten())
    }

    /// Whether our messages were received, now that the connection is over.
    pub(crate) fn close_result(&self) -> Result<CloseReason, CloseError> {
        let unwritten = self.unwritten();
        let (reason, parting) = match &self.ending.stage {
            Stage::Ended(epilogue) => match &epilogue.how {
                Ended::Closed(reason) => (reason.clone(), epilogue.parting),
                Ended::Dead(death) => {
                    let death = death.clone();
                    return Err(CloseError::Dead { death, unwritten });
                }
            },
            Stage::Open | Stage::WriteFailed(_) => (CloseReason::Unconfirmed, Parting::Done),
        };
        let is_confirmed = match reason {
            CloseReason::Local => C::HELLO || parting != Parting::GivenUp,
            CloseReason::Peer { .. } | CloseReason::Finished => !self.sending.has_sent(),
            CloseReason::Unconfirmed => false,
        };
        match is_confirmed {
            true => Ok(reason),
            false => Err(CloseError::Unconfirmed { unwritten }),
        }
    }

    // ---- the end ---------------------------------------------------------

    /// The connection has ended. Waiting messages are handed out before the terminal event.
    pub(super) fn note_end(&mut self, mut event: Event) {
        let mut is_ours = false;
        if let Event::Dead(death) = &mut event {
            let broken_off = self.transport.is_in_message() || self.transport.unread() > 0;
            self.net.diagnose(self.stream.as_ref(), death, broken_off);
            is_ours = death.cause.goodbye().is_some();
        }
        if is_ours {
            self.drop_stream();
        }
        let error = self.ending.io_error().map(|error| &**error);
        self.judge.observe_end(&event, error);
        let detail = self.ending.said().unwrap_or_default();
        let (how, parting) = match event {
            Event::Closed { reason } => (
                Ended::Closed(reason.with_detail(detail)),
                self.begin_parting(reason),
            ),
            Event::Dead(death) => (Ended::Dead(death.with_detail(detail)), Parting::Done),
            _ => return,
        };
        if !may_follow(&how, is_ours) {
            self.receiving.stop_decoding();
        }
        self.ending.stage = Stage::Ended(Box::new(Epilogue {
            how,
            parting,
            is_told: false,
        }));
        self.sending.note_unblocked();
        self.read_the_rest();
        self.wakers.wake_writer();
    }
}

/// Whether messages that arrived before this end count: none follows a goodbye, and bytes
/// behind a broken frame have no meaning.
const fn may_follow(how: &Ended, is_ours: bool) -> bool {
    match how {
        Ended::Closed(reason) => !matches!(reason, CloseReason::Peer { .. }),
        Ended::Dead(death) => match death.cause {
            Cause::GivenUp { .. } => false,
            // Messages before the error are valid.
            Cause::Silent | Cause::WriteStalled | Cause::NotReading => true,
            _ => !is_ours,
        },
    }
}
