//! What was learned, in a file.
//!
//! This module decides how it lies there, and what becomes of a file that can't be
//! read. It is JSON, so that a person can look at it:
//!
//! ```text
//! {"version":1,"networks":[{"key":"wifi: home","search":{...}}, ...]}
//! ```

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use heartbeat_core::IntervalSearch;
use serde_json::{Value, json};

const VERSION: u64 = 1;

/// More networks aren't remembered. The one that was used longest ago is forgotten.
const MAX_NETWORKS: usize = 256;

/// No file of ours is longer, with keys of up to 4 KiB.
const MAX_BYTES: u64 = 2 << 20;

/// Longer keys aren't remembered.
const MAX_KEY: usize = 4 << 10;

/// Remembers a search for each network that one has been in.
///
/// What a network is, the application decides: the name of a wireless network, a
/// carrier, the address of a gateway.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("intervals-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("intervals.json");
/// use heartbeat_tokio::heartbeat_core::IntervalSearch;
/// use heartbeat_tokio::{IntervalFile, Learner};
/// use std::time::Duration;
///
/// let minute = Duration::from_secs(60);
/// let fresh = IntervalSearch::new(minute / 2..=120 * minute)?;
///
/// let mut file = IntervalFile::read(&path).unwrap_or_else(|error| {
///     eprintln!("{error}"); // what was learned is lost, and is learned again
///     IntervalFile::empty(&path)
/// });
/// let learner = Learner::new(file.recall("wifi: home", fresh));
/// // ... and later, or each time that something was learned:
/// file.remember("wifi: home", learner.search());
/// file.write()?;
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(()) }
/// ```
///
/// Reading and writing block for as long as a small file takes.
#[derive(Clone, Debug)]
pub struct IntervalFile {
    path: PathBuf,
    /// The one that was used last comes first.
    networks: Vec<(String, IntervalSearch)>,
}

/// Why a file of learned intervals can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive] // there may be more reasons
pub enum IntervalFileError {
    /// The operating system said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        error: io::Error,
    },
    /// It isn't one of ours, or isn't whole any more.
    #[error("{}: no learned intervals, or corrupt", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// Another version of this crate wrote it.
    #[error("{}: version {version} of learned intervals, and this program reads {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
}

impl IntervalFile {
    /// One that has nothing in it yet. Nothing is written.
    #[must_use]
    pub fn empty(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            networks: Vec::new(),
        }
    }

    /// Reads it. One that doesn't exist is empty. A network of which it has nonsense is
    /// left out.
    ///
    /// # Errors
    ///
    /// [`IntervalFileError`]. The file stays as it is, until one [`write`](Self::write)s
    /// another in its place.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, IntervalFileError> {
        let mut file = Self::empty(path);
        let corrupt = || IntervalFileError::Corrupt {
            path: file.path.clone(),
        };
        let bytes = match read_all(&file.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(file),
            Err(error) => return Err(file.failed(error)),
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| corrupt())?;
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(version) => {
                let path = file.path;
                return Err(IntervalFileError::Version { path, version });
            }
            None => return Err(corrupt()),
        }
        let networks = value.get("networks").and_then(Value::as_array);
        let networks = networks.ok_or_else(corrupt)?.iter().filter_map(network);
        file.networks = networks.take(MAX_NETWORKS).collect();
        Ok(file)
    }

    /// What was learned in this network; `fresh` if nothing was, or with other
    /// [settings](IntervalSearch::has_settings_of) than those of `fresh`.
    #[must_use]
    pub fn recall(&self, key: &str, fresh: IntervalSearch) -> IntervalSearch {
        let known = self.get(key);
        known
            .filter(|search| search.has_settings_of(&fresh))
            .unwrap_or(fresh)
    }

    /// What was learned in this network, with whatever settings.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<IntervalSearch> {
        let mut networks = self.networks.iter();
        let (_, search) = networks.find(|(known, _)| known == key)?;
        Some(*search)
    }

    /// Remembers what was learned in this network, until it is written. Up to 256
    /// networks are, those that were used last; keys of more than 4 KiB aren't.
    pub fn remember(&mut self, key: &str, search: IntervalSearch) {
        if key.len() > MAX_KEY {
            return;
        }
        self.networks.retain(|(known, _)| known != key);
        self.networks.insert(0, (key.to_owned(), search));
        self.networks.truncate(MAX_NETWORKS);
    }

    /// Writes another file and puts it in the place of this one, which so is never half
    /// written.
    ///
    /// # Errors
    ///
    /// [`IntervalFileError::Io`]. The file stays as it was.
    pub fn write(&self) -> Result<(), IntervalFileError> {
        let networks = self.networks.iter();
        let networks: Vec<Value> = networks
            .map(|(key, search)| json!({"key": key, "search": search}))
            .collect();
        let text = json!({"version": VERSION, "networks": networks}).to_string();
        let replace = || {
            let mut name = self.path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}.new", std::process::id()));
            let new = self.path.with_file_name(name);
            let mut file = File::create(&new)?;
            let written = file
                .write_all(text.as_bytes())
                .and_then(|()| file.sync_all());
            let replaced = written.and_then(|()| fs::rename(&new, &self.path));
            if replaced.is_err() {
                // What went wrong before is worth more.
                let _ = fs::remove_file(&new);
            }
            replaced
        };
        replace().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> IntervalFileError {
        let path = self.path.clone();
        IntervalFileError::Io { path, error }
    }
}

/// One byte more than allowed is read, which can't be ours.
fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn network(value: &Value) -> Option<(String, IntervalSearch)> {
    let key = value.get("key")?.as_str()?.to_owned();
    let search = serde_json::from_value(value.get("search")?.clone()).ok()?;
    Some((key, search))
}
