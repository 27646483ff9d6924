//! The cause of a silence, from the kernel's counters.
//!
//! This module explains a verdict that the monitor has given. It never gives one itself.

use std::time::Duration;

use heartbeat_core::{Cause, Death, Diagnosis};

use super::{AsSocketHandle, TcpInfo};

/// Why the peer was silent, as the kernel of this host sees its connection.
/// Look right after the verdict, before the socket is closed.
///
/// A [`Heartbeat`](crate::Heartbeat) over a socket does so by itself, and
/// [`Death::diagnosis`] has the answer. This function is for programs that drive a
/// [`Monitor`](heartbeat_core::Monitor) themselves.
///
/// [`Unknown`](Diagnosis::Unknown) if the cause isn't silence ([`Cause::Silent`],
/// [`Cause::WriteStalled`]), because other causes explain themselves, and always on systems
/// other than Linux and Android. [`TcpInfo::diagnose`] has the rules.
///
/// ```no_run
/// # fn example(mut death: heartbeat_core::Death, socket: &std::net::TcpStream) {
/// use heartbeat_tokio::safety_net;
///
/// death.diagnosis = safety_net::diagnose(&death, socket);
/// println!("{death}"); // "silent for 800ms, 3 beats missed: the peer's application hangs"
/// # }
/// ```
#[must_use]
pub fn diagnose<D>(death: &Death<D>, socket: &impl AsSocketHandle) -> Diagnosis {
    TcpInfo::of(socket).map_or(Diagnosis::Unknown, |info| {
        diagnose_since(death, None, &info)
    })
}

/// The same, with the kernel's counters at the first late beat, if there are any: earlier
/// losses don't count then.
pub(crate) fn diagnose_since<D>(
    death: &Death<D>,
    suspected: Option<&TcpInfo>,
    info: &TcpInfo,
) -> Diagnosis {
    if !matches!(death.cause, Cause::Silent | Cause::WriteStalled) {
        return Diagnosis::Unknown;
    }
    match info.diagnose_since(suspected, death.silent_for) {
        // One answer may have been lost, and not have been repeated in time.
        Diagnosis::AppHung if death.missed < 2 => Diagnosis::Unknown,
        diagnosis => diagnosis,
    }
}

/// The number of retransmissions lost in a row that proves a dead path, where packets
/// were lost before. With a fifth of the packets lost each way, one segment in a thousand
/// is lost as often.
const REPEATS_WHERE_PACKETS_GET_LOST: u8 = 6;

/// A path that lost less than one in this number of segments counts as one that loses
/// none.
const ONE_IN: u32 = 100;

impl TcpInfo {
    /// The diagnosis of a peer that was pinged and has been silent for `silent_for`.
    ///
    /// It claims only what the counters prove. They show one end of a connection, and lost
    /// packets look different there each time. On a path that has never lost a packet of ours,
    /// a peer whose answers are all lost looks like one that hangs.
    ///
    /// | the kernel's counters | diagnosis |
    /// |---|---|
    /// | the peer's kernel has said in the silence that it has no room | [`PeerNotReading`](Diagnosis::PeerNotReading) |
    /// | it had no room, and two probes or more are unanswered | [`PathDead`](Diagnosis::PathDead) ¹ |
    /// | data was repeated, the repetition left this host, and nothing arrived in the silence, not even an acknowledgement | [`PathDead`](Diagnosis::PathDead) ¹ |
    /// | the same, and what arrived acknowledged nothing that was sent in the silence ² | [`PathDead`](Diagnosis::PathDead) ¹ |
    /// | nothing waits, but two probes of keepalive or more are unanswered | [`PathDead`](Diagnosis::PathDead) ¹ |
    /// | all that was sent is acknowledged in the silence, nothing had to be repeated, and nothing arrived out of order | [`AppHung`](Diagnosis::AppHung) |
    /// | none of these: too early, packets get lost, a firewall on this host, nothing was sent, or an old kernel | [`Unknown`](Diagnosis::Unknown) |
    ///
    /// ¹ On a path that lost one segment in a hundred or more before, only
    /// after six repetitions or probes.
    ///
    /// ² Only [`diagnose_since`](Self::diagnose_since) can tell.
    #[must_use]
    pub fn diagnose(&self, silent_for: Duration) -> Diagnosis {
        self.diagnose_since(None, silent_for)
    }

    /// The same, with the counters at the first late beat of this silence. On a connection that
    /// hardly lost any packets, earlier retransmissions and reordering then don't count.
    #[must_use]
    pub fn diagnose_since(&self, suspected: Option<&Self>, silent_for: Duration) -> Diagnosis {
        // An acknowledgement may follow the last data of a path that is cut
        // right then; a while into the silence it can't.
        let answers = self.last_ack_received < silent_for / 4 * 3;

        if self.is_window_closed() {
            if answers {
                Diagnosis::PeerNotReading
            } else {
                self.dead_after(self.probes, 2)
            }
        } else if self.has_unacknowledged() {
            // A repetition that our own firewall drops is none.
            if self.repeated == 0 {
                Diagnosis::Unknown
            } else if answers && !self.is_unmoved(suspected) {
                self.dead_after(self.retransmits, REPEATS_WHERE_PACKETS_GET_LOST)
            } else {
                self.dead_after(self.retransmits, 1)
            }
        } else if self.unsent != Some(0) {
            // Not sent at all, although the peer has room.
            Diagnosis::Unknown
        } else if self.probes > 1 {
            self.dead_after(self.probes, 2)
        } else if answers && self.last_data_sent < silent_for && self.is_undisturbed(suspected) {
            Diagnosis::AppHung
        } else {
            Diagnosis::Unknown
        }
    }

    /// A dead path after `enough` unanswered retransmissions or probes, unless the path
    /// merely loses packets.
    fn dead_after(&self, repeats: u8, enough: u8) -> Diagnosis {
        // One more than the timer sent is sent as a probe for a lost tail.
        let before = self
            .total_repeated
            .saturating_sub(u32::from(self.retransmits) + 1);
        let loses =
            self.is_many(before) || self.out_of_order.is_some_and(|late| self.is_many(late));
        if repeats >= REPEATS_WHERE_PACKETS_GET_LOST || (repeats >= enough && !loses) {
            Diagnosis::PathDead
        } else {
            Diagnosis::Unknown
        }
    }

    /// Whether nothing that we sent in this silence was acknowledged, although
    /// packets arrive: they are the peer's own repetitions, by a path that is
    /// cut in one direction.
    fn is_unmoved(&self, suspected: Option<&Self>) -> bool {
        suspected.is_some_and(|then| {
            then.has_unacknowledged() && then.bytes_acknowledged == self.bytes_acknowledged
        })
    }

    /// Whether no packet seems to have been lost either way since the first
    /// late beat, and hardly any before.
    fn is_undisturbed(&self, suspected: Option<&Self>) -> bool {
        let (Some(disordered), Some(acknowledged)) = (self.out_of_order, self.bytes_acknowledged)
        else {
            return false;
        };
        let Some(then) = suspected else {
            return self.total_repeated == 0 && disordered == 0;
        };
        let hardly_any = !self.is_many(self.total_repeated) && !self.is_many(disordered);
        hardly_any
            && self.total_repeated == then.total_repeated
            && Some(disordered) == then.out_of_order
            // A ping that left since then was.
            && then.bytes_acknowledged.is_some_and(|then| then < acknowledged)
    }

    /// Whether `segments` is a hundredth or more of the segments sent.
    fn is_many(&self, segments: u32) -> bool {
        let sent = self.data_segments_sent.unwrap_or(0);
        segments > sent / ONE_IN
    }
}
