//! Other processes: how one is started and stopped, and how none is left
//! behind. Nothing in here is about heartbeats.

use std::{env, io, net::SocketAddr};

use tokio::process::{Child, Command};

/// Starts this program once more, in another role.
///
/// # Errors
///
/// If the operating system can't.
pub fn start_again(role: &str, server: SocketAddr) -> io::Result<Child> {
    Command::new(env::current_exe()?)
        .args([role, &server.to_string()])
        // However we leave `main`, by a panic too, no child outlives it.
        .kill_on_drop(true)
        .spawn()
}

/// Makes a process stand still, as if it hung. Its kernel doesn't: it goes on
/// acknowledging whatever is sent to it.
///
/// # Errors
///
/// If it has ended, or this system has no such signal.
#[cfg(unix)]
pub fn stop(child: &Child) -> io::Result<()> {
    signal(child, rustix::process::Signal::STOP)
}

/// Makes a process that stands still go on.
///
/// # Errors
///
/// If it has ended, or this system has no such signal.
#[cfg(unix)]
pub fn go_on(child: &Child) -> io::Result<()> {
    signal(child, rustix::process::Signal::CONT)
}

#[cfg(unix)]
fn signal(child: &Child, signal: rustix::process::Signal) -> io::Result<()> {
    use rustix::process::{Pid, kill_process};

    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let pid = pid.and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    Ok(kill_process(pid, signal)?)
}

/// Makes a process stand still: not here.
///
/// # Errors
///
/// Always.
#[cfg(not(unix))]
pub fn stop(_child: &Child) -> io::Result<()> {
    Err(unsupported())
}

/// Makes a process that stands still go on: not here.
///
/// # Errors
///
/// Always.
#[cfg(not(unix))]
pub fn go_on(_child: &Child) -> io::Result<()> {
    Err(unsupported())
}

#[cfg(not(unix))]
fn unsupported() -> io::Error {
    let why = "this system has no signal that stops a process";
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// For a child: have the kernel end us if the parent goes without cleaning
/// up, even while we are stopped. Where this doesn't exist the heartbeat tells
/// us that it is gone.
pub fn end_with_parent() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        // Only a second precaution, so that a failure can be ignored.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }
}

/// Waits until this process is asked to end.
///
/// # Errors
///
/// If signals can't be listened to.
#[cfg(unix)]
pub async fn interrupted() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        pressed = tokio::signal::ctrl_c() => pressed,
    }
}

/// Waits until this process is asked to end.
///
/// # Errors
///
/// If signals can't be listened to.
#[cfg(not(unix))]
pub async fn interrupted() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// Where a network couldn't be made: starts this program again in a user
/// namespace, in which it is root. Returns only if it can't.
///
/// It replaces this process and keeps its id, so no parent has to wait for it. There mustn't
/// be other threads yet.
#[cfg(target_os = "linux")]
pub fn become_root() {
    use std::{
        os::unix::process::CommandExt,
        process::{Command, Stdio},
    };

    /// Set for the program that was started again.
    const ROOT_ALREADY: &str = "HEARTBEAT_IN_USER_NAMESPACE";

    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user"]);
        unshare
    };
    let possible = || {
        let mut attempt = unshare();
        attempt.args(["--net", "true"]).stderr(Stdio::null());
        attempt.status().is_ok_and(|status| status.success())
    };
    if env::var_os(ROOT_ALREADY).is_none() && possible() {
        if let Ok(program) = env::current_exe() {
            let mut again = unshare();
            again.arg(program).args(env::args_os().skip(1));
            // What it returns is why it couldn't.
            let _ = again.env(ROOT_ALREADY, "1").exec();
        }
    }
}
