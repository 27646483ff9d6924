#![cfg_attr(docsrs, feature(doc_cfg))]

//! Wrap a stream, and detect within bounded time when the peer is dead.
//!
//! A TCP connection whose peer lost power, hangs, or is behind a cut cable
//! looks connected for hours. [`Heartbeat`] pings the peer over the same stream. When the
//! peer dies, the stream of events ends with [`PeerEvent::Dead`] within
//! [`Config::detection_time`]. A live peer isn't reported dead.
//!
//! # One line to add
//!
//! Both ends wrap their stream. Here one process plays both ends; the client hangs after
//! its first message.
//!
//! ```
//! use futures::{SinkExt, StreamExt};
//! use heartbeat_tokio::{Cause, Config, Heartbeat, PeerEvent};
//! use tokio::net::{TcpListener, TcpStream};
//! # use std::time::{Duration, Instant};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::detect_within(Duration::from_millis(300))?;
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//!
//! tokio::spawn(async move {
//!     let stream = TcpStream::connect(address).await?;
//!     let mut client = Heartbeat::new(stream, config);
//!     client.send("hello".into()).await?;
//!     std::future::pending::<()>().await; // it never polls again
//!     Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! });
//!
//! let (stream, _) = listener.accept().await?;
//! let mut server = Heartbeat::new(stream, config);
//! while let Some(event) = server.next().await {
//!     match event {
//!         PeerEvent::Message(bytes) => println!("{bytes:?}"),
//!         PeerEvent::Dead(death) => {
//!             println!("{death}"); // "silent for 291ms, 3 beats missed, ..."
//!             assert_eq!(death.cause, Cause::Silent);
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # What you have, and what to use
//!
//! | you have | use |
//! |---|---|
//! | any `AsyncRead + AsyncWrite`, on both ends | [`Heartbeat::new`] |
//! | messages of a serde type | [`Heartbeat::typed`] |
//! | TLS or another wrapper around a socket | the same, and [`with_socket`](Heartbeat::with_socket) |
//! | a WebSocket of tokio-tungstenite or axum | `Heartbeat::websocket`, in the module `websocket` |
//! | a protocol that has its own ping, and its codec | [`Heartbeat::with_codec`] |
//! | the same in a `Framed`, after a login | [`Heartbeat::from_framed`] |
//! | another `Stream` and `Sink` of whole frames | [`Heartbeat::with_frames`] |
//! | an application that works for a long time between two reads | [`spawn`](Heartbeat::spawn), on any of these |
//! | many connections in one loop | [`Group`] |
//! | a byte protocol | [`Heartbeat::into_io`] |
//! | a client that reconnects | [`Reconnect`] |
//! | a client on a battery, behind a NAT | [`Learner`] |
//! | no tokio | [`heartbeat_core`], the state machine alone |
//!
//! [`Config`] holds the timings: by preset, by detection time or one by one.
//! [`PeerEvent`] lists the events, and [`Cause`] the reasons of a death. [`safety_net`]
//! adds the kernel's checks, a second line of defence that is automatic below a plain
//! `TcpStream`.
//!
#![cfg_attr(
    all(doc, not(doctest)),
    doc = "The module [`guide`] has the pages to read next, from choosing timings to testing your program.\n"
)]
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `serde` | on | [`Config`], [`SafetyNet`] and [`Backoff`] from TOML, JSON and the like |
//! | `postcard` | on | [`Heartbeat::typed`] |
//! | `tungstenite` | | a WebSocket of tokio-tungstenite 0.30, on either side |
//! | `axum` | | a WebSocket of axum 0.8 |
//! | `interval-file` | | [`Learner`]'s findings in a file |
//! | `metrics` | | all connections in numbers, for the crate `metrics` |
//! | `tracing` | | each connection in the log, for the crate `tracing` |
//! | `testkit` | | a stream for your own tests, whose peer freezes and whose line is cut in virtual time |
//!
//! Features only add. Without any, there is no parser of durations among the dependencies.

mod arrivals;
mod codec;
// Before `driver`: rustdoc shows `new` before `spawn`.
mod constructors;
mod driver;
mod error;
mod event;
mod frames;
mod group;
#[cfg(all(doc, not(doctest)))]
pub mod guide;
mod heartbeat;
mod inbox;
mod io;
mod learning;
mod net;
mod observe;
mod pool;
mod reconnect;
pub mod safety_net;
mod suspend;
#[cfg(feature = "testkit")]
#[cfg_attr(docsrs, doc(cfg(feature = "testkit")))]
pub mod testkit;
mod timer;
mod transport;
#[cfg(feature = "postcard")]
mod typed;
#[cfg(any(feature = "axum", feature = "tungstenite"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "axum", feature = "tungstenite"))))]
pub mod websocket;
mod wire;

pub use codec::Codec;
pub use driver::{Driver, Receiver, Sender, WeakSender};
pub use error::{CloseError, EncodeError, ProbeError, SendError, TrySendError};
pub use event::{Cause, CloseReason, Death, Detail, PeerEvent};
pub use frames::Frames;
pub use group::{Broadcast, Group, Slow};
pub use heartbeat::{Heartbeat, Parts, Status};
pub use heartbeat_core;
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub use heartbeat_core::ConfigLayer;
pub use heartbeat_core::{
    Config, ConfigBuilder, ConfigError, Diagnosis, End, Evidence, GoodbyeCode, Hello, Nonce,
    ProtocolError, Role, State,
};
pub use io::Io;
pub use learning::{IdleMeter, Learner, Metered, Probe, Prober};
#[cfg(feature = "interval-file")]
#[cfg_attr(docsrs, doc(cfg(feature = "interval-file")))]
pub use learning::{IntervalFile, IntervalFileError};
pub use net::NetStatus;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use observe::describe_metrics;
pub use reconnect::{Attempt, Backoff, Reconnect};
pub use safety_net::SafetyNet;
pub use transport::{Dialect, Frame, Protocol, named::Transport};
#[cfg(feature = "postcard")]
#[cfg_attr(docsrs, doc(cfg(feature = "postcard")))]
pub use typed::Postcard;
pub use wire::Wire;
