#![cfg_attr(docsrs, feature(doc_cfg))]

//! Wrap a stream, and be told in bounded time when the peer is dead.
//!
//! A TCP connection whose peer lost power, hangs, or is behind a cut cable
//! looks connected for hours. [`Heartbeat`] pings the peer over the stream
//! that you have anyway, and ends its stream of events with
//! [`PeerEvent::Dead`] within [`Config::detection_time`]; as long as the peer
//! lives it doesn't.
//!
//! # One line to add
//!
//! Both ends wrap their stream. This is one process that plays both; the
//! client hangs after its first message.
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
//!             println!("{death}"); // "silent for 300.8ms, 3 beats missed, ..."
//!             assert_eq!(death.cause, Cause::Silent);
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # What is where
//!
//! * [`Heartbeat`]: the stream of events and the sink of messages, over
//!   [any stream](Heartbeat::new), with [messages of a type](Heartbeat::typed),
//!   in [a protocol](Heartbeat::with_codec) that has a ping of its own, or over
//!   [whole frames](Heartbeat::with_frames).
//! * [`Heartbeat::spawn`]: for an application that works for long between two
//!   reads.
//! * [`Group`]: many connections as one stream of events.
//! * [`Heartbeat::into_io`]: a stream of bytes, for a protocol that wants one.
//! * [`Reconnect`]: another connection when one has died.
//! * [`Learner`]: the longest interval that a network keeps an idle connection for.
//! * [`Config`]: the timings, by preset, by budget or one by one.
//! * [`safety_net`]: what the kernel knows about the connection, as a second
//!   line of defence. On a plain `TcpStream` it is on by itself.
//! * The features `metrics` and `tracing`, both off by default: all
//!   connections in numbers, and each in the log.
//! * The feature `testkit`, off by default: a stream for your own tests, whose
//!   peer freezes and whose line is cut in virtual time.
//! * The judgement itself is [`heartbeat_core`], which can be used without
//!   tokio.

mod arrivals;
mod codec;
// Before `driver`: rustdoc shows `new` before `spawn`.
mod constructors;
mod driver;
mod error;
mod event;
mod frames;
mod group;
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
    Config, ConfigBuilder, ConfigError, Diagnosis, Evidence, GoodbyeCode, Hello, Nonce,
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
