//! Runs another program, `heartbeat-test-guard PROGRAM ARGUMENTS`, so that a
//! test which is killed doesn't leave it behind. For programs that aren't ours;
//! `peer.rs` sees to that itself.

use std::{env, io, process::Command};

fn main() -> io::Result<()> {
    let mut words = env::args_os().skip(1);
    let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(words);
    run(&mut command)
}

/// Only comes back if there is no such program.
#[cfg(unix)]
fn run(command: &mut Command) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        // It stays when the program takes our place.
        set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    use std::os::unix::process::CommandExt as _;
    Err(command.exec())
}

#[cfg(not(unix))]
fn run(command: &mut Command) -> io::Result<()> {
    command.status().map(drop)
}
