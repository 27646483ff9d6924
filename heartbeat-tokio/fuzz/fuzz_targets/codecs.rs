//! The codecs of the examples.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| heartbeat_tokio_fuzz::codecs(bytes));
