//! The codecs of the examples, of which no test needs all.

#[path = "../../examples/mqtt/mqtt.rs"]
pub mod mqtt;
#[path = "../../examples/nats/protocol.rs"]
pub mod nats;
#[path = "../../examples/redis/resp.rs"]
pub mod redis;
#[path = "../../examples/stomp/stomp.rs"]
pub mod stomp;
