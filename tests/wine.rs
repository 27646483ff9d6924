//! Peers under Wine against native ones: each way to go is recognised as what it is.
//!
//! `.ci/windows` builds the programs for Windows, says in `HEARTBEAT_WINDOWS` in which
//! folder they are, and runs these tests. `docs/testing.md` says what Wine can't show.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_tests::{
    by_peer, example, free_address, is_cut_off, ms, patient, process::PeerProcess, secs,
};
use heartbeat_tokio::{
    Cause, Config, Diagnosis, Heartbeat, PeerEvent, Postcard, safety_net::SafetyNet,
};
use rustix::{
    fd::OwnedFd,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

#[path = "../examples/chat/message.rs"]
#[allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "it belongs to a program"
)]
mod message;

/// Programs take seconds to start under Wine.
const PATIENCE: Duration = secs(60);

const CLIENT: &str = "getting_started_client.exe";

/// When it gives us up: `detect_within` of examples/getting_started/client.rs.
const ITS_DETECTION_TIME: Duration = secs(3);

/// How late a machine under load may run us.
const SCHEDULING: Duration = ms(500);

// ---- a native server, a client under Wine ---------------------------------------

#[tokio::test]
async fn a_goodbye_from_windows_is_no_death() {
    let mut peer = Peer::start("quickstart.exe", &["Carol"]).await;
    peer.heartbeat.send("please leave".into()).await.unwrap();
    assert_eq!(peer.end().await, PeerEvent::Closed { reason: by_peer() });
    assert!(peer.program.process.wait().unwrap().success());
}

#[tokio::test]
async fn a_killed_windows_process_is_detected_at_once() {
    let mut peer = Peer::start(CLIENT, &[]).await;
    // Programs of Wine's own that start along with it keep its socket open for seconds.
    let _ = timeout(secs(5), peer.end()).await;
    let killed = Instant::now();
    peer.program.process.kill().unwrap();
    let end = peer.end().await;
    assert!(killed.elapsed() < SCHEDULING, "{:?}", killed.elapsed());
    let PeerEvent::Dead(death) = end else {
        panic!("{end:?}");
    };
    assert!(is_cut_off(&death.cause), "{death}");
}

#[tokio::test]
async fn a_frozen_windows_process_is_given_up_and_learns_it() {
    let mut peer = Peer::start(CLIENT, &[]).await;
    let promised = peer.heartbeat.config().detection_time();
    let frozen = Instant::now();
    peer.program.process.stop().unwrap();
    let end = peer.end().await;
    let measured = frozen.elapsed();
    let PeerEvent::Dead(death) = end else {
        panic!("{end:?}");
    };
    assert_eq!(death.cause, Cause::Silent);
    assert_eq!(death.diagnosis, Diagnosis::AppHung, "its kernel answers");
    assert!(measured <= promised + SCHEDULING, "{measured:?}");

    peer.program.process.go_on().unwrap();
    let told = peer.program.wait_for("dead: ").await;
    let known = ["given up by the peer", "connection reset"];
    assert!(known.iter().any(|words| told.contains(words)), "{told}");
}

/// Wine's poller takes the error (10054), and the reader then meets an end.
#[tokio::test]
async fn our_reset_ends_a_windows_client_at_once() {
    let mut peer = Peer::start(CLIENT, &[]).await;
    let stream = peer.heartbeat.into_parts().stream.unwrap();
    let socket = SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let reset = Instant::now();
    let told = peer.program.wait_for("dead: ").await;
    let known = ["connection reset", "closed without goodbye"];
    assert!(known.iter().any(|words| told.contains(words)), "{told}");
    assert!(reset.elapsed() < SCHEDULING, "{:?}", reset.elapsed());
}

#[tokio::test]
async fn our_goodbye_is_no_death_on_windows() {
    let mut peer = Peer::start(CLIENT, &[]).await;
    peer.heartbeat.close().await.unwrap();
    peer.program.wait_for("the peer said goodbye").await;
}

