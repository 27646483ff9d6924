//! Very many idle connections at once: what they cost, and how soon the loss of
//! some of them is found.
//!
//! ```text
//! cargo run --release -p swarm -- --connections 2000 --for 30s
//! cargo run --release -p swarm -- --connections 100000 --for 5m --json found.json
//! ```
//!
//! It starts itself as often as file descriptors make necessary: as servers,
//! and as peers that connect to all of them over loopback. Both ends of each
//! connection are a `Heartbeat` in a task of its own. When all are open it
//! measures for a while; then it stops some of the peers' processes, which hold
//! just the share of the connections that it is to freeze, and waits for the
//! servers to find out.
//!
//! It exits with 0 if there was no false alarm and each frozen peer was found
//! in time, and not too early; with 1 if not so, and with 2 if this machine
//! can't hold that many, or something else failed.
//!
//! | file | what it decides |
//! |---|---|
//! | `options.rs` | what can be asked for |
//! | `plan.rs` | how many processes there are, and what this machine can't hold |
//! | `conductor.rs` | the order of events |
//! | `children.rs`, `words.rs` | the processes, and what is said between them |
//! | `member.rs` | what a server and a peer do |
//! | `measure.rs` | memory and processor time |
//! | `report.rs`, `display.rs` | the judgement, the table, the file, the line that moves |
//!
//! It needs Linux: `/proc`, and a whole network of loopback addresses.

#[cfg(target_os = "linux")]
mod children;
#[cfg(target_os = "linux")]
mod conductor;
#[cfg(target_os = "linux")]
mod display;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod member;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod words;

#[cfg(target_os = "linux")]
fn main() -> Result<std::process::ExitCode, Box<dyn std::error::Error>> {
    use clap::Parser as _;

    let options = options::Options::parse();
    match options.role {
        // Its memory is measured: it has nothing that it doesn't need.
        Some(options::Role::Member) => member::run(),
        None => conductor::run(&options),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("The swarm needs Linux: /proc, and a whole network of loopback addresses.");
    std::process::ExitCode::from(2)
}
