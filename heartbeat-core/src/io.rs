//! Deaths as errors of the standard library.
//!
//! This module decides the [`ErrorKind`] of each death, for applications whose functions
//! return [`std::io::Error`].

use core::fmt;
use std::io::{Error, ErrorKind};

use crate::event::{Cause, Death};

impl<D> From<&Cause<D>> for ErrorKind {
    fn from(cause: &Cause<D>) -> Self {
        match cause {
            Cause::Silent | Cause::WriteStalled | Cause::TimedOut => Self::TimedOut,
            Cause::Eof => Self::UnexpectedEof,
            Cause::Reset => Self::ConnectionReset,
            Cause::Unreachable => Self::HostUnreachable,
            Cause::Protocol(_) => Self::InvalidData,
            Cause::GivenUp { .. } | Cause::PingFlood | Cause::Refused | Cause::NotReading => {
                Self::ConnectionAborted
            }
            Cause::Io => Self::Other,
        }
    }
}

/// The error keeps the death: [`Error::get_ref`] gives it back.
impl<D: AsRef<str> + fmt::Debug + Send + Sync + 'static> From<Death<D>> for Error {
    fn from(death: Death<D>) -> Self {
        Self::new(ErrorKind::from(&death.cause), death)
    }
}
