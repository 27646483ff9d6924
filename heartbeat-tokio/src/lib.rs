//! Skeleton.
pub mod safety_net;
