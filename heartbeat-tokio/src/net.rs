//! The safety net below one connection.
//!
//! This module decides when the socket options of a [`Heartbeat`](crate::Heartbeat) are set
//! and when the kernel is queried, if there is a socket. [`safety_net`] and the monitor
//! interpret its answers.

#[cfg(any(feature = "metrics", feature = "tracing"))]
use std::net::SocketAddr;
use std::{any::Any, io, sync::OnceLock, time::Duration};

use heartbeat_core::{Config, Death, Diagnosis, Instant};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::safety_net::{self, Applied, Liveness, Pace, SafetyNet, Switches, TcpInfo};

mod progress;

use progress::Progress;
pub(crate) use progress::Taken;

/// Finds the socket below a stream.
pub(crate) type SocketOf<S> = fn(&S) -> Option<&TcpStream>;

/// The socket of a stream that is a socket.
pub(crate) fn itself<S: 'static>(stream: &S) -> Option<&TcpStream> {
    (stream as &dyn Any).downcast_ref()
}

/// Whether the kernel watches the connection too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be other ways to name the socket
pub enum NetStatus {
    /// The stream isn't a plain [`TcpStream`], and
    /// [`with_socket`](crate::Heartbeat::with_socket) didn't name its socket.
    NoSocket,
    /// The options were set, or not, as the report says.
    Applied(Applied),
}

/// What became of the options. It is the same for most connections of a process, and
/// larger than all the rest.
#[derive(Debug)]
enum Report {
    NoSocket,
    /// As for the first connection.
    Usual(&'static Applied),
    Other(Box<Applied>),
}

impl Report {
    fn of(applied: Applied) -> Self {
        static FIRST: OnceLock<Applied> = OnceLock::new();
        let first = FIRST.get_or_init(|| applied);
        match *first == applied {
            true => Self::Usual(first),
            false => Self::Other(Box::new(applied)),
        }
    }
}

/// The reason for a shorter retransmission limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hurry {
    No,
    /// A beat is late: from then to the next sign of life.
    Suspect,
    /// The peer's receive buffer is full, and acknowledgements count. Only window probes are
    /// repeated, because no data is in flight.
    NoRoom,
}

/// One connection's net.
#[derive(Debug)]
pub(crate) struct Net<S> {
    socket: SocketOf<S>,
    report: Report,
    /// A net chosen by hand instead of the derived one. Boxed, because it is large and rare.
    by_hand: Option<Box<SafetyNet>>,
    /// The socket's former values.
    switches: Switches,
    /// The retransmission limit, if there is one.
    pace: Pace,
    hurry: Hurry,
    /// The heartbeat's interval that a derived net follows.
    interval: Duration,
    /// The kernel's notes when the first beat of this silence was late, for the
    /// diagnosis.
    suspected: Option<Box<TcpInfo>>,
    /// The same at the verdict.
    at_end: Option<Box<TcpInfo>>,
    /// The progress of the kernels' counters. Boxed, because it is large and rare.
    progress: Option<Box<Progress>>,
    /// When to look at the socket during a pause.
    look_at: Instant,
}

impl<S> Net<S> {
    /// Spreads a net that suits the heartbeat's timings.
    pub(crate) fn derived(socket: SocketOf<S>, stream: &S, config: &Config) -> Self {
        let mut net = Self {
            socket,
            report: Report::NoSocket,
            by_hand: None,
            switches: Switches::default(),
            pace: Pace::of(config),
            hurry: Hurry::No,
            interval: config.interval(),
            suspected: None,
            at_end: None,
            progress: None,
            look_at: Instant::MAX,
        };
        net.spread(stream, config);
        net
    }

    /// Spreads this one instead.
    pub(crate) fn replace(&mut self, stream: &S, config: &Config, chosen: &SafetyNet) {
        self.by_hand = Some(Box::new(*chosen));
        self.spread(stream, config);
    }

    /// Spreads it below another socket.
    pub(crate) fn move_to(&mut self, socket: SocketOf<S>, stream: &S, config: &Config) {
        if let Some(socket) = (self.socket)(stream) {
            self.switches.restore(socket);
        }
        self.socket = socket;
        self.spread(stream, config);
    }

    fn spread(&mut self, stream: &S, config: &Config) {
        let derived = SafetyNet::from(config);
        let chosen = self.by_hand.as_deref().unwrap_or(&derived);
        self.pace = Pace::of(config);
        self.hurry = Hurry::No;
        self.suspected = None;
        self.report = match (self.socket)(stream) {
            Some(socket) => Report::of(chosen.apply_over(&mut self.switches, socket)),
            None => Report::NoSocket,
        };
    }

