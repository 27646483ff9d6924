//! Parts that are read from a socket, several at once.

use std::{future::poll_fn, time::Duration};

use bytes::BufMut;
use heartbeat_core::{Config, Control, Instant, Monitor, Nonce};
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    task::yield_now,
};

use super::*;
use crate::{transport::Frame, wire::reader::Reader};

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

fn put_control(to: &mut BytesMut, control: Control) {
    let mut buffer = [0; Control::MAX_ENCODED];
    let frame = control.encode(&mut buffer).unwrap();
    to.put_u32(u32::try_from(frame.len()).unwrap());
    to.put_slice(frame);
}

/// In parts of these sizes, of which the last is repeated, with a ping behind each
/// `pings` of them.
fn put_message(to: &mut BytesMut, message: &[u8], sizes: &[usize], pings: usize) -> usize {
    let (mut rest, mut announced, mut sent) = (message, Some(message.len()), 0);
    for nth in 0.. {
        let size = sizes.get(nth).or(sizes.last()).unwrap();
        let (part, after) = rest.split_at(rest.len().min(*size));
        put_part_header(to, part.len(), announced.take());
        to.extend_from_slice(part);
        rest = after;
        if rest.is_empty() {
            break;
        }
        if pings > 0 && nth % pings == 0 {
            put_control(to, Control::Ping(Nonce([7; 8])));
            sent += 1;
        }
    }
    sent
}

/// All that is read of these bytes, when as many are written at a time.
async fn read(bytes: Bytes, at_once: usize) -> (Vec<Bytes>, usize) {
    let (mut ours, mut theirs) = sockets().await;
    tokio::spawn(async move {
        for piece in bytes.chunks(at_once) {
            theirs.write_all(piece).await.unwrap();
            yield_now().await;
        }
    });
    let mut reader = Reader::new(8 << 20);
    let (mut messages, mut pings) = (Vec::new(), 0);
    while poll_fn(|cx| reader.poll_fill(&mut ours, cx)).await.unwrap() > 0 {
        while let Some(frame) = reader.next_frame().unwrap() {
            match frame {
                Frame::Data(message) => messages.push(message),
                Frame::Ping(_) => pings += 1,
                _ => {}
            }
        }
    }
    assert_eq!(reader.len(), 0, "nothing is left");
    (messages, pings)
}

#[tokio::test]
async fn whatever_the_parts_and_however_they_arrive_the_messages_are_the_same() {
    let lengths = [PART + 1, 2 * PART, 9 * PART + 17, 1 << 20, 700_001];
    let parts: [(&[usize], usize); 6] = [
        (&[PART], 0),
        (&[PART], 1),
        (&[PART], 3),
        (&[PART, PART, PART, 1, PART], 0),
        (&[PART, 10_000], 2),
        (&[1, 30_000, PART], 0),
    ];
    let hello = Monitor::new(Config::default(), 1, Instant::ORIGIN).poll_transmit();
    for (sizes, every) in parts {
        let (mut bytes, mut sent, mut pings) = (BytesMut::new(), Vec::new(), 0);
        put_control(&mut bytes, hello.unwrap());
        for (nth, length) in lengths.into_iter().enumerate() {
            let message: Bytes = (0..length).map(|at| (at * 31 % 251 + nth) as u8).collect();
            pings += put_message(&mut bytes, &message, sizes, every);
            sent.push(message);
            // A small one behind it.
            bytes.put_slice(&crate::wire::header(3));
            bytes.put_slice(b"and");
            sent.push(Bytes::from_static(b"and"));
        }
        let bytes = bytes.freeze();
        for at_once in [usize::MAX, 65_541, 300_001, 7_919] {
            let (messages, answered) = read(bytes.clone(), at_once).await;
            assert!(messages == sent, "{sizes:?}, {every}, {at_once} at once");
            assert_eq!(answered, pings);
        }
    }
}

// ---- several parts at once -----------------------------------------------------

/// A message that lacks 5000 bytes of its first part. All of its memory is there, as an earlier
/// message leaves it.
fn begun_in_memory(message: &[u8], first: usize) -> Box<Assembly> {
    let mut assembly = Assembly::begin(message.len() as u32, first, 0);
    assembly.memory = BytesMut::zeroed(message.len());
    // So that several parts fit into what a socket holds.
    assembly.take_from(&mut message[..first - 5000].into());
    assembly
}

