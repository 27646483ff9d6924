use std::time::Duration;

use super::*;
use crate::{Cause, Config, Death};

type Event = PeerEvent<u8>;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn connected(instance: u8) -> Event {
    let peer = Config::default().hello([instance; 8]);
    Event::Connected { peer }
}

const fn beat(millis: u64) -> Event {
    Event::Beat { rtt: ms(millis) }
}

const fn stall(millis: u64) -> Event {
    Event::LocalStall { late: ms(millis) }
}

const fn suspect(missed: u32) -> Event {
    Event::Suspect {
        missed,
        silent_for: ms(1),
    }
}

const fn recovered(millis: u64) -> Event {
    Event::Recovered {
        silent_for: ms(millis),
    }
}

fn dead() -> Event {
    Event::Dead(Death::new(Cause::Silent))
}

fn filled(events: impl IntoIterator<Item = Event>) -> Inbox<u8> {
    let mut inbox = Inbox::new();
    for event in events {
        inbox.push(event, 0, None);
    }
    inbox
}

fn order(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
    filled(events).into_events().collect()
}

#[test]
fn of_each_news_the_last_waits_ahead_of_messages_in_the_order_of_their_last_occurrence() {
    let message = Event::Message;
    let events = [
        message(1),
        beat(1),
        stall(1),
        message(2),
        recovered(1),
        suspect(1),
        beat(2),
        message(3),
        stall(2),
        suspect(2),
    ];
    let expected = [recovered(1), beat(2), stall(2), suspect(2)];
    let expected = [&expected[..], &[message(1), message(2), message(3)]].concat();
    assert_eq!(order(events), expected);
}

#[test]
fn connected_comes_first_and_a_later_one_replaces_one_that_was_not_taken() {
    let message = Event::Message;
    let events = [message(1), beat(1), connected(1), message(2), connected(2)];
    let expected = [connected(2), beat(1), message(1), message(2)];
    assert_eq!(order(events), expected);

    let mut inbox = filled([message(1), connected(1), message(2)]);
    assert_eq!(inbox.pop(), Some(connected(1)));
    inbox.push(connected(2), 0, None);
    let rest: Vec<_> = inbox.into_events().collect();
    assert_eq!(rest, [connected(2), message(1), message(2)]);
}

#[test]
fn a_suspicion_that_nobody_heard_of_vanishes_with_its_recovery() {
    assert_eq!(order([suspect(1), suspect(2), recovered(1)]), []);
    // One that was heard of is ended.
    let mut inbox = filled([suspect(1)]);
    assert_eq!(inbox.pop(), Some(suspect(1)));
    for event in [recovered(1), suspect(2), suspect(3), recovered(2)] {
        inbox.push(event, 0, None);
    }
    assert_eq!(inbox.pop(), Some(recovered(1)));
    assert!(inbox.is_empty());

    // It may have been heard of for an earlier beat.
    inbox.push(suspect(1), 0, None);
    assert_eq!(inbox.pop(), Some(suspect(1)));
    inbox.push(suspect(2), 0, None);
    inbox.push(recovered(1), 0, None);
    assert_eq!(inbox.pop(), Some(recovered(1)));
    assert!(inbox.is_empty());
}

#[test]
fn finished_and_the_terminal_event_come_behind_all_messages() {
    let message = Event::Message;
    let events = [message(1), message(2), Event::Finished, beat(1), dead()];
    let expected = [beat(1), message(1), message(2), Event::Finished, dead()];
    assert_eq!(order(events), expected);
}

#[test]
fn only_messages_fill_it() {
    let news = (0..100_000).flat_map(|nth| [beat(nth), stall(nth), suspect(1), connected(1)]);
    let mut inbox = filled(news);
    assert!(!inbox.is_full());
    let mut messages = 0;
    while !inbox.is_full() {
        inbox.push(Event::Message(1), 1000, None);
        messages += 1;
    }
    assert!(
        (200..=READ_AHEAD / 1000 + 1).contains(&messages),
        "{messages}"
    );
    for _ in 0..4 {
        assert!(!matches!(inbox.pop(), Some(Event::Message(_))));
        assert!(inbox.is_full());
    }
    inbox.pop();
    assert!(!inbox.is_full());
    assert_eq!(inbox.into_events().count(), messages - 1);
}

#[test]
fn exactly_as_much_as_may_wait_does_not_fill_it() {
    let mut inbox = Inbox::new();
    let own = size_of::<Kept<u8>>();
    inbox.push(Event::Message(1), READ_AHEAD - 2 * own, None);
    inbox.push(Event::Message(2), 0, None);
    assert!(!inbox.is_full());
    inbox.push(Event::Message(3), 0, None);
    assert!(inbox.is_full());
}

#[test]
fn the_oldest_message_says_how_long_they_may_wait() {
    let at = |seconds| Instant::ORIGIN + Duration::from_secs(seconds);
    let config = Config::builder().max_pause(Duration::from_secs(5)).build();
    let config = config.unwrap();
    let mut inbox = Inbox::new();
    assert_eq!(inbox.since(at(1)), None, "it isn't limited");
    inbox.limit_from(at(2));
    let push = |inbox: &mut Inbox<u8>, event, came| inbox.push(event, 0, inbox.since(came));
    push(&mut inbox, beat(1), at(1));
    assert_eq!(inbox.wait_ends(&config), None);
    push(&mut inbox, Event::Message(1), at(1));
    push(&mut inbox, Event::Message(2), at(3));
    assert_eq!(inbox.wait_ends(&config), Some(at(7)));
    inbox.pop().unwrap();
    inbox.pop().unwrap();
    assert_eq!(inbox.wait_ends(&config), Some(at(8)));
    inbox.limit_from(at(9));
    assert_eq!(inbox.wait_ends(&config), Some(at(14)));
}
