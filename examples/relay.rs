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

use crate::network::{Host, Network};
use tokio::{
    runtime::Builder,
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tun_rs::{AsyncDevice, DeviceBuilder};

/// As long as no packet is longer than this one: that of the cables.
const LARGEST: usize = 1500;

/// It forwards until it is dropped.
#[derive(Debug)]
pub struct Relay {
    _stop: oneshot::Sender<()>,
    state: Arc<State>,
}

/// What has been asked of it.
#[derive(Debug, Default)]
struct State {
    losing: AtomicBool,
    cut: AtomicBool,
}

/// What it does to packets, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// How long each takes at least.
    pub delay: Duration,
    /// By how much longer it takes at most. Packets stay in order.
    pub jitter: Duration,
    /// Of all packets, from 0 to 1, once it [loses](Relay::lose) any.
    pub loss: f64,
}

impl Relay {
    /// From here on everything between the two hosts goes through it.
    ///
    /// # Errors
    ///
    /// If there is no such device here, or `ip` fails.
    pub fn start(network: &Network, line: Line) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, when_ready) = std::sync::mpsc::channel();
        let router = network.router.try_clone()?;
        let state = Arc::new(State::default());
        let asked = state.clone();
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
                    _ = forward(&device, line, &asked) => {}
                }
            };
            if let Ok(runtime) = Builder::new_current_thread().enable_all().build() {
                runtime.block_on(forwarding);
            }
        });
        when_ready.recv().map_err(io::Error::other)??;

        network.router.ip(&[
            // Connections that were made together beat together.
            "link set relay up txqueuelen 10000",
            "route add default dev relay table 77",
            "rule add iif to0 lookup 77",
            "rule add iif to1 lookup 77",
        ])?;
        Ok(Self { _stop: stop, state })
    }

    /// From here on some packets are lost.
    pub fn lose(&self) {
        self.state.losing.store(true, Ordering::Relaxed);
    }

    /// From here on all packets are lost, except those that are on their way.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::Relaxed);
    }

    /// Whether this system has such devices.
    ///
    /// # Errors
    ///
    /// Why not.
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

async fn forward(device: &AsyncDevice, line: Line, state: &State) -> io::Result<()> {
    let mut on_its_way: VecDeque<(Instant, _)> = VecDeque::new();
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
                let length = length?;
                let is_lost = state.cut.load(Ordering::Relaxed)
                    || state.losing.load(Ordering::Relaxed) && fastrand::f64() < line.loss;
                if !is_lost {
                    let packet = buffer[..length].to_vec();
                    let takes = line.delay + line.jitter.mul_f64(fastrand::f64());
                    let last = on_its_way.back().map(|(arrives, _)| *arrives);
                    let arrives = Some(Instant::now() + takes).max(last);
                    on_its_way.extend(arrives.map(|arrives| (arrives, packet)));
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
