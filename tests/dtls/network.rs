//! A network that loses a fifth of everything, and doubles and reorders some, in the same way for the same seed.
//!
//! What becomes of a datagram does not hang on how many went before it, which differs from run to run, but on what it is
//! and on how often it was sent: so a handshake that got through does so again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

/// Of a hundred datagrams: a fifth, and one more, for chance may be kind.
const LOST: u64 = 21;
const DOUBLED: u64 = 5;
const DELAYED: u64 = 10;

/// How late a delayed one comes, which is after others that were sent later.
const DELAY: Duration = Duration::from_millis(15);

/// Which way a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Way {
    IntoWeir,
    OutOfWeir,
}

/// What tells a datagram from others and is the same when it is sent again. Not its length: signatures have lengths of their
/// own.
type Likeness = (Way, [u8; 9]);

/// The network between two ends.
pub(crate) struct Network {
    seed: u64,
    /// How often each was sent.
    seen: HashMap<Likeness, u64>,
    late: BTreeMap<(Instant, u64), (Way, Vec<u8>)>,
    /// Datagrams that were sent, and those of them that were lost.
    pub(crate) counts: (u64, u64),
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            seen: HashMap::new(),
            late: BTreeMap::new(),
            counts: (0, 0),
        }
    }

    /// Sends a datagram; how often it arrives at once.
    pub(crate) fn send(&mut self, now: Instant, way: Way, datagram: &[u8]) -> usize {
        let likeness = (way, likeness(datagram));
        let sent = self.seen.entry(likeness).or_default();
        *sent += 1;
        self.counts.0 += 1;
        let mut fate = Fate::of(self.seed, &likeness, *sent);
        if fate.happens(LOST) {
            self.counts.1 += 1;
            return 0;
        }
        let copies = 1 + usize::from(fate.happens(DOUBLED));
        if fate.happens(DELAYED) {
            let at = (now + DELAY, self.counts.0);
            self.late.insert(at, (way, datagram.to_vec()));
            return copies - 1;
        }
        copies
    }

    /// When a delayed datagram arrives.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.late.keys().next().map(|(at, _)| *at)
    }

    /// A delayed datagram that has arrived.
    pub(crate) fn receive(&mut self, now: Instant) -> Option<(Way, Vec<u8>)> {
        let first = self.late.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

/// Of the first record (RFC 6347 §4.1): its type and epoch, and as long as handshakes are in the clear also which message it
/// is, its number, and where in it the fragment begins (§4.2.2).
fn likeness(datagram: &[u8]) -> [u8; 9] {
    let byte = |at: usize| datagram.get(at).copied().unwrap_or_default();
    let mut like = [byte(0), byte(3), byte(4), 0, 0, 0, 0, 0, 0];
    if like[..3] == [22, 0, 0] {
        let parts = [13, 17, 18, 19, 20, 21].map(byte);
        like[3..].copy_from_slice(&parts);
    }
    like
}

/// Numbers that follow from what a datagram is.
struct Fate(u64);

impl Fate {
    fn of(seed: u64, (way, like): &Likeness, sent: u64) -> Self {
        let mut fate = Self(seed);
        for byte in like.iter().copied().chain([*way as u8]) {
            fate.0 = fate.next() ^ u64::from(byte);
        }
        fate.0 = fate.next() ^ sent;
        fate
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn happens(&mut self, of_a_hundred: u64) -> bool {
        self.next() % 100 < of_a_hundred
    }
}
