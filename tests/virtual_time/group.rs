//! Many connections as one stream: the keys of events, membership, and broadcasts.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic too"
)]

use std::{collections::BTreeMap, future::ready, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use heartbeat_core::GoodbyeCode;
use heartbeat_tests::{ms, quick, secs};
use heartbeat_tokio::{
    Cause, CloseReason, Driver, Group, Heartbeat, PeerEvent, SendError, Slow, State,
    safety_net::Liveness,
    testkit::{Line, Side},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

struct Peer {
    connection: Driver<Bytes>,
    line: Line,
}

/// A group of this many members, and their peers.
async fn group(size: u32) -> (Group<u32, Bytes>, Vec<Peer>) {
    let (mut group, mut peers) = (Group::new(), Vec::new());
    for key in 0..size {
        let (ours, theirs, line) = Line::pair();
        assert!(
            group
                .insert(key, Heartbeat::new(ours, quick()).spawn())
                .is_none()
        );
        let connection = Heartbeat::new(theirs, quick()).spawn();
        peers.push(Peer { connection, line });
    }
    for _ in 0..size {
        next(&mut group, |event| {
            matches!(event, PeerEvent::Connected { .. })
        })
        .await;
    }
    (group, peers)
}

/// The next event that is one of these.
async fn next(
    group: &mut Group<u32, Bytes>,
    wanted: impl Fn(&PeerEvent<Bytes>) -> bool,
) -> (u32, PeerEvent<Bytes>) {
    loop {
        let (key, event) = group.recv().await.unwrap();
        if wanted(&event) {
            return (key, event);
        }
    }
}

fn is_message(event: &PeerEvent<Bytes>) -> bool {
    matches!(event, PeerEvent::Message(_))
}

/// No peer reads any more, and every member's queue is full.
async fn fill(group: &Group<u32, Bytes>, key: u32) {
    let sender = group.get(&key).unwrap();
    while sender
        .send(Bytes::from_static(&[0; 60_000]))
        .now_or_never()
        .is_some()
    {
        sleep(ms(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_event_comes_with_its_key_in_order_and_the_last_one_ends_the_membership() {
    let (mut group, peers) = group(50).await;
    for (key, peer) in peers.iter().enumerate() {
        for nth in 0..20_u32 {
            let message = format!("{key} {nth}");
            peer.connection.sender.send(message.into()).await.unwrap();
        }
    }
    for peer in peers {
        drop(peer.connection); // says goodbye behind them
    }
    let mut seen = BTreeMap::<u32, u32>::new();
    let mut left = 50;
    while let Some((key, event)) = group.recv().await {
        match event {
            PeerEvent::Message(message) => {
                let nth = seen.entry(key).or_default();
                assert_eq!(message, format!("{key} {nth}"));
                *nth += 1;
            }
            PeerEvent::Closed { reason } => {
                assert!(matches!(reason, CloseReason::Peer { .. }));
                assert_eq!(seen.get(&key), Some(&20));
                left -= 1;
                assert!(group.get(&key).is_none());
                assert_eq!(group.len(), left);
            }
            _ => {}
        }
    }
    assert!(group.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_group_is_a_stream_of_its_members_events() {
    let (mut group, peers) = group(1).await;
    peers[0]
        .connection
        .sender
        .send("hello".into())
        .await
        .unwrap();
    let messages = group.by_ref().filter(|(_, event)| ready(is_message(event)));
    let first = std::pin::pin!(messages).next().await;
    assert_eq!(first, Some((0, PeerEvent::Message("hello".into()))));
    assert_eq!(Group::<u32, Bytes>::new().next().await, None);
}

#[tokio::test(start_paused = true)]
async fn members_are_judged_and_beats_go_on_while_nobody_takes_events() {
    let (mut group, peers) = group(3).await;
    sleep(secs(60)).await;
    for peer in &peers {
        peer.connection.sender.probe().await.unwrap();
    }
    peers[1].line.freeze(Side::Right);
    // The last answer may have come at this very moment.
    sleep(quick().detection_time() + ms(1)).await;
    let counts = group.counts();
    let expected = [(State::Alive, 2), (State::Dead, 1)];
    assert_eq!(counts, expected.into());
    let (key, event) = next(&mut group, PeerEvent::is_terminal).await;
    let PeerEvent::Dead(death) = event else {
        panic!("{event}");
    };
    assert_eq!((key, death.cause), (1, Cause::Silent));
}

#[tokio::test(start_paused = true)]
async fn members_take_turns_however_much_some_of_them_send() {
    let (mut group, peers) = group(3).await;
    for (peer, messages) in peers.iter().zip([1000, 4, 1000]) {
        for _ in 0..messages {
            let sender = &peer.connection.sender;
            sender.send("flood".into()).await.unwrap();
        }
    }
    sleep(ms(5)).await;
    let mut taken = [0; 3];
    for _ in 0..20 {
        let (key, _) = next(&mut group, is_message).await;
        taken[key as usize] += 1;
    }
    assert_eq!(taken, [8, 4, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_inbox_is_full_pauses_alone_and_reads_on_when_it_is_taken() {
    let (mut group, peers) = group(2).await;
    let flood = peers[0].connection.sender.clone();
    let flooding = tokio::spawn(async move {
        for _ in 0..40 {
            flood.send(Bytes::from_static(&[0; 60_000])).await.unwrap();
        }
        flood.flush().await.unwrap();
    });
    sleep(secs(60)).await;
    assert!(!flooding.is_finished());
    assert_eq!(group.get(&0).unwrap().status().peer.state, State::Paused);
    assert_eq!(group.get(&1).unwrap().status().peer.state, State::Alive);
    let began = Instant::now();
    for _ in 0..40 {
        next(&mut group, is_message).await;
    }
    flooding.await.unwrap();
    assert!(began.elapsed() < ms(5), "it waits for no timer");
    assert_eq!(group.get(&0).unwrap().status().peer.state, State::Alive);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_removed_or_replaced_keeps_its_events_and_serves_on() {
    let (mut group, peers) = group(2).await;
    for peer in &peers {
        peer.connection.sender.send("kept".into()).await.unwrap();
    }
    sleep(ms(5)).await;
    let (ours, theirs, _line) = Line::pair();
    let newer = Heartbeat::new(theirs, quick()).spawn();
    let replaced = group
        .insert(0, Heartbeat::new(ours, quick()).spawn())
        .unwrap();
    let removed = group.remove(&1).unwrap();
    assert!(group.remove(&1).is_none());
    for (mut connection, peer) in [replaced, removed].into_iter().zip(&peers) {
        let kept = async {
            loop {
                if let PeerEvent::Message(message) = connection.receiver.recv().await.unwrap() {
                    return message;
                }
            }
        };
        assert_eq!(kept.await, "kept");
        peer.connection.sender.probe().await.unwrap();
    }
    newer.sender.send("new".into()).await.unwrap();
    let (key, event) = next(&mut group, is_message).await;
    assert_eq!((key, event), (0, PeerEvent::Message("new".into())));
    drop(group);
    let closed = newer.sender.closed().await.unwrap();
    assert!(matches!(closed, CloseReason::Peer { .. }));
}

/// A place that is free is given to the next one, and the former member's wake-ups aren't its.
#[tokio::test(start_paused = true)]
async fn a_member_that_comes_after_one_that_left_gets_its_own_events_only() {
    let (mut group, mut peers) = group(3).await;
    let mut former = group.remove(&1).unwrap();
    let (ours, theirs, _line) = Line::pair();
    group.insert(7, Heartbeat::new(ours, quick()).spawn());
    let newer = Heartbeat::new(theirs, quick()).spawn();
    next(&mut group, |event| {
        matches!(event, PeerEvent::Connected { .. })
    })
    .await;
    for (nth, sender) in [&peers[1].connection.sender, &newer.sender]
        .into_iter()
        .enumerate()
    {
        sender.send(format!("{nth}").into()).await.unwrap();
    }
    assert_eq!(
        next(&mut group, is_message).await,
        (7, PeerEvent::Message("1".into()))
    );
    let waits = timeout(ms(100), next(&mut group, is_message)).await;
    assert!(waits.is_err(), "{waits:?}");
    let kept = loop {
        if let PeerEvent::Message(message) = former.receiver.recv().await.unwrap() {
            break message;
        }
    };
    assert_eq!(kept, "0");

    // It may come back, also when it has ended and that was told.
    drop(peers.remove(1));
    while former.receiver.recv().await.is_some() {}
    group.insert(1, former);
    assert_eq!(group.len(), 4);
    let waits = timeout(ms(100), next(&mut group, PeerEvent::is_terminal)).await;
    assert!(waits.is_err(), "{waits:?}");
    let mut keys: Vec<u32> = group.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    assert_eq!((group.len(), &*keys), (3, &[0, 2, 7][..]));
}

#[tokio::test(start_paused = true)]
async fn an_empty_group_ends_and_goes_on_after_an_insert() {
    let mut group = Group::<u32, Bytes>::default();
    assert_eq!(group.recv().await, None);
    let (ours, theirs, _line) = Line::pair();
    let _peer = Heartbeat::new(theirs, quick()).spawn();
    group.insert(7, Heartbeat::new(ours, quick()).spawn());
    assert_eq!(group.recv().await.unwrap().0, 7);
    assert!(timeout(ms(1), group.recv()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_reaches_all_that_have_room_and_the_slow_as_the_policy_says() {
    let code = GoodbyeCode(64);
    for policy in [Slow::Drop, Slow::Disconnect(code), Slow::Wait] {
        let (group, mut peers) = group(5).await;
        let group = Arc::new(group);
        for key in [1, 3] {
            peers[key as usize].line.limit_rate(Side::Left, 400_000);
            fill(&group, key).await;
        }
        let began = Instant::now();
        let sent = group.broadcast("news".into(), policy).await;
        let mut slow = sent.slow.clone();
        slow.sort_unstable();
        assert_eq!(sent.failed, []);
        match policy {
            Slow::Wait => {
                assert_eq!((sent.sent, &*slow), (5, &[][..]));
                assert!(began.elapsed() > ms(50));
            }
            _ => {
                assert_eq!((sent.sent, &*slow), (3, &[1, 3][..]));
                assert_eq!(began.elapsed(), ms(0));
            }
        }
        for (key, peer) in peers.iter_mut().enumerate() {
            let (mut got, mut end) = (0, None);
            let until = Instant::now() + secs(5);
            while let Ok(Some(event)) =
                tokio::time::timeout_at(until, peer.connection.receiver.recv()).await
            {
                match event {
                    PeerEvent::Message(message) if message == "news" => got += 1,
                    PeerEvent::Closed { reason } => end = Some(reason),
                    _ => {}
                }
            }
            let is_slow = [1, 3].contains(&key);
            assert_eq!(got, usize::from(!is_slow || policy == Slow::Wait));
            let left = matches!(end, Some(CloseReason::Peer { code: with, .. }) if with == code);
            assert_eq!(
                left,
                is_slow && matches!(policy, Slow::Disconnect(_)),
                "{end:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_one_that_never_reads_keeps_no_other_slow_one_waiting() {
    let (group, mut peers) = group(3).await;
    peers[0].line.limit_rate(Side::Left, 1); // it will die of it
    fill(&group, 0).await;
    peers[1].line.limit_rate(Side::Left, 400_000);
    fill(&group, 1).await;
    let sent = tokio::spawn(async move { group.broadcast("news".into(), Slow::Wait).await });
    loop {
        let event = peers[1].connection.receiver.recv().await.unwrap();
        if event == PeerEvent::Message("news".into()) {
            break;
        }
    }
    assert!(!sent.is_finished());
    let sent = sent.await.unwrap();
    assert_eq!(sent.sent, 2);
    let [(0, SendError::Dead(_))] = &*sent.failed else {
        panic!("{:?}", sent.failed);
    };
}

#[tokio::test(start_paused = true)]
async fn leaving_says_goodbye_to_all_and_tells_how_each_took_it() {
    let (mut group, mut peers) = group(3).await;
    let frozen = peers.pop().unwrap();
    frozen.line.freeze(Side::Right);
    group.leave(GoodbyeCode::RESTARTING, "back soon");
    let mut ends = BTreeMap::new();
    while let Some((key, event)) = group.recv().await {
        if event.is_terminal() {
            ends.insert(key, event);
        }
    }
    let local = PeerEvent::Closed {
        reason: CloseReason::Local,
    };
    assert_eq!((&ends[&0], &ends[&1]), (&local, &local));
    assert!(matches!(&ends[&2], PeerEvent::Dead(_)), "{ends:?}");
    for peer in peers {
        let reason = peer.connection.sender.closed().await.unwrap();
        let restarting = matches!(&reason, CloseReason::Peer { code, detail }
            if *code == GoodbyeCode::RESTARTING && detail == "back soon");
        assert!(restarting, "{reason}");
    }
}

#[tokio::test]
async fn a_sweep_finds_who_is_gone_behind_a_full_inbox_and_takes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut group = Group::new();
    let mut peers = Vec::new();
    for key in 0..3 {
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        group.insert(key, Heartbeat::new(stream, quick()).spawn());
        peers.push(Heartbeat::new(listener.accept().await.unwrap().0, quick()));
    }
    let (line_end, _other, _line) = Line::pair();
    group.insert(9, Heartbeat::new(line_end, quick()).spawn());
    // It sends until its messages aren't read any more, and is killed.
    let mut killed = peers.swap_remove(1);
    while let Ok(sent) = timeout(ms(50), killed.send(Bytes::from_static(&[0; 60_000]))).await {
        sent.unwrap();
    }
    let sender = group.get(&1).unwrap();
    assert_eq!(sender.status().peer.state, State::Paused);
    assert_eq!(sender.check().unwrap(), Some(Liveness::DataPending));
    assert_eq!(group.get(&9).unwrap().check().unwrap(), None, "no socket");
    assert_eq!(group.sweep().unwrap(), []);
    drop(killed);
    let gone = timeout(secs(5), async {
        loop {
            match group.sweep().unwrap() {
                gone if gone.is_empty() => sleep(ms(1)).await,
                gone => return gone,
            }
        }
    });
    let gone = gone.await.unwrap();
    let [(1, liveness)] = &*gone else {
        panic!("{gone:?}");
    };
    assert!(liveness.is_gone());
}
