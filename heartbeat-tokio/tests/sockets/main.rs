//! The safety net on real sockets.

mod safety_net;
mod sweep;
