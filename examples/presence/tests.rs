//! Tests of the module to copy: of each fault that takes no process of its own, with a real
//! redis-server, and of every order of faults, in a model.

mod model;
mod presence;
mod with_redis;

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use heartbeat_tests::{free_address, needs};

/// A redis-server of the test's own.
struct Redis {
    process: Child,
    address: SocketAddr,
    client: redis::Client,
}

impl Redis {
    /// `None` if there is none on this machine.
    fn start() -> Option<Self> {
        if !needs("redis-server") {
            return None;
        }
        let address = free_address().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", &address.port().to_string()]);
        command.args(["--bind", "127.0.0.1", "--save", ""]);
        let redis = Self {
            process: command.stdout(Stdio::null()).spawn().unwrap(),
            address,
            client: redis::Client::open(format!("redis://{address}/")).unwrap(),
        };
        for _ in 0..1500 {
            if redis.client.get_connection().is_ok() {
                return Some(redis);
            }
            sleep(Duration::from_millis(20));
        }
        panic!("redis-server doesn't listen");
    }

    /// A command, by hand.
    fn tell(&self, words: &[&str]) {
        let (name, arguments) = words.split_first().unwrap();
        let mut connection = self.client.get_connection().unwrap();
        let mut command = redis::cmd(name);
        let _: redis::Value = command.arg(arguments).query(&mut connection).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
