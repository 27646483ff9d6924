//! A long and bad line: a program between two ports of the router, which holds
//! every packet for some time, and loses some.
//!
//! The router hands what it would forward to a TUN device and this program
//! hands it back, so that both kernels see real packets: delayed or lost, and
//! otherwise untouched.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use heartbeat_examples::network::{Host, Network};
use tokio::{
    runtime::Builder,
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tun_rs::{AsyncDevice, DeviceBuilder};

/// As long as no packet is longer than this one: that of the cables.
const LARGEST: usize = 1500;

/// It forwards until it is dropped.
pub struct Relay {
    _stop: oneshot::Sender<()>,
    losing: Arc<AtomicBool>,
}

/// What it does to packets, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub delay: Duration,
    /// Of all packets, from 0 to 1, once it [loses](Relay::lose) any.
    pub loss: f64,
}

impl Relay {
    /// From here on everything between the two hosts goes through it.
    pub fn start(network: &Network, line: Line) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, when_ready) = std::sync::mpsc::channel();
        let router = network.router.try_clone()?;
        let losing = Arc::new(AtomicBool::new(false));
        let lose = losing.clone();
        thread::spawn(move || {
            let forwarding = async {
                let device = match device(&router) {
                    Ok(device) => device,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                drop(ready.send(Ok(())));
                tokio::select! {
                    _ = stopped => {}
                    // The device is gone.
                    _ = forward(&device, line, &lose) => {}
                }
            };
            if let Ok(runtime) = Builder::new_current_thread().enable_all().build() {
                runtime.block_on(forwarding);
            }
        });
        when_ready.recv().map_err(io::Error::other)??;

        network.router.ip(&[
            "link set relay up",
            "route add default dev relay table 77",
            "rule add iif to0 lookup 77",
            "rule add iif to1 lookup 77",
        ])?;
        Ok(Self {
            _stop: stop,
            losing,
        })
    }

    /// From here on some packets are lost.
    pub fn lose(&self) {
        self.losing.store(true, Ordering::Relaxed);
    }

    /// Whether this system has such devices.
    pub fn is_possible(network: &Network) -> io::Result<()> {
        network.router.enter(|| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { device(&network.router).map(drop) })
        })
    }
}

fn device(router: &Host) -> io::Result<AsyncDevice> {
    router.move_in()?;
    (DeviceBuilder::new().name("relay").build_async())
        .map_err(|error| io::Error::new(error.kind(), format!("no TUN device: {error}")))
}

async fn forward(device: &AsyncDevice, line: Line, losing: &AtomicBool) -> io::Result<()> {
    let mut on_its_way = VecDeque::new();
    let mut buffer = [0; LARGEST];
    loop {
        let next = on_its_way.front().map(|(arrives, _)| *arrives);
        let arrival = async {
            match next {
                Some(arrives) => sleep_until(arrives).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            length = device.recv(&mut buffer) => {
                if !losing.load(Ordering::Relaxed) || fastrand::f64() >= line.loss {
                    let packet = buffer[..length?].to_vec();
                    on_its_way.push_back((Instant::now() + line.delay, packet));
                }
            }
            () = arrival => {
                if let Some((_, packet)) = on_its_way.pop_front() {
                    // A packet that can't be forwarded is lost, as anywhere.
                    let _ = device.send(&packet).await;
                }
            }
        }
    }
}
