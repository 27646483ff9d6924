//! The faults, and what is right in each case.

use std::{fs, io, net::IpAddr, pin::Pin, process::Command, sync::mpsc, thread, time::Duration};

use heartbeat_examples::network::{Host, LEFT, Network};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    Options, Row,
    stage::{Outcome, Stage},
};
use crate::{children::Redis, presence::Kind};

type Running = Pin<Box<dyn Future<Output = Row>>>;

/// All faults whose names were asked for, each tried beside the others.
pub fn all(options: &Options) -> impl Iterator<Item = Running> + use<'_> {
    macro_rules! rows {
        ($($fault:literal => $row:ident,)*) => {
            [$((
                $fault,
                Box::pin(tried($fault, $row($fault, options.clone()))) as Running,
            )),*]
        };
    }
    let rows = rows! {
        "a gateway is killed" => gateway_killed,
        "a gateway stands still for longer than its lease" => gateway_stopped,
        "each gateway is restarted" => gateways_restarted,
        "clients freeze, are killed, say goodbye and move" => clients_go,
        "Redis is killed, and restarted empty" => redis_killed,
        "Redis stands still for longer than a lease" => redis_stopped,
        "the network between a gateway and Redis is cut" => network_cut,
        "a gateway's clock is an hour ahead" => clocks_apart,
    };
    let wanted = rows
        .into_iter()
        .filter(|(fault, _)| fault.contains(&options.only));
    wanted.map(|(_, row)| row)
}

/// An error is amiss too.
async fn tried(fault: &'static str, row: impl Future<Output = Outcome<Row>>) -> Row {
    row.await.unwrap_or_else(|error| Row {
        fault,
        amiss: vec![error.to_string()],
        ..Row::default()
    })
}

async fn gateway_killed(fault: &'static str, options: Options) -> Outcome<Row> {
    let mut stage = Stage::new(fault, &options).await?;
    stage.add_clients(&[0, 1, 2], "user", 300)?;
    // They know one gateway only, and can't come back.
    stage.add_clients(&[0], "lost", 20)?;
    stage.settle(320).await?;
    let terms = options.timings().terms();
    let killed = Instant::now();
    stage.gateways[0].process.kill().await?;
    let known = "the gateway is announced as lost";
    stage
        .until(killed, known, terms.gateway_lost(), Kind::GatewayLost, "a")
        .await?;
    let offline = "users without another gateway are offline";
    stage
        .until(
            killed,
            offline,
            terms.gateway_offline(),
            Kind::Left,
            "lost0",
        )
        .await?;
    let complete = "the others are present once";
    stage
        .until_present(killed, complete, terms.gateway_offline(), 300)
        .await?;
    let left = stage.announced(killed, Kind::Left);
    if left.len() != 20 || !left.iter().all(|user| user.starts_with("lost")) {
        stage.amiss(format!("{} have left: {left:?}", left.len()));
    }
    if stage.announced(killed, Kind::GatewayLost).len() != 1 {
        stage.amiss("the loss isn't announced once".into());
    }
    stage.finish().await
}

async fn gateway_stopped(fault: &'static str, options: Options) -> Outcome<Row> {
    let mut stage = Stage::new(fault, &options).await?;
    stage.add_clients(&[0, 1, 2], "user", 60)?;
    stage.settle(60).await?;
    let terms = options.timings().terms();
    let stopped = Instant::now();
    stage.gateways[0].process.stop()?;
    let known = "the gateway is announced as lost";
    stage
        .until(stopped, known, terms.gateway_lost(), Kind::GatewayLost, "a")
        .await?;
    sleep(terms.grace() + terms.look()).await;
    let continued = Instant::now();
    stage.gateways[0].process.go_on()?;
    stage.gateway_says(0, continued, "fenced").await?;
    stage
        .gateway_says(0, continued, "the lease is held")
        .await?;
    if stage.counted(0, "presence_fenced_total").await? != "1" {
        stage.amiss("not fenced once".into());
    }
    let complete = "all are present once";
    stage
        .until_present(continued, complete, terms.refresh(), 60)
        .await?;
    // Whatever it has to clean up it does within this time.
    sleep(terms.refresh() + terms.grace()).await;
    stage.announced_only(stopped, &[], &[]);
    stage
        .until_present(Instant::now(), "and stay", Duration::ZERO, 60)
        .await?;
    stage.finish().await
}

