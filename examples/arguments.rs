//! What people write on command lines.

use std::time::Duration;

use jiff::SignedDuration;

/// "3s", "1m 30s", "250ms".
///
/// # Errors
///
/// If it is none, or below zero. The message is for the user.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(duration).map_err(|error| error.to_string())
}
