//! What waits in memory for all clients of a server together: notifications that they have not been sent, and messages on their way
//! to them. Apart from that, messages that are kept in case their connections break.
//!
//! As long as there is room, each client may hold what its own limits allow. When all of it is used up, no client may hold more
//! than an equal share. So clients that do not read are given up in favour of those that do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::server::model::limits::CLIENT_MEMORY_BYTES_MAX;

/// A client that reads has as much waiting now and then, when many things happen in its room at once.
const SHARE_MIN: usize = 64 * 1024;

/// What all clients hold.
#[derive(Debug, Default)]
pub(crate) struct ClientMemory {
    bytes: AtomicUsize,
    shares: AtomicUsize,
}

impl ClientMemory {
    /// A share of it for somebody else.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        self.shares.fetch_add(1, Ordering::Relaxed);
        Share {
            client_memory: Arc::clone(self),
            bytes: 0,
        }
    }

    /// Counts what several hold together.
    #[cfg(feature = "http")]
    pub(crate) fn hold_in_common(self: &Arc<Self>, bytes: usize) -> HeldInCommon {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        HeldInCommon {
            client_memory: Arc::clone(self),
            bytes,
        }
    }

    /// What all hold at the moment.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= CLIENT_MEMORY_BYTES_MAX
    }
}

/// What one client holds of it.
#[derive(Debug)]
pub(crate) struct Share {
    client_memory: Arc<ClientMemory>,
    bytes: usize,
}

impl Share {
    /// Counts so many bytes as held, instead of those before.
    pub(crate) fn hold(&mut self, bytes: usize) {
        // Wraps where it becomes less, which adds up all the same.
        self.client_memory
            .bytes
            .fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// How many bytes are counted as held.
    pub(crate) fn held(&self) -> usize {
        self.bytes
    }

    /// How much may be held at the moment.
    pub(crate) fn allowed(&self) -> usize {
        match self.client_memory.is_full() {
            true => SHARE_MIN.max(CLIENT_MEMORY_BYTES_MAX / self.client_memory.shares.load(Ordering::Relaxed).max(1)),
            false => usize::MAX,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
        self.client_memory.shares.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What several clients hold together: it counts once, and for none of them in particular.
#[cfg(feature = "http")]
#[derive(Debug)]
pub(crate) struct HeldInCommon {
    client_memory: Arc<ClientMemory>,
    bytes: usize,
}

#[cfg(feature = "http")]
impl Drop for HeldInCommon {
    fn drop(&mut self) {
        self.client_memory.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// About how much memory a value takes: the values in it, and their texts.
pub(crate) fn bytes_of(value: &Value) -> usize {
    let mut bytes = 0;
    let mut unseen = vec![value];
    while let Some(value) = unseen.pop() {
        bytes += size_of::<Value>();
        match value {
            Value::String(text) => bytes += text.len(),
            Value::Array(inner) => unseen.extend(inner),
            Value::Object(inner) => {
                bytes += inner.keys().map(|key| size_of::<String>() + key.len()).sum::<usize>();
                unseen.extend(inner.values());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_much_is_cut_down_when_it_gets_tight_and_nobody_else() {
        let client_memory = Arc::new(ClientMemory::default());
        let (mut greedy, mut modest) = (client_memory.share(), client_memory.share());
        modest.hold(1_000);
        greedy.hold(CLIENT_MEMORY_BYTES_MAX - 1_001);
        assert_eq!((greedy.allowed(), modest.allowed()), (usize::MAX, usize::MAX));
        greedy.hold(CLIENT_MEMORY_BYTES_MAX);
        assert!(greedy.allowed() < greedy.held() && modest.allowed() > modest.held());
        greedy.hold(greedy.allowed());
        assert_eq!(modest.allowed(), usize::MAX);
        drop((greedy, modest));
        assert_eq!(client_memory.bytes(), 0);
        assert_eq!(client_memory.shares.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn small_values_count_as_much_as_they_take() {
        let text = bytes_of(&"x".repeat(8_000).into());
        assert!((8_000..8_100).contains(&text), "{text}");
        let nested: Value = serde_json::from_str(&format!("[{}0]", "[],".repeat(1_000))).unwrap();
        assert!(bytes_of(&nested) >= 1_000 * size_of::<Value>());
    }
}
