//! The pages of the project's guide and reference that users of this crate need most.
//!
//! They are the same files as in the repository's folder `docs`, where their code is
//! compiled and their figures are checked. This module exists in the documentation only.
//!
//! | page | |
//! |---|---|
//! | [`choosing_timings`] | which detection time, and what it costs |
//! | [`timings`] | every bound and its formula: what is promised, and when |
//! | [`configuration`] | every knob in files and in the environment, with its effect |
//! | [`busy`] | an application that works for long between two reads |
//! | [`reconnect`] | a client that comes back |
//! | [`testing`] | your own tests, with a peer that freezes and a line that is cut |
//!
//! # In the repository
//!
//! | page | |
//! |---|---|
//! | [`docs/protocol.md`] | the wire format |
//! | [`docs/faults.md`] | which mechanism detects which fault |
//! | [`docs/observability.md`] | metrics and log |
//! | [`docs/guide/production.md`] | load balancers, proxies, NAT, limits and restarts |
//! | [`docs/guide/batteries.md`] | learned intervals |
//! | [`docs/testing.md`] | what is tested |
//!
//! The folder `examples` has programs to run, such as `examples/config` and
//! `examples/tune`.
//!
#![doc = concat!("[`docs/protocol.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/protocol.md")]
#![doc = concat!("[`docs/faults.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/faults.md")]
#![doc = concat!("[`docs/observability.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/observability.md")]
#![doc = concat!("[`docs/guide/production.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/guide/production.md")]
#![doc = concat!("[`docs/guide/batteries.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/guide/batteries.md")]
#![doc = concat!("[`docs/testing.md`]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/testing.md")]

/// A definition in front of a page wins over the page's own. So its links lead here, and
/// in the repository they lead to files.
macro_rules! pages {
    ($($(#[$links:meta])* $name:ident, $file:literal;)*) => {$(
        $(#[$links])*
        #[doc = ""]
        #[doc = include_str!($file)]
        pub mod $name {}
    )*};
}

pages! {
    /// [batteries]: crate::guide#in-the-repository
    /// [nat]: crate::guide#in-the-repository
    /// [timings]: crate::guide::timings
    /// [configuration]: crate::guide::configuration
    /// [observability]: crate::guide#in-the-repository
    choosing_timings, "guide/choosing-timings.md";
    /// [tune]: crate::guide#in-the-repository
    /// [batteries]: crate::guide#in-the-repository
    /// [tests]: crate::guide#in-the-repository
    timings, "guide/timings.md";
    /// [timings]: crate::guide::timings
    /// [outage]: crate::guide::timings#what-an-outage-looks-like
    /// [config]: crate::guide#in-the-repository
    /// [settings]: crate::guide#in-the-repository
    configuration, "guide/configuration.md";
    /// [slow reader]: crate::guide::timings#when-the-peer-reads-slowly-and-says-nothing
    busy, "guide/busy.md";
    /// [dead peer]: crate::guide#in-the-repository
    reconnect, "guide/reconnect.md";
    /// [choosing]: crate::guide::choosing_timings
    testing, "guide/testing.md";
}
