//! Real servers, real browsers and other people's clients.

mod chat;
mod devtools;
mod nats;
mod redis;
mod websocket;