async fn gateways_restarted(fault: &'static str, options: Options) -> Outcome<Row> {
    let mut stage = Stage::new(fault, &options).await?;
    let clients = stage.add_clients(&[0, 1, 2], "user", 60)?;
    let pages = stage.add_pages(&[0, 1, 2], "page", 30)?;
    stage.settle(90).await?;
    let terms = options.timings().terms();
    for number in 0..3 {
        let begun = Instant::now();
        let at = [stage.gateways[number].tcp, stage.gateways[number].http];
        stage.gateways[number].process.terminate().await?;
        stage.add_gateway(number, &[], Some(at)).await?;
        let complete = "after a restart all are present once";
        stage
            .until_present(begun, complete, terms.grace(), 90)
            .await?;
        stage.announced_only(begun, &[], &[]);
        // All of its clients were told so; it had a third of them at least.
        let ends = [stage.ends(clients, begun), stage.ends(pages, begun)].concat();
        if ends.len() < 30 || !ends.iter().all(|how| how.contains("restarting")) {
            stage.amiss(format!("gateway {number}: {ends:?}"));
        }
    }
    stage.finish().await
}

async fn clients_go(fault: &'static str, options: Options) -> Outcome<Row> {
    let mut stage = Stage::new(fault, &options).await?;
    let frozen = stage.add_clients(&[0, 1, 2], "frozen", 1)?;
    let killed = stage.add_clients(&[1, 2, 0], "killed", 1)?;
    let leaving = stage.add_clients(&[2, 0, 1], "leaving", 1)?;
    let moving = stage.add_clients(&[0, 1, 2], "moving", 10)?;
    let shared = stage.add_clients(&[1], "shared", 1)?;
    let pages = [
        stage.add_pages(&[0, 1, 2], "page-frozen", 1)?,
        stage.add_pages(&[1, 2, 0], "page-killed", 1)?,
        stage.add_pages(&[2, 0, 1], "page-leaving", 1)?,
    ];
    stage.add_clients(&[0, 1, 2], "user", 10)?;
    // A name with a control character is refused, and so is one that is too long.
    let nameless = [
        stage.add_clients(&[0], "\u{1b}[2J", 1)?,
        stage.add_pages(&[0], &"long".repeat(15), 1)?,
    ];
    stage.settle(27).await?;
    let other = stage.add_clients(&[2], "shared", 1)?;
    stage.until_connected(other).await?;
    let terms = options.timings().terms();
    let begun = Instant::now();
    for (frozen, killed, leaving) in [(frozen, killed, leaving), pages.into()] {
        stage.clients[frozen].stop()?;
        stage.clients[killed].kill().await?;
        stage.clients[leaving].signal("TERM").await?;
    }
    stage.clients[moving].signal("USR1").await?;
    // The same user has another connection.
    stage.clients[shared].signal("TERM").await?;
    let at_once = terms.grace() + terms.look();
    let (said, gone) = (
        "a user says goodbye, and is offline",
        "a client is killed, and is offline without waiting for D",
    );
    let ends = [
        (said, Duration::ZERO, "leaving0"),
        (said, Duration::ZERO, "page-leaving0"),
        (gone, at_once, "killed0"),
        (gone, at_once, "page-killed0"),
        (
            "a client freezes, and is offline",
            terms.client_offline(),
            "frozen0",
        ),
        (
            "a page freezes, and is offline",
            terms.client_offline(),
            "page-frozen0",
        ),
    ];
    for (what, promised, user) in ends {
        stage.until(begun, what, promised, Kind::Left, user).await?;
    }
    stage
        .until_present(
            begun,
            "the others are present once",
            terms.client_offline(),
            21,
        )
        .await?;
    let mut left = ends.map(|(_, _, user)| user);
    left.sort_unstable();
    stage.announced_only(begun, &[], &left);
    for nameless in nameless {
        let ends = stage.ends(nameless, begun);
        if ends.is_empty() || !ends.iter().all(|how| how.contains("1 to 60 visible")) {
            stage.amiss(format!("a name that is refused: {ends:?}"));
        }
    }
    if stage.ends(moving, begun).len() != 10 {
        stage.amiss("not all have moved".into());
    }
    stage.finish().await
}

