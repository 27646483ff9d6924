//! A NAT that forgets idle connections, and a client that learns how soon.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{
    fs,
    io::{self, IoSlice},
    pin::Pin,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use futures::{StreamExt, stream};
use heartbeat_core::{IntervalSearch, SearchMethod, SearchOutcome};
use heartbeat_tests::{example, ms, scripted::scripted, secs};
use heartbeat_tokio::{
    Backoff, Cause, CloseReason, Config, Death, Heartbeat, IdleMeter, IntervalFile,
    IntervalFileError, Learner, Metered, PeerEvent, Probe, Prober, Reconnect, Role,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

const MINUTE: Duration = secs(60);

fn search() -> IntervalSearch {
    IntervalSearch::new(secs(30)..=120 * MINUTE).unwrap()
}

/// A server behind a NAT.
#[derive(Clone, Default)]
struct World(Arc<Facts>);

#[derive(Default)]
struct Facts {
    /// Seconds.
    nat_timeout: AtomicU64,
    is_down: AtomicBool,
    /// It tells the client that it forgets.
    closes: AtomicBool,
    /// The server asks as often as it likes.
    is_restless: AtomicBool,
    connections: AtomicU32,
}

impl World {
    fn new(nat_timeout: Duration) -> Self {
        let world = Self::default();
        world.set_timeout(nat_timeout);
        world
    }

    fn set_timeout(&self, timeout: Duration) {
        self.0.nat_timeout.store(timeout.as_secs(), Relaxed);
    }

    fn timeout(&self) -> Duration {
        secs(self.0.nat_timeout.load(Relaxed))
    }

    async fn connect(&self) -> io::Result<Nat> {
        sleep(ms(50)).await;
        if self.0.is_down.load(Relaxed) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.0.connections.fetch_add(1, Relaxed);
        let (near, far) = duplex(1 << 16);
        tokio::spawn(serve(far, !self.0.is_restless.load(Relaxed)));
        Ok(Nat {
            stream: near,
            world: self.clone(),
            passed_at: Instant::now(),
            has_forgotten: false,
            forgets_at: None,
        })
    }
}

/// As the guide has it.
async fn serve(stream: DuplexStream, follows: bool) {
    let passive = Config::mobile().to_builder().role(Role::Passive);
    let mut peer = Heartbeat::new(stream, passive.build().unwrap());
    while let Some(event) = peer.next().await {
        if let PeerEvent::Connected { peer: hello } = event {
            if follows {
                peer.set_interval(hello.interval * 5 / 4).unwrap();
            }
        }
    }
}

/// The client's end of a connection that is forgotten when nothing passes for too long.
struct Nat {
    stream: DuplexStream,
    world: World,
    passed_at: Instant,
    has_forgotten: bool,
    /// Where that is told.
    forgets_at: Option<Pin<Box<Sleep>>>,
}

impl Nat {
    fn forgets(&mut self) -> bool {
        let is_over = self.passed_at.elapsed() >= self.world.timeout();
        self.has_forgotten |= is_over || self.world.0.is_down.load(Relaxed);
        self.has_forgotten
    }
}

impl AsyncRead for Nat {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let closes = self.world.0.closes.load(Relaxed);
        if self.forgets() {
            return if closes {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        if closes {
            let end = self.passed_at + self.world.timeout();
            let mut sleep = Box::pin(sleep_until(end));
            // It is over later than now.
            let _ = sleep.as_mut().poll(cx);
            self.forgets_at = Some(sleep);
        }
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if !buffer.filled().is_empty() {
            self.passed_at = Instant::now();
        }
        polled
    }
}

impl AsyncWrite for Nat {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.forgets() {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.passed_at = Instant::now();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The application: one connection after the other. How many were lost.
async fn application(world: &World, learner: &Learner, lasting: Duration) -> u32 {
    let mut lost = 0;
    let backoff = Backoff::default().max_delay(secs(2));
    let mut server = Reconnect::new(backoff, async || {
        let stream = learner.meter().over(world.connect().await?);
        let config = learner.config(&Config::mobile());
        Ok::<_, io::Error>(Heartbeat::new(stream, config))
    })
    .learning(learner.clone());
    let use_it = async {
        loop {
            let mut peer = server.connect().await;
            while let Some(event) = peer.next().await {
                server.note(&event);
                peer.set_interval(learner.interval()).unwrap();
                lost += u32::from(event.is_terminal());
            }
        }
    };
    let _: Result<(), _> = timeout(lasting, use_it).await;
    lost
}

/// A second connection tries; what came of each attempt.
async fn probing(world: World, learner: Learner) {
    let mut prober = Prober::new(learner, Config::mobile(), Backoff::default());
    loop {
        prober
            .attempt(async |meter, config| {
                let stream = meter.over(world.connect().await?);
                Ok::<_, io::Error>(Heartbeat::new(stream, config))
            })
            .await;
    }
}

fn assert_learned(learner: &Learner, timeout: Duration) {
    let interval = learner.interval();
    assert!(interval < timeout, "{:?}", learner.search());
    assert!(interval >= timeout * 9 / 10, "{:?}", learner.search());
}

// ---- which connection tries ---------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_second_connection_learns_and_the_first_is_never_lost() {
    let world = World::new(17 * MINUTE);
    let learner = Learner::new(search());
    let prober = tokio::spawn(probing(world.clone(), learner.clone()));
    assert_eq!(application(&world, &learner, 180 * MINUTE).await, 0);
    assert_learned(&learner, 17 * MINUTE);
    // The first, eleven attempts, and after each of the five that were lost one more.
    assert_eq!(world.0.connections.load(Relaxed), 1 + 11 + 5);
    prober.abort();
}

#[tokio::test(start_paused = true)]
async fn the_connection_itself_learns_and_is_lost_for_each_step_down() {
    let world = World::new(17 * MINUTE);
    let learner = Learner::new(search()).on_own_connection();
    assert_eq!(application(&world, &learner, 240 * MINUTE).await, 5);
    assert_learned(&learner, 17 * MINUTE);
}

// ---- a network that changes ---------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_timeout_that_gets_shorter_costs_the_first_connection_once() {
    let world = World::new(17 * MINUTE);
    let learner = Learner::new(search());
    let prober = tokio::spawn(probing(world.clone(), learner.clone()));
    application(&world, &learner, 180 * MINUTE).await;
    world.set_timeout(5 * MINUTE);
    assert_eq!(application(&world, &learner, 120 * MINUTE).await, 1);
    assert_learned(&learner, 5 * MINUTE);
    prober.abort();
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_gets_longer_is_found_without_a_loss() {
    let world = World::new(5 * MINUTE);
    let learner = Learner::new(search());
    let prober = tokio::spawn(probing(world.clone(), learner.clone()));
    application(&world, &learner, 60 * MINUTE).await;
    world.set_timeout(20 * MINUTE);
    assert_eq!(application(&world, &learner, 300 * MINUTE).await, 0);
    assert_learned(&learner, 20 * MINUTE);
    prober.abort();
}

// ---- what says nothing about the network --------------------------------------

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_sign_of_a_shorter_timeout() {
    let world = World::new(17 * MINUTE);
    let learner = Learner::new(search());
    let prober = tokio::spawn(probing(world.clone(), learner.clone()));
    application(&world, &learner, 180 * MINUTE).await;
    let learned = learner.search();
    let outage = world.clone();
    tokio::spawn(async move {
        sleep(30 * MINUTE).await;
        outage.0.is_down.store(true, Relaxed);
        sleep(40 * MINUTE).await;
        outage.0.is_down.store(false, Relaxed);
    });
    assert_eq!(application(&world, &learner, 100 * MINUTE).await, 1);
    assert_eq!(learner.search().safe(), learned.safe());
    assert_eq!(learner.search().lost(), learned.lost());
    prober.abort();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_an_outage_proves_nothing() {
    let world = World::new(17 * MINUTE);
    let learner = Learner::new(search());
    let prober = tokio::spawn(probing(world.clone(), learner.clone()));
    sleep(secs(10)).await;
    world.0.is_down.store(true, Relaxed);
    sleep(5 * MINUTE).await;
    assert_eq!(learner.search(), search());
    world.0.is_down.store(false, Relaxed);
    sleep(180 * MINUTE).await;
    assert_learned(&learner, 17 * MINUTE);
    prober.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_early_is_no_sign_of_a_shorter_timeout() {
    let learner = Learner::new(search());
    learner.learn(SearchOutcome::Answered { idle: 10 * MINUTE });
    let before = learner.search();
    let mut server = Reconnect::new(Backoff::default(), async || {
        let (near, far) = duplex(1024);
        tokio::spawn(async move {
            sleep(secs(100)).await;
            drop(far);
        });
        let config = learner.config(&Config::mobile());
        Ok::<_, io::Error>(Heartbeat::new(learner.meter().over(near), config))
    })
    .learning(learner.clone());
    let mut peer = server.connect().await;
    while let Some(event) = peer.next().await {
        server.note(&event);
    }
    drop(server.connect().await);
    assert_eq!(learner.search(), before);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_more_often_proves_nothing_about_longer_times() {
    let world = World::new(5 * MINUTE);
    world.0.is_restless.store(true, Relaxed);
    let learner = Learner::new(search());
    let prober = tokio::spawn(probing(world.clone(), learner.clone()));
    application(&world, &learner, 60 * MINUTE).await;
    assert!(learner.interval() <= secs(30), "{:?}", learner.search());
    assert_eq!(learner.search().lost(), None);
    prober.abort();
}

#[tokio::test(start_paused = true)]
async fn an_idle_time_in_which_we_slept_is_not_counted() {
    for slept in [true, false] {
        let learner = Learner::new(search());
        // It was kept for longer once.
        learner.learn(SearchOutcome::Answered { idle: 30 * MINUTE });
        let before = learner.search();
        let _stream = learner.meter().over(duplex(1).0);
        sleep(20 * MINUTE).await;
        if slept {
            learner.note(&PeerEvent::<()>::LocalStall { late: MINUTE });
        }
        // A late beat is no sign of life.
        learner.note(&PeerEvent::<()>::Suspect {
            missed: 1,
            silent_for: MINUTE,
        });
        learner.note(&PeerEvent::<()>::Dead(Death::new(Cause::Silent)));
        // The next connection begins before the reason is known.
        assert_eq!(learner.search(), before);
        assert_eq!(learner.interval() == before.safe(), slept);
        learner.note_attempt(true);
        assert_eq!(learner.search() == before, slept);
    }
}

/// It may have been idle for too long if it was so for half of its interval at least.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_closed_early_is_closed_by_its_peer() {
    let learner = Learner::new(search());
    learner.learn(SearchOutcome::Answered { idle: 30 * MINUTE });
    let half = learner.interval() / 2;
    for cause in [Cause::Eof, Cause::Reset] {
        for (idle, is_possible) in [(half - ms(1), false), (half, true)] {
            let learner = Learner::new(learner.search());
            let _stream = learner.meter().over(duplex(1).0);
            sleep(idle).await;
            learner.note(&PeerEvent::<()>::Dead(Death::new(cause.clone())));
            let before = learner.search();
            learner.note_attempt(true);
            assert_eq!(learner.search() != before, is_possible, "{idle:?}");
        }
    }
}

/// What dies after that isn't measured.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_closed_in_order_is_no_longer_in_use() {
    let learner = Learner::new(search());
    let before = learner.search();
    let _stream = learner.meter().over(duplex(1).0);
    sleep(20 * MINUTE).await;
    let reason = CloseReason::Local;
    learner.note(&PeerEvent::<()>::Closed { reason });
    learner.note(&PeerEvent::<()>::Dead(Death::new(Cause::Silent)));
    learner.note_attempt(true);
    assert_eq!(learner.search(), before);
}

#[tokio::test(start_paused = true)]
async fn what_another_connection_learned_leaves_the_one_in_use_measured() {
    for (outcome, is_measured) in [
        (SearchOutcome::Unrelated, true),
        (SearchOutcome::NetworkChanged, false),
    ] {
        let learner = Learner::new(search());
        let _stream = learner.meter().over(duplex(1).0);
        sleep(20 * MINUTE).await;
        learner.learn(outcome);
        learner.note(&PeerEvent::<()>::Dead(Death::new(Cause::Silent)));
        let before = learner.search();
        learner.note_attempt(true);
        assert_eq!(learner.search() != before, is_measured, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_network_begins_with_what_is_known_of_it() {
    let world = World::new(5 * MINUTE);
    let learner = Learner::new(search());
    let prober = tokio::spawn(probing(world.clone(), learner.clone()));
    application(&world, &learner, 60 * MINUTE).await;
    let home = learner.search();
    learner.change_network(search());
    assert_eq!(learner.interval(), secs(30));
    learner.change_network(home);
    assert_learned(&learner, 5 * MINUTE);
    prober.abort();
}

/// Its connection belongs to the network that was left, and is lost with it.
#[tokio::test(start_paused = true)]
async fn a_network_that_changes_during_an_attempt_teaches_nothing_of_the_next() {
    let world = World::new(120 * MINUTE);
    let learner = Learner::new(search());
    learner.learn(SearchOutcome::Answered { idle: 20 * MINUTE });
    let prober = tokio::spawn(probing(world.clone(), learner.clone()));
    sleep(10 * MINUTE).await;
    let mut work = search();
    work.learn(SearchOutcome::Answered { idle: 60 * MINUTE });
    work.learn(SearchOutcome::Lost { idle: 62 * MINUTE });
    assert_eq!(work.next(), None, "there is nothing left to try");
    learner.change_network(work);
    // What was connected is forgotten at once, and new connections succeed.
    world.set_timeout(ms(0));
    sleep(120 * MINUTE).await;
    assert_eq!(learner.search(), work);
    assert_eq!(world.0.connections.load(Relaxed), 1);

    // The same where nothing is known of the next, and its first attempt begins at once.
    world.set_timeout(120 * MINUTE);
    learner.learn(SearchOutcome::NetworkChanged);
    sleep(2 * MINUTE).await;
    assert!(learner.interval() > secs(30), "{:?}", learner.search());
    prober.abort();
}

/// It does so before half of what the longest attempts wait for.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_closes_idle_connections_is_learned_by_every_method() {
    let steps = SearchMethod::Step(5 * MINUTE);
    let methods = [SearchMethod::Binary, SearchMethod::Composite, steps];
    for method in methods {
        let world = World::new(7 * MINUTE);
        world.0.closes.store(true, Relaxed);
        let learner = Learner::new(search().method(method));
        let prober = tokio::spawn(probing(world.clone(), learner.clone()));
        sleep(180 * MINUTE).await;
        let safe = learner.interval();
        assert!(learner.search().lost().is_some(), "{method:?}: {safe:?}");
        assert!(
            safe > 5 * MINUTE && safe < 7 * MINUTE,
            "{method:?}: {safe:?}"
        );
        prober.abort();
    }
}

// ---- what is measured ----------------------------------------------------------

/// The peer's answer arrives. What was learned with it.
async fn answered<S: AsyncRead + Unpin>(
    learner: &Learner,
    stream: &mut Metered<S>,
) -> IntervalSearch {
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 1);
    learner.note(&PeerEvent::<()>::Beat { rtt: ms(80) });
    learner.search()
}

fn survived(idle: Duration) -> IntervalSearch {
    let mut learned = search();
    learned.learn(SearchOutcome::Answered { idle });
    learned
}

#[tokio::test(start_paused = true)]
async fn bytes_end_an_idle_time_and_a_write_of_none_does_not() {
    let learner = Learner::new(search());
    let (inner, script) = scripted();
    let mut stream = learner.meter().over(inner);
    sleep(10 * MINUTE).await;
    assert_eq!(stream.write(&[]).await.unwrap(), 0);
    sleep(10 * MINUTE).await;
    assert_eq!(stream.write(b"?").await.unwrap(), 1);
    script.give_bytes("!");
    let learned = answered(&learner, &mut stream).await;
    assert_eq!(learned, survived(20 * MINUTE));

    // Several slices do so too.
    let learner = Learner::new(search());
    let (inner, script) = scripted();
    let mut stream = learner.meter().over(inner);
    sleep(10 * MINUTE).await;
    let slices = [IoSlice::new(b"wh"), IoSlice::new(b"at?")];
    assert_eq!(stream.write_vectored(&slices).await.unwrap(), 5);
    assert_eq!(script.sent(), b"what?");
    sleep(5 * MINUTE).await;
    script.give_bytes("!");
    let learned = answered(&learner, &mut stream).await;
    assert_eq!(learned, survived(10 * MINUTE));
}

#[tokio::test(start_paused = true)]
async fn a_measured_stream_is_written_flushed_and_ended_as_it_would_be_by_itself() {
    let learner = Learner::new(search());
    let (inner, script) = scripted();
    let mut stream = learner.meter().over(inner);
    for vectored in [true, false] {
        script.set_vectored(vectored);
        assert_eq!(stream.is_write_vectored(), vectored);
    }
    script.set_buffered(true);
    stream.write_all(b"first").await.unwrap();
    assert_eq!(script.sent(), b"");
    stream.flush().await.unwrap();
    assert_eq!(script.sent(), b"first");

    let (inner, mut peer) = duplex(1);
    let mut stream = learner.meter().over(inner);
    stream.shutdown().await.unwrap();
    let ended = timeout(secs(1), peer.read(&mut [0; 1])).await;
    assert_eq!(ended.expect("the end arrives").unwrap(), 0);
}

// ---- when the next attempt begins --------------------------------------------

/// The least time between two attempts of which the first taught nothing.
const PAUSE: Duration = secs(3600);

/// An attempt on a connection whose pings are answered each time that it was idle for so
/// long, or that fails: what came of it, and the time until the next one begins.
async fn attempt_and_next(answered_after: Option<Duration>) -> (Probe, Duration) {
    let backoff = Backoff::default().min_delay(PAUSE).max_delay(4 * PAUSE);
    let mut prober = Prober::new(Learner::new(search()), Config::mobile(), backoff);
    let first = prober.attempt(async |meter: IdleMeter, _| {
        let idle = answered_after.ok_or(io::ErrorKind::TimedOut)?;
        let (near, far) = duplex(1);
        let ends = (meter.over(near), far);
        Ok::<_, io::Error>(stream::unfold(
            ends,
            move |(mut near, mut far)| async move {
                sleep(idle).await;
                near.write_all(b"?").await.ok()?;
                far.read_u8().await.ok()?;
                far.write_all(b"!").await.ok()?;
                near.read_u8().await.ok()?;
                let beat = PeerEvent::<()>::Beat { rtt: ms(0) };
                Some((beat, (near, far)))
            },
        ))
    });
    let first = first.await;
    let ended = Instant::now();
    let next = prober.attempt(async |_, _| {
        let failed = io::Error::from(io::ErrorKind::TimedOut);
        Err::<stream::Pending<PeerEvent<()>>, _>(failed)
    });
    next.await;
    (first, ended.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_begins_at_once_after_one_that_taught_something() {
    let interval = search().next().unwrap();
    let enough = interval - interval / 20;
    let (probe, pause) = attempt_and_next(Some(enough)).await;
    let idle = enough;
    assert_eq!(probe.outcome, SearchOutcome::Answered { idle });
    assert_eq!((probe.took, pause), (idle, ms(0)));

    // The peer doesn't leave it idle, which is seen after three answers.
    let idle = enough - ms(1);
    let (probe, pause) = attempt_and_next(Some(idle)).await;
    assert_eq!(probe.outcome, SearchOutcome::Answered { idle });
    assert_eq!(probe.took, 3 * idle);
    assert!(pause >= PAUSE, "{pause:?}");

    let (probe, pause) = attempt_and_next(None).await;
    assert_eq!(probe.outcome, SearchOutcome::Unrelated);
    assert!(pause >= PAUSE, "{pause:?}");
}

// ---- the interval of a connection ---------------------------------------------

#[tokio::test(start_paused = true)]
async fn an_interval_that_is_set_is_announced_and_kept_by_a_spawned_connection_too() {
    let (near, far) = duplex(1 << 16);
    let config = Config::builder().interval(secs(10)).jitter(0.0);
    let config = config.beat_events(false).build().unwrap();
    let ours = Heartbeat::new(near, config).spawn();
    let mut theirs = Heartbeat::new(far, config);
    let mut announced = Vec::new();
    let began_at = Instant::now();
    let watch = async {
        while let Some(event) = theirs.next().await {
            if let PeerEvent::Connected { peer } = event {
                announced.push((began_at.elapsed().as_secs(), peer.interval));
                theirs.set_interval(peer.interval).unwrap();
                assert_eq!(theirs.config().interval(), peer.interval);
            }
        }
    };
    let set = async {
        sleep(secs(3)).await;
        ours.sender.set_interval(secs(600)).unwrap();
        assert!(ours.sender.set_interval(Duration::ZERO).is_err());
        sleep(secs(2_000)).await;
        ours.sender.status()
    };
    let status = tokio::select! {
        status = set => status,
        () = watch => panic!("it ended"),
    };
    assert_eq!(announced, [(0, secs(10)), (3, secs(600))]);
    assert_eq!(status.peer.interval, secs(600));
    assert_eq!(status.peer.detection_time, secs(609));
    // One at most before 3 s, and one in ten minutes from then on.
    assert!((3..=4).contains(&status.peer.pings), "{status:?}");
}

// ---- the file -----------------------------------------------------------------

#[test]
fn what_was_learned_comes_back_for_its_network_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intervals.json");
    let mut learned = search();
    learned.learn(SearchOutcome::Answered { idle: 10 * MINUTE });
    let mut file = IntervalFile::read(&path).unwrap();
    file.remember("wifi: \"home\"\n", learned);
    let (longest, longer) = ("k".repeat(4096), "k".repeat(4097));
    file.remember(&longest, learned);
    file.remember(&longer, learned);
    file.write().unwrap();
    let file = IntervalFile::read(&path).unwrap();
    assert_eq!(file.recall("wifi: \"home\"\n", search()), learned);
    assert_eq!(file.recall("wifi: work", search()), search());
    assert_eq!(file.recall(&longest, search()), learned);
    assert_eq!(file.recall(&longer, search()), search());
    // With another range it means something else.
    let other = IntervalSearch::new(secs(1)..=secs(5)).unwrap();
    assert_eq!(file.recall("wifi: \"home\"\n", other), other);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_network_that_was_used_longest_ago_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intervals.json");
    let mut learned = search();
    learned.learn(SearchOutcome::Answered { idle: 10 * MINUTE });
    let mut file = IntervalFile::empty(&path);
    for network in 0..300 {
        file.remember(&network.to_string(), learned);
        file.remember("in use", learned);
    }
    file.write().unwrap();
    let file = IntervalFile::read(&path).unwrap();
    let is_known = |key: &str| file.recall(key, search()) == learned;
    let known = (0..300).filter(|network| is_known(&network.to_string()));
    assert_eq!(known.collect::<Vec<_>>(), (45..300).collect::<Vec<_>>());
    assert!(is_known("in use"));
}

#[test]
fn a_corrupt_file_is_said_to_be_so_and_never_believed_blindly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intervals.json");
    let mut learned = search();
    learned.learn(SearchOutcome::Answered { idle: 10 * MINUTE });
    let mut file = IntervalFile::empty(&path);
    file.remember("home", learned);
    file.write().unwrap();
    let whole = fs::read(&path).unwrap();
    let (mut refused, mut read) = (0, 0);
    let broken = (0..whole.len()).flat_map(|at| {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        [flipped, whole[..at].to_vec()]
    });
    for bytes in broken {
        fs::write(&path, bytes).unwrap();
        match IntervalFile::read(&path) {
            Ok(file) => {
                read += 1;
                let found = file.recall("home", search());
                assert!(search().range().contains(&found.safe()));
            }
            Err(IntervalFileError::Corrupt { .. } | IntervalFileError::Version { .. }) => {
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > whole.len(), "{refused}, {read}");
}

#[test]
fn a_file_that_several_write_at_once_is_always_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intervals.json");
    thread::scope(|scope| {
        for writer in 1..=4 {
            let path = &path;
            scope.spawn(move || {
                let mut file = IntervalFile::empty(path);
                for network in 0..60 * writer {
                    file.remember(&network.to_string(), search());
                    file.write().unwrap();
                    IntervalFile::read(path).unwrap();
                }
            });
        }
    });
    // Nothing else is left behind.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_of_another_version_or_above_8_mib_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("intervals.json");
    fs::write(&path, r#"{"version":2,"networks":{}}"#).unwrap();
    let error = IntervalFile::read(&path).unwrap_err();
    assert!(matches!(
        error,
        IntervalFileError::Version { version: 2, .. }
    ));
    // A valid one, and spaces behind it.
    let mut text = br#"{"version":1,"networks":[]}"#.to_vec();
    text.resize(8 << 20, b' ');
    fs::write(&path, &text).unwrap();
    IntervalFile::read(&path).unwrap();
    text.push(b' ');
    fs::write(&path, text).unwrap();
    let error = IntervalFile::read(&path).unwrap_err();
    assert!(matches!(error, IntervalFileError::Corrupt { .. }));
    let error = IntervalFile::read(folder.path()).unwrap_err();
    assert!(matches!(error, IntervalFileError::Io { .. }));
}

// ---- the example --------------------------------------------------------------

#[test]
fn the_example_prints_a_line_for_each_attempt_and_draws_them() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("learned.svg");
    let mut learn = Command::new(example("learn"));
    learn.args(["simulate", "--nat-timeout", "5m", "--svg"]);
    let output = learn.arg(&picture).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let guide = include_str!("../../docs/guide/batteries.md");
    assert!(guide.contains(&format!("```text\n{text}```")), "{text}");
    let svg = fs::read_to_string(picture).unwrap();
    let circles = svg.lines().filter(|line| line.starts_with("<circle"));
    let colors = circles
        .map(|line| line.contains("#FF0000"))
        .collect::<Vec<_>>();
    // Eight attempts, of which the fourth to the sixth were lost.
    assert_eq!(
        colors,
        [false, false, false, true, true, true, false, false]
    );
}
