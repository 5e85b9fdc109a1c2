//! What a session has sent last (pure), for a client that comes back and has not got all of it.

use std::collections::VecDeque;

use super::text::Text;

/// Messages kept.
const MESSAGES_MAX: usize = 1_024;

/// Their bytes kept; a message longer than this is not kept.
const BYTES_MAX: usize = 1024 * 1024;

/// The messages sent last, with their numbers.
#[derive(Debug, Default)]
pub(super) struct Replay {
    messages: VecDeque<Text>,
    /// Theirs.
    bytes: usize,
    /// Those of them that no other session keeps.
    own_bytes: usize,
    /// The number of the last message; the first has 1.
    last: u64,
}

impl Replay {
    /// The number of the next message.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Keeps the next message.
    pub(super) fn push(&mut self, message: Text) {
        self.last += 1;
        self.bytes += message.len();
        self.own_bytes += message.own_bytes();
        self.messages.push_back(message);
        if self.messages.len() > MESSAGES_MAX {
            self.forget_oldest();
        }
        self.shrink(BYTES_MAX);
    }

    /// The bytes that no other session keeps.
    pub(super) fn own_bytes(&self) -> usize {
        self.own_bytes
    }

    /// Whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.messages.pop_front() else {
            return false;
        };
        self.bytes -= oldest.len();
        self.own_bytes -= oldest.own_bytes();
        true
    }

    /// Forgets the oldest messages, until no more bytes than these are left.
    pub(super) fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes && self.forget_oldest() {}
    }

    /// What came after the message with this number; `None`: not all of it is kept, or no such message was sent.
    pub(super) fn after(&self, seq: u64) -> Option<Vec<Text>> {
        let missing = usize::try_from(self.last.checked_sub(seq)?).ok()?;
        let kept = self.messages.len().checked_sub(missing)?;
        Some(self.messages.range(kept..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts after a number.
    fn after(replay: &Replay, seq: u64) -> Option<Vec<String>> {
        let messages = replay.after(seq)?;
        Some(messages.iter().map(Text::to_string).collect())
    }

    #[test]
    fn what_was_missed_is_there_unless_it_was_too_much() {
        let mut replay = Replay::default();
        assert_eq!(after(&replay, 0), Some(Vec::new()));
        assert_eq!(after(&replay, 1), None, "never sent");
        for _ in 0..2_000 {
            let message = format!("m{}", replay.next());
            replay.push(message.into());
        }
        assert_eq!(
            after(&replay, 1_998),
            Some(vec!["m1999".to_owned(), "m2000".to_owned()])
        );
        assert_eq!(after(&replay, 2_000), Some(Vec::new()));
        assert_eq!(after(&replay, 976).map(|messages| messages.len()), Some(1_024));
        assert_eq!(after(&replay, 975), None);
        assert_eq!(after(&replay, u64::MAX), None);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut replay = Replay::default();
        for _ in 0..10 {
            replay.push("x".repeat(BYTES_MAX / 4).into());
        }
        assert_eq!(after(&replay, 6).map(|messages| messages.len()), Some(4));
        assert_eq!(after(&replay, 5), None);
        replay.push("x".repeat(2 * BYTES_MAX).into());
        assert_eq!((replay.bytes, replay.own_bytes, after(&replay, 10)), (0, 0, None));
        assert_eq!(after(&replay, 11), Some(Vec::new()));
    }
}
