//! The faults: which there are, where they are made and how, and what a
//! heartbeat has to say of each.
//!
//! This module decides which result is right. `lab.rs` on our side and `peer.rs` on the other
//! make the faults.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// How long a host sleeps.
const SLEEP: Duration = Duration::from_secs(8);

/// How long a host takes to come back without its memory.
const REBOOT: Duration = Duration::from_millis(1100);

/// What goes wrong between us and the peer, or only seems to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Fault {
    /// The peer says goodbye, if it knows how to, and closes
    Goodbye,
    /// The peer closes without a word
    Close,
    /// The peer closes while something of ours is unread
    CloseUnread,
    /// The peer closes its direction, and goes on reading
    HalfClose,
    /// The peer's process is killed
    Sigkill,
    /// The peer's process is stopped: its kernel goes on acknowledging
    Sigstop,
    /// The peer's runtime is blocked for ever
    Hang,
    /// The peer resets the connection
    Reset,
    /// The peer reads no more while we send
    StopsReading,
    /// Alive: the peer reads far more slowly than we send
    SlowPeer,
    /// Alive: the peer works for long between two messages
    BusyPeer,
    /// The cable between the router and the peer is cut
    CableCut,
    /// What we send is dropped silently
    DropOutbound,
    /// What the peer sends is dropped silently
    DropInbound,
    /// Our own link has no carrier
    CarrierLost,
    /// The peer's host loses power, and is back after 1.1 s
    HostReboot,
    /// The router answers both hosts that there is no such host
    RouterRejects,
    /// The peer's host sleeps for 8 s, and goes on
    HostAsleep,
    /// Alive: 200 ms each way
    Delay,
    /// Alive: a twentieth of all packets is lost, 100 ms each way
    Loss,
}

/// What a fault takes to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Two processes.
    Loopback,
    /// Two hosts and a router.
    Network,
}

/// The maker of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The peer, when it is told to.
    Peer,
    /// A signal to the peer's process.
    Signal,
    /// The network in between.
    Network,
}

/// What a heartbeat has to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A verdict within the budget: one of these, and this diagnosis if it is
    /// silence.
    End(&'static [&'static str], Option<&'static str>),
    /// No verdict.
    Alive,
    /// Too close to say.
    Either,
}

impl Fault {
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// As it is written on the command line and in files.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub fn place(self) -> Place {
        match self.maker() {
            Maker::Network => Place::Network,
            Maker::Peer | Maker::Signal => Place::Loopback,
        }
    }

    pub fn maker(self) -> Maker {
        match self {
            Self::Goodbye
            | Self::Close
            | Self::CloseUnread
            | Self::HalfClose
            | Self::Hang
            | Self::Reset
            | Self::StopsReading
            | Self::SlowPeer
            | Self::BusyPeer => Maker::Peer,
            Self::Sigkill | Self::Sigstop => Maker::Signal,
            Self::CableCut
            | Self::DropOutbound
            | Self::DropInbound
            | Self::CarrierLost
            | Self::HostReboot
            | Self::RouterRejects
            | Self::HostAsleep
            | Self::Delay
            | Self::Loss => Maker::Network,
        }
    }

    /// Whether we send all the time. In all others the connections are idle,
    /// except for what a detector itself sends.
    pub fn we_send(self) -> bool {
        matches!(self, Self::StopsReading | Self::SlowPeer)
    }

    /// When the peer's host is back, if it comes back.
    pub fn comes_back_after(self) -> Option<Duration> {
        match self {
            Self::HostReboot => Some(REBOOT),
            Self::HostAsleep => Some(SLEEP),
            _ => None,
        }
    }

    /// The time without any alarm after which an entry is "never".
    pub fn observe_for(self, budget: Duration) -> Duration {
        match self {
            // A detector that the sleep fools has raised its alarm by then.
            Self::HostAsleep => SLEEP + budget,
            _ => 3 * budget,
        }
    }

    /// What a heartbeat has to say that must know of a death within `budget`.
    pub fn expected(self, budget: Duration) -> Expected {
        use Expected::{Alive, Either, End};
        match self {
            Self::Goodbye => End(&["Closed"], None),
            // A reset, if a ping was on its way.
            Self::Close | Self::Sigkill => End(&["Eof", "Reset"], None),
            Self::HalfClose => End(&["Eof"], None),
            Self::CloseUnread | Self::Reset => End(&["Reset"], None),
            Self::Sigstop | Self::Hang => End(&["Silent"], Some("AppHung")),
            // Which of them depends on how full the buffers are.
            Self::StopsReading => End(&["Silent", "WriteStalled"], Some("PeerNotReading")),
            // To TCP this looks like a firewall of our own, so that a diagnosis
            // may say that it doesn't know.
            Self::CarrierLost => End(&["Silent"], None),
            Self::CableCut | Self::DropInbound | Self::RouterRejects => {
                End(&["Silent"], Some("PathDead"))
            }
            // The peer hears nothing either, and what it says of that arrives.
            Self::DropOutbound => End(&["Silent", "GivenUp", "Reset"], Some("PathDead")),
            // Lost data is repeated once the host is back.
            Self::HostReboot if budget > 2 * REBOOT => End(&["Reset"], None),
            Self::HostReboot => End(&["Reset", "Silent"], Some("PathDead")),
            Self::HostAsleep if budget < SLEEP => End(&["Silent"], Some("PathDead")),
            // It may fall asleep a whole interval after it was last heard. TCP
            // doubles its waits, and may be silent for as long again.
            Self::HostAsleep if after_an_interval(budget) < 2 * SLEEP => Either,
            Self::HostAsleep | Self::SlowPeer | Self::BusyPeer | Self::Delay | Self::Loss => Alive,
        }
    }
}

/// What is left of the budget when the first ping is sent: three timeouts, as
/// `Config::detect_within` divides it.
fn after_an_interval(budget: Duration) -> Duration {
    budget * 9 / 14
}