#[tokio::test]
async fn our_silence_is_detected_on_windows_in_time() {
    let mut peer = Peer::start(CLIENT, &[]).await;
    let _open = peer.heartbeat.into_parts().stream.unwrap();
    let silent = Instant::now();
    peer.program.wait_for("dead: silent for").await;
    let measured = silent.elapsed();
    assert!(measured <= ITS_DETECTION_TIME + SCHEDULING, "{measured:?}");
}

/// `SIO_KEEPALIVE_VALS`, read back from this machine's kernel.
#[tokio::test]
async fn keepalive_on_windows_is_what_was_derived() {
    let peer = Peer::start(CLIENT, &[]).await;
    let derived = SafetyNet::from(&Config::detect_within(ITS_DETECTION_TIME).unwrap());
    let ours = peer.heartbeat.get_ref().unwrap();
    let socket = socket_between(ours.peer_addr().unwrap(), ours.local_addr().unwrap());
    let socket = SockRef::from(&socket);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), derived.idle());
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), derived.interval());
}

// ---- the programs of the first pages --------------------------------------------

#[tokio::test]
async fn the_quickstart_recognises_three_ends_on_windows() {
    let mut quickstart = Program::start("quickstart.exe", &[]);
    quickstart.wait_for("asked to hang").await;
    quickstart.wait_for("Alice  dead: silent for").await;
    for finding in ["Alice hung", "Bob was killed", "Carol left"] {
        let line = quickstart.wait_for(finding).await;
        assert!(line.ends_with(": ok"), "{line}");
    }
    assert!(quickstart.process.wait().unwrap().success());
}

#[tokio::test]
async fn a_windows_server_says_of_native_clients_what_the_guide_says() {
    let mut server = Program::start("getting_started_server.exe", &["127.0.0.1:0"]);
    let listening = server.wait_for("listening at ").await;
    let (_, address) = listening.rsplit_once(' ').unwrap();
    let client = Command::new(example("getting_started_client"));
    let client = async || {
        let mut command = Command::new(client.get_program());
        command.arg(address);
        let mut client = Program::spawn(&mut command);
        client.wait_for("the server says").await;
        client
    };

    let hangs = client().await;
    hangs.process.stop().unwrap();
    server.wait_for("dead: silent for").await;

    let killed = client().await;
    killed.process.kill().unwrap();
    server.wait_for("dead: c").await; // closed without goodbye, or connection reset

    let mut leaves = client().await;
    thread::sleep(ms(200)); // it listens to signals by then
    leaves.process.interrupt().unwrap();
    server.wait_for("the peer said goodbye").await;
    leaves.wait_for("closed: we said goodbye").await;
    assert!(leaves.process.wait().unwrap().success());
}

#[tokio::test]
async fn a_windows_client_understands_a_native_server() {
    let mut command = Command::new(example("getting_started_server"));
    let mut server = Program::spawn(command.arg("127.0.0.1:0"));
    let listening = server.wait_for("listening at ").await;
    let (_, address) = listening.rsplit_once(' ').unwrap();
    let mut client = Program::start(CLIENT, &[address]);
    client.wait_for("connected, the peer pings after").await;
    client.wait_for("the server says").await;
    server.wait_for("message").await;

    server.process.kill().unwrap();
    client.wait_for("dead: c").await;
    assert!(client.process.wait().unwrap().success());
}

#[tokio::test]
async fn a_windows_chat_has_native_members_and_says_what_it_cant_do() {
    use message::{Deed, Message, Request};

    let (tcp, http) = (free_address().unwrap(), free_address().unwrap());
    let [tcp_text, http_text] = [tcp, http].map(|address| address.to_string());
    let options = [
        "server", "--tcp", &tcp_text, "--http", &http_text, "--bots", "1",
    ];
    let mut chat = Program::start("chat.exe", &options);
    chat.wait_for(&http_text).await;
    chat.wait_for("has joined").await; // the bot

    let stream = TcpStream::connect(tcp).await.unwrap();
    let mut member = Heartbeat::<_, Postcard<Message>>::typed(stream, patient());
    let said = async |member: &mut Heartbeat<_, Postcard<Message>>, wanted: &str| {
        let all = async {
            loop {
                match member.next().await.unwrap() {
                    PeerEvent::Message(Message::Notice { text }) if text.contains(wanted) => return,
                    PeerEvent::Message(Message::Welcome { .. }) if wanted.is_empty() => return,
                    event => assert!(!event.is_terminal(), "{event}"),
                }
            }
        };
        timeout(PATIENCE, all)
            .await
            .unwrap_or_else(|_| panic!("no {wanted:?}"));
    };
    let join = Message::Join {
        name: "Linux".into(),
        badge: None,
    };
    member.send(join).await.unwrap();
    said(&mut member, "").await;

    let ask = |bot, deed| Message::Ask(Request::Do { bot, deed });
    member.send(ask(1, Deed::Freeze)).await.unwrap();
    said(&mut member, "no signal that stops a process").await;
    member.send(ask(1, Deed::Kill)).await.unwrap();
    said(&mut member, "closed without a goodbye").await;
    member.close().await.unwrap();
}

