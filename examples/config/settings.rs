//! The settings of a program: a file in TOML or JSON, and environment variables
//! that take precedence over it.
//!
//! `APP_HEARTBEAT__DETECT_WITHIN=6s` is the key `heartbeat.detect_within`: a
//! prefix, and two underscores where a file has a dot.

use std::{collections::HashMap, error::Error, ffi::OsStr, fs, path::Path};

use config::Environment;
use heartbeat_tokio::{Config, ConfigLayer, SafetyNet, safety_net::SafetyNetOverrides};
use serde::{Deserialize, de::DeserializeOwned};

/// What is read. Each part may be left out; what doesn't exist is refused.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) heartbeat: Config,
    safety_net: SafetyNetOverrides,
}

/// What a file or the environment says by itself.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Layer {
    heartbeat: ConfigLayer,
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
        // By itself first: only now is it known on which line a contradiction is.
        read::<Self>(path, &text).map_err(|error| format!("{name}: {error}"))?;
        let file: Layer = read(path, &text)?;
        Self::on_top_of(file, environment)
            .map_err(|error| format!("environment, on top of {name}: {error}").into())
    }

    fn on_top_of(
        file: Layer,
        environment: HashMap<String, String>,
    ) -> Result<Self, Box<dyn Error>> {
        let variables = Environment::with_prefix("APP")
            .prefix_separator("_")
            .separator("__")
            .source(Some(environment));
        let variables = config::Config::builder().add_source(variables).build()?;
        let environment: Layer = variables.try_deserialize()?;
        Ok(Self {
            heartbeat: environment.heartbeat.on_top_of(file.heartbeat).try_into()?,
            safety_net: environment.safety_net.on_top_of(file.safety_net),
        })
    }

    /// What follows from the heartbeat's timings, except for what was chosen.
    pub(crate) fn safety_net(&self) -> SafetyNet {
        self.safety_net.over(SafetyNet::from(&self.heartbeat))
    }
}

fn read<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Box<dyn Error>> {
    match path.extension() == Some(OsStr::new("json")) {
        true => Ok(serde_json::from_str(text)?),
        false => Ok(toml::from_str(text)?),
    }
}
