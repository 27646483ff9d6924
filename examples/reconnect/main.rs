//! A client that survives its server's restart.
//!
//! ```text
//! cargo run --example reconnect
//! ```
//!
//! The client starts this program once more, as a server, and asks it something
//! every 100 ms. After a second it kills the server and starts another in its
//! place; after another second it makes that one hang, which nothing but missed
//! beats shows, and replaces it too. It exits with 0 if it was answered by all
//! three.

use std::{
    env,
    error::Error,
    io,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use heartbeat_examples::process;
use heartbeat_tokio::{Backoff, Config, Driver, Heartbeat, PeerEvent, Reconnect};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{interval, sleep, timeout},
};

/// How soon a death has to be known.
const DETECT_WITHIN: Duration = Duration::from_secs(1);

/// The number of servers, started one after the other.
const SERVERS: usize = 3;

/// It takes about 5 s.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let config = Config::detect_within(DETECT_WITHIN)?;
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [name, address] = arguments.as_slice() {
        process::end_with_parent();
        serve(name, address.parse()?, config).await?;
        return Ok(ExitCode::SUCCESS);
    }

    // A port that is free, for all three.
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let answered = tokio::select! {
        answered = timeout(GIVE_UP_AFTER, client(address, config)) => answered?,
        failed = servers(address) => return Err(failed.into()),
        result = process::interrupted() => {
            result?;
            return Ok(ExitCode::FAILURE);
        }
    };
    println!("\nAnswered by {}.", answered.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// Runs one server after the other. Only ends if something fails.
async fn servers(address: SocketAddr) -> io::Error {
    let run = async {
        let mut first = process::start_again("server 1", address)?;
        sleep(Duration::from_secs(1)).await;
        println!("-- server 1 is killed");
        first.kill().await?;
        sleep(Duration::from_millis(500)).await;

        let mut second = process::start_again("server 2", address)?;
        sleep(Duration::from_secs(1)).await;
        println!("-- server 2 hangs");
        process::stop(&second)?;
        sleep(Duration::from_millis(1500)).await;
        second.kill().await?;

        let mut third = process::start_again("server 3", address)?;
        third.wait().await?;
        Err(io::Error::other("server 3 has ended"))
    };
    match run.await {
        Ok(never) => never,
        Err(error) => error,
    }
}

/// Asks until every server has answered; gives their names.
async fn client(address: SocketAddr, config: Config) -> Vec<String> {
    let began = Instant::now();
    let backoff = Backoff::default().max_delay(Duration::from_millis(500));
    let mut server = Reconnect::new(backoff, || async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(Heartbeat::new(stream, config).spawn())
    });
    let mut answered = Vec::new();
    let mut ask = interval(Duration::from_millis(100));
    while answered.len() < SERVERS {
        let Driver {
            sender,
            mut receiver,
            ..
        } = server.connect().await;
        println!("{:7.3} s  connected", began.elapsed().as_secs_f32());
        loop {
            let event = tokio::select! {
                event = receiver.next() => event,
                _ = ask.tick() => {
                    // That it fails is told as an event, too.
                    let _ = sender.send("who are you?".into()).await;
                    continue;
                }
            };
            let Some(event) = event else { break };
            server.note(&event);
            if let PeerEvent::Message(name) = &event {
                let name = String::from_utf8_lossy(name).into_owned();
                if !answered.contains(&name) {
                    println!("{:7.3} s  {name} answers", began.elapsed().as_secs_f32());
                    answered.push(name);
                }
            } else if event.is_terminal() {
                println!("{:7.3} s  {event}", began.elapsed().as_secs_f32());
            }
            if answered.len() == SERVERS {
                break;
            }
        }
    }
    answered
}

/// Answers every question with its name.
async fn serve(name: &str, address: SocketAddr, config: Config) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let name = name.to_owned();
        tokio::spawn(async move {
            let mut peer = Heartbeat::new(stream, config);
            while let Some(event) = peer.next().await {
                let question = matches!(event, PeerEvent::Message(_));
                if question && peer.send(name.clone().into()).await.is_err() {
                    break;
                }
            }
        });
    }
}
