//! A person in a terminal, or a bot. Both come back when the server was gone.

use std::{env, error::Error, io, time::Duration};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{
    Attempt, Backoff, Cause, Config, Heartbeat, PeerEvent, Postcard, Reconnect, SendError,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    sync::mpsc,
    time::sleep,
};

use crate::{ClientOptions, bots::BADGE, config, message::Message};

type Server = Heartbeat<TcpStream, Postcard<Message>>;

/// A person: types lines, and reads those of the others.
pub async fn run(options: ClientOptions) -> Result<(), Box<dyn Error>> {
    let config = config(options.detect_within)?;
    let (typed, mut lines) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut input = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = input.next_line().await {
            if typed.send(line).await.is_err() {
                return;
            }
        }
    });

    let mut connections = connections(&options, config);
    loop {
        let mut server = connect(&mut connections).await;
        // If it fails the first event says why.
        let _ = server.send(join(&options)).await;
        if let Some(end) = talk(&mut server, &mut lines).await? {
            println!("* the server is gone ({end}); connecting again");
        } else {
            return Ok(());
        }
    }
}

/// Talks until the connection ends, and says how; `None` if we want to leave.
async fn talk(
    server: &mut Server,
    lines: &mut mpsc::Receiver<String>,
) -> Result<Option<String>, Box<dyn Error>> {
    loop {
        tokio::select! {
            event = server.next() => match event {
                Some(PeerEvent::Message(message)) => print(&message),
                Some(PeerEvent::Suspect { silent_for, .. }) => {
                    let silence = silent_for.as_secs_f64();
                    println!("* the server hasn't answered for {silence:.1} s");
                }
                Some(PeerEvent::Recovered { .. }) => println!("* the server answers again"),
                Some(PeerEvent::Closed { reason }) => return Ok(Some(reason.to_string())),
                Some(PeerEvent::Dead(death)) => return match death.cause {
                    // It wouldn't get any better.
                    Cause::Protocol(_) => Err(death.into()),
                    _ => Ok(Some(death.to_string())),
                },
                Some(_) => {}
                None => return Ok(Some("closed".into())),
            },
            line = lines.recv() => match line {
                // If it fails the next event says why.
                Some(text) => drop(server.send(Message::Say { text }).await),
                None => {
                    server.close().await?;
                    return Ok(None);
                }
            }
        }
    }
}

fn print(message: &Message) {
    match message {
        Message::Welcome { name, .. } => println!("* you are in the room, as {name}"),
        Message::Said { from, text } => println!("{from}: {text}"),
        Message::Notice { text } => println!("* {text}"),
        _ => {}
    }
}

/// A bot: says something now and then, and leaves when it is asked to.
pub async fn run_bot(options: ClientOptions) -> Result<(), Box<dyn Error>> {
    const LINES: [&str; 6] = [
        "I have nothing to say, but I say it in time.",
        "Somebody ought to freeze me. Just for a second.",
        "My kernel says that I am fine.",
        "tick",
        "Do you hear me? I hear you.",
        "If I hang, it isn't personal.",
    ];
    let config = config(options.detect_within)?;
    let mut connections = connections(&options, config);
    // Each begins with another line.
    let mut lines = LINES.iter().cycle().skip(options.name.len());
    loop {
        let mut server = connect(&mut connections).await;
        // If it fails the first event says why.
        let _ = server.send(join(&options)).await;
        loop {
            let pause = Duration::from_millis(fastrand::u64(12_000..30_000));
            tokio::select! {
                event = server.next() => match event {
                    Some(PeerEvent::Message(Message::Leave)) => {
                        return Ok(server.close().await?);
                    }
                    // With us the server ends, and then we do.
                    Some(event) if event.is_terminal() => break,
                    Some(_) => {}
                    None => break,
                },
                () = sleep(pause), if !options.quiet => {
                    let text = (*lines.next().unwrap_or(&"tick")).to_owned();
                    let _: Result<(), SendError> = server.send(Message::Say { text }).await;
                }
            }
        }
    }
}

fn join(options: &ClientOptions) -> Message {
    let badge = env::var(BADGE).ok().and_then(|badge| badge.parse().ok());
    Message::Join {
        name: options.name.clone(),
        badge,
    }
}

fn connections(
    options: &ClientOptions,
    config: Config,
) -> Reconnect<impl Attempt<Connection = Server, Error = io::Error> + use<>> {
    let address = options.server;
    let backoff = Backoff::default()
        .max_delay(Duration::from_secs(5))
        .loss_spread(Duration::from_secs(1))
        .reset_after(Duration::from_secs(5));
    Reconnect::owning(backoff, async move || {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Heartbeat::typed(stream, config))
    })
}

/// As long as it takes; says once what is in the way.
async fn connect<A>(connections: &mut Reconnect<A>) -> Server
where
    A: Attempt<Connection = Server, Error = io::Error>,
{
    let mut told = false;
    loop {
        match connections.attempt().await {
            Ok(server) => return server,
            Err(error) if !told => {
                told = true;
                println!("* no server: {error}; trying again");
            }
            Err(_) => {}
        }
    }
}
