//! Progress of our data in the peer's kernel, and of bytes below a wrapper.
//!
//! This module decides when the kernel's counters are a sign of life: when data of ours ahead
//! of our oldest unanswered ping was acknowledged, and when bytes arrived that a wrapper such
//! as TLS hasn't passed on; and when an acknowledgement is newer than the peer's last sign of
//! life. Other modules decide the consequences.

use std::time::Duration;

use heartbeat_core::Instant;

use crate::safety_net::TcpInfo;

/// The kernel counts in ticks of up to 10 ms: an acknowledgement that seems so
/// much newer than another may be the same one.
const TICKS: Duration = Duration::from_millis(20);

/// The last values of the counters, and the position of our ping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    question: Question,
    /// The end of the latest ping in the stream, if the kernel has it.
    latest: Option<u64>,
    /// The number of answered pings.
    answers: u32,
    acknowledged: u64,
    /// As of the last call; none if the stream is the socket itself.
    below: Option<Below>,
}

/// Our oldest unanswered ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// No ping is unanswered.
    None,
    /// It waits in our own buffers.
    Queued,
    /// Our kernel has it. It ends at this position of the stream.
    Sent(u64),
    /// The peer's kernel has it.
    Taken,
}

/// Bytes that arrived below a wrapper.
#[derive(Clone, Copy, Debug)]
struct Below {
    received: u64,
    /// The number of reads above that gave bytes.
    reads: u32,
    /// The bytes that were a sign of life since such a read.
    counted: u64,
}

/// The progress since the last call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// No progress that counts.
    Nothing,
    /// It took data ahead of the ping.
    Data,
    /// It has taken the ping.
    Question,
}

impl Progress {
    pub(super) const fn new() -> Self {
        Self {
            question: Question::None,
            latest: None,
            answers: 0,
            acknowledged: 0,
            below: None,
        }
    }

    /// A ping is queued; `is_oldest` if no other is unanswered, and `is_queued` if data of ours
    /// waits ahead of it in our own buffers. If none does, and the kernel has none that the
    /// peer's hasn't taken, there is no progress that could count.
    pub(super) fn asks(
        &mut self,
        is_oldest: bool,
        is_queued: bool,
        answers: u32,
        info: Option<&TcpInfo>,
    ) {
        if is_oldest {
            let waits =
                |info: &TcpInfo| is_queued || info.has_unacknowledged() || info.unsent != Some(0);
            self.question = match info.is_some_and(waits) {
                true => Question::Queued,
                false => Question::Taken,
            };
            self.answers = answers;
            self.acknowledged = acknowledged(info);
        }
        self.latest = None;
    }

    /// All pings have left for our kernel.
    pub(super) fn has_asked(&mut self, info: Option<&TcpInfo>) {
        if self.latest.is_some() {
            return;
        }
        self.latest = info.and_then(TcpInfo::written);
        if self.question == Question::Queued {
            // Without the kernel's position nothing counts.
            self.question = self.latest.map_or(Question::Taken, Question::Sent);
        }
    }

    /// Compares the counters with those of the last call. `answers` is the number of answered
    /// pings.
    pub(super) fn look(&mut self, info: &TcpInfo, answers: u32) -> Taken {
        if self.answers != answers {
            self.answers = answers;
            self.question = self.latest.map_or(Question::Queued, Question::Sent);
        }
        let now = acknowledged(Some(info));
        let before = std::mem::replace(&mut self.acknowledged, now);
        match self.question {
            Question::Sent(end) if now >= end => {
                self.question = Question::Taken;
                Taken::Question
            }
            Question::Queued | Question::Sent(_) if now > before => Taken::Data,
            _ => Taken::Nothing,
        }
    }

    /// The bytes that arrived since the last call without a read above, where `reads` reads have
    /// given bytes. No more than `most` count in a row.
    pub(super) fn below(&mut self, info: &TcpInfo, reads: u32, most: u64) -> u64 {
        let received = info.bytes_received.unwrap_or(0);
        let before = self.below.filter(|below| below.reads == reads);
        let arrived = before.map_or(0, |below| received.saturating_sub(below.received));
        let counted = before.map_or(0, |below| below.counted.saturating_add(arrived));
        self.below = Some(Below {
            received,
            reads,
            counted,
        });
        match counted > most {
            true => 0,
            false => arrived,
        }
    }

    /// Whether bytes arrived, or our data was acknowledged, as of the last call.
    pub(super) fn goes_on(&self, info: &TcpInfo) -> bool {
        let arrives = self
            .below
            .is_some_and(|below| info.bytes_received.unwrap_or(0) > below.received);
        let is_ahead = matches!(self.question, Question::Queued | Question::Sent(_));
        arrives || is_ahead && acknowledged(Some(info)) > self.acknowledged
    }
}

/// When the peer's kernel last acknowledged something, if that is later than `heard_at`.
pub(super) fn acknowledged_at(info: &TcpInfo, heard_at: Instant, now: Instant) -> Option<Instant> {
    let ago = info.last_ack_received;
    let silence = now.saturating_duration_since(heard_at);
    // While our data is retransmitted in vain, an apparent acknowledgement may be
    // the peer's own retransmission, on a path that is cut in one direction.
    let is_fresh = ago + TICKS < silence && info.retransmits == 0;
    is_fresh.then(|| heard_at + (silence - ago))
}

