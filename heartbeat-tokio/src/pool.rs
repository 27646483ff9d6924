//! Buffers for the connections that are busy at the moment.
//!
//! This module decides where read and write buffers come from. An idle connection holds
//! none. Each thread keeps a few, so that a connection that becomes busy needn't allocate.

use std::{cell::RefCell, collections::VecDeque};

use bytes::{Buf, Bytes, BytesMut};

/// The size of every pooled buffer, in bytes: 64 KiB of data and the framing around it.
pub(crate) const CHUNK: usize = 66 * 1024;

/// Buffers begin in the middle of a page of this size. Some processors copy at a quarter
/// of their speed to an address that is 1 to 31 bytes further into its page than the
/// source, and a kernel's own buffers begin at or near the beginning of one.
pub(crate) const PAGE: usize = 4096;

/// The number of buffers that a thread keeps. More connections are rarely in the middle of a
/// frame at once.
const KEPT: usize = 8;

/// A chunk with at least this much free space is used again while messages hold the rest of
/// it. So messages that are kept, and came a few at a time, share chunks.
const PART: usize = 8 * 1024;

/// The most bytes of buffers for large messages that a thread keeps. Asking for as much
/// each time would cost more than carrying it: an allocator takes it from the
/// system, page by page, and returns it.
const LARGE: usize = 4 * 1024 * 1024;

