//! The values that an application compares and prints, and the defaults of the traits that it
//! implements.

use std::{collections::VecDeque, error::Error, io};

use bytes::Bytes;
use heartbeat_tokio::{
    Backoff, Detail, Dialect, Frame, Group, Reconnect,
    websocket::{Beats, BoxError, Message, Packet},
};

#[test]
fn a_detail_is_equal_to_its_text_and_to_no_other() {
    let detail = Detail::from("back at noon");
    assert_eq!(detail, "back at noon");
    assert_ne!(detail, "back at one");
    assert_eq!(detail, *"back at noon");
    assert_ne!(detail, *"back at one");
}

/// A log shows it so.
#[test]
fn the_debug_output_of_a_detail_is_its_text_with_escapes() {
    let detail = Detail::from("back\nat \"noon\"");
    assert_eq!(format!("{detail:?}"), r#""back\nat \"noon\"""#);
}

#[test]
fn a_message_of_a_websocket_is_empty_if_it_has_no_bytes() {
    for (message, length) in [
        (Message::from(""), 0),
        (Message::from("grüß"), 6),
        (Message::Binary(Bytes::new()), 0),
        (Message::Binary(Bytes::from_static(&[0])), 1),
    ] {
        assert_eq!(message.len(), length);
        assert_eq!(message.is_empty(), length == 0);
    }
}

#[test]
fn debug_output_says_what_it_is_and_what_state_it_is_in() {
    let group = Group::<u32, Bytes>::new();
    assert_eq!(format!("{group:?}"), "Group { members: 0, .. }");

    let server = Reconnect::new(Backoff::default(), || async { Ok::<_, io::Error>(()) });
    let shown = format!("{server:?}");
    assert!(
        shown.starts_with("Reconnect { backoff: Backoff { "),
        "{shown}"
    );
    assert!(shown.ends_with(", failures: 0, .. }"), "{shown}");
}

/// As most protocols are.
struct Plain;

impl Dialect for Plain {
    type Message = String;
}

impl Beats for Plain {
    type Message = String;

    fn weight(text: &String) -> usize {
        text.len()
    }

    fn encode(&mut self, _: Frame<String>, _: &mut VecDeque<Packet>) -> Result<(), BoxError> {
        Ok(())
    }

    fn decode(&mut self, _: Packet, _: usize) -> Result<Option<Frame<String>>, BoxError> {
        Ok(None)
    }
}

#[test]
fn a_protocol_that_says_nothing_of_its_messages_has_none_that_are_too_long_or_heavy() {
    let message = "a message".to_owned();
    assert_eq!(<Plain as Dialect>::length(&message), 0);
    assert_eq!(<Plain as Dialect>::weight(&message), 0);
    assert_eq!(<Plain as Beats>::length(&message), 0);
    let error: &(dyn Error + 'static) = &io::Error::other("any");
    assert_eq!(Plain::end_of(error), None);
}
