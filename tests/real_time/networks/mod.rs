//! Networks of namespaces, and the programs that make some. By themselves:
//!
//! ```text
//! cargo test -p heartbeat-tests --test real_time networks::
//! ```

mod both_sides;
mod chaos;
mod diagnosis;
mod fault_lab;
mod nat;
mod outages;
mod packets;
mod slow_line;
mod slow_websocket;
mod tune;
