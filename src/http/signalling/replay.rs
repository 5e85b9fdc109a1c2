//! What a session has sent last (pure), for a client that comes back and has not got all of it.

use std::collections::VecDeque;

/// Messages kept.
const MESSAGES_MAX: usize = 1_024;

/// Their bytes kept; a message longer than this is not kept.
const BYTES_MAX: usize = 1024 * 1024;

/// The messages sent last, with their numbers.
#[derive(Debug, Default)]
pub(super) struct Replay {
    messages: VecDeque<String>,
    bytes: usize,
    /// The number of the last message; the first has 1.
    last: u64,
}

impl Replay {
    /// The number of the next message.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Keeps the next message.
    pub(super) fn push(&mut self, message: String) {
        self.last += 1;
        self.bytes += message.len();
        self.messages.push_back(message);
        if self.messages.len() > MESSAGES_MAX
            && let Some(oldest) = self.messages.pop_front()
        {
            self.bytes -= oldest.len();
        }
        self.shrink(BYTES_MAX);
    }

    /// The bytes of what is kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the oldest messages, until no more bytes than these are left.
    pub(super) fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes
            && let Some(oldest) = self.messages.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    /// What came after the message with this number; `None`: not all of it is kept, or no such message was sent.
    pub(super) fn after(&self, seq: u64) -> Option<Vec<String>> {
        let missing = usize::try_from(self.last.checked_sub(seq)?).ok()?;
        let kept = self.messages.len().checked_sub(missing)?;
        Some(self.messages.range(kept..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_there_unless_it_was_too_much() {
        let mut replay = Replay::default();
        assert_eq!(replay.after(0), Some(Vec::new()));
        assert_eq!(replay.after(1), None, "never sent");
        for _ in 0..2_000 {
            let message = format!("m{}", replay.next());
            replay.push(message);
        }
        assert_eq!(replay.after(1_998), Some(vec!["m1999".to_owned(), "m2000".to_owned()]));
        assert_eq!(replay.after(2_000), Some(Vec::new()));
        assert_eq!(replay.after(976).map(|messages| messages.len()), Some(1_024));
        assert_eq!(replay.after(975), None);
        assert_eq!(replay.after(u64::MAX), None);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut replay = Replay::default();
        for _ in 0..10 {
            replay.push("x".repeat(BYTES_MAX / 4));
        }
        assert_eq!(replay.after(6).map(|messages| messages.len()), Some(4));
        assert_eq!(replay.after(5), None);
        replay.push("x".repeat(2 * BYTES_MAX));
        assert_eq!((replay.bytes, replay.after(10)), (0, None));
        assert_eq!(replay.after(11), Some(Vec::new()));
    }
}
