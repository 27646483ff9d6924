//! Nonces that a peer can't foresee, and the dice for jitter.
//!
//! This module decides one number for each (seed, count): SipHash-2-4
//! (Aumasson and Bernstein 2012), a keyed pseudorandom function. A reader that doesn't
//! know the seed can't tell the next nonce from the former ones. The same
//! seed gives the same numbers, which is what makes runs repeatable.

use siphasher::sip::SipHasher24;

use crate::frame::Nonce;

/// A key, from which everything random about one monitor follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Random {
    seed: u64,
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The nonce of the ping number `index`.
    pub(crate) fn nonce(self, index: u32) -> Nonce {
        Nonce(self.draw(NONCE, index).to_be_bytes())
    }

    /// Thirty-two random bits for the interval after ping number `index`.
    pub(crate) fn dice(self, index: u32) -> u32 {
        let [a, b, c, d, ..] = self.draw(DICE, index).to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Sixty-four random bits for the first interval.
    pub(crate) fn first(self) -> u64 {
        self.draw(DICE, 0)
    }

    /// The `instance`, which identifies this end of a connection.
    pub(crate) fn instance(self) -> [u8; 8] {
        self.draw(INSTANCE, 0).to_be_bytes()
    }

    fn draw(self, purpose: u64, index: u32) -> u64 {
        SipHasher24::new_with_keys(self.seed, purpose).hash(&index.to_le_bytes())
    }
}

const NONCE: u64 = 0x6e6f_6e63_6500_0000;
const INSTANCE: u64 = 0x696e_7374_0000_0000;
const DICE: u64 = 0x6469_6365_0000_0000;
