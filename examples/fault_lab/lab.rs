//! The runs: one thread for each fault, with a peer of its own, and all
//! detectors on it at the same time.
//!
//! ```text
//! start    settled   prepared  fault                     watched long enough
//!   |---------|---------|--------|------- alarms ---------------|
//!   0.5 .. 0.9 budgets           0
//! ```
//!
//! This module decides the order of events; what they mean is judged in
//! `report.rs`.

use std::{
    io,
    net::IpAddr,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket},
    runtime::Builder,
    sync::{mpsc::UnboundedSender, watch},
    task::JoinSet,
    time::{sleep, timeout, timeout_at},
};

use crate::{
    detectors::{Alarm, Circumstances, Detector},
    peer::BUFFER,
    process::{Assignment, PeerProcess},
    report::Finding,
    scenarios::{Fault, Maker, Place},
    site::Site,
};

/// How long a peer may take to get ready.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// What happens in a run.
#[derive(Debug)]
pub enum News {
    /// A detector raised an alarm.
    Alarm(Fault, Detector, Finding),
    /// Each detector raised an alarm, or it was watched for long enough.
    Done(Fault),
    /// The fault couldn't be made.
    Failed(Fault, io::Error),
}

/// Starts the run of one fault. It is over early if `stop` says so.
pub fn start(
    fault: Fault,
    budget: Duration,
    news: UnboundedSender<News>,
    stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let last = match run(fault, budget, &news, stop) {
            Ok(()) => News::Done(fault),
            Err(error) => News::Failed(fault, error),
        };
        // The receiver is gone if the lab was stopped.
        let _ = news.send(last);
    };
    thread::Builder::new().name(fault.name()).spawn(run)
}

fn run(
    fault: Fault,
    budget: Duration,
    news: &UnboundedSender<News>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let site = match fault.place() {
        Place::Loopback => Site::loopback(),
        Place::Network => Site::network(fault)?,
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();

    // This thread stays, so that the kernel ends the peer when it is gone.
    site.move_to_ours()?;
    let listener = listen(site.our_address())?;
    site.move_to_theirs()?;
    let peer = PeerProcess::start(Assignment::new(fault, budget, listener.local_addr()?))?;
    site.move_to_ours()?;

    let run = Run {
        fault,
        budget,
        news,
        site,
        peer,
    };
    runtime.block_on(async {
        tokio::select! {
            result = run.observe(listener) => result,
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        }
    })
}

fn listen(address: IpAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.bind((address, 0).into())?;
    socket.listen(u32::try_from(Detector::ALL.len()).unwrap_or(u32::MAX))
}

/// One fault, from a peer that has just been started.
struct Run<'a> {
    fault: Fault,
    budget: Duration,
    news: &'a UnboundedSender<News>,
    site: Site,
    peer: PeerProcess,
}

impl Run<'_> {
    async fn observe(mut self, listener: TcpListener) -> io::Result<()> {
        let mut watching = timeout(GIVE_UP_AFTER, self.set_up(listener)).await??;
        // So that the runs meet every phase of an interval.
        sleep(self.budget.mul_f64(0.5 + 0.4 * fastrand::f64())).await;
        timeout(GIVE_UP_AFTER, self.peer.prepare()).await??;

        let began = self.make_fault().await?;
        let until = began + self.fault.observe_for(self.budget);
        let Self {
            fault,
            news,
            site,
            peer,
            ..
        } = self;
        let watch = async {
            while let Ok(Some(alarm)) = timeout_at(until.into(), watching.join_next()).await {
                let (detector, alarm) = alarm.map_err(io::Error::other)?;
                let finding = Finding::new(alarm, began);
                let _ = news.send(News::Alarm(fault, detector, finding));
            }
            Ok(())
        };
        tokio::select! {
            result = watch => result,
            error = come_back(fault, site, peer) => Err(error),
        }
    }

    /// Accepts a connection for each detector, in the order in which the peer
    /// makes them.
    async fn set_up(&self, listener: TcpListener) -> io::Result<JoinSet<(Detector, Alarm)>> {
        let circumstances = Circumstances {
            budget: self.budget,
            we_send: self.fault.we_send(),
        };
        let mut watching = JoinSet::new();
        for detector in Detector::ALL {
            let (mut stream, _) = listener.accept().await?;
            if !matches!(detector, Detector::Heartbeat | Detector::HandWritten) {
                stream.write_all(b"hello").await?;
            }
            watching.spawn(async move { (detector, detector.watch(stream, circumstances).await) });
        }
        Ok(watching)
    }

    /// Returns since when it is there.
    async fn make_fault(&mut self) -> io::Result<Instant> {
        // Of what can't be done in one step counts the end: from there on
        // nothing is heard.
        let began = Instant::now();
        match self.fault {
            Fault::Sigkill => self.peer.kill()?,
            Fault::Sigstop | Fault::HostAsleep => self.peer.stop()?,
            _ if self.fault.maker() == Maker::Peer => self.peer.act().await?,
            _ => {}
        }
        if self.fault.place() == Place::Loopback {
            return Ok(began);
        }
        self.site.break_network(self.fault).await?;
        if self.fault == Fault::HostReboot {
            self.peer.kill()?;
        }
        Ok(Instant::now())
    }
}

/// What a fault does later. Returns only if it fails to.
async fn come_back(fault: Fault, site: Site, peer: PeerProcess) -> io::Error {
    match fault.comes_back_after() {
        Some(time) => sleep(time).await,
        None => std::future::pending().await,
    }
    let result = match fault {
        Fault::HostReboot => site.replace_their_host().await,
        Fault::HostAsleep => match site.mend_network().await {
            Ok(()) => peer.go_on(),
            error => error,
        },
        _ => Ok(()),
    };
    match result {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}
