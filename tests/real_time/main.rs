//! Real sockets and real processes, in real time.

mod any_stream;
mod driver;
mod eight_situations;
mod getting_started;
mod local_stall;
mod processes;
mod slow_reader;
mod stranger;
mod swarm;
mod tls;
