//! The other process of tests: reads whatever comes, and says
//! goodbye when it is told `leave`.

use std::{env, error::Error, time::Duration};

use futures::StreamExt;
use heartbeat_tokio::{Heartbeat, PeerEvent};
use tokio::net::TcpSocket;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    end_with_parent();
    let mut arguments = env::args().skip(1);
    let mut argument = || {
        arguments
            .next()
            .ok_or("usage: heartbeat-test-peer ADDRESS MILLIS [INTERVAL]")
    };
    let address = argument()?;
    let patience = Duration::from_millis(argument()?.parse()?);
    let quick = heartbeat_tests::quick();
    let timeout = (patience - quick.interval()) / quick.max_missed();
    let mut config = quick.to_builder().timeout(timeout);
    if let Ok(interval) = argument() {
        let interval = Duration::from_millis(interval.parse()?);
        config = config.interval(interval).jitter(0.25);
    }
    let config = config.build()?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(64 * 1024)?;
    let stream = socket.connect(address.parse()?).await?;
    let mut test = Heartbeat::new(stream, config);
    while let Some(event) = test.next().await {
        match event {
            PeerEvent::Message(word) if word == "leave" => test.close().await?,
            PeerEvent::Dead(death) => {
                println!("{death}");
                return Err(death.into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// A test that is killed can't clean up, and a stopped peer can't find out.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }
}
