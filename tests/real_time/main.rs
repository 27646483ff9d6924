//! Real sockets, processes and servers, in real time. These tests wait; none loads
//! the processors, which would disturb what others measure.

mod address_space;
mod adversary;
mod amqp;
mod any_stream;
mod axum;
mod brokers;
mod driver;
mod eight_situations;
mod getting_started;
mod irc;
mod leaving;
mod local_stall;
mod loops;
mod misdirected;
mod nats;
mod networks;
mod postgres;
mod presence;
mod processes;
mod programs;
mod progress;
mod redis;
mod runtimes;
mod slow_reader;
mod smtp;
mod stranger;
mod swarm;
mod tls;
mod told;
mod tunnel;