/// Like `sockets`; the first one has room for several parts.
async fn sockets_with_room() -> (TcpStream, TcpStream) {
    let ours = TcpSocket::new_v4().unwrap();
    ours.set_recv_buffer_size(200 * 1024).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(ours.connect(address), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

/// Reads once when all of these bytes have arrived. Returns how many it read, and
/// what of them isn't the message's.
async fn read_once(assembly: &mut Assembly, wire: &[u8]) -> (usize, BytesMut) {
    let (mut ours, mut theirs) = sockets_with_room().await;
    theirs.write_all(wire).await.unwrap();
    let mut arrived = vec![0; wire.len()];
    while ours.peek(&mut arrived).await.unwrap() < wire.len() {
        yield_now().await;
    }
    let mut behind = BytesMut::new();
    let read = poll_fn(|cx| assembly.poll_fill(&mut ours, cx, &mut behind)).await;
    (read.unwrap(), behind)
}

fn numbered(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// The parts of the message behind the first one, as they lie on the wire.
fn further_parts(message: &[u8]) -> BytesMut {
    let mut wire = BytesMut::new();
    for part in message[PART..].chunks(PART) {
        put_part_header(&mut wire, part.len(), None);
        wire.extend_from_slice(part);
    }
    wire
}

fn ping() -> BytesMut {
    let mut ping = BytesMut::new();
    put_control(&mut ping, Control::Ping(Nonce([7; 8])));
    ping
}

#[tokio::test]
async fn all_parts_that_are_there_are_read_at_once_each_into_its_place() {
    let message = numbered(2 * PART + 1000);
    let mut assembly = begun_in_memory(&message, PART);
    let further = further_parts(&message);
    let next = b"the beginning of another message";
    let wire = [&message[PART - 5000..PART], &further, next].concat();
    let (read, behind) = read_once(&mut assembly, &wire).await;
    // The longest header of a message, in one part or in several.
    assert_eq!(read, 5000 + further.len() + 10);
    assert_eq!(behind, next[..10]);
    assert!(assembly.end_part());
    assert_eq!(assembly.whole(), Some(message.len()));
    assert!(assembly.into_message() == message);
}

#[tokio::test]
async fn behind_a_message_that_is_whole_an_empty_part_is_none_of_its_parts() {
    let message = numbered(PART + 1000);
    let mut assembly = begun_in_memory(&message, PART);
    let empty = [0, 0, 0, 1, Tag::Part.to_byte()];
    let wire = [
        &message[PART - 5000..PART],
        &further_parts(&message),
        &empty,
    ]
    .concat();
    let (read, behind) = read_once(&mut assembly, &wire).await;
    assert_eq!((read, &*behind), (wire.len(), &empty[..]));
    assert!(assembly.into_message() == message);
}

#[tokio::test]
async fn parts_are_read_at_once_again_behind_a_read_that_ended_in_a_header() {
    for ends in 0..5 {
        let message = numbered(2 * PART + 1000);
        let mut assembly = begun_in_memory(&message, PART);
        let further = further_parts(&message);
        let wire = [&message[PART - 5000..PART], &further[..ends]].concat();
        let (_, behind) = read_once(&mut assembly, &wire).await;
        assert_eq!(behind, further[..ends]);
        // The reader puts the header together.
        assembly.begin_part(PART).unwrap();
        let (read, behind) = read_once(&mut assembly, &further[5..]).await;
        assert_eq!((read, behind.len()), (further.len() - 5, 0));
        assert!(assembly.into_message() == message);
    }
}

#[tokio::test]
async fn a_peer_whose_parts_are_not_as_ours_is_read_from_one_part_at_a_time() {
    let message = numbered(3 * PART);
    let further = further_parts(&message);
    // Its first part is shorter.
    let mut assembly = begun_in_memory(&message, 6000);
    let wire = [&message[1000..6000], &further].concat();
    let (read, behind) = read_once(&mut assembly, &wire[..50_000]).await;
    assert_eq!((read, &*behind), (5010, &further[..10]));

    // It has sent something between two parts.
    let mut assembly = begun_in_memory(&message, PART);
    let between = [&ping()[..], &further[..100]].concat();
    let wire = [&message[PART - 5000..PART], &between].concat();
    let (read, mut behind) = read_once(&mut assembly, &wire).await;
    assert_eq!((read, &*behind), (wire.len(), &*between));
    behind.advance(ping().len() + 5);
    assembly.begin_part(PART).unwrap();
    assembly.take_from(&mut behind);
    let (read, behind) = read_once(&mut assembly, &further[100..]).await;
    assert_eq!((read, behind.len()), (5 + PART - 100 + 10, 10));
}

/// The reader would take it for one if it knew only the place.
#[tokio::test]
async fn bytes_of_a_message_in_the_place_of_a_header_are_none() {
    let mut message = numbered(3 * PART);
    let mut header = BytesMut::new();
    put_part_header(&mut header, PART, None);
    // Behind a ping the second part is later by its length.
    let place = 2 * PART - ping().len();
    message[place..place + header.len()].copy_from_slice(&header);
    let mut assembly = begun_in_memory(&message, PART);
    let between = [&ping()[..], &further_parts(&message)[..PART + 1000]].concat();
    let wire = [&message[PART - 5000..PART], &between].concat();
    let (read, behind) = read_once(&mut assembly, &wire).await;
    assert_eq!(read, wire.len());
    assert!(
        behind == between,
        "{} of {} bytes",
        behind.len(),
        between.len()
    );
    assert_eq!(assembly.arrived(), PART);
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_message_is_an_error() {
    let (mut ours, theirs) = sockets().await;
    SockRef::from(&theirs)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(theirs);
    let mut assembly = Assembly::begin(100_000, PART, 0);
    let mut behind = BytesMut::new();
    let read = poll_fn(|cx| assembly.poll_fill(&mut ours, cx, &mut behind)).await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

// ---- memory ------------------------------------------------------------------------

#[test]
fn memory_grows_to_twice_its_size_and_only_when_it_is_full() {
    let mut assembly = Assembly::begin(8 << 20, PART, 0);
    let begun = assembly.memory.len();
    assembly.take_from(&mut BytesMut::zeroed(begun));
    assert_eq!((assembly.arrived(), assembly.memory.len()), (begun, begun));
    assembly.take_from(&mut BytesMut::zeroed(1));
    assert_eq!(assembly.memory.len(), 2 * begun);
}

#[test]
fn memory_that_grows_begins_with_32_to_64_kib_or_with_as_much_as_has_arrived_or_twice_that() {
    let (kib, mib) = (1 << 10, 1 << 20);
    for arrived in [0, 1, 32 * kib, 40 * kib, 65_537] {
        let least = arrived.max(32 * kib);
        let lengths = [
            65_537,
            64 * kib,
            80 * kib,
            mib,
            8 * mib,
            40 * mib,
            123_456_789,
        ];
        for length in lengths.into_iter().filter(|&length| length >= least) {
            let begun = beginning(length, arrived);
            assert!((least..2 * least).contains(&begun), "{begun} for {length}");
        }
    }
}
