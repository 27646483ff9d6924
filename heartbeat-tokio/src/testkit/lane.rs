//! One direction of a line: what was written, and when it arrives.
//!
//! This module decides the moment of each arrival from the delay, the rate and a cut, and how
//! many bytes may be in flight. It knows nothing of sides or programs.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{io::ReadBuf, time::Instant};

/// The approximate time between arrivals at a limited rate.
const EACH_SECOND: u32 = 100;

/// The longest delay: 365 days.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug)]
pub(super) struct Lane {
    bytes: BytesMut,
    /// The arrivals in the order of sending, each with its time and its number of bytes: nothing
    /// overtakes earlier bytes. The numbers add up to the length of `bytes`.
    arrivals: VecDeque<(Instant, usize)>,
    ending: Option<(Instant, Ending)>,
    room: usize,
    delay: Duration,
    /// Bytes a second; zero is no limit.
    rate: u32,
    /// At a limited rate: when everything so far has been sent.
    clear_at: Option<Instant>,
    /// Bytes with a later arrival don't arrive: the time of a cut.
    cut_at: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The end of a direction, behind all its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    End,
    Reset,
}

/// The arrivals at one moment.
pub(super) enum Found {
    Some,
    Ended(Ending),
    /// Nothing before this moment, or before a change.
    Nothing(Option<Instant>),
}

impl Lane {
    pub(super) fn new(room: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            arrivals: VecDeque::new(),
            ending: None,
            room,
            delay: Duration::ZERO,
            rate: 0,
            clear_at: None,
            cut_at: None,
            reader: None,
            writer: None,
        }
    }

    // ---- faults -------------------------------------------------------------

    pub(super) fn set_delay(&mut self, delay: Duration) {
        self.delay = delay.min(LONGEST);
    }

    pub(super) const fn set_rate(&mut self, bytes_per_second: u32) {
        self.rate = bytes_per_second;
    }

    pub(super) fn cut(&mut self) {
        self.cut_at.get_or_insert_with(Instant::now);
    }

    pub(super) const fn mend(&mut self) {
        self.cut_at = None;
    }

    pub(super) const fn is_cut(&self) -> bool {
        self.cut_at.is_some()
    }

    /// Nothing is written any more. Only the first ending counts.
    pub(super) fn close(&mut self, ending: Ending) {
        if self.ending.is_none() {
            let at = self.next_arrival(0);
            self.ending = Some((at, ending));
        }
    }

    pub(super) fn lose_what_is_under_way(&mut self) {
        let arrived = self.arrived();
        self.bytes.truncate(arrived);
        self.arrivals.clear();
        if arrived > 0 {
            self.arrivals.push_back((self.horizon(), arrived));
        }
    }

    /// Wakes every waiting task after a change.
    pub(super) fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()] {
            waker.into_iter().for_each(Waker::wake);
        }
    }

    // ---- the state ------------------------------------------------------------

    pub(super) fn under_way(&self) -> usize {
        self.bytes.len()
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.ending.is_some()
    }

    /// The end, if it has arrived, whether everything before it was read or not.
    pub(super) fn ended(&self) -> Option<Ending> {
        let horizon = self.horizon();
        let (_, ending) = self.ending.filter(|(at, _)| *at <= horizon)?;
        Some(ending)
    }

    /// When the other side learns of its end, if that is known.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        let (at, _) = self.ending.filter(|_| !self.is_cut())?;
        Some(at)
    }

    /// Bytes that the reader has, as far as its kernel is concerned.
    pub(super) fn arrived(&self) -> usize {
        let horizon = self.horizon();
        let arrived = self.arrivals.iter().take_while(|(at, _)| *at <= horizon);
        arrived.map(|(_, bytes)| bytes).sum()
    }

    fn horizon(&self) -> Instant {
        let now = Instant::now();
        self.cut_at.map_or(now, |cut_at| cut_at.min(now))
    }

    // ---- its ends ---------------------------------------------------------------

    pub(super) fn read(&mut self, buffer: &mut ReadBuf<'_>) -> Found {
        let taken = self.arrived().min(buffer.remaining());
        if let (1.., Some(some)) = (taken, self.bytes.get(..taken)) {
            buffer.put_slice(some);
            self.take(taken);
            self.writer.take().into_iter().for_each(Waker::wake);
            return Found::Some;
        }
        if let (true, Some(ending)) = (self.bytes.is_empty(), self.ended()) {
            return Found::Ended(ending);
        }
        let next = self.arrivals.front().map(|(at, _)| *at);
        let next = next.or(self.ending.map(|(at, _)| at));
        Found::Nothing(next.filter(|_| !self.is_cut()))
    }

    fn take(&mut self, taken: usize) {
        self.bytes.advance(taken);
        let mut left = taken;
        while let Some((_, bytes)) = self.arrivals.front_mut() {
            if *bytes > left {
                *bytes -= left;
                break;
            }
            left -= *bytes;
            self.arrivals.pop_front();
        }
        debug_assert_eq!(
            self.bytes.len(),
            self.arrivals.iter().map(|(_, n)| n).sum::<usize>()
        );
    }

    /// The number of these bytes for which there is room.
    pub(super) fn write(&mut self, bytes: &[u8], cx: &Context<'_>) -> Poll<usize> {
        let room = self.room.saturating_sub(self.bytes.len());
        let (fits, _) = bytes.split_at(room.min(bytes.len()));
        if fits.is_empty() && !bytes.is_empty() {
            return self.writer_waits(cx);
        }
        let at_once = match self.rate {
            0 => fits.len(),
            rate => rate.div_ceil(EACH_SECOND) as usize,
        };
        for piece in fits.chunks(at_once.max(1)) {
            let at = self.next_arrival(piece.len());
            match self.arrivals.back_mut() {
                Some((last, bytes)) if *last == at => *bytes += piece.len(),
                _ => self.arrivals.push_back((at, piece.len())),
            }
        }
        self.bytes.extend_from_slice(fits);
        self.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(fits.len())
    }

    /// The arrival of `bytes` bytes that are sent now, if none are queued before them.
    fn next_arrival(&mut self, bytes: usize) -> Instant {
        let mut sent = Instant::now();
        if let Some(cut_at) = self.cut_at {
            // Virtual time may stand still since then.
            sent = sent.max(cut_at + Duration::from_nanos(1));
        }
        if self.rate > 0 {
            let begun = self.clear_at.unwrap_or(sent).max(sent);
            let nanos = bytes as u64 * 1_000_000_000 / u64::from(self.rate);
            sent = begun + Duration::from_nanos(nanos);
            self.clear_at = Some(sent);
        }
        sent + self.delay
    }

    pub(super) fn reader_waits<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn writer_waits<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}
