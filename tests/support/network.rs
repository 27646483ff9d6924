//! Two hosts with a router in between, in network namespaces that leave no
//! trace: they have no names and no processes, and are gone when the last who
//! uses them is, be that by a failed test or a killed one.
//!
//! ```text
//! left 10.77.0.1 ── 10.77.0.254 router 10.77.1.254 ── 10.77.1.1 right
//! ```
//!
//! The router drops silently. (What a host itself drops on its way out its own
//! TCP takes for congestion, and not for loss.)

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd},
    process::{self, Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The address of the left host.
pub const LEFT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// The address of the right host.
pub const RIGHT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1));

/// See the [module](self).
#[derive(Debug)]
pub struct Network {
    /// Has the address [`LEFT`].
    pub left: Host,
    /// Has the address [`RIGHT`].
    pub right: Host,
    router: Host,
}

impl Network {
    /// Makes one. It takes root, `ip` and `unshare`.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn new() -> io::Result<Self> {
        let network = Self {
            left: Host::new()?,
            right: Host::new()?,
            router: Host::new()?,
        };
        network.router.link("0", &network.left)?;
        network.router.link("1", &network.right)?;
        network
            .router
            .enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
        Ok(network)
    }

    /// As [`new`](Self::new); where it can't be made, says so for all to see.
    ///
    /// # Panics
    ///
    /// If it can't be made and `HEARTBEAT_NAMESPACES=required` is set.
    #[must_use]
    pub fn or_skip(test: &str) -> Option<Self> {
        let made = Self::new();
        if let Err(error) = &made {
            let required = env::var("HEARTBEAT_NAMESPACES").is_ok_and(|word| word == "required");
            assert!(!required, "{test}: no network namespaces: {error}");
            eprintln!("SKIPPED {test}: no network namespaces: {error}");
        }
        made.ok()
    }

    /// Drops what goes to this host, without a word to anyone.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn cut_towards(&self, host: IpAddr) -> io::Result<()> {
        self.router.ip(&format!("route add blackhole {host}/32"))
    }

    /// Undoes [`cut_towards`](Self::cut_towards).
    ///
    /// # Errors
    ///
    /// If it wasn't cut.
    pub fn mend_towards(&self, host: IpAddr) -> io::Result<()> {
        self.router.ip(&format!("route del blackhole {host}/32"))
    }
}

/// One host: a network namespace.
#[derive(Debug)]
pub struct Host(File);

impl Host {
    fn new() -> io::Result<Self> {
        let mut maker = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo made && cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(said) = maker.stdout.take() {
            BufReader::new(said).read_line(&mut line)?;
        }
        let made = File::open(format!("/proc/{}/ns/net", maker.id()));
        // Closes its input, which ends it.
        let ended = maker.wait_with_output()?;
        if line != "made\n" {
            return Err(io::Error::other(format!("unshare: {}", ended.status)));
        }
        Ok(Self(made?))
    }

    /// Runs something on this host, in a thread of its own. Sockets that are
    /// made in it stay on this host.
    ///
    /// # Errors
    ///
    /// If the namespace can't be entered, or what `run` says.
    ///
    /// # Panics
    ///
    /// If `run` does.
    pub fn enter<T: Send>(&self, run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let inside = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
            run()
        };
        thread::scope(|scope| scope.spawn(inside).join().expect("the run didn't panic"))
    }

    /// `ip` with these words.
    fn ip(&self, words: &str) -> io::Result<()> {
        self.enter(|| {
            let status = Command::new("ip").args(words.split(' ')).status()?;
            match status.success() {
                true => Ok(()),
                false => Err(io::Error::other(format!("ip {words}: {status}"))),
            }
        })
    }

    /// A cable from this router to `host`, in the network 10.77.`net`.0.
    fn link(&self, net: &str, host: &Self) -> io::Result<()> {
        let other = format!("/proc/{}/fd/{}", process::id(), host.0.as_raw_fd());
        self.ip(&format!(
            "link add to{net} type veth peer name cable netns {other}"
        ))?;
        self.ip(&format!("addr add 10.77.{net}.254/24 dev to{net}"))?;
        self.ip(&format!("link set to{net} up"))?;
        host.ip(&format!("addr add 10.77.{net}.1/24 dev cable"))?;
        host.ip("link set cable up")?;
        host.ip(&format!("route add default via 10.77.{net}.254"))
    }
}
