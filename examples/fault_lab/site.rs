//! Where a fault is made: on this machine alone, or on a network of its own.
//! How the network breaks is decided here; with which commands, in
//! `network.rs`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use crate::scenarios::Fault;

#[cfg(target_os = "linux")]
pub use linux::{Site, available, become_root};

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        sync::{Arc, Mutex, PoisonError},
        time::Duration,
    };

    pub use heartbeat_examples::process::become_root;
    use heartbeat_examples::{
        network::{LEFT, Network, RIGHT},
        relay::{Line, Relay},
    };

    use super::{Fault, IpAddr, Ipv4Addr, io};

    /// See the [module](super).
    pub enum Site {
        Loopback,
        /// We are on the left, the peer is on the right.
        Network(Arc<Mutex<Broken>>),
    }

    pub struct Broken {
        network: Network,
        /// Works for as long as it is kept.
        relay: Option<Relay>,
    }

    /// Whether a network can be made, and with it a bad line; if not, why.
    pub fn available() -> io::Result<io::Result<()>> {
        let network = Network::new()?;
        Ok(Relay::is_possible(&network))
    }

    impl Site {
        pub fn loopback() -> Self {
            Self::Loopback
        }

        pub fn network(fault: Fault) -> io::Result<Self> {
            let network = Network::new()?;
            let start = |line| Relay::start(&network, line);
            let relay = line(fault).map(start).transpose()?;
            Ok(Self::Network(Arc::new(Mutex::new(Broken {
                network,
                relay,
            }))))
        }

        pub fn our_address(&self) -> IpAddr {
            match self {
                Self::Loopback => Ipv4Addr::LOCALHOST.into(),
                Self::Network(_) => LEFT,
            }
        }

        /// Moves the calling thread.
        pub fn move_to_ours(&self) -> io::Result<()> {
            self.now(|broken| broken.network.left.move_in())
        }

        /// Moves the calling thread.
        pub fn move_to_theirs(&self) -> io::Result<()> {
            self.now(|broken| broken.network.right.move_in())
        }

        pub async fn break_network(&self, fault: Fault) -> io::Result<()> {
            self.change(move |broken| broken.break_by(fault)).await
        }

        pub async fn mend_network(&self) -> io::Result<()> {
            self.change(|broken| {
                broken.network.mend_towards(LEFT)?;
                broken.network.mend_towards(RIGHT)
            })
            .await
        }

        pub async fn replace_their_host(&self) -> io::Result<()> {
            self.change(|broken| broken.network.replace_right()).await
        }

        /// Beside the detectors, which have to keep their times.
        async fn change(
            &self,
            change: impl FnOnce(&mut Broken) -> io::Result<()> + Send + 'static,
        ) -> io::Result<()> {
            let Self::Network(broken) = self else {
                return Ok(());
            };
            let broken = broken.clone();
            let changing =
                move || change(&mut broken.lock().unwrap_or_else(PoisonError::into_inner));
            tokio::task::spawn_blocking(changing).await?
        }

        fn now(&self, look: impl FnOnce(&mut Broken) -> io::Result<()>) -> io::Result<()> {
            match self {
                Self::Loopback => Ok(()),
                Self::Network(broken) => {
                    look(&mut broken.lock().unwrap_or_else(PoisonError::into_inner))
                }
            }
        }
    }

    impl Broken {
        fn break_by(&mut self, fault: Fault) -> io::Result<()> {
            match fault {
                Fault::CableCut | Fault::HostReboot => self.network.unplug_right(),
                Fault::CarrierLost => self.network.unplug_left(),
                Fault::DropOutbound => self.network.cut_towards(RIGHT),
                Fault::DropInbound => self.network.cut_towards(LEFT),
                Fault::RouterRejects => {
                    self.network.reject_towards(RIGHT)?;
                    self.network.reject_towards(LEFT)
                }
                Fault::HostAsleep => {
                    self.network.cut_towards(RIGHT)?;
                    self.network.cut_towards(LEFT)
                }
                Fault::Loss => {
                    if let Some(relay) = &self.relay {
                        relay.lose();
                    }
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    }

    /// The line that a connection is made over already, so that TCP knows it.
    fn line(fault: Fault) -> Option<Line> {
        let line = |delay, loss| Line {
            delay: Duration::from_millis(delay),
            jitter: Duration::ZERO,
            loss,
        };
        match fault {
            Fault::Delay => Some(line(200, 0.0)),
            // At a tenth one run in twenty ends by silence, as three losses in a row do at 3 s.
            Fault::Loss => Some(line(100, 0.05)),
            _ => None,
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{Site, available, become_root};

/// Network namespaces are Linux'.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::{Fault, IpAddr, Ipv4Addr, io};

    /// See the [module](super).
    pub struct Site(());

    pub fn available() -> io::Result<io::Result<()>> {
        Err(io::Error::other("only Linux has network namespaces"))
    }

    pub fn become_root() {}

    impl Site {
        pub fn loopback() -> Self {
            Self(())
        }

        pub fn network(_: Fault) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub fn our_address(&self) -> IpAddr {
            Ipv4Addr::LOCALHOST.into()
        }

        pub fn move_to_ours(&self) -> io::Result<()> {
            Ok(())
        }

        pub fn move_to_theirs(&self) -> io::Result<()> {
            Ok(())
        }

        pub async fn break_network(&self, _: Fault) -> io::Result<()> {
            Ok(())
        }

        pub async fn mend_network(&self) -> io::Result<()> {
            Ok(())
        }

        pub async fn replace_their_host(&self) -> io::Result<()> {
            Ok(())
        }
    }
}