async fn redis_killed(fault: &'static str, options: Options) -> Outcome<Row> {
    let mut stage = Stage::new(fault, &options).await?;
    let clients = stage.add_clients(&[0, 1, 2], "user", 60)?;
    let leaving = stage.add_clients(&[0, 1, 2], "leaving", 1)?;
    stage.settle(61).await?;
    let terms = options.timings().terms();
    // Gateways learn at a refresh that their users were announced. Before that they can't
    // tell a new store.
    sleep(terms.refresh() + terms.look()).await;
    let killed = Instant::now();
    stage.redis.kill().await?;
    stage.gateway_says(0, killed, "stale").await?;
    stage.clients[leaving].terminate().await?;
    stage.add_clients(&[2, 0, 1], "late", 1)?;
    sleep(options.away.saturating_sub(killed.elapsed())).await;
    stage.gateway_says(0, killed, "fenced").await?;
    let restarted = Instant::now();
    stage.redis.start_again().await?;
    // Counted from when it answers: a busy machine starts it late.
    let complete = "presence is complete again";
    stage
        .until_listed(Instant::now(), complete, terms.refresh(), 61)
        .await?;
    for number in 0..3 {
        stage
            .gateway_says(number, restarted, "the lease is held")
            .await?;
    }
    let ends = stage.ends(clients, killed);
    if !ends.is_empty() {
        stage.amiss(format!("connections have ended: {ends:?}"));
    }
    // A new store announces nobody for a lease.
    let quiet = terms.lease() + terms.look();
    let came = "a user that joined meanwhile is announced";
    stage
        .until(restarted, came, quiet, Kind::Joined, "late0")
        .await?;
    let offline = "a user that left meanwhile is offline";
    stage
        .until(restarted, offline, quiet, Kind::Left, "leaving0")
        .await?;
    stage.announced_only(killed, &["late0"], &["leaving0"]);
    stage.finish().await
}

/// Nothing that waited in its sockets does harm when it goes on.
async fn redis_stopped(fault: &'static str, options: Options) -> Outcome<Row> {
    let mut stage = Stage::new(fault, &options).await?;
    let clients = stage.add_clients(&[0, 1, 2], "user", 60)?;
    let leaving = stage.add_clients(&[0, 1, 2], "leaving", 1)?;
    stage.settle(61).await?;
    let terms = options.timings().terms();
    let stopped = Instant::now();
    stage.redis.stop()?;
    stage.clients[leaving].terminate().await?;
    stage.add_clients(&[2, 0, 1], "late", 1)?;
    sleep(terms.lease() + terms.refresh()).await;
    stage.gateway_says(0, stopped, "fenced").await?;
    let continued = Instant::now();
    stage.redis.go_on()?;
    let complete = "presence is complete again";
    stage
        .until_present(continued, complete, terms.refresh() + terms.grace(), 61)
        .await?;
    sleep(terms.grace() + terms.look() + options.tolerance).await;
    let ends = stage.ends(clients, stopped);
    if !ends.is_empty() {
        stage.amiss(format!("connections have ended: {ends:?}"));
    }
    stage.announced_only(stopped, &["late0"], &["leaving0"]);
    stage.finish().await
}

async fn clocks_apart(fault: &'static str, options: Options) -> Outcome<Row> {
    if Command::new("faketime").arg("--version").output().is_err() {
        return Ok(skipped(fault, "faketime isn't installed".into()));
    }
    let redis = Redis::start().await?;
    let mut stage = Stage::around(fault, &options, redis)?;
    let ahead = [
        "env",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "faketime",
        "-f",
        "+1h",
    ];
    stage.add_gateway(0, &[], None).await?;
    stage.add_gateway(1, &ahead, None).await?;
    stage.add_gateway(2, &[], None).await?;
    let apart = stage.gateways[1].clock.abs_diff(stage.gateways[0].clock);
    if apart < 3590 {
        stage.amiss(format!("the clocks are only {apart} s apart"));
    }
    stage.add_clients(&[0, 1, 2], "user", 60)?;
    let leaving = stage.add_clients(&[1], "leaving", 1)?;
    stage.settle(61).await?;
    let terms = options.timings().terms();
    let begun = Instant::now();
    stage.clients[leaving].signal("TERM").await?;
    let said = "a user says goodbye, and is offline";
    stage
        .until(begun, said, Duration::ZERO, Kind::Left, "leaving0")
        .await?;
    let killed = Instant::now();
    stage.gateways[0].process.kill().await?;
    let known = "a gateway is killed, and announced as lost";
    stage
        .until(killed, known, terms.gateway_lost(), Kind::GatewayLost, "a")
        .await?;
    sleep(terms.grace() + terms.look()).await;
    stage
        .until_present(killed, "all are present once", terms.gateway_offline(), 60)
        .await?;
    stage.announced_only(begun, &[], &["leaving0"]);
    stage.finish().await
}

