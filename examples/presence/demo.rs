//! Starts a whole fleet, and shows it.

use std::{error::Error, net::SocketAddr};

use clap::Args;
use heartbeat_examples::process;

use crate::{
    Timings,
    children::{Member, Redis},
    message::promises,
    watch,
};

#[derive(Args, Clone)]
pub struct Options {
    /// Number of gateways
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    gateways: usize,
    /// Users at each, to begin with
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    users: usize,
    #[command(flatten)]
    timings: Timings,
}

pub async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let redis = Redis::start().await?;
    let mut gateways = Vec::new();
    let mut addresses = Vec::new();
    let mut lines = promises(options.timings.terms());
    lines.push(format!("{}, process {}", redis.url(), redis.id()));
    for number in 0..options.gateways {
        let name = gateway_name(number);
        let gateway = gateway(&[], &redis.url(), &name, options.timings, None)?;
        let (tcp, http, _) = gateway.listens().await?;
        lines.push(format!("{name}: http://{http}/, process {}", gateway.id()));
        addresses.push(tcp);
        gateways.push(gateway);
    }
    let mut clients = Vec::new();
    for number in 0..options.gateways {
        let prefix = format!("{}-", gateway_name(number));
        let mut order = addresses.clone();
        order.rotate_left(number);
        clients.push(users(
            &order,
            false,
            &prefix,
            options.users,
            options.timings,
        )?);
        let process = clients.last().map_or(0, Member::id);
        lines.push(format!("users {prefix}*: process {process}"));
    }
    lines.push("Try kill -9, -STOP and -CONT with any of these, or kill with a gateway.".into());
    for line in &lines {
        println!("{line}");
    }
    tokio::select! {
        () = watch::show(redis::Client::open(redis.url())?, lines) => {}
        interrupted = process::interrupted() => interrupted?,
    }
    Ok(())
}

/// a, b, c ...
pub fn gateway_name(number: usize) -> String {
    let letter = u8::try_from(number).unwrap_or(25).min(25);
    char::from(b'a' + letter).to_string()
}

/// A gateway as a process; `at` is where it was before, for clients and for pages.
pub fn gateway(
    through: &[&str],
    redis: &str,
    name: &str,
    timings: Timings,
    at: Option<[SocketAddr; 2]>,
) -> std::io::Result<Member> {
    let mut arguments = ["gateway", "--json", "--redis", redis, "--name", name]
        .map(str::to_owned)
        .to_vec();
    if let Some([tcp, http]) = at {
        arguments.extend([format!("--tcp={tcp}"), format!("--http={http}")]);
    }
    arguments.extend(timings.arguments());
    Member::start(through, &arguments)
}

/// Users as a process, which try the gateways in this order.
pub fn users(
    gateways: &[SocketAddr],
    websocket: bool,
    prefix: &str,
    number: usize,
    timings: Timings,
) -> std::io::Result<Member> {
    let gateways: Vec<_> = gateways.iter().map(SocketAddr::to_string).collect();
    let mut arguments = ["clients", "--json", "--gateways", &gateways.join(",")]
        .map(str::to_owned)
        .to_vec();
    if websocket {
        arguments.push("--websocket".into());
    }
    arguments.extend(["--prefix".into(), prefix.into()]);
    arguments.extend(["--users".into(), number.to_string()]);
    arguments.extend(timings.arguments());
    Member::start(&[], &arguments)
}
