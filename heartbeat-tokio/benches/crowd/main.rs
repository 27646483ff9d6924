//! What many connections do to each other, and what others do to them.
//!
//! ```text
//! cargo bench -p heartbeat-tokio --bench crowd -- [--quick] [--check] [--only TEXT] [--json FILE]
//! ```
//!
//! Every row compares a [`Heartbeat`](heartbeat_tokio::Heartbeat) with what people have
//! without one, over real sockets on loopback and within one run: a
//! `Framed<_, LengthDelimitedCodec>`, or where liveness is the question, the loop of
//! `select!` over that and a timer. Each side runs in processes of its own, one after
//! the other. `--check` fails if a row is above its limit.
//!
//! | module | what it shows |
//! |---|---|
//! | `flood` | how long honest peers wait beside 200 hostile ones, and what those cost |
//! | `attack` | what the hostile ones do |
//! | `unordered` | how many of the idle connections in one task are given up |
//! | `starved` | how often the living are suspected on a machine that has other things to do |
//!
//! Rows that are the same whatever the speed of the machine aren't here: they are
//! tests.

#![allow(
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a benchmark that fails has to stop"
)]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("It reads Linux' files about processes: there is nothing to see here.");
}

#[cfg(target_os = "linux")]
mod attack;
#[cfg(target_os = "linux")]
mod flood;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod starved;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod unordered;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    let arguments = process::Arguments::parse();
    process::raise_limit();
    match arguments.value("--role") {
        None => table::run(&arguments, &[flood::rows, unordered::rows, starved::rows]),
        Some("flooded") => flood::be_the_server(&arguments),
        Some("flooding") => flood::be_the_flood(&arguments),
        Some("idle-peers") => unordered::be_the_peers(&arguments),
        Some("starved") => starved::be_the_starved(&arguments),
        Some("starved-peers") => starved::be_the_peers(&arguments),
        Some(role) => Err(std::io::Error::other(format!("no such role: {role}"))),
    }
}
