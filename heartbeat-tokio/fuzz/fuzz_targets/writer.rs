//! What leaves, by a stream that takes some of it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| heartbeat_tokio_fuzz::writer(bytes));
