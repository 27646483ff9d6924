//! What a monitor hides: when an interval with a random part ends.
//!
//! A call that depends on it is followed both ways. What the monitor shows
//! afterwards refutes one of them.

/// More than any call depends on.
const MOST: usize = 8;

/// One way through what is hidden from one call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fork {
    taken: [bool; MOST],
    at: usize,
    length: usize,
}

impl Fork {
    /// Both, one after the other.
    pub(crate) fn either(&mut self) -> bool {
        let at = self.at;
        self.at += 1;
        if at == self.length {
            self.taken[at] = true;
            self.length += 1;
        }
        self.taken[at]
    }

    /// The way after this one. False: that was the last.
    pub(crate) fn advance(&mut self) -> bool {
        self.at = 0;
        while self.length > 0 {
            let last = self.length - 1;
            if std::mem::replace(&mut self.taken[last], false) {
                return true;
            }
            self.length = last;
        }
        false
    }
}
