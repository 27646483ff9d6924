//! Two hosts with a router in between, in network namespaces that leave no trace: they have no
//! names and no processes, and vanish with their last user, even after a failed or killed
//! test.
//!
//! ```text
//! left 10.77.0.1 ── 10.77.0.254 router 10.77.1.254 ── 10.77.1.1 right
//! ```
//!
//! The router drops silently whatever it can't forward, unless it is told to
//! answer. (What a host itself drops on its way out its own TCP takes for
//! congestion, and not for loss.) How packets are delayed and lost is decided
//! in `relay.rs`.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
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

/// Two hosts and what is between them.
#[derive(Debug)]
pub struct Network {
    /// Has the address [`LEFT`].
    pub left: Host,
    /// Has the address [`RIGHT`].
    pub right: Host,
    /// The one in between.
    pub router: Host,
}

impl Network {
    /// Makes one. It takes root, if only in a user namespace, and `ip` and
    /// `unshare`.
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
        network.router.enter(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            // Packets come back from the relay by another way.
            fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0")?;
            fs::write("/proc/sys/net/ipv4/conf/default/rp_filter", "0")
        })?;
        network
            .router
            .ip(&["route add blackhole 10.77.0.0/16 metric 4000"])?;
        for host in [&network.left, &network.right] {
            // The sockets of a process that was killed out of reach would keep
            // its host for minutes.
            host.enter(|| fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "1"))?;
        }
        network.router.link(0, &network.left)?;
        network.router.link(1, &network.right)?;
        Ok(network)
    }

    /// Drops what goes to this host, without a word to anyone.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn cut_towards(&self, host: IpAddr) -> io::Result<()> {
        self.router.ip(&[&format!("route add blackhole {host}/32")])
    }

    /// Undoes [`cut_towards`](Self::cut_towards).
    ///
    /// # Errors
    ///
    /// If it wasn't cut.
    pub fn mend_towards(&self, host: IpAddr) -> io::Result<()> {
        self.router.ip(&[&format!("route del blackhole {host}/32")])
    }

    /// Answers what goes to this host with ICMP's "host unreachable".
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn reject_towards(&self, host: IpAddr) -> io::Result<()> {
        self.router
            .ip(&[&format!("route add unreachable {host}/32")])
    }

    /// Takes the carrier from the left host.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn unplug_left(&self) -> io::Result<()> {
        self.router.ip(&["link set to0 down"])
    }

    /// Takes the carrier from the right host.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn unplug_right(&self) -> io::Result<()> {
        self.router.ip(&["link set to1 down"])
    }

    /// Has nothing of the right host, only its address: another one stands in
    /// its place.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn replace_right(&mut self) -> io::Result<()> {
        self.router.ip(&["link del to1"])?;
        self.right = Host::new()?;
        self.router.link(1, &self.right)
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
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| named("unshare", error))?;
        let mut line = String::new();
        if let Some(said) = maker.stdout.take() {
            BufReader::new(said).read_line(&mut line)?;
        }
        let made = File::open(format!("/proc/{}/ns/net", maker.id()));
        // Closes its input, which ends it.
        let ended = maker.wait_with_output()?;
        if line != "made\n" {
            return Err(io::Error::other(said(&ended.stderr)));
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
            self.move_in()?;
            run()
        };
        thread::scope(|scope| scope.spawn(inside).join().expect("the run didn't panic"))
    }

    /// Moves the calling thread to this host, with all that it makes and
    /// starts from here on.
    ///
    /// # Errors
    ///
    /// If the namespace can't be entered.
    pub fn move_in(&self) -> io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }

    /// Another hold on the same host.
    ///
    /// # Errors
    ///
    /// If there are too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Runs `ip` on this host, with these lines.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn ip(&self, lines: &[&str]) -> io::Result<()> {
        self.enter(|| {
            let mut ip = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|error| named("ip", error))?;
            if let Some(mut input) = ip.stdin.take() {
                input.write_all(lines.join("\n").as_bytes())?;
            }
            let ended = ip.wait_with_output()?;
            match ended.status.success() {
                true => Ok(()),
                false => Err(io::Error::other(said(&ended.stderr))),
            }
        })
    }

    /// A cable from this router to `host`, in the network 10.77.`net`.0.
    fn link(&self, net: u8, host: &Self) -> io::Result<()> {
        let other = format!("/proc/{}/fd/{}", process::id(), host.0.as_raw_fd());
        self.ip(&[
            &format!("link add to{net} type veth peer name cable netns {other}"),
            &format!("addr add 10.77.{net}.254/24 dev to{net}"),
            &format!("link set to{net} up"),
        ])?;
        host.ip(&[
            &format!("addr add 10.77.{net}.1/24 dev cable"),
            "link set cable up",
            &format!("route add default via 10.77.{net}.254"),
        ])
    }
}

fn named(program: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{program}: {error}"))
}

/// The first line of a program's complaint.
fn said(complaint: &[u8]) -> String {
    let complaint = String::from_utf8_lossy(complaint);
    complaint.lines().next().unwrap_or("no reason given").into()
}
