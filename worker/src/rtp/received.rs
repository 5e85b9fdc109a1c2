//! What has come of a stream lately: which numbers, and a digest of what came under each of them.

use super::bit_ring::BitRing;

/// Which of the last [`Seen::WINDOW`] extended numbers have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    newest: u64,
    numbers: BitRing<{ Seen::WINDOW as usize / 64 }>,
}

impl Seen {
    /// How many numbers are remembered, the newest included. More than [`MAX_MISORDER`](super::seq::MAX_MISORDER), so that whatever
    /// [`SeqExtender`](super::seq::SeqExtender) accepts as late can be judged here.
    pub const WINDOW: u64 = 2048;

    /// All numbers up to this one have come.
    pub fn all_up_to(newest: u64) -> Self {
        Self {
            newest,
            numbers: BitRing::full(),
        }
    }

    /// Notes a number. `false`: it was there already, or it is too old to know.
    #[inline]
    pub fn insert(&mut self, ext: u64) -> bool {
        if ext > self.newest {
            if ext - self.newest > 1 {
                self.numbers.remove_range(self.newest + 1..ext);
            }
            self.newest = ext;
            self.numbers.insert(ext);
            return true;
        }
        let fresh = self.is_missing(ext);
        if fresh {
            self.numbers.insert(ext);
        }
        fresh
    }

    /// Whether a number that is not newer than the newest has not come; `false` also when it is too old to know.
    #[inline]
    pub fn is_missing(&self, ext: u64) -> bool {
        ext <= self.newest && self.newest - ext < Self::WINDOW && !self.numbers.contains(ext)
    }
}

/// What a packet was, in 4 bits each for the last [`PayloadDigests::WINDOW`] extended numbers: enough to distinguish a packet that comes
/// again from another one under its number, as good as always when there are several of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadDigests(Box<[u8; Self::WINDOW as usize / 2]>);

impl Default for PayloadDigests {
    fn default() -> Self {
        Self(Box::new([0; Self::WINDOW as usize / 2]))
    }
}

impl PayloadDigests {
    /// How many numbers are remembered.
    pub const WINDOW: u64 = Seen::WINDOW;

    /// Four bits of a packet's timestamp and payload: of its length, its end and its middle. Not of header extensions, which
    /// change when a packet is sent again.
    #[inline]
    pub fn digest(timestamp: u32, payload: &[u8]) -> u8 {
        let word = |chunk: Option<&[u8; 8]>| chunk.map(|chunk| u64::from_le_bytes(*chunk));
        let end = word(payload.last_chunk())
            .unwrap_or_else(|| payload.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        let middle = word(payload.get(payload.len() / 2..).and_then(|half| half.first_chunk())).unwrap_or(0);
        let mixed = u64::from(timestamp) << 16 ^ payload.len() as u64 ^ end ^ middle.rotate_left(29);
        // Fibonacci hashing, twice, so that all bits reach the highest four.
        let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as u8
    }

    /// Remembers a packet.
    #[inline]
    pub fn note(&mut self, ext: u64, digest: u8) {
        let (place, bits) = Self::place(ext);
        self.0[place] = self.0[place] & !(15 << bits) | (digest & 15) << bits;
    }

    /// What is remembered under a number of the window.
    pub fn get(&self, ext: u64) -> u8 {
        let (place, bits) = Self::place(ext);
        self.0[place] >> bits & 15
    }

    #[inline]
    fn place(ext: u64) -> (usize, u32) {
        ((ext % Self::WINDOW / 2) as usize, (ext % 2) as u32 * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CYCLE: u64 = 1 << 16;

    #[test]
    fn what_is_missing() {
        let mut seen = Seen::default();
        seen.insert(CYCLE);
        seen.insert(CYCLE + 3);
        let missing: Vec<_> = (CYCLE - 1..CYCLE + 6).filter(|ext| seen.is_missing(*ext)).collect();
        assert_eq!(missing, [CYCLE - 1, CYCLE + 1, CYCLE + 2]);
        seen.insert(CYCLE + 2_049);
        assert!(!seen.is_missing(CYCLE + 1) && seen.is_missing(CYCLE + 2));
    }

    #[test]
    fn each_number_is_fresh_once() {
        let mut seen = Seen::default();
        let rows = [
            (CYCLE, true),
            (CYCLE, false),
            (CYCLE + 1, true),
            (CYCLE - 1, true),
            (CYCLE - 1, false),
            (CYCLE + 2047, true),
            // The oldest number of the window, and the first that fell out of it.
            (CYCLE, false),
            (CYCLE - 1, false),
            (CYCLE + 2, true),
            (CYCLE + 2046, true),
            (CYCLE + 2048, true),
            (CYCLE, false),
            (CYCLE + 1, false),
            (CYCLE + 3, true),
            // Far ahead: all in between is forgotten.
            (CYCLE + 10_000, true),
            (CYCLE + 10_000 - 2047, true),
            (CYCLE + 10_000 - 2048, false),
            (CYCLE + 9_999, true),
        ];
        for (ext, fresh) in rows {
            assert_eq!(seen.insert(ext), fresh, "{ext}");
        }
    }

    #[test]
    fn contents_are_told_apart_by_timestamp_length_and_bytes() {
        let mut digests = PayloadDigests::default();
        for ext in CYCLE..CYCLE + 3_000 {
            digests.note(ext, (ext % 15) as u8);
        }
        assert!((CYCLE + 952..CYCLE + 3_000).all(|ext| digests.get(ext) == (ext % 15) as u8));
        let payload: Vec<u8> = (0..100).collect();
        let others = (0..1_000_u32).filter(|seed| {
            let mut other = payload.clone();
            other[99 - *seed as usize % 8] ^= (seed / 8) as u8 | 1;
            PayloadDigests::digest(7, &other) != PayloadDigests::digest(7, &payload)
        });
        assert!((900..970).contains(&others.count()), "a sixteenth looks alike");
        let timestamps = (0..1_000)
            .filter(|seed| PayloadDigests::digest(7 + 3_000 * seed, &payload) != PayloadDigests::digest(7, &payload));
        assert!((900..970).contains(&timestamps.count()));
    }
}
