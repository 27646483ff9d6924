//! `heartbeat-core` where there is neither `std` nor an allocator.
//!
//! The linker is what checks here: a dependency that pulls in `std` brings a
//! second panic handler, and one that allocates finds no allocator. `main`
//! then does a little of everything, so that the optimiser can't throw away
//! what is to be proved. It exits with 0 if all went as it should.

#![no_std]
#![no_main]

use core::{panic::PanicInfo, time::Duration};

use heartbeat_core::{Cause, Config, Control, End, Event, Instant, Monitor, ProtocolError};

/// The C library calls this, as it would for a program in C.
#[unsafe(no_mangle)]
pub extern "C" fn main(arguments: i32, _: *const *const u8) -> i32 {
    // Something that the compiler can't foresee.
    let seed = u64::from(arguments.unsigned_abs());
    let Ok(config) = Config::detect_within(Duration::from_secs(14)) else {
        return 1;
    };

    if !a_silent_peer_dies(config, seed) {
        return 2;
    }
    if !a_stranger_is_told_apart(config, seed) {
        return 3;
    }
    0
}

/// Two monitors greet each other through real bytes, then one falls silent.
fn a_silent_peer_dies(config: Config, seed: u64) -> bool {
    let mut now = Instant::ORIGIN;
    let mut here = Monitor::new(config, seed, now);
    let mut there = Monitor::new(config, !seed, now);
    if !carry(&mut there, &mut here, now) || !carry(&mut here, &mut there, now) {
        return false;
    }
    if !matches!(here.poll_event(), Some(Event::Connected { .. })) {
        return false;
    }

    while let Some(deadline) = here.poll_timeout() {
        now = deadline;
        here.handle_timeout(now);
        while here.poll_transmit().is_some() {}
        here.handle_flushed(now);
        while let Some(event) = here.poll_event() {
            if let Event::Dead(death) = event {
                return death.cause == Cause::Silent && death.silent_for <= config.detection_time();
            }
        }
    }
    false
}

/// Everything that one has to send arrives at the other.
fn carry(from: &mut Monitor, to: &mut Monitor, now: Instant) -> bool {
    while let Some(control) = from.poll_transmit() {
        let mut buffer = [0; Control::MAX_ENCODED];
        let Ok(frame) = control.encode(&mut buffer) else {
            return false;
        };
        match Control::decode(frame) {
            Ok(decoded) if decoded == control => to.handle_frame(decoded, now),
            _ => return false,
        }
    }
    from.handle_flushed(now);
    true
}

/// Bytes that make no sense end the connection with a typed cause.
fn a_stranger_is_told_apart(config: Config, seed: u64) -> bool {
    let mut monitor = Monitor::new(config, seed, Instant::ORIGIN);
    // The first bytes of TLS.
    let Err(error) = Control::decode(b"\x16\x03\x01\x02\x00") else {
        return false;
    };
    monitor.handle_end(End::Protocol(error), Instant::ORIGIN);
    let unknown = ProtocolError::UnknownTag { tag: 0x16 };
    matches!(
        monitor.poll_event(),
        Some(Event::Dead(death)) if death.cause == Cause::Protocol(unknown)
    )
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: `abort` takes nothing, returns never, and may always be called.
    unsafe { abort() }
}

// The start files and `abort`; no `malloc` is ever asked for.
#[link(name = "c")]
unsafe extern "C" {
    fn abort() -> !;
}
