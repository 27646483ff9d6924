//! Reads its settings from a file and the environment, and says what they mean.
//!
//! ```text
//! cargo run --example config --features config
//! APP_HEARTBEAT__DETECT_WITHIN=1m cargo run --example config --features config
//! cargo run --example config --features config -- my.toml
//! ```
//!
//! `settings.rs` is there to be copied; docs/configuration.md explains each key.

mod settings;

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use settings::Settings;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let beside_this = || Path::new(env!("CARGO_MANIFEST_DIR")).join("config/heartbeat.toml");
    let file = env::args_os()
        .nth(1)
        .map_or_else(beside_this, PathBuf::from);
    // Names that aren't Unicode are none of ours.
    let environment = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();

    let settings = Settings::load(&file, environment)?;
    let (config, net) = (settings.heartbeat, settings.safety_net());

    println!("# {}, and the environment\n", file.display());
    println!("[heartbeat]\n{}", toml::to_string(&config)?);
    println!("[safety_net]\n{}", toml::to_string(&net)?);
    println!(
        "# A death is detected within {:?}.",
        config.detection_time()
    );
    println!(
        "# An outage of {:?} always survives.",
        config.timeout() * config.max_missed()
    );
    println!(
        "# The kernel gives an idle connection up after {:?}.",
        net.detection_time()
    );
    Ok(())
}
