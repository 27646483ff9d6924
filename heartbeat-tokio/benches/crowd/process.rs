//! The processes that a row consists of, and what they tell each other.

use std::{
    env,
    io::{self, BufRead, BufReader, Read},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    str::FromStr,
    thread,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;

/// The command line.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn parse() -> Self {
        Self(env::args().collect())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    /// A value that is there.
    pub(crate) fn get<T: FromStr>(&self, name: &str) -> T {
        let value = self.value(name).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| unreachable!("{name} is given to this role"))
    }

    /// One of two values: for CI, or for the whole measurement.
    pub(crate) fn quick_or_full<T>(&self, quick: T, full: T) -> T {
        if self.has("--quick") { quick } else { full }
    }

    /// Whether rows of this name are asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.value("--only").is_none_or(|only| name.contains(only))
    }
}

/// This program in another role. It ends with its parent: its input does.
pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    pub(crate) fn start(role: &str, arguments: &[(&str, String)]) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--role", role]);
        for (name, value) in arguments {
            command.args([name, value.as_str()]);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("a pipe was asked for");
        Ok(Self {
            input: process.stdin.take(),
            output: BufReader::new(process.stdout.take().ok_or_else(missing)?),
            process,
        })
    }

    /// The numbers in its next line.
    pub(crate) fn numbers<T: FromStr>(&mut self) -> io::Result<Vec<T>> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let number = |word: &str| word.parse().map_err(|_| io::Error::other(line.clone()));
        line.split_whitespace().map(number).collect()
    }

    /// Asks for the numbers that it found. Its connections last until it is dropped.
    pub(crate) fn found<T: FromStr>(&mut self) -> io::Result<Vec<T>> {
        drop(self.input.take());
        self.numbers()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until the parent wants to know what was found, or is gone; and tells it.
pub(crate) fn tell_parent(found: impl FnOnce() -> String) -> ! {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    println!("{}", found());
    // It waits for others too before it lets us go. If it is gone, this is lost.
    thread::sleep(Duration::from_secs(10));
    std::process::exit(0)
}

pub(crate) fn runtime(workers: usize) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
}

pub(crate) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let Rlimit { current, maximum } = limit;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("up to the hard limit");
}
