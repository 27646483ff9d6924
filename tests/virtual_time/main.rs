//! The adapter in virtual time, and whatever else neither waits nor measures: it
//! may run beside anything.

mod alive;
mod allocations;
mod bad_input;
mod both_ways;
mod busy_then_silent;
mod cancel_safety;
mod configuration;
mod delivered_before_the_end;
mod documentation;
mod driver;
mod driver_cancel_safety;
mod evidence;
mod fairness;
mod hostile;
mod leaving;
mod memory;
mod own_frames;
mod own_protocol;
mod partial_writes;
mod parts;
mod probes;
mod promises_in_a_simulated_network;
mod protocol_vectors;
mod reconnect;
mod shared_task;
mod sink;
mod split_reads;
mod stalled_writes;
mod stalls;
mod strangers;
mod tune;
mod typed;
mod verdict;
