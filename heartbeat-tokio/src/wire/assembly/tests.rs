//! Parts that are read from a socket, several at once.

use std::future::poll_fn;

use bytes::BufMut;
use heartbeat_core::{Config, Control, Instant, Monitor, Nonce};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
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
