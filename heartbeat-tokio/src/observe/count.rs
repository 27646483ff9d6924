//! Metrics of all connections.
//!
//! This module decides what is counted under which name, as `docs/observability.md` lists
//! it. Names follow the conventions of Prometheus: base units, and `_total` for counters.
//! Labels are few, and their values are those of [`words`]: a peer chooses none of them, and
//! its address isn't among them.

use std::{io, time::Duration};

use heartbeat_core::{Cause, CloseReason, Control, Death, Diagnosis, GoodbyeCode, NoDetail, State};
use metrics::{
    Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use super::{on::Told, words};
use crate::safety_net::Applied;

/// Registers all metrics with the recorder: units, help texts, and every counter and gauge
/// at zero, so that a monitoring system sees the first step too. Call it once, after the
/// recorder was installed.
///
/// Metrics are recorded without this call too. [`docs/observability.md`] lists them, with
/// alerts.
///
#[doc = concat!("[`docs/observability.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/observability.md")]
///
/// ```
/// use metrics::NoopRecorder; // yours
///
/// metrics::set_global_recorder(NoopRecorder)?;
/// heartbeat_tokio::describe_metrics();
/// # Ok::<(), metrics::SetRecorderError<NoopRecorder>>(())
/// ```
pub fn describe_metrics() {
    describe_connections();
    describe_ends();
    describe_beats();
    describe_ourselves();
}

fn describe_connections() {
    describe_gauge!(
        "heartbeat_connections",
        Unit::Count,
        "Open connections, by state."
    );
    let open = [
        State::Alive,
        State::Suspect,
        State::Paused,
        State::Occupied,
        State::HalfClosed,
        State::Closing,
    ];
    for state in open {
        connections(state).increment(0.0);
    }
    describe_counter!(
        "heartbeat_opened_total",
        Unit::Count,
        "Connections created."
    );
    counter!("heartbeat_opened_total").increment(0);
    describe_counter!(
        "heartbeat_dropped_total",
        Unit::Count,
        "Connections dropped or taken apart before their end."
    );
    counter!("heartbeat_dropped_total").increment(0);
}

fn describe_ends() {
    describe_counter!(
        "heartbeat_closed_total",
        Unit::Count,
        "Connections that ended in order, by reason."
    );
    let (code, detail) = (GoodbyeCode::LEAVING, NoDetail);
    closed(CloseReason::Peer { code, detail }).increment(0);
    for reason in [
        CloseReason::Local,
        CloseReason::Unconfirmed,
        CloseReason::Finished,
    ] {
        closed(reason).increment(0);
    }
    describe_counter!(
        "heartbeat_deaths_total",
        Unit::Count,
        "Peers declared dead, by cause and diagnosis."
    );
    for cause in [
        Cause::GivenUp { code, detail },
        Cause::Eof,
        Cause::Reset,
        Cause::TimedOut,
        Cause::Unreachable,
        Cause::PingFlood,
        Cause::Refused,
        Cause::NotReading,
        Cause::Io,
    ] {
        deaths(words::cause(cause), Diagnosis::Unknown).increment(0);
    }
    deaths("protocol", Diagnosis::Unknown).increment(0);
    for cause in [Cause::Silent, Cause::WriteStalled] {
        for diagnosis in [
            Diagnosis::Unknown,
            Diagnosis::AppHung,
            Diagnosis::PathDead,
            Diagnosis::PeerNotReading,
        ] {
            deaths(words::cause(cause), diagnosis).increment(0);
        }
    }
    describe_histogram!(
        "heartbeat_detection_seconds",
        Unit::Seconds,
        "Silence at the verdict, by cause."
    );
}

fn describe_beats() {
    describe_counter!(
        "heartbeat_pings_sent_total",
        Unit::Count,
        "Pings handed to the stream."
    );
    counter!("heartbeat_pings_sent_total").increment(0);
    describe_counter!(
        "heartbeat_pongs_sent_total",
        Unit::Count,
        "Pongs handed to the stream."
    );
    counter!("heartbeat_pongs_sent_total").increment(0);
    describe_counter!("heartbeat_beats_total", Unit::Count, "Answered pings.");
    counter!("heartbeat_beats_total").increment(0);
    describe_histogram!(
        "heartbeat_round_trip_seconds",
        Unit::Seconds,
        "Time from the flush of a ping to its answer."
    );
    describe_counter!(
        "heartbeat_missed_beats_total",
        Unit::Count,
        "Pings whose whole timeout passed without a sign of life."
    );
    counter!("heartbeat_missed_beats_total").increment(0);
    describe_counter!(
        "heartbeat_suspicions_total",
        Unit::Count,
        "Peers that became suspect."
    );
    counter!("heartbeat_suspicions_total").increment(0);
    describe_counter!(
        "heartbeat_recoveries_total",
        Unit::Count,
        "Suspects that recovered."
    );
    counter!("heartbeat_recoveries_total").increment(0);
    describe_histogram!(
        "heartbeat_recovered_silence_seconds",
        Unit::Seconds,
        "Silence at recovery."
    );
}

fn describe_ourselves() {
    describe_counter!(
        "heartbeat_local_stalls_total",
        Unit::Count,
        "Local stalls: our own process woke up too late."
    );
    counter!("heartbeat_local_stalls_total").increment(0);
    describe_histogram!(
        "heartbeat_local_stall_seconds",
        Unit::Seconds,
        "Lateness at local stalls."
    );
    describe_counter!(
        "heartbeat_pauses_total",
        Unit::Count,
        "Pauses of reading because the application didn't read."
    );
    counter!("heartbeat_pauses_total").increment(0);
    describe_counter!(
        "heartbeat_unset_options_total",
        Unit::Count,
        "Safety net options that failed."
    );
    for option in Applied::OPTIONS {
        counter!("heartbeat_unset_options_total", "option" => option).increment(0);
    }
}

/// One connection. It counts in one gauge at a time, and holds that one: what
/// was added is taken from the same again, whatever recorders come and go.
#[derive(Debug)]
pub(super) struct Count(Gauge);

impl Told for Count {
    fn opened() -> Self {
        counter!("heartbeat_opened_total").increment(1);
        let alive = connections(State::Alive);
        alive.increment(1);
        Self(alive)
    }

    fn options_failed(&self, applied: &Applied) {
        for (option, _) in applied.failed() {
            counter!("heartbeat_unset_options_total", "option" => option).increment(1);
        }
    }

    fn moved(&mut self, _: State, to: State) {
        if to == State::Paused {
            counter!("heartbeat_pauses_total").increment(1);
        }
        let next = connections(to);
        next.increment(1);
        self.leave();
        self.0 = next;
    }

    fn sent(&self, control: &Control) {
        match control {
            Control::Ping(_) => counter!("heartbeat_pings_sent_total").increment(1),
            Control::Pong(_) => counter!("heartbeat_pongs_sent_total").increment(1),
            _ => {}
        }
    }

    fn beats(&self, count: u32, rtt: Duration) {
        counter!("heartbeat_beats_total").increment(count.into());
        histogram!("heartbeat_round_trip_seconds").record(rtt);
    }

    fn missed(&self, count: u32) {
        counter!("heartbeat_missed_beats_total").increment(count.into());
    }

    fn suspect(&self, first: bool, _: u32, _: Duration) {
        if first {
            counter!("heartbeat_suspicions_total").increment(1);
        }
    }

    fn recovered(&self, silent_for: Duration) {
        counter!("heartbeat_recoveries_total").increment(1);
        histogram!("heartbeat_recovered_silence_seconds").record(silent_for);
    }

    fn local_stall(&self, late: Duration) {
        counter!("heartbeat_local_stalls_total").increment(1);
        histogram!("heartbeat_local_stall_seconds").record(late);
    }

    fn closed(&mut self, reason: CloseReason) {
        closed(reason).increment(1);
        self.leave();
    }

    fn dead(&mut self, death: &Death, _: Option<&io::Error>) {
        let cause = words::cause(death.cause);
        deaths(cause, death.diagnosis).increment(1);
        histogram!("heartbeat_detection_seconds", "cause" => cause).record(death.silent_for);
        self.leave();
    }

    fn dropped(&mut self) {
        counter!("heartbeat_dropped_total").increment(1);
        self.leave();
    }
}

impl Count {
    /// The connection leaves its gauge.
    fn leave(&mut self) {
        std::mem::replace(&mut self.0, Gauge::noop()).decrement(1);
    }
}

/// Each with labels that are known when this is compiled, which makes a key
/// without an allocation.
fn connections(state: State) -> Gauge {
    match state {
        State::Alive => gauge!("heartbeat_connections", "state" => "alive"),
        State::Suspect => gauge!("heartbeat_connections", "state" => "suspect"),
        State::Paused => gauge!("heartbeat_connections", "state" => "paused"),
        State::Occupied => gauge!("heartbeat_connections", "state" => "occupied"),
        State::HalfClosed => gauge!("heartbeat_connections", "state" => "half_closed"),
        State::Closing => gauge!("heartbeat_connections", "state" => "closing"),
        _ => gauge!("heartbeat_connections", "state" => "other"),
    }
}

fn closed(reason: CloseReason) -> Counter {
    counter!("heartbeat_closed_total", "reason" => words::reason(reason))
}

fn deaths(cause: &'static str, diagnosis: Diagnosis) -> Counter {
    let diagnosis = words::diagnosis(diagnosis);
    counter!("heartbeat_deaths_total", "cause" => cause, "diagnosis" => diagnosis)
}
