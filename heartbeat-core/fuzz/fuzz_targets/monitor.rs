//! Arbitrary inputs at arbitrary times for a monitor.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    heartbeat_core_fuzz::monitor(bytes);
});
