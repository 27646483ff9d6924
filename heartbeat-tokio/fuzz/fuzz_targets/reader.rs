//! What arrives, cut into reads.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| heartbeat_tokio_fuzz::reader(bytes));
