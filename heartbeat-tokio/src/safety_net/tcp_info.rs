//! The kernel's data about a TCP connection, and its layout. `diagnosis.rs` interprets it.

use std::{io, time::Duration};

use heartbeat_core::Cause;

use super::AsSocketHandle;

/// Some of the kernel's data about a TCP connection (`TCP_INFO`).
///
/// Times are ages in whole milliseconds, no finer than the kernel's tick (1 to 10 ms).
///
/// ```
/// # use heartbeat_tokio::safety_net::TcpInfo;
/// # use tokio::net::{TcpListener, TcpStream};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let stream = TcpStream::connect(listener.local_addr()?).await?;
/// # if cfg!(any(target_os = "linux", target_os = "android")) {
/// let info = TcpInfo::of(&stream)?;
/// println!("acknowledged {:?} ago", info.last_ack_received);
/// assert!(!info.has_unacknowledged());
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive] // the kernel knows more
pub struct TcpInfo {
    /// Since the peer's kernel last sent anything that acknowledges: an
    /// acknowledgement, an answer to a probe, data. It does so also for a
    /// process that is stopped.
    pub last_ack_received: Duration,
    /// Since we last sent data, repetitions included.
    pub last_data_sent: Duration,
    /// Since data last arrived from the peer.
    pub last_data_received: Duration,
    /// Segments sent and not acknowledged.
    pub unacknowledged: u32,
    /// Segments of these that were repeated, and the repetition left this
    /// host's network stack: what a firewall of our own drops doesn't count.
    pub repeated: u32,
    /// Repetitions since the connection began.
    pub total_repeated: u32,
    /// Segments with data sent since the connection began, repetitions
    /// included. `None` before Linux 4.6.
    pub data_segments_sent: Option<u32>,
    /// Segments with data that arrived before something that had been sent
    /// before them, since the connection began. `None` before Linux 5.4.
    pub out_of_order: Option<u32>,
    /// Bytes that were acknowledged since the connection began. `None` before
    /// Linux 4.1.
    pub bytes_acknowledged: Option<u64>,
    /// Bytes that arrived in order since the connection began. `None` before Linux 4.1.
    pub bytes_received: Option<u64>,
    /// Bytes sent since the connection began, repetitions included. `None` before
    /// Linux 4.19.
    pub bytes_sent: Option<u64>,
    /// Bytes of these that were repeated. `None` before Linux 4.19.
    pub bytes_repeated: Option<u64>,
    /// The most bytes that we send in one segment.
    pub segment_size: u32,
    /// Bytes that were written and not even sent, because the peer has no room
    /// for them or the network is busy. `None` before Linux 4.6.
    pub unsent: Option<u32>,
    /// The peer's receive window, in bytes. `None` before Linux 5.4.
    pub send_window: Option<u32>,
    /// Retransmissions in a row of the oldest unacknowledged segment after its timeout.
    pub retransmits: u8,
    /// Unanswered probes in a row: of keepalive, or whether a full peer has
    /// room again.
    pub probes: u8,
    /// Doublings in a row of the time between retransmissions or probes. Probes that are
    /// answered count here too.
    pub backoff: u8,
    /// The current retransmission timeout.
    pub retransmit_timeout: Duration,
    /// The smoothed round trip between the two kernels.
    pub round_trip: Duration,
}

