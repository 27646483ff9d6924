//! What a connection has to see to, a bit for each fact.
//!
//! This module decides nothing: it is where the facts are kept, in four bytes, so
//! that the commonest question, whether there is anything but messages, is one
//! comparison.

/// A fact that is true or not, and takes one bit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flag {
    /// The monitor may have frames to send or events to tell.
    Outputs,
    /// Control frames were handed to the transport, and the monitor wasn't
    /// told that they left.
    Flushing,
    /// No message of the last read was taken out yet.
    NewMessage,
    /// The last read wasn't taken apart to its end yet.
    NewBytes,
    /// The last read was large.
    Bulk,
    /// The timer has fired; frames that were there are taken out first.
    Judging,
    /// A sender wants everything written.
    FlushWanted,
    /// The stream took what it could in this poll already.
    Written,
    /// The monitor was told that a write is blocked.
    Blocked,
    /// We don't read: the inbox is full.
    Paused,
    /// The kernel says that the peer is gone: what it sent before is read, full
    /// inbox or not, since nothing can follow it.
    LastWords,
    /// No more frames are taken out: the stream is broken or said goodbye.
    Deaf,
    /// The stream has nothing more to read: it has ended, or failed.
    ReadOut,
    /// We have said that no more messages follow, or are about to.
    Finishing,
    /// A message of ours was accepted.
    Sent,
    /// Writing has failed, or it has ended: whatever was read comes first.
    Ending,
    /// The terminal event was handed out.
    Finished,
    /// Somebody asked, and no round trip was measured since.
    Probing,
    /// A task serves it, and calls whom it has to.
    Driven,
    /// Nobody will take an event.
    Unheard,
    /// This task's budget was used up by what we read ourselves.
    Spent,
    /// We leave, and what the inbox has no room for is thrown away.
    Overflowing,
}

/// The facts that are true.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags(u32);

impl Flags {
    /// With any of these there is more to see to than messages.
    const DISTURBING: u32 = Flag::Outputs.bit()
        | Flag::Flushing.bit()
        | Flag::Judging.bit()
        | Flag::FlushWanted.bit()
        | Flag::Paused.bit()
        | Flag::Deaf.bit()
        | Flag::Ending.bit()
        | Flag::Finished.bit();

    pub(super) const fn of(flag: Flag) -> Self {
        Self(flag.bit())
    }

    pub(super) const fn has(self, flag: Flag) -> bool {
        self.0 & flag.bit() != 0
    }

    pub(super) const fn disturb(self) -> bool {
        self.0 & Self::DISTURBING != 0
    }

    /// There may be messages, and nothing else.
    pub(super) const fn tell_of_messages(self) -> bool {
        let messages = Flag::NewBytes.bit();
        self.0 & (Self::DISTURBING | messages) == messages
    }

    pub(super) const fn set(&mut self, flag: Flag, value: bool) {
        self.0 = match value {
            true => self.0 | flag.bit(),
            false => self.0 & !flag.bit(),
        };
    }

    pub(super) const fn raise(&mut self, flag: Flag) {
        self.set(flag, true);
    }

    pub(super) const fn clear(&mut self, flag: Flag) {
        self.set(flag, false);
    }
}

impl Flag {
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}
