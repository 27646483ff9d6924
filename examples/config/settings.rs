//! The settings of a program: a file in TOML or JSON, and environment variables
//! that take precedence over it.
//!
//! `APP_HEARTBEAT__DETECT_WITHIN=6s` is the key `heartbeat.detect_within`: a
//! prefix, and two underscores where a file has a dot.

use std::{collections::HashMap, error::Error, ffi::OsStr, fs, path::Path};

use config::{Environment, File, FileFormat};
use heartbeat_tokio::{Config, SafetyNet, safety_net::SafetyNetOverrides};
use serde::Deserialize;

/// What is read. Each part may be left out; what doesn't exist is refused.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) heartbeat: Config,
    safety_net: SafetyNetOverrides,
}

impl Settings {
    /// From the file at `path`, which is JSON if it is called so and TOML if
    /// not, and these environment variables.
    pub(crate) fn load(
        path: &Path,
        environment: HashMap<String, String>,
    ) -> Result<Self, Box<dyn Error>> {
        let name = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        // By itself first: only now is it known on which line a mistake is.
        let format = if path.extension() == Some(OsStr::new("json")) {
            serde_json::from_str::<Self>(&text).map_err(|error| format!("{name}: {error}"))?;
            FileFormat::Json
        } else {
            toml::from_str::<Self>(&text).map_err(|error| format!("{name}: {error}"))?;
            FileFormat::Toml
        };
        let variables = Environment::with_prefix("APP")
            .prefix_separator("_")
            .separator("__")
            .source(Some(environment));
        let settings = config::Config::builder()
            .add_source(File::from_str(&text, format))
            .add_source(variables)
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| format!("environment, on top of {name}: {error}"))?;
        Ok(settings)
    }

    /// What follows from the heartbeat's timings, except for what was chosen.
    pub(crate) fn safety_net(&self) -> SafetyNet {
        self.safety_net.over(SafetyNet::from(&self.heartbeat))
    }
}