    /// Limits the time between retransmissions, or lifts the limit. A limit chosen by hand
    /// stays.
    fn hurry(&mut self, stream: &S, hurry: Hurry) {
        let before = std::mem::replace(&mut self.hurry, hurry);
        let is_chosen = |net: &SafetyNet| net.max_retransmit_timeout().is_some();
        if (before == Hurry::No) == (hurry == Hurry::No)
            || self.by_hand.as_deref().is_some_and(is_chosen)
        {
            return;
        }
        if let Some(socket) = (self.socket)(stream) {
            let limit = (hurry != Hurry::No).then(|| self.pace.limit().as_millis());
            // If it fails, an outage seems longer than it is.
            let _ = self.switches.max_retransmit_timeout.set(socket, limit);
        }
    }

    /// The interval was negotiated. The kernel's verdict has to come after ours, so it follows a
    /// longer detection time, and a shorter one again.
    pub(crate) fn adapt(&mut self, stream: &S, config: &Config, interval: Duration) {
        if interval != self.interval && self.by_hand.is_none() {
            if let Ok(negotiated) = config.to_builder().interval(interval).build() {
                self.interval = interval;
                self.spread(stream, &negotiated);
            }
        }
    }

    pub(crate) fn status(&self) -> NetStatus {
        match &self.report {
            Report::NoSocket => NetStatus::NoSocket,
            Report::Usual(applied) => NetStatus::Applied(**applied),
            Report::Other(applied) => NetStatus::Applied(**applied),
        }
    }

    /// Checks the socket, if there is one.
    pub(crate) fn check(&self, stream: &S) -> io::Result<Option<Liveness>> {
        (self.socket)(stream).map(safety_net::check).transpose()
    }

    /// How often to look at the socket during a pause.
    fn peek_interval(&self) -> Duration {
        let by_hand = self.by_hand.as_deref();
        by_hand.map_or(self.interval, SafetyNet::peek_interval)
    }

    /// Reading stops at `now`.
    pub(crate) fn begin_looking(&mut self, stream: &S, now: Instant) {
        if (self.socket)(stream).is_some() {
            self.look_at = now + self.peek_interval();
        }
        // The peer isn't judged from here on.
        self.suspected = None;
        self.hurry(stream, Hurry::No);
    }

    /// Reading resumes.
    pub(crate) fn end_looking(&mut self) {
        self.suspected = None;
        self.look_at = Instant::MAX;
    }