fn acknowledged(info: Option<&TcpInfo>) -> u64 {
    info.and_then(|info| info.bytes_acknowledged).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(acknowledged: u64, written: u64) -> TcpInfo {
        TcpInfo {
            bytes_acknowledged: Some(acknowledged),
            bytes_sent: Some(written),
            bytes_repeated: Some(0),
            unsent: Some(0),
            ..TcpInfo::default()
        }
    }

    fn received(bytes: u64) -> TcpInfo {
        TcpInfo {
            bytes_received: Some(bytes),
            ..TcpInfo::default()
        }
    }

    #[test]
    fn only_data_ahead_of_the_oldest_ping_counts() {
        let mut progress = Progress::new();
        progress.asks(true, true, 0, Some(&info(100, 1000)));
        assert_eq!(progress.look(&info(100, 1000), 0), Taken::Nothing);
        assert_eq!(progress.look(&info(200, 1000), 0), Taken::Data);
        progress.has_asked(Some(&info(200, 1020)));
        assert_eq!(progress.look(&info(1019, 5000), 0), Taken::Data);
        assert_eq!(progress.look(&info(1020, 5000), 0), Taken::Question);
        assert_eq!(progress.look(&info(4000, 5000), 0), Taken::Nothing);
    }

    #[test]
    fn a_ping_with_nothing_ahead_is_judged_as_ever() {
        let mut progress = Progress::new();
        progress.asks(true, false, 0, Some(&info(100, 100)));
        progress.has_asked(Some(&info(100, 120)));
        assert_eq!(progress.look(&info(120, 120), 0), Taken::Nothing);
        assert_eq!(progress.look(&info(500, 500), 0), Taken::Nothing);
    }

    #[test]
    fn a_ping_is_behind_whatever_the_peers_kernel_hasnt_taken() {
        let idle = info(100, 100);
        let is_behind = |is_queued, info: &TcpInfo| {
            let mut progress = Progress::new();
            progress.asks(true, is_queued, 0, Some(info));
            progress.question == Question::Queued
        };
        assert!(!is_behind(false, &idle));
        assert!(is_behind(true, &idle));
        let under_way = TcpInfo {
            unacknowledged: 1,
            ..idle
        };
        assert!(is_behind(false, &under_way));
        // Nothing is in flight, and the peer has no room. An old kernel doesn't tell.
        for unsent in [Some(1), None] {
            assert!(is_behind(false, &TcpInfo { unsent, ..idle }));
        }
    }

    #[test]
    fn an_answer_makes_the_latest_ping_the_oldest() {
        let mut progress = Progress::new();
        progress.asks(true, true, 0, Some(&info(0, 10)));
        progress.has_asked(Some(&info(0, 20)));
        progress.asks(false, true, 0, None);
        progress.has_asked(Some(&info(20, 2000)));
        assert_eq!(progress.look(&info(500, 2000), 1), Taken::Data);
        assert_eq!(progress.look(&info(2000, 2000), 1), Taken::Question);
    }

    #[test]
    fn bytes_below_count_until_something_comes_out_above() {
        let mut progress = Progress::new();
        assert_eq!(progress.below(&received(50), 1, 1000), 0);
        assert_eq!(progress.below(&received(80), 1, 1000), 30);
        assert_eq!(progress.below(&received(90), 2, 1000), 0);
        assert_eq!(progress.below(&received(1090), 2, 1000), 1000);
        assert_eq!(
            progress.below(&received(1091), 2, 1000),
            0,
            "too much in a row"
        );
    }

    #[test]
    fn data_ahead_of_a_ping_and_bytes_below_go_on_after_the_last_look() {
        let mut progress = Progress::new();
        assert!(!progress.goes_on(&received(50)), "nothing was below before");
        progress.below(&received(50), 1, 1000);
        assert!(!progress.goes_on(&received(50)));
        assert!(progress.goes_on(&received(51)));

        let mut progress = Progress::new();
        assert!(!progress.goes_on(&info(200, 1000)), "there is no ping");
        progress.asks(true, true, 0, Some(&info(100, 1000)));
        assert!(!progress.goes_on(&info(100, 1000)));
        assert!(progress.goes_on(&info(101, 1000)));
        progress.has_asked(Some(&info(100, 1020)));
        assert!(progress.goes_on(&info(101, 1020)));
        // What is behind the ping proves nothing.
        assert_eq!(progress.look(&info(1020, 1020), 0), Taken::Question);
        assert!(!progress.goes_on(&info(1500, 2000)));
    }

    #[test]
    fn an_acknowledgement_counts_if_it_is_newer_by_more_than_the_ticks_of_a_kernel() {
        let at = |millis| Instant::ORIGIN + Duration::from_millis(millis);
        let acknowledged = |ago, retransmits| TcpInfo {
            last_ack_received: Duration::from_millis(ago),
            retransmits,
            ..TcpInfo::default()
        };
        let seen =
            |ago, retransmits| acknowledged_at(&acknowledged(ago, retransmits), at(1000), at(4000));
        assert_eq!(seen(0, 0), Some(at(4000)));
        assert_eq!(seen(2979, 0), Some(at(1021)));
        assert_eq!(seen(2980, 0), None);
        assert_eq!(seen(5000, 0), None);
        // While our data is repeated it may be the peer's own repetition.
        assert_eq!(seen(0, 1), None);
    }
}
