//! Three clients come to three ends, and the server tells which.
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! The server starts this program three times more, as clients. They exchange
//! messages over TCP, and after a second the server
//!
//! * stops Alice with SIGSTOP. She is a process that hangs: her kernel still
//!   acknowledges everything, no read or write ever fails, and only the beats
//!   that she misses give her away. Where a process can't be stopped (Windows) she is
//!   asked to hang;
//! * kills Bob with SIGKILL. His kernel closes the connection, and because he
//!   didn't say goodbye he is dead;
//! * asks Carol to leave. She says goodbye, and so isn't dead.
//!
//! It exits with 0 if each was recognised as what it was. `client.rs` is the
//! other end of the connection; `../process.rs` is about children and signals.

mod client;

use std::{
    env,
    error::Error,
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use heartbeat_examples::process;
use heartbeat_tokio::{Cause, CloseReason, Config, Heartbeat, PeerEvent};
use tokio::{
    net::{TcpListener, TcpStream},
    process::Child,
    time::timeout,
};

/// How soon a death has to be known. All timings follow from this.
const DETECT_WITHIN: Duration = Duration::from_secs(2);

/// How late this machine may run us: added to what is promised.
const SCHEDULING: Duration = Duration::from_millis(50);

/// It takes 3 s if all is well.
const GIVE_UP_AFTER: Duration = Duration::from_secs(14);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let config = Config::detect_within(DETECT_WITHIN)?;

    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [name, server] = arguments.as_slice() {
        process::end_with_parent();
        client::run(name, server, config).await?;
        return Ok(ExitCode::SUCCESS);
    }

    // Whichever ends first, the other is dropped, and its clients with it.
    let all_recognised = tokio::select! {
        result = timeout(GIVE_UP_AFTER, server(config)) => {
            result.map_err(|_| "not everything was recognised in time")??
        }
        result = process::interrupted() => {
            result?;
            false
        }
    };
    Ok(match all_recognised {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Whether each client was recognised as what it was.
async fn server(config: Config) -> Result<bool, Box<dyn Error>> {
    println!(
        "A death is detected within {:?}.\n",
        config.detection_time()
    );

    let epoch = Instant::now();
    let start = |name| Client::start(name, config, epoch);
    // At once: a process may take long to start, and the others are served meanwhile.
    let (alice, bob, carol) = tokio::try_join!(
        async { start("Alice").await?.hangs().await },
        async { start("Bob").await?.dies().await },
        async { start("Carol").await?.leaves().await },
    )?;
    println!("\n{}\n{}\n{}", alice.text, bob.text, carol.text);
    Ok(alice.recognised && bob.recognised && carol.recognised)
}

/// A client as the server sees it.
struct Client {
    name: &'static str,
    peer: Heartbeat<TcpStream>,
    process: Child,
    /// What the printed times count from.
    epoch: Instant,
}

impl Client {
    async fn start(
        name: &'static str,
        config: Config,
        epoch: Instant,
    ) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let process = process::start_again(name, listener.local_addr()?)?;
        let (stream, _) = listener.accept().await?;

        let mut peer = Heartbeat::new(stream, config);
        peer.send(format!("welcome, {name}").into()).await?;
        Ok(Self {
            name,
            peer,
            process,
            epoch,
        })
    }

    /// Waits until the connection ends, and says how it did.
    ///
    /// This is the loop to copy. `None` if the end was told before.
    async fn watch(&mut self) -> Option<PeerEvent<Bytes>> {
        while let Some(event) = self.peer.next().await {
            self.log(&describe(&event));
            if event.is_terminal() {
                return Some(event);
            }
        }
        None
    }

    /// A second in which nothing special happens. No event is lost when
    /// `watch` is dropped after it.
    async fn watch_a_second(&mut self) {
        let _ = timeout(Duration::from_secs(1), self.watch()).await;
    }

    /// Only missing beats can tell that a process hangs.
    async fn hangs(mut self) -> Result<Finding, Box<dyn Error>> {
        self.watch_a_second().await;
        let promised = self.peer.config().detection_time();

        let stopped = Instant::now();
        match process::stop(&self.process) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.log("== asked to hang: there is no SIGSTOP on this system");
                self.peer.send("please hang".into()).await?;
            }
            result => {
                result?;
                self.log("== stopped with SIGSTOP");
            }
        }
        let end = self.watch().await;
        let measured = stopped.elapsed();

        let silent = matches!(&end, Some(PeerEvent::Dead(death)) if death.cause == Cause::Silent);
        Ok(Finding::new(
            silent && measured <= promised + SCHEDULING,
            format!("Alice hung. Promised: dead within {promised:.3?}. Measured: {measured:.3?}"),
        ))
    }

    /// The kernel of a killed process closes its connections, so that this is
    /// known at once.
    async fn dies(mut self) -> Result<Finding, Box<dyn Error>> {
        self.watch_a_second().await;

        let killed = Instant::now();
        self.process.start_kill()?;
        self.log("== killed with SIGKILL");
        let end = self.watch().await;
        let measured = killed.elapsed();

        // A reset if it had left anything of ours unread.
        let cut_off = matches!(
            &end,
            Some(PeerEvent::Dead(death)) if matches!(death.cause, Cause::Eof | Cause::Reset)
        );
        Ok(Finding::new(
            cut_off,
            format!("Bob was killed. Dead after {measured:.3?}"),
        ))
    }

    /// A client that says goodbye isn't dead.
    async fn leaves(mut self) -> Result<Finding, Box<dyn Error>> {
        self.watch_a_second().await;

        self.log("== asked to leave");
        self.peer.send("please leave".into()).await?;
        let end = self.watch().await;

        Ok(Finding::new(
            matches!(
                end,
                Some(PeerEvent::Closed {
                    reason: CloseReason::Peer { .. }
                })
            ),
            "Carol left. Closed, and never dead".into(),
        ))
    }

    fn log(&self, what: &str) {
        let time = self.epoch.elapsed().as_secs_f64();
        println!("{time:7.3} s  {:<5}  {what}", self.name);
    }
}

/// What became of a client.
struct Finding {
    recognised: bool,
    text: String,
}

impl Finding {
    fn new(recognised: bool, text: String) -> Self {
        let mark = if recognised { "ok" } else { "NOT AS EXPECTED" };
        let text = format!("{text}: {mark}");
        Self { recognised, text }
    }
}

/// Every event prints as one line, but what a message says is ours to tell.
fn describe(event: &PeerEvent<Bytes>) -> String {
    match event {
        PeerEvent::Message(text) => format!("says {:?}", String::from_utf8_lossy(text)),
        event => event.to_string(),
    }
}
