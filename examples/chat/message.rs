//! The messages between the server and the members of the room.
//!
//! This module decides what can be said, and how long it may be. In what it is
//! encoded depends on what carries it.

use bytes::Bytes;
use heartbeat_tokio::websocket::{BoxError, Payload};
use serde::{Deserialize, Serialize};

/// The longest message that is accepted, in bytes as they travel.
pub const MAX_LENGTH: usize = 16 * 1024;

/// The longest line of the chat, in characters. What is longer is cut.
const MAX_TEXT: usize = 500;

/// The longest name, in characters.
const MAX_NAME: usize = 24;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    // ---- to the server
    /// The first message: the member's name. A bot shows the badge that it was given.
    Join { name: String, badge: Option<u64> },
    /// A line for all members.
    Say { text: String },
    /// Something that the page can do.
    Ask(Request),

    // ---- from the server
    /// You are in the room, under this name.
    Welcome { id: u64, name: String },
    /// A member's line.
    Said { from: String, text: String },
    /// A member has joined, left or hung.
    Notice { text: String },
    /// The list of members; for pages, twice a second.
    Roster(Roster),
    /// What [`Request::CheckConnections`] found.
    Checked(Checked),
    /// Please say goodbye.
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    AddBot,
    CheckConnections,
    Do { bot: u32, deed: Deed },
}

/// What can be done to a bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// It is asked to say goodbye.
    HangUp,
    /// The server stops reading from it.
    Hold,
    /// The server reads from it again.
    ReadOn,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roster {
    pub detection_ms: u64,
    pub max_missed: u32,
    pub members: Vec<Row>,
    pub left: Vec<Departed>,
}

/// A connection as the page shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub id: u64,
    pub name: String,
    pub kind: Kind,
    pub condition: Condition,
    /// Since the last sign of life.
    pub silent_ms: u64,
    /// Beats missed in a row.
    pub missed: u32,
    /// Round trips in milliseconds, the latest last; `None` for a missed beat.
    pub rtts: Vec<Option<f32>>,
    pub bot: Option<Bot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    Browser,
    Terminal,
    Bot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    Alive,
    Suspect,
    /// The server doesn't read from it, so nothing is judged.
    Held,
}

/// The process behind a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bot {
    pub number: u32,
    pub process: u32,
    pub frozen: bool,
}

/// A connection that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Departed {
    pub id: u64,
    pub name: String,
    pub kind: Kind,
    /// One word for each way to end.
    pub cause: String,
    /// The same for people.
    pub how: String,
    pub ago_ms: u64,
    /// Its process, if that lives on.
    pub bot: Option<Bot>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The number of sockets that were checked.
    pub sockets: usize,
    /// The members that were gone, with the kernel's reason.
    pub gone: Vec<(String, String)>,
    /// The number of other members that were probed.
    pub asked: usize,
}

/// A line that all members may see.
pub fn text(text: &str) -> String {
    cut(text, MAX_TEXT)
}

/// A name that all members may see: without invisible characters, and without those that
/// reverse the surrounding text.
pub fn name(name: &str) -> String {
    let visible: String = name.chars().filter(|char| !is_format(*char)).collect();
    match cut(&visible, MAX_NAME) {
        name if name.is_empty() => "somebody".into(),
        name => name,
    }
}

/// Unicode's general category Cf: direction, joining, tags, and what has no width.
const fn is_format(char: char) -> bool {
    matches!(
        char,
        '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0001}'
            | '\u{e0020}'..='\u{e007f}'
    )
}

/// Terminals show this: no escape sequences.
fn cut(text: &str, longest: usize) -> String {
    let shown = text.trim().chars().filter(|char| !char.is_control());
    shown.take(longest).collect()
}

/// In a WebSocket it is JSON.
impl Payload for Message {
    fn weight(&self) -> usize {
        match self {
            Self::Roster(roster) => 512 * (roster.members.len() + roster.left.len()),
            _ => 256,
        }
    }

    fn encode(&self) -> Result<Bytes, BoxError> {
        Ok(serde_json::to_vec(self)?.into())
    }

    fn decode(bytes: Bytes) -> Result<Self, BoxError> {
        Ok(serde_json::from_slice(&bytes)?)
    }
}
