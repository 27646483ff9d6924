//! The network of the examples, and what becomes of a test where it can't be
//! made.

use std::env;

#[path = "../../examples/network.rs"]
mod shared;

pub use shared::{Host, LEFT, Network, RIGHT};

impl Network {
    /// As [`new`](Self::new); where it can't be made, says so for all to see.
    ///
    /// # Panics
    ///
    /// If it can't be made and `HEARTBEAT_NAMESPACES=required` is set.
    #[must_use]
    pub fn or_skip(test: &str) -> Option<Self> {
        let made = Self::new();
        if let Err(error) = &made {
            let required = env::var("HEARTBEAT_NAMESPACES").is_ok_and(|word| word == "required");
            assert!(!required, "{test}: no network namespaces: {error}");
            eprintln!("SKIPPED {test}: no network namespaces: {error}");
        }
        made.ok()
    }
}
