//! Files in TOML and in JSON.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| heartbeat_tokio_fuzz::configuration(bytes));
