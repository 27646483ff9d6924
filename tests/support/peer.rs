//! The other process of `tests/processes.rs`: reads whatever comes, and says
//! goodbye when it is told `leave`.

use std::{env, error::Error};

use futures::{SinkExt, StreamExt};
use heartbeat_tokio::{Heartbeat, PeerEvent};
use tokio::net::TcpSocket;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    end_with_parent();
    let address = env::args()
        .nth(1)
        .ok_or("usage: heartbeat-test-peer ADDRESS")?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(64 * 1024)?;
    let stream = socket.connect(address.parse()?).await?;
    let mut test = Heartbeat::new(stream, heartbeat_tests::quick());
    while let Some(event) = test.next().await {
        match event {
            PeerEvent::Message(word) if word == "leave" => test.close().await?,
            PeerEvent::Dead(death) => return Err(death.into()),
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
