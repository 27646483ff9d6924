//! The network of the examples, and what becomes of a test where it can't be
//! made.

use std::{
    env, fs,
    io::{self, Write},
    process::{Command, Stdio},
};

#[path = "../../examples/network.rs"]
mod shared;

pub use shared::{Host, LEFT, Network, RIGHT};

/// Asks netfilter to delete the connections of no particular kind, and for its answer.
const FORGET: &str = "
import socket, struct
NETFILTER, DELETE_CONNECTIONS, REQUEST_AND_ANSWER = 12, 0x0102, 5
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
netlink.send(struct.pack('=IHHIIBBH', 20, DELETE_CONNECTIONS, REQUEST_AND_ANSWER, 1, 0, 2, 0, 0))
(error,) = struct.unpack_from('=i', netlink.recv(100), 16)
assert error == 0, error
";

/// Which packets a filter looks at.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// Those that a router hands on.
    Forward,
    /// Those that a host sends itself.
    Output,
}

impl Host {
    /// Does this with packets from now on, in the words of `nft`, in the place
    /// of an earlier filter. No rules take it away.
    ///
    /// # Errors
    ///
    /// If `nft` isn't installed, or what it says.
    pub fn filter(&self, hook: Hook, rules: &str) -> io::Result<()> {
        let hook = match hook {
            Hook::Forward => "forward",
            Hook::Output => "output",
        };
        let script = format!(
            "flush ruleset\ntable ip faults {{\nchain faults {{\n\
             type filter hook {hook} priority 0;\n{rules}\n}}\n}}\n"
        );
        self.run("nft", &["-f", "-"], &script)
    }
}

impl Host {
    /// Runs `tc` on this host, with these lines.
    ///
    /// # Errors
    ///
    /// If `tc` isn't installed, or what it says.
    pub fn tc(&self, lines: &[&str]) -> io::Result<()> {
        self.run("tc", &["-batch", "-"], &lines.join("\n"))
    }

    /// A connection that this router doesn't know from its first packet on, or has
    /// forgotten, is invalid to it.
    ///
    /// # Errors
    ///
    /// If the kernel has no connection tracking.
    pub fn takes_up_nothing_in_the_middle(&self) -> io::Result<()> {
        self.enter(|| fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", "0"))
    }

    /// Has this router forget all connections that it tracks, as `conntrack -F` does.
    ///
    /// # Errors
    ///
    /// If the kernel has no connection tracking, or `python3` isn't installed.
    pub fn forget_connections(&self) -> io::Result<()> {
        self.run("python3", &["-"], FORGET)
    }

    /// Runs a program on this host that reads what it is to do.
    fn run(&self, program: &str, arguments: &[&str], input: &str) -> io::Result<()> {
        self.enter(|| {
            let mut child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            let ended = child.wait_with_output()?;
            match ended.status.success() {
                true => Ok(()),
                false => Err(io::Error::other(String::from_utf8_lossy(&ended.stderr))),
            }
        })
    }
}

impl Network {
    /// Has the router hide the left host behind its own address. It silently forgets a
    /// connection that is idle for this many whole seconds.
    ///
    /// # Errors
    ///
    /// If `nft` isn't installed, or what it says.
    pub fn masquerade(&self, forgets_after: u64) -> io::Result<()> {
        let rules = "table ip nat {\n\
             chain out { type nat hook postrouting priority 100; ip saddr 10.77.0.0/24 masquerade; }\n\
             chain forward { type filter hook forward priority 0; ct state invalid drop; }\n\
             chain in { type filter hook input priority 0; ct state invalid drop; }\n}\n";
        self.router.run("nft", &["-f", "-"], rules)?;
        self.router.takes_up_nothing_in_the_middle()?;
        self.forget_after(forgets_after)
    }

    /// Has a router that [masquerades](Self::masquerade) forget connections after this many
    /// seconds, from the next packet on.
    ///
    /// # Errors
    ///
    /// If the kernel has no connection tracking.
    pub fn forget_after(&self, seconds: u64) -> io::Result<()> {
        let knob = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
        self.router.enter(|| fs::write(knob, seconds.to_string()))
    }

    /// As [`or_skip`](Self::or_skip), with a router that [masquerades](Self::masquerade).
    ///
    /// # Panics
    ///
    /// As [`or_skip`](Self::or_skip).
    #[must_use]
    pub fn masquerading_or_skip(test: &str, forgets_after: u64) -> Option<Self> {
        let network = Self::or_skip(test)?;
        match network.masquerade(forgets_after) {
            Ok(()) => Some(network),
            Err(error) => {
                skip(test, &error);
                None
            }
        }
    }

    /// Has the router send 64 kbit/s to the right host, and keep all that waits. Small
    /// packets overtake it, as many routers let acknowledgements do.
    ///
    /// # Errors
    ///
    /// If `tc` or `nft` isn't installed, or what they say.
    pub fn slow_down_to_the_right(&self) -> io::Result<()> {
        self.router.tc(&[
            "qdisc replace dev to1 root handle 1: htb default 2",
            "class add dev to1 parent 1: classid 1:1 htb rate 10mbit quantum 2000",
            "class add dev to1 parent 1: classid 1:2 htb rate 64kbit quantum 2000",
            "qdisc add dev to1 parent 1:2 bfifo limit 2mb",
        ])?;
        let small = "ip length < 120 meta priority set 1:1";
        self.router.filter(Hook::Forward, small)
    }

    /// As [`or_skip`](Self::or_skip), for a test that filters packets.
    ///
    /// # Panics
    ///
    /// As [`or_skip`](Self::or_skip).
    #[must_use]
    pub fn with_filters_or_skip(test: &str) -> Option<Self> {
        let network = Self::or_skip(test)?;
        match network.router.filter(Hook::Forward, "") {
            Ok(()) => Some(network),
            Err(error) => {
                skip(test, &error);
                None
            }
        }
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
            skip(test, error);
        }
        made.ok()
    }
}

fn skip(test: &str, error: &io::Error) {
    let required = env::var("HEARTBEAT_NAMESPACES").is_ok_and(|word| word == "required");
    assert!(!required, "{test}: no network namespaces: {error}");
    eprintln!("SKIPPED {test}: no network namespaces: {error}");
}
