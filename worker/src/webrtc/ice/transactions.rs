//! The transactions of past checks. STUN has no protection against replay (RFC 8489 §9.1.5): who has seen a check can send it again from
//! another address. A transaction that came by one path is therefore no check on another.

use std::collections::VecDeque;

use crate::webrtc::stun::TransactionId;

/// The transactions that are remembered: a minute's of a peer that checks twice a second. They take 2 KiB.
const TRANSACTIONS_MAX: usize = 128;

/// Transactions, each with the serial number of the path that it came by.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// The latest last.
    past: VecDeque<(TransactionId, u32)>,
}

impl Transactions {
    /// Whether a transaction came before, and not by this path. `None`: a path that nothing has come by yet.
    pub(super) fn is_replayed(&self, transaction: &TransactionId, path: Option<u32>) -> bool {
        let before = self.past.iter().rev().find(|(past, _)| past == transaction);
        before.is_some_and(|(_, by)| path != Some(*by))
    }

    /// Remembers a transaction.
    pub(super) fn remember(&mut self, transaction: TransactionId, path: u32) {
        if self.past.iter().any(|(past, _)| *past == transaction) {
            return; // sent again
        }
        if self.past.len() == TRANSACTIONS_MAX {
            self.past.pop_front();
        }
        self.past.push_back((transaction, path));
    }
}
