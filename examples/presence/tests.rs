//! Tests of the module to copy: of each fault that takes no process of its own, with a real
//! redis-server, and of every order of faults, in a model.

mod ear;
mod model;
mod presence;
mod store_faults;
mod users;
mod with_redis;

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use heartbeat_tests::{free_address, needs};
use tempfile::TempDir;

/// A redis-server of the test's own.
struct Redis {
    process: Child,
    address: SocketAddr,
    client: redis::Client,
    /// Its snapshots.
    folder: TempDir,
}

impl Redis {
    /// `None` if there is none on this machine.
    fn start() -> Option<Self> {
        if !needs("redis-server") {
            return None;
        }
        let (address, folder) = (free_address().unwrap(), tempfile::tempdir().unwrap());
        let redis = Self {
            process: run(address, &folder),
            address,
            client: redis::Client::open(format!("redis://{address}/")).unwrap(),
            folder,
        };
        redis.wait();
        Some(redis)
    }

    /// One that isn't new, and announces users at once.
    fn start_settled() -> Option<Self> {
        let redis = Self::start()?;
        redis.tell(&["SET", "{presence}:store", "1"]);
        Some(redis)
    }

    /// Kills it, and starts it with its last snapshot.
    fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = run(self.address, &self.folder);
        self.wait();
    }

    fn wait(&self) {
        for _ in 0..1500 {
            if self.client.get_connection().is_ok() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("redis-server doesn't listen");
    }

    /// A command, by hand.
    fn tell(&self, words: &[&str]) -> redis::Value {
        let (name, arguments) = words.split_first().unwrap();
        let mut connection = self.client.get_connection().unwrap();
        let mut command = redis::cmd(name);
        command.arg(arguments).query(&mut connection).unwrap()
    }
}

fn run(address: SocketAddr, folder: &TempDir) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", &address.port().to_string()]);
    command.args(["--bind", "127.0.0.1", "--save", ""]);
    command.arg("--dir").arg(folder.path());
    command.stdout(Stdio::null()).spawn().unwrap()
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