// ---- helpers ----------------------------------------------------------------------

/// A connection to a client under Wine.
struct Peer {
    heartbeat: Heartbeat<TcpStream>,
    program: Program,
}

impl Peer {
    async fn start(program: &str, arguments: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let program = Program::start(program, &[arguments, &[&address]].concat());
        let accepted = timeout(PATIENCE, listener.accept()).await;
        let (stream, _) = accepted.expect("it connects").unwrap();
        let mut heartbeat = Heartbeat::new(stream, patient());
        heartbeat.probe();
        while !matches!(heartbeat.next().await, Some(PeerEvent::Beat { .. })) {}
        Self { heartbeat, program }
    }

    async fn end(&mut self) -> PeerEvent<Bytes> {
        loop {
            let event = timeout(PATIENCE, self.heartbeat.next()).await;
            let event = event.expect("in time").expect("a terminal event");
            if event.is_terminal() {
                return event;
            }
        }
    }
}

/// A program, and what it prints.
struct Program {
    process: PeerProcess,
    output: Receiver<String>,
    printed: Vec<String>,
}

impl Program {
    /// Under Wine.
    fn start(program: &str, arguments: &[&str]) -> Self {
        let [wine, programs] = ["HEARTBEAT_WINE", "HEARTBEAT_WINDOWS"]
            .map(|variable| env::var_os(variable).expect(".ci/windows sets it"));
        let program = PathBuf::from(programs).join(program);
        Self::spawn(Command::new(wine).arg(program).args(arguments))
    }

    fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = PeerProcess::spawn(command).unwrap();
        let (_, stdout) = process.take_pipes().unwrap();
        let (lines, output) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if line.is_ok_and(|line| lines.send(line).is_err()) {
                    break;
                }
            }
        });
        let printed = Vec::new();
        Self {
            process,
            output,
            printed,
        }
    }

    /// The next line that has these words in it.
    async fn wait_for(&mut self, words: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.output.try_recv() {
                Ok(line) => self.printed.push(line.clone()),
                Err(mpsc::TryRecvError::Empty) if Instant::now() < until => {
                    tokio::time::sleep(ms(5)).await;
                    continue;
                }
                Err(_) => panic!("no {words:?} after {:#?}", self.printed),
            }
            let line = self.printed.last().unwrap();
            if line.contains(words) {
                return line.trim_end().to_owned();
            }
        }
    }
}

/// The other process' socket that has these addresses.
fn socket_between(from: SocketAddr, to: SocketAddr) -> OwnedFd {
    let hex = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    let mut rows = rows.filter(|row| row[1] == hex(from) && row[2] == hex(to));
    let link = PathBuf::from(format!("socket:[{}]", rows.next().unwrap()[9]));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let id = process.file_name().to_str().and_then(|id| id.parse().ok());
        let Some(pid) = id.and_then(Pid::from_raw) else {
            continue;
        };
        for file in fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if fs::read_link(file.path()).is_ok_and(|target| target == link) {
                let number = file.file_name().to_str().unwrap().parse().unwrap();
                let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
                return pidfd_getfd(process, number, PidfdGetfdFlags::empty()).unwrap();
            }
        }
    }
    panic!("nobody has {link:?}: {}", io::Error::last_os_error())
}