impl TcpInfo {
    /// Asks the kernel. A system call of a microsecond or so; it never waits.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) on systems other than Linux
    /// and Android; the kernel's error if it is no TCP socket.
    pub fn of(socket: &impl AsSocketHandle) -> io::Result<Self> {
        Self::ask(socket)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn ask(socket: &impl AsSocketHandle) -> io::Result<Self> {
        let (answer, length) =
            super::sockopt::get::<{ layout::LENGTH }>(socket.as_fd(), libc::TCP_INFO)?;
        let known = answer.get(..length).unwrap_or_default();
        layout::parse(known).ok_or(io::ErrorKind::InvalidData.into())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn ask(_: &impl AsSocketHandle) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether the peer's kernel owes us an acknowledgement.
    #[must_use]
    pub const fn has_unacknowledged(&self) -> bool {
        self.unacknowledged > 0
    }

    /// Whether a byte ever arrived, or the kernel doesn't say. It counts the stream's end as one.
    pub(crate) fn was_heard(&self, cause: Cause) -> bool {
        let end = u64::from(matches!(cause, Cause::Eof | Cause::Reset));
        self.bytes_received.is_none_or(|received| received > end)
    }

    /// All bytes that were ever written, sent or not. `None` before Linux 4.19.
    pub(crate) fn written(&self) -> Option<u64> {
        let sent = self.bytes_sent?.saturating_sub(self.bytes_repeated?);
        Some(sent + u64::from(self.unsent?))
    }

    /// Whether bytes wait here because the peer has no room, according to the last window that
    /// its kernel sent.
    ///
    /// Waiting bytes with nothing in flight don't prove it: a firewall on this host has the same
    /// effect. `false` before Linux 5.4, which doesn't report
    /// [`send_window`](Self::send_window).
    #[must_use]
    pub fn is_window_closed(&self) -> bool {
        let waits = self.unsent.is_some_and(|unsent| unsent > 0);
        let full = self
            .send_window
            .is_some_and(|window| window == 0 || window < self.segment_size);
        waits && full && !self.has_unacknowledged()
    }
}

/// The offsets in Linux' `struct tcp_info` (`linux/tcp.h`). It only grows at its end, so an
/// older kernel's is shorter.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod layout {
    use std::time::Duration;

    use super::TcpInfo;

    // ```text
    //   0 state, ca_state, retransmits, probes, backoff, options, scales, flags
    //   8 rto, ato, snd_mss, rcv_mss
    //  24 unacked, sacked, lost, retrans, fackets
    //  44 last_data_sent, last_ack_sent, last_data_recv, last_ack_recv
    //  60 pmtu, rcv_ssthresh, rtt, rttvar, snd_ssthresh, snd_cwnd, advmss, reordering
    //  92 rcv_rtt, rcv_space, total_retrans
    // 104 pacing_rate, max_pacing_rate, bytes_acked, bytes_received (8 bytes each)
    // 136 segs_out, segs_in, notsent_bytes, min_rtt, data_segs_in, data_segs_out
    // 160 delivery_rate, busy_time, rwnd_limited, sndbuf_limited (8 bytes each)
    // 192 delivered, delivered_ce
    // 200 bytes_sent, bytes_retrans (8 bytes each)
    // 216 dsack_dups, reord_seen, rcv_ooopack, snd_wnd
    // ```
    const RETRANSMITS: usize = 2;
    const PROBES: usize = 3;
    const BACKOFF: usize = 4;
    const RTO: usize = 8;
    const SND_MSS: usize = 16;
    const UNACKED: usize = 24;
    const RETRANS: usize = 36;
    const LAST_DATA_SENT: usize = 44;
    const LAST_DATA_RECV: usize = 52;
    const LAST_ACK_RECV: usize = 56;
    const RTT: usize = 68;
    const TOTAL_RETRANS: usize = 100;
    const BYTES_ACKED: usize = 120;
    const BYTES_RECEIVED: usize = 128;
    const NOTSENT_BYTES: usize = 144;
    const DATA_SEGS_OUT: usize = 156;
    const BYTES_SENT: usize = 200;
    const BYTES_RETRANS: usize = 208;
    const RCV_OOOPACK: usize = 224;
    const SND_WND: usize = 228;

    /// Decodes the fields that we need.
    pub(super) const LENGTH: usize = SND_WND + 4;

    /// `None` if not even the oldest part is there.
    pub(super) fn parse(info: &[u8]) -> Option<TcpInfo> {
        let byte = |at: usize| info.get(at).copied();
        let word = |at: usize| {
            let bytes = info.get(at..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let long = |at: usize| {
            let bytes = info.get(at..)?.first_chunk()?;
            Some(u64::from_ne_bytes(*bytes))
        };
        let millis = |at| Some(Duration::from_millis(word(at)?.into()));
        let micros = |at| Some(Duration::from_micros(word(at)?.into()));
        Some(TcpInfo {
            last_ack_received: millis(LAST_ACK_RECV)?,
            last_data_sent: millis(LAST_DATA_SENT)?,
            last_data_received: millis(LAST_DATA_RECV)?,
            unacknowledged: word(UNACKED)?,
            repeated: word(RETRANS)?,
            total_repeated: word(TOTAL_RETRANS)?,
            data_segments_sent: word(DATA_SEGS_OUT),
            out_of_order: word(RCV_OOOPACK),
            bytes_acknowledged: long(BYTES_ACKED),
            bytes_received: long(BYTES_RECEIVED),
            bytes_sent: long(BYTES_SENT),
            bytes_repeated: long(BYTES_RETRANS),
            segment_size: word(SND_MSS)?,
            unsent: word(NOTSENT_BYTES),
            send_window: word(SND_WND),
            retransmits: byte(RETRANSMITS)?,
            probes: byte(PROBES)?,
            backoff: byte(BACKOFF)?,
            retransmit_timeout: micros(RTO)?,
            round_trip: micros(RTT)?,
        })
    }

    #[cfg(all(test, target_env = "gnu"))]
    mod tests {
        use std::mem::offset_of;

        use libc::tcp_info;

        use super::*;

        #[test]
        fn the_layout_is_the_c_librarys() {
            assert_eq!(RETRANSMITS, offset_of!(tcp_info, tcpi_retransmits));
            assert_eq!(PROBES, offset_of!(tcp_info, tcpi_probes));
            assert_eq!(BACKOFF, offset_of!(tcp_info, tcpi_backoff));
            assert_eq!(RTO, offset_of!(tcp_info, tcpi_rto));
            assert_eq!(SND_MSS, offset_of!(tcp_info, tcpi_snd_mss));
            assert_eq!(UNACKED, offset_of!(tcp_info, tcpi_unacked));
            assert_eq!(RETRANS, offset_of!(tcp_info, tcpi_retrans));
            assert_eq!(TOTAL_RETRANS, offset_of!(tcp_info, tcpi_total_retrans));
            assert_eq!(BYTES_ACKED, offset_of!(tcp_info, tcpi_bytes_acked));
            assert_eq!(BYTES_RECEIVED, offset_of!(tcp_info, tcpi_bytes_received));
            assert_eq!(BYTES_SENT, offset_of!(tcp_info, tcpi_bytes_sent));
            assert_eq!(BYTES_RETRANS, offset_of!(tcp_info, tcpi_bytes_retrans));
            assert_eq!(DATA_SEGS_OUT, offset_of!(tcp_info, tcpi_data_segs_out));
            assert_eq!(RCV_OOOPACK, offset_of!(tcp_info, tcpi_rcv_ooopack));
            assert_eq!(LAST_DATA_SENT, offset_of!(tcp_info, tcpi_last_data_sent));
            assert_eq!(LAST_DATA_RECV, offset_of!(tcp_info, tcpi_last_data_recv));
            assert_eq!(LAST_ACK_RECV, offset_of!(tcp_info, tcpi_last_ack_recv));
            assert_eq!(RTT, offset_of!(tcp_info, tcpi_rtt));
            assert_eq!(NOTSENT_BYTES, offset_of!(tcp_info, tcpi_notsent_bytes));
            assert_eq!(SND_WND, offset_of!(tcp_info, tcpi_snd_wnd));
        }

        #[test]
        fn an_older_kernels_is_shorter() {
            let info = [1; LENGTH];
            let parsed = |length: usize| parse(info.get(..length)?);
            assert_eq!(parsed(LENGTH).unwrap().send_window, Some(0x0101_0101));
            let older = parsed(LENGTH - 1).unwrap();
            assert_eq!((older.send_window, older.unsent), (None, Some(0x0101_0101)));
            let oldest = parsed(TOTAL_RETRANS + 4).unwrap();
            assert_eq!((oldest.unacknowledged, oldest.unsent), (0x0101_0101, None));
            assert_eq!(parsed(TOTAL_RETRANS + 3), None);
            assert_eq!(parsed(0), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_stream_is_no_byte_that_was_heard() {
        let was_heard = |bytes_received, cause| {
            let info = TcpInfo {
                bytes_received,
                ..TcpInfo::default()
            };
            info.was_heard(cause)
        };
        for cause in [Cause::Silent, Cause::TimedOut] {
            assert!(!was_heard(Some(0), cause));
            assert!(was_heard(Some(1), cause));
        }
        for end in [Cause::Eof, Cause::Reset] {
            assert!(!was_heard(Some(1), end));
            assert!(was_heard(Some(2), end));
        }
        assert!(was_heard(None, Cause::Silent), "the kernel doesn't say");
    }

    #[test]
    fn what_was_written_is_sent_once_or_waits() {
        let info = TcpInfo {
            bytes_sent: Some(1000),
            bytes_repeated: Some(100),
            unsent: Some(50),
            ..TcpInfo::default()
        };
        assert_eq!(info.written(), Some(950));
        let older = TcpInfo {
            bytes_sent: None,
            ..info
        };
        assert_eq!(older.written(), None);
    }
}
