//! Arbitrary bytes as a control frame.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| heartbeat_core_fuzz::decode(bytes));
