//! Options that can be switched off again: the socket then gets its former value back.
//!
//! All of them are options of Linux with a number as their value.

use super::{AsSocketHandle, Outcome};

/// `TCP_USER_TIMEOUT`, in milliseconds.
pub(crate) type UserTimeout = Switch<18>;
/// `TCP_RTO_MAX_MS` of `linux/tcp.h`; the C libraries don't have it yet.
pub(crate) type MaxRetransmitTimeout = Switch<44>;
/// `TCP_NOTSENT_LOWAT`, in bytes.
pub(crate) type MaxUnsent = Switch<25>;

/// One option of one socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Switch<const OPTION: i32> {
    /// The socket's former value, while the option is set.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    own: Option<i32>,
}

impl<const OPTION: i32> Switch<OPTION> {
    /// Sets the option, or restores the socket's former value.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    pub(crate) fn set(
        &mut self,
        socket: &impl AsSocketHandle,
        wanted: Option<impl TryInto<i32>>,
    ) -> Outcome {
        use super::sockopt;

        let socket = socket.as_fd();
        if let Some(wanted) = wanted {
            if self.own.is_none() {
                self.own = sockopt::get_number(socket, OPTION).ok();
            }
            // Settings are within what the kernel takes.
            let wanted = wanted.try_into().unwrap_or(i32::MAX);
            return Outcome::of(sockopt::set(socket, OPTION, wanted));
        }
        match self.own.take().map(|own| sockopt::set(socket, OPTION, own)) {
            None | Some(Ok(())) => Outcome::NotAsked,
            Some(failed) => Outcome::of(failed),
        }
    }

    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    pub(crate) fn set(
        &mut self,
        _: &impl AsSocketHandle,
        wanted: Option<impl TryInto<i32>>,
    ) -> Outcome {
        match wanted {
            Some(_) => Outcome::NotSupported,
            None => Outcome::NotAsked,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
impl<const OPTION: i32> Switch<OPTION> {
    /// The socket's current value; `None` if this kernel doesn't know the option.
    pub(crate) fn read(socket: &impl AsSocketHandle) -> Option<i32> {
        super::sockopt::get_number(socket.as_fd(), OPTION).ok()
    }
}

/// The options of one socket that can be switched off again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Switches {
    pub(crate) user_timeout: UserTimeout,
    pub(crate) max_retransmit_timeout: MaxRetransmitTimeout,
    pub(crate) max_unsent: MaxUnsent,
}

impl Switches {
    /// Switches all of them off. An option that fails stays as it is.
    pub(crate) fn restore(&mut self, socket: &impl AsSocketHandle) {
        let _ = self.user_timeout.set(socket, None::<i32>);
        let _ = self.max_retransmit_timeout.set(socket, None::<i32>);
        let _ = self.max_unsent.set(socket, None::<i32>);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_c_librarys() {
        let _: UserTimeout = Switch::<{ libc::TCP_USER_TIMEOUT }>::default();
        let _: MaxUnsent = Switch::<{ libc::TCP_NOTSENT_LOWAT }>::default();
    }
}
