//! What the kernel knows about a TCP connection.
//!
//! [`end_of`] says what an error means for a monitor.

mod errors;

pub use errors::end_of;
