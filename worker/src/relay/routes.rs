//! Which stream an SSRC is: a map, and the last two answers before it, where the rest of what a packet needs lies too. Peers send sound
//! and pictures in turns, so nearly every packet is of one of them.

use std::ops::Deref;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::keys::ProducerKey;

type Map = HashMap<u32, (ProducerKey, u8), FixedState>;

/// The streams of one transport by SSRC: producer and encoding.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Routes {
    /// What was found last; all of it is in the map.
    recent: [Option<(u32, ProducerKey, u8)>; 2],
    map: Map,
}

impl Routes {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: std::ops::Range<usize> = 0..std::mem::offset_of!(Self, map);

    /// No streams.
    pub(super) fn new(hash: &FixedState) -> Self {
        Self {
            recent: [None; 2],
            map: HashMap::with_hasher(hash.clone()),
        }
    }

    /// The stream of a packet.
    #[inline]
    pub(super) fn find(&mut self, ssrc: u32) -> Option<(ProducerKey, u8)> {
        let mut recent = self.recent.iter().flatten();
        match recent.find(|(known, ..)| *known == ssrc) {
            Some((_, key, encoding)) => Some((*key, *encoding)),
            None => self.find_other(ssrc),
        }
    }

    fn find_other(&mut self, ssrc: u32) -> Option<(ProducerKey, u8)> {
        let (key, encoding) = *self.map.get(&ssrc)?;
        self.recent = [Some((ssrc, key, encoding)), self.recent[0]];
        Some((key, encoding))
    }

    /// An SSRC is a stream's from now on.
    pub(super) fn insert(&mut self, ssrc: u32, route: (ProducerKey, u8)) {
        self.recent = [None; 2];
        self.map.insert(ssrc, route);
    }

    /// An SSRC is nobody's from now on.
    pub(super) fn remove(&mut self, ssrc: &u32) -> Option<(ProducerKey, u8)> {
        self.recent = [None; 2];
        self.map.remove(ssrc)
    }

    /// The SSRCs of a producer are nobody's from now on.
    pub(super) fn remove_producer(&mut self, key: ProducerKey) {
        self.recent = [None; 2];
        self.map.retain(|_, (owner, _)| *owner != key);
    }

    /// Reserves memory for so many more.
    pub(super) fn reserve(&mut self, additional: usize) {
        self.map.reserve(additional);
    }
}

impl Deref for Routes {
    type Target = Map;

    fn deref(&self) -> &Map {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use slotmap::KeyData;

    use super::*;

    fn key(number: u64) -> ProducerKey {
        KeyData::from_ffi(number).into()
    }

    #[test]
    fn what_was_found_last_is_never_older_than_the_map() {
        let mut routes = Routes::new(&FixedState::default());
        for ssrc in 1..=3 {
            routes.insert(ssrc, (key(u64::from(ssrc)), 0));
        }
        for ssrc in [1, 2, 1, 3, 2, 3] {
            assert_eq!(routes.find(ssrc), Some((key(u64::from(ssrc)), 0)));
        }
        assert_eq!(routes.find(4), None);
        // Taken away, or another's.
        routes.remove(&3);
        assert_eq!(routes.find(3), None);
        assert_eq!(routes.find(2), Some((key(2), 0)));
        routes.insert(2, (key(1), 1));
        assert_eq!(routes.find(2), Some((key(1), 1)));
        routes.remove_producer(key(1));
        assert_eq!((routes.find(1), routes.find(2)), (None, None));
        assert!(routes.is_empty());
    }
}
