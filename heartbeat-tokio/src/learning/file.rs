//! Learned intervals in a file.
//!
//! This module decides the format, and when a file is refused. The format is JSON:
//!
//! ```text
//! {"version":1,"networks":[{"key":"wifi: home","search":{...}}, ...]}
//! ```

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use heartbeat_core::IntervalSearch;
use serde_json::{Value, json};

const VERSION: u64 = 1;

/// The most networks that are remembered. The oldest entry is dropped.
const MAX_NETWORKS: usize = 256;

/// No valid file is longer: a byte of a key takes up to six.
const MAX_BYTES: u64 = 8 << 20;

/// Distinguishes temporary files that this process writes at the same time.
static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// Longer keys, in bytes, aren't remembered.
const MAX_KEY: usize = 4 << 10;

/// Remembers one search for each network.
///
/// The application names the networks: by SSID, carrier or the gateway's address, for
/// example.
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
///     eprintln!("{error}"); // learning starts again
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
    /// The latest entry is first.
    networks: Vec<(String, IntervalSearch)>,
}

/// The error of a file of learned intervals.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive] // there may be more reasons
pub enum IntervalFileError {
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its error.
        #[source]
        error: io::Error,
    },
    /// It isn't such a file, or it is damaged, or longer than 8 MiB.
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
    /// Creates an empty one for this path. Nothing is written.
    #[must_use]
    pub fn empty(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            networks: Vec::new(),
        }
    }

    /// Reads a file. A missing file is empty. Networks with an invalid search are left out.
    ///
    /// # Errors
    ///
    /// [`IntervalFileError`]. The file is left alone until [`write`](Self::write) replaces
    /// it.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, IntervalFileError> {
        let mut file = Self::empty(path);
        let corrupt = || IntervalFileError::Corrupt {
            path: file.path.clone(),
        };
        let bytes = match read_all(&file.path) {
            Ok(bytes) if bytes.len() as u64 > MAX_BYTES => return Err(corrupt()),
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

    /// The search of this network, if its
    /// [settings](IntervalSearch::has_settings_of) are those of `fresh`; else `fresh`.
    #[must_use]
    pub fn recall(&self, key: &str, fresh: IntervalSearch) -> IntervalSearch {
        let known = self.get(key);
        known
            .filter(|search| search.has_settings_of(&fresh))
            .unwrap_or(fresh)
    }

    /// The search of this network, whatever its settings.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<IntervalSearch> {
        let mut networks = self.networks.iter();
        let (_, search) = networks.find(|(known, _)| known == key)?;
        Some(*search)
    }

    /// Remembers the search of this network. Call [`write`](Self::write) to keep it. The 256
    /// networks that were remembered last are kept. A key above 4 KiB is ignored.
    pub fn remember(&mut self, key: &str, search: IntervalSearch) {
        if key.len() > MAX_KEY {
            return;
        }
        self.networks.retain(|(known, _)| known != key);
        self.networks.insert(0, (key.to_owned(), search));
        self.networks.truncate(MAX_NETWORKS);
    }

    /// Writes a temporary file beside this one and renames it, so that no half-written file
    /// is left behind. Of several that write at the same time, the last one wins.
    ///
    /// # Errors
    ///
    /// [`IntervalFileError::Io`]. The file is unchanged. Before Windows 10, that is also the
    /// result while another program has the file open.
    pub fn write(&self) -> Result<(), IntervalFileError> {
        let networks = self.networks.iter();
        let networks: Vec<Value> = networks
            .map(|(key, search)| json!({"key": key, "search": search}))
            .collect();
        let text = json!({"version": VERSION, "networks": networks}).to_string();
        let replace = || {
            let mut name = self.path.file_name().unwrap_or_default().to_owned();
            let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
            name.push(format!(".{}.{number}.new", std::process::id()));
            let new = self.path.with_file_name(name);
            let mut file = File::create(&new)?;
            let written = file
                .write_all(text.as_bytes())
                .and_then(|()| file.sync_all());
            let replaced = written.and_then(|()| fs::rename(&new, &self.path));
            if replaced.is_err() {
                // The first error is the one to report.
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

/// Reads no more than a valid file has, and a byte that tells a longer one.
fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn network(value: &Value) -> Option<(String, IntervalSearch)> {
    let key = value.get("key")?.as_str()?.to_owned();
    let search = serde_json::from_value(value.get("search")?.clone()).ok()?;
    Some((key, search))
}