thread_local! {
    /// All initialised. Messages may still hold them.
    static LARGES: RefCell<VecDeque<Bytes>> = const { RefCell::new(VecDeque::new()) };
    static PARTS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer of [`CHUNK`] bytes.
pub(crate) fn take() -> BytesMut {
    let mut buffer = POOL
        .try_with(|pool| pool.borrow_mut().pop())
        .ok()
        .flatten()
        .unwrap_or_else(|| BytesMut::with_capacity(CHUNK + PAGE));
    place(&mut buffer, CHUNK);
    buffer
}

/// Makes room for `size` bytes behind those in the buffer without new memory. `false` if
/// messages hold it, or it is too small.
pub(crate) fn reclaim(buffer: &mut BytesMut, size: usize) -> bool {
    let has_room = buffer.try_reclaim(size);
    if has_room && buffer.is_empty() {
        place(buffer, size);
    }
    has_room
}

/// Moves the beginning of an empty buffer to the middle of a page, if `size` bytes fit
/// behind it.
fn place(buffer: &mut BytesMut, size: usize) {
    debug_assert!(buffer.is_empty(), "what is in it would move");
    let skipped = to_place(buffer);
    if buffer.capacity() >= skipped + size {
        buffer.resize(skipped, 0);
        buffer.advance(skipped);
    }
}

/// The bytes before the middle of a page.
fn to_place(buffer: &BytesMut) -> usize {
    (PAGE / 2).wrapping_sub(buffer.as_ptr() as usize) % PAGE
}

/// An empty buffer of [`PART`] bytes or more.
pub(crate) fn take_part() -> BytesMut {
    PARTS
        .try_with(|parts| parts.borrow_mut().pop())
        .ok()
        .flatten()
        .unwrap_or_else(take)
}

/// Initialised memory for a message larger than a chunk: memory that is kept, if that has
/// `size` bytes or up to twice as many, and otherwise new memory of `beginning` bytes, less up
/// to [`PAGE`].
pub(crate) fn take_large(size: usize, beginning: usize) -> BytesMut {
    let fits =
        |kept: &Bytes| (size..=size.saturating_mul(2)).contains(&kept.len()) && kept.is_unique();
    let kept = LARGES.try_with(|larges| {
        let mut larges = larges.borrow_mut();
        let at = larges.iter().position(fits)?;
        larges.remove(at)?.try_into_mut().ok()
    });
    kept.ok().flatten().unwrap_or_else(|| {
        let mut memory = BytesMut::zeroed(beginning);
        memory.advance(to_place(&memory).min(beginning));
        memory
    })
}

/// Keeps such memory for another message, after the one that it was for.
pub(crate) fn give_back_large(memory: Bytes) {
    let _ = LARGES.try_with(|larges| {
        let mut larges = larges.borrow_mut();
        let mut kept: usize = larges.iter().map(Bytes::len).sum();
        while kept + memory.len() > LARGE {
            match larges.pop_front() {
                Some(oldest) => kept -= oldest.len(),
                None => return,
            }
        }
        larges.push_back(memory);
    });
}

/// Gives a buffer back, or what messages leave of it. Leaves an empty buffer
/// without memory behind.
pub(crate) fn give_back(buffer: &mut BytesMut) {
    if buffer.capacity() == 0 {
        return;
    }
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    let whole = buffer.try_reclaim(CHUNK + PAGE);
    // No buffer of another size, nor the rest of one.
    if buffer.capacity() < PART || buffer.capacity() >= 2 * CHUNK {
        return;
    }
    let pool = if whole { &POOL } else { &PARTS };
    // While a thread ends, its pool is gone. The buffer is dropped then.
    let _ = pool.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < KEPT {
            pool.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, thread};

    use super::*;

    /// In a thread that keeps nothing yet.
    fn alone(test: impl FnOnce() + Send + 'static) {
        let ended = thread::spawn(test).join();
        assert!(ended.is_ok());
    }

    #[test]
    fn an_empty_buffer_begins_in_the_middle_of_a_page_if_it_has_room_behind_that() {
        for before in [0, 1, 100, PAGE - 1] {
            for (lacks, is_moved) in [(0, true), (1, false)] {
                let mut buffer = BytesMut::zeroed(4 * PAGE);
                buffer.advance(to_place(&buffer) + PAGE - before);
                buffer.clear();
                assert_eq!((buffer.as_ptr() as usize + before) % PAGE, PAGE / 2);
                let room = buffer.capacity() - before;
                place(&mut buffer, room + lacks);
                let moved_by = room + before - buffer.capacity();
                assert_eq!(moved_by, if is_moved { before } else { 0 }, "{before}");
            }
        }
    }

    #[test]
    fn a_chunk_begins_in_the_middle_of_a_page_however_much_of_it_was_used_before() {
        for used in [0, 1, 100, 3000, 60_000] {
            let mut buffer = take();
            buffer.resize(used, 0);
            buffer.advance(used);
            give_back(&mut buffer);
            let again = take();
            assert_eq!(again.as_ptr() as usize % PAGE, PAGE / 2, "{used}");
            assert!(again.capacity() >= CHUNK);
        }
    }

    #[test]
    fn a_thread_keeps_eight_chunks_and_as_many_rests() {
        alone(|| {
            let mut buffers: Vec<_> = (0..20).map(|_| take()).collect();
            let mut held = Vec::new();
            for buffer in buffers.iter_mut().skip(10) {
                buffer.resize(10_000, 0);
                held.push(buffer.split());
            }
            buffers.iter_mut().for_each(give_back);
            assert!(buffers.iter().all(|buffer| buffer.capacity() == 0));
            let kept = |pool: &'static thread::LocalKey<RefCell<Vec<BytesMut>>>| {
                let places = pool.take().into_iter().map(|kept| kept.as_ptr() as usize);
                places.collect::<BTreeSet<_>>().len()
            };
            assert_eq!((kept(&POOL), kept(&PARTS)), (KEPT, KEPT));
        });
    }

    #[test]
    fn buffers_of_other_sizes_are_not_kept_nor_small_rests() {
        alone(|| {
            let sizes = [
                PART - 1,
                PART,
                CHUNK,
                CHUNK + PAGE,
                2 * CHUNK - 1,
                2 * CHUNK,
            ];
            let kept = sizes.map(|size| {
                give_back(&mut BytesMut::with_capacity(size));
                POOL.take().len() + PARTS.take().len()
            });
            assert_eq!(kept, [0, 1, 1, 1, 1, 0]);
        });
    }
}