    /// When to look next.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        Some(self.look_at).filter(|&at| at < Instant::MAX)
    }

    /// During a pause, asks the kernel whether the peer is gone, as a read would show.
    pub(crate) fn is_gone(&mut self, stream: &S, now: Instant) -> bool {
        let Some(socket) = (self.socket)(stream).filter(|_| self.look_at <= now) else {
            return false;
        };
        self.look_at = now + self.peek_interval();
        safety_net::check(socket).is_ok_and(|liveness| liveness.is_gone())
    }

    /// When the peer's kernel last acknowledged something, if that is later than
    /// `heard_at`.
    pub(crate) fn acknowledged_at(
        &mut self,
        stream: &S,
        heard_at: Instant,
        now: Instant,
    ) -> Option<Instant> {
        let info = TcpInfo::of((self.socket)(stream)?).ok()?;
        if info.is_window_closed() {
            self.hurry(stream, Hurry::NoRoom);
        } else if self.hurry == Hurry::NoRoom {
            self.hurry(stream, Hurry::No);
        }
        progress::acknowledged_at(&info, heard_at, now)
    }

    // ---- progress --------------------------------------------------------

    fn info(&self, stream: &S) -> Option<TcpInfo> {
        TcpInfo::of((self.socket)(stream)?).ok()
    }

    fn progress(&mut self) -> &mut Progress {
        self.progress
            .get_or_insert_with(|| Box::new(Progress::new()))
    }

    /// A ping is queued, behind what waits in our own buffers if something does; see
    /// [`Progress::asks`].
    pub(crate) fn note_question(
        &mut self,
        stream: &S,
        is_oldest: bool,
        is_queued: bool,
        answers: u32,
    ) {
        let info = self.info(stream).filter(|_| is_oldest);
        self.progress()
            .asks(is_oldest, is_queued, answers, info.as_ref());
    }

    /// It has left for our kernel.
    pub(crate) fn note_asked(&mut self, stream: &S) {
        let info = self.info(stream);
        if let Some(progress) = &mut self.progress {
            progress.has_asked(info.as_ref());
        }
    }

    /// The progress in the peer's kernel since the last call, and the time since its last
    /// acknowledgement. `answers` pings were answered.
    pub(crate) fn taken(&mut self, stream: &S, answers: u32) -> Option<(Taken, Duration)> {
        let info = self.info(stream)?;
        let taken = self.progress.as_mut()?.look(&info, answers);
        Some((taken, info.last_ack_received))
    }

    /// The number of bytes that arrived below the stream without a read above, and the time
    /// since the last one; none if the stream is the socket itself.
    pub(crate) fn arrived_below(
        &mut self,
        stream: &S,
        reads: u32,
        most: u64,
    ) -> Option<(u64, Duration)> {
        let socket = (self.socket)(stream)?;
        // A wrapper may begin with its socket.
        let is_bare = std::ptr::addr_eq(socket, stream) && size_of::<S>() == size_of::<TcpStream>();
        if is_bare {
            return None;
        }
        let info = TcpInfo::of(socket).ok()?;
        let arrived = self.progress().below(&info, reads, most);
        Some((arrived, info.last_data_received))
    }

    /// The address of the peer, if there is one.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(crate) fn peer_addr(&self, stream: &S) -> Option<SocketAddr> {
        (self.socket)(stream)?.peer_addr().ok()
    }

    /// A beat is late. At the first one of a silence the kernel's counters are kept for the
    /// diagnosis.
    pub(crate) fn note_suspicion(&mut self, stream: &S) {
        if self.suspected.is_none() {
            let info = (self.socket)(stream).and_then(|socket| TcpInfo::of(socket).ok());
            if self.hurry == Hurry::No && info.is_some_and(|info| self.pace.is_safe(&info)) {
                self.hurry(stream, Hurry::Suspect);
            }
            self.suspected = info.map(Box::new);
        }
    }

    /// The silence is over.
    pub(crate) fn forget_suspicion(&mut self, stream: &S) {
        self.suspected = None;
        if self.hurry == Hurry::Suspect {
            self.hurry(stream, Hurry::No);
        }
    }

    /// The caller takes the stream: restores the kernel's own retransmission limit.
    pub(crate) fn calm(&mut self, stream: &S) {
        self.hurry(stream, Hurry::No);
    }

    /// A pong came, and we have nothing to send. It is acknowledged now. Otherwise the kernel
    /// would acknowledge the peer's next ping in a packet of its own, before our pong.
    pub(crate) fn acknowledge(&self, stream: &S) {
        if let Some(socket) = (self.socket)(stream) {
            safety_net::acknowledge(socket);
        }
    }

    /// A verdict is about to be sent. That changes the kernel's counters, so they are kept for
    /// the diagnosis. The goodbye must leave at once: with Nagle's algorithm it would wait for
    /// an acknowledgement, and a reset would overtake it.
    pub(crate) fn prepare_end(&mut self, stream: &S) {
        if let Some(socket) = (self.socket)(stream) {
            self.at_end = TcpInfo::of(socket).ok().map(Box::new);
            // If it fails, the peer may not be told.
            let _ = socket.set_nodelay(true);
        }
    }

    /// Adds the diagnosis to a death, and whether anything arrived. If the peer's last frame
    /// is incomplete, the peer was sending, and the fate of the rest is unknown.
    pub(crate) fn diagnose(&self, stream: Option<&S>, death: &mut Death, broken_off: bool) {
        let before_the_end = self.at_end.as_deref().copied();
        let info = before_the_end.or_else(|| self.info(stream?));
        death.was_heard = info.is_none_or(|info| info.was_heard(death.cause));
        let Some(at_end) = &self.at_end else {
            return;
        };
        let suspected = self.suspected.as_deref();
        death.diagnosis = match safety_net::diagnose_since(death, suspected, at_end) {
            Diagnosis::AppHung if broken_off => Diagnosis::Unknown,
            Diagnosis::AppHung | Diagnosis::PeerNotReading if self.goes_on(at_end) => {
                Diagnosis::Unknown
            }
            diagnosis => diagnosis,
        };
    }

    /// Whether bytes arrived, or data of ours ahead of a ping was acknowledged, since the last
    /// call. Then the state of the application is unknown.
    fn goes_on(&self, at_end: &TcpInfo) -> bool {
        let progress = self.progress.as_deref();
        progress.is_some_and(|progress| progress.goes_on(at_end))
    }

    /// The stream is about to be dropped: as a reset, if it has a socket, so that
    /// nothing unsent stays in the kernel.
    pub(crate) fn reset(&self, stream: &S) {
        if let Some(socket) = (self.socket)(stream) {
            // If it fails, the kernel closes in order and keeps unsent data.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "how a test fails")]
mod tests;