/// Gateway a and its users are on one host, Redis and the others on another.
async fn network_cut(fault: &'static str, options: Options) -> Outcome<Row> {
    let network = match Network::new() {
        Ok(network) => network,
        Err(error) => return Ok(skipped(fault, error.to_string())),
    };
    let right = network.right.try_clone()?;
    let (done, row) = oneshot::channel();
    // All that is started by a thread which is on a host is on that host too, and ends
    // with the thread.
    thread::spawn(move || {
        let run = || -> Outcome<Row> {
            right.move_in()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(cut(fault, options, network))
        };
        let _ = done.send(run().map_err(|error| error.to_string()));
    });
    Ok(row.await??)
}

async fn cut(fault: &'static str, options: Options, network: Network) -> Outcome<Row> {
    // Redis has an address of its own, and only the way to it is cut.
    let address = IpAddr::from([10, 77, 1, 2]);
    network.right.ip(&["addr add 10.77.1.2/24 dev cable"])?;
    let redis = Redis::start_at((address, 6379).into()).await?;
    let mut stage = Stage::around(fault, &options, redis)?;
    let (left, _stays) = stay(network.left.try_clone()?)?;
    let through = ["nsenter", &left];
    stage
        .add_gateway(0, &through, Some([(LEFT, 0).into(); 2]))
        .await?;
    stage.add_gateway(1, &[], None).await?;
    stage.add_gateway(2, &[], None).await?;
    let at_a = stage.add_clients(&[0], "far", 20)?;
    stage.add_clients(&[1, 2], "near", 20)?;
    stage.settle(40).await?;
    let terms = options.timings().terms();

    let cut = Instant::now();
    network.cut_towards(address)?;
    let known = "the others announce the gateway as lost";
    stage
        .until(cut, known, terms.gateway_lost(), Kind::GatewayLost, "a")
        .await?;
    stage.gateway_says(0, cut, "fenced").await?;
    for number in 1..3 {
        stage.gateway_says(number, cut, "gateway a is lost").await?;
    }
    let offline = "the others announce its users as offline";
    stage
        .until(cut, offline, terms.gateway_offline(), Kind::Left, "far0")
        .await?;
    let mended = Instant::now();
    network.mend_towards(address)?;
    let back = "the network returns, and its users are announced";
    stage
        .until(mended, back, terms.refresh() * 2, Kind::Joined, "far0")
        .await?;
    stage
        .until_present(mended, "all are present once", terms.refresh() * 2, 40)
        .await?;
    let ends = stage.ends(at_a, cut);
    if !ends.is_empty() {
        stage.amiss(format!("connections have ended: {ends:?}"));
    }
    stage.finish().await
}

/// Stays on a host until the second value is dropped. The first is the option with which
/// `nsenter` goes there.
fn stay(host: Host) -> io::Result<(String, mpsc::Sender<()>)> {
    let (stays, until) = mpsc::channel::<()>();
    let (arrived, there) = mpsc::channel();
    thread::spawn(move || {
        let here = host
            .move_in()
            .and_then(|()| fs::canonicalize("/proc/thread-self"));
        let _ = arrived.send(here);
        let _ = until.recv();
    });
    let here = there.recv().map_err(io::Error::other)??;
    Ok((format!("--net={}/ns/net", here.display()), stays))
}

fn skipped(fault: &'static str, reason: String) -> Row {
    Row {
        fault,
        skipped: Some(reason),
        ..Row::default()
    }
}
