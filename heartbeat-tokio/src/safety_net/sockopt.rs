//! Linux' TCP options that no well-kept crate supports.
//!
//! This module has the crate's `unsafe` code and nothing else, so it is small.

#![allow(
    unsafe_code,
    reason = "both calls take a pointer to a value, and its length"
)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Reads a TCP option. Returns how many bytes of it this kernel knows, at most `N`.
pub(super) fn get<const N: usize>(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
) -> io::Result<([u8; N], usize)> {
    let mut answer = [0; N];
    let mut length = libc::socklen_t::try_from(N).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes to `answer`, which are
    // as many as it has, and how many to `length`. Both outlive the call, and
    // every byte pattern is a valid array of bytes. The descriptor is open,
    // because it is borrowed.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            answer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((
        answer,
        usize::try_from(length).map_or(N, |length| length.min(N)),
    ))
}

/// Reads a TCP option that is a number.
pub(super) fn get_number(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<libc::c_int> {
    let (answer, _) = get::<{ size_of::<libc::c_int>() }>(socket, option)?;
    Ok(libc::c_int::from_ne_bytes(answer))
}

/// Sets a TCP option that is a number.
pub(super) fn set(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes from `value`, which has as many
    // and outlives the call. The descriptor is open, because it is borrowed.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
