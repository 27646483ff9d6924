use std::future::poll_fn;

use heartbeat_core::{Instant, Monitor, PART};
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::*;

/// A wire over a stream, behind the peer's Hello.
async fn greeted() -> (Wire, DuplexStream, DuplexStream) {
    let config = Config::default();
    let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
    let hello = Monitor::new(config, 1, Instant::ORIGIN).poll_transmit();
    let mut buffer = [0; Control::MAX_ENCODED];
    let hello = hello.unwrap().encode(&mut buffer).unwrap();
    theirs
        .write_u32(u32::try_from(hello.len()).unwrap())
        .await
        .unwrap();
    theirs.write_all(hello).await.unwrap();
    let mut wire = Wire::new(&config);
    read(&mut wire, &mut ours).await;
    let greeted = next_frame(&mut wire);
    assert!(matches!(greeted, Some(Frame::Hello(_))), "{greeted:?}");
    (wire, ours, theirs)
}

async fn read(wire: &mut Wire, stream: &mut DuplexStream) -> usize {
    poll_fn(|cx| wire.poll_read(stream, cx)).await.unwrap()
}

fn next_frame(wire: &mut Wire) -> Option<Frame<Bytes>> {
    Transport::<DuplexStream>::next_frame(wire).unwrap()
}

fn unread(wire: &Wire) -> usize {
    Transport::<DuplexStream>::unread(wire)
}

#[tokio::test]
async fn a_whole_message_is_taken_out_without_a_frame_around_it() {
    let (mut wire, mut ours, mut theirs) = greeted().await;
    theirs.write_all(&header(5)).await.unwrap();
    theirs.write_all(b"whole").await.unwrap();
    theirs.write_all(&header(4)).await.unwrap();
    read(&mut wire, &mut ours).await;
    let mut next = || Transport::<DuplexStream>::next_message(&mut wire);
    assert_eq!(next(), Some(Bytes::from_static(b"whole")));
    assert_eq!(next(), None);
}

#[tokio::test]
async fn a_message_in_parts_counts_as_unread_from_its_last_byte_until_it_is_taken_out() {
    let (mut wire, mut ours, mut theirs) = greeted().await;
    let length = PART + 10;
    let mut parts = BytesMut::new();
    put_part_header(&mut parts, PART, Some(length));
    parts.put_bytes(1, PART);
    put_part_header(&mut parts, 10, None);
    parts.put_bytes(2, 10);
    let (before, last) = parts.split_at(parts.len() - 1);
    theirs.write_all(before).await.unwrap();
    let mut left = before.len();
    while left > 0 {
        left -= read(&mut wire, &mut ours).await;
        while next_frame(&mut wire).is_some() {}
    }
    assert_eq!(unread(&wire), 0);
    theirs.write_all(last).await.unwrap();
    read(&mut wire, &mut ours).await;
    assert_eq!(unread(&wire), length);
    let message = next_frame(&mut wire);
    assert!(matches!(message, Some(Frame::Data(message)) if message.len() == length));
    assert_eq!(unread(&wire), 0);
}
