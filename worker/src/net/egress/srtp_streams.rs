//! The streams that one transport protects, and how far each has come: in indices, and since the peer was last heard.
//!
//! # Peers that are not heard
//!
//! A packet carries 16 of the 48 bits of its index, and the receiver takes the index that is closest to the newest it has
//! seen (RFC 3711 §3.3.1). If 2¹⁵ packets of a stream in a row do not arrive, it guesses wrong from then on, and for good.
//! The sender does not learn what arrives, but it sees whether the peer is there: the peer sends something every few seconds,
//! if only a check of its consent (RFC 7675 §5.1). So each stream counts what it has sent since the peer was last heard. When that is
//! [`UNHEARD_MAX`] packets, [`poll_unheard`](super::Egress::poll_unheard) names the transport: nothing more should be
//! numbered for it until [`note_heard`](super::Egress::note_heard). A count and not a time, because it is the count
//! that must not be exceeded: at the rates of speech it takes minutes, and then the peer's consent has long ended.

use std::mem;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::webrtc::srtp::{Outbound, ProtectError, ProtectedTrain, Repeats, Spent, StreamKey, nearest};

/// Streams of one transport whose last indices are kept in mind, 300 bytes each, and 8 KiB more if they are sent to a peer
/// without RTX: more than a peer shows at a time. The one that was silent for longest gives way; it may go on later, but
/// repeat nothing.
const STREAMS_MAX: usize = 2_048;

/// Packets of one stream that are sent to a peer that says nothing: half of those that it may lose in a row. The other half
/// is for what is under way when it is found out, and for what was lost before the peer was last heard.
pub const UNHEARD_MAX: u64 = 1 << 14;

/// The SRTP streams of one transport, with the context that protects their packets. The indices of SRTP are the numbers that the
/// relay gives to its packets, and keeps before it does.
pub struct SrtpStreams {
    pub(super) outbound: Outbound,
    streams: HashMap<u32, Stream, FixedState>,
    /// Streams that the outbound has at the moment.
    live: usize,
    /// Counts trains.
    clock: u64,
    /// Counts how often the peer was heard.
    heard: u64,
    /// So much was sent since it was last heard that nothing more should be.
    pub(super) is_unheard: bool,
}

struct Stream {
    /// `None`: it was silent for too long.
    key: Option<StreamKey>,
    /// One more than its newest index.
    next: u64,
    /// `next` when the peer was last heard, as far as it is known.
    next_when_heard: u64,
    /// Which time that was.
    heard: u64,
    used_at: u64,
}

/// What happened to the streams while a train was protected.
#[derive(Clone, Copy, Default, Debug)]
pub struct StreamEvents {
    /// The stream that began with a packet of the train.
    pub begun: Option<u32>,
    /// The peer has become unheard.
    pub unheard: bool,
}

impl SrtpStreams {
    /// Those of a transport whose indices nobody keeps.
    pub fn new(outbound: Outbound) -> Self {
        Self {
            outbound,
            streams: HashMap::default(),
            live: 0,
            clock: 0,
            heard: 0,
            is_unheard: false,
        }
    }

    /// The number of SRTCP packets is kept nowhere any more.
    pub fn forget_rtcp_count(&mut self) {
        self.outbound.keep_rtcp_count(Default::default());
    }

    /// A worker that is dead has used an SSRC's indices so far, at the least.
    pub fn spend(&mut self, spent: Spent) {
        self.outbound.spend(spent);
    }

    /// As [`Outbound::protect_rtcp`].
    ///
    /// # Errors
    /// As there.
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, ProtectError> {
        self.outbound.protect_rtcp(buffer, len)
    }

    /// Protects a train into the start of `buffer`, up to the first packet that is refused.
    pub fn protect_train(&mut self, train: &[u8], segment: usize, buffer: &mut [u8]) -> (ProtectedTrain, StreamEvents) {
        let mut events = StreamEvents::default();
        let protected = self.try_protect_train(train, segment, buffer, &mut events);
        let refused = ProtectedTrain {
            packets: 0,
            bytes: 0,
            refused: Some(ProtectError::Malformed),
        };
        (protected.unwrap_or(refused), events)
    }

    #[inline]
    fn try_protect_train(
        &mut self,
        train: &[u8],
        segment: usize,
        buffer: &mut [u8],
        events: &mut StreamEvents,
    ) -> Option<ProtectedTrain> {
        let (seq, ssrc) = numbers_of(train)?;
        self.clock += 1;
        if self.streams.get(&ssrc).is_none_or(|stream| stream.key.is_none()) {
            self.add_stream(ssrc)?;
            events.begun = Some(ssrc);
        }
        let stream = self.streams.get_mut(&ssrc)?;
        stream.used_at = self.clock;
        let first = nearest(stream.next, seq)?;
        let protected = self.outbound.protect_train(stream.key?, first, train, segment, buffer);
        if protected.packets > 0 {
            let (last_seq, _) = numbers_of(train.get((protected.packets - 1) * segment..)?)?;
            // A train is far shorter than half a cycle.
            let last = nearest(first + 1, last_seq).unwrap_or(first);
            if stream.heard != self.heard {
                stream.heard = self.heard;
                // Of a stream that begins, nothing is under way that its first packets could be lost among.
                stream.next_when_heard = if stream.next == 0 { first } else { stream.next };
            }
            stream.next = stream.next.max(first.max(last) + 1);
            if !self.is_unheard && stream.next - stream.next_when_heard.min(stream.next) >= UNHEARD_MAX {
                self.is_unheard = true;
                events.unheard = true;
            }
        }
        Some(protected)
    }

    pub(super) fn retire(&mut self, ssrc: u32) {
        if let Some(key) = self.streams.remove(&ssrc).and_then(|stream| stream.key) {
            self.outbound.remove_stream(key);
            self.live -= 1;
        }
        if self.streams.len() < self.streams.capacity() / 4 {
            self.streams.shrink_to(2 * self.streams.len());
        }
    }

    #[cold]
    fn add_stream(&mut self, ssrc: u32) -> Option<()> {
        if self.live >= STREAMS_MAX {
            let silent = self
                .streams
                .values_mut()
                .filter(|stream| stream.key.is_some())
                .min_by_key(|stream| stream.used_at);
            if let Some(key) = silent.and_then(|stream| stream.key.take()) {
                self.outbound.remove_stream(key);
                self.live -= 1;
            }
        }
        // Peers without RTX are sent the same packet again, and whether this one is such a peer is not known here.
        let key = self.outbound.add_stream(ssrc, Repeats::Identical).ok()?;
        self.live += 1;
        let next = self.outbound.next_index(key);
        let stream = self.streams.entry(ssrc).or_insert(Stream {
            key: None,
            next,
            next_when_heard: next,
            // Another one than now: it was last heard before this stream began, or went on.
            heard: self.heard.wrapping_sub(1),
            used_at: 0,
        });
        stream.key = Some(key);
        Some(())
    }

    pub(super) fn refuse_repeats(&mut self, ssrc: u32) {
        if let Some(key) = self.streams.get(&ssrc).and_then(|stream| stream.key) {
            self.outbound.refuse_repeats(key);
        }
    }

    /// The peer has said something that is authentic; whether it was unheard.
    pub(super) fn note_heard(&mut self) -> bool {
        self.heard = self.heard.wrapping_add(1);
        mem::take(&mut self.is_unheard)
    }
}

/// Sequence number and SSRC of an RTP packet.
#[inline]
fn numbers_of(packet: &[u8]) -> Option<(u16, u32)> {
    let fixed = packet.first_chunk::<12>()?;
    let seq = u16::from_be_bytes([fixed[2], fixed[3]]);
    Some((seq, u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::srtp::{MasterKey, Profile};

    /// RFC 3711 §9.1, and what it costs to keep to it: a number per SSRC, not a window.
    #[test]
    fn what_is_retired_leaves_its_number_behind_and_nothing_else() {
        let key = MasterKey::new(Profile::AeadAes128Gcm, &[1; 16], &[2; 12]).unwrap();
        let mut srtp = SrtpStreams::new(Outbound::new(&key));
        let mut buffer = vec![0; 200];
        let mut protected = |srtp: &mut SrtpStreams, ssrc: u32, seq: u16| {
            let mut packet = vec![0x80, 96];
            packet.extend(seq.to_be_bytes());
            packet.extend([0; 4]);
            packet.extend(ssrc.to_be_bytes());
            packet.extend([7; 20]);
            srtp.protect_train(&packet, 200, &mut buffer).0.packets
        };
        for seq in 1..=3 {
            for ssrc in 0..5_000 {
                assert_eq!(protected(&mut srtp, ssrc, seq), 1);
                assert_eq!(srtp.live, 1);
                srtp.retire(ssrc);
                assert_eq!(srtp.live, 0);
                // Nobody sends under it, so nobody is to be forgotten again.
                srtp.retire(ssrc);
            }
        }
        assert_eq!(srtp.live, 0);
        assert!(srtp.streams.is_empty() && srtp.streams.capacity() < 8);
        assert_eq!(srtp.outbound.spent().count(), 5_000);
        assert!(srtp.outbound.spent().all(|spent| spent.next == 4));
        assert_eq!(
            protected(&mut srtp, 0, 3),
            0,
            "with other bytes or not, nobody knows any more"
        );
        assert_eq!(protected(&mut srtp, 0, 4), 1);
    }

    /// RFC 3711 §3.3.1: a receiver that has missed 2¹⁵ packets in a row guesses the index of the next one wrong.
    #[test]
    fn a_stream_runs_no_further_ahead_of_a_peer_that_says_nothing() {
        let key = MasterKey::new(Profile::AeadAes128Gcm, &[1; 16], &[2; 12]).unwrap();
        let mut srtp = SrtpStreams::new(Outbound::new(&key));
        let mut buffer = vec![0; 200];
        let never: [u64; 0] = [];
        let mut unheard_after = |srtp: &mut SrtpStreams, ssrc: u32, first: u64, packets: u64| {
            let mut after = Vec::new();
            for index in first..first + packets {
                let mut packet = vec![0x80, 96];
                packet.extend((index as u16).to_be_bytes());
                packet.extend([0; 4]);
                packet.extend(ssrc.to_be_bytes());
                let (protected, events) = srtp.protect_train(&packet, 200, &mut buffer);
                assert_eq!(
                    (protected.packets, events.begun.is_some()),
                    (1, srtp.clock == 1 || index == 1)
                );
                after.extend(events.unheard.then_some(index + 1 - first));
            }
            after
        };
        assert_eq!(
            unheard_after(&mut srtp, 1, 1, UNHEARD_MAX + 100),
            [UNHEARD_MAX],
            "and reported once"
        );
        assert!(srtp.note_heard());
        assert!(!srtp.note_heard(), "reported once");
        let at = UNHEARD_MAX + 101;
        assert_eq!(unheard_after(&mut srtp, 1, at, UNHEARD_MAX - 1), never);
        // Each stream counts for itself.
        assert_eq!(unheard_after(&mut srtp, 2, 1, UNHEARD_MAX - 1), never);
        assert_eq!(unheard_after(&mut srtp, 2, UNHEARD_MAX, 1), [1]);
        assert!(srtp.note_heard());
        // Over any number of wraps, as long as it is heard in between.
        let mut next = at + UNHEARD_MAX - 1;
        for _ in 0..20 {
            assert_eq!(unheard_after(&mut srtp, 1, next, 10_000), never);
            next += 10_000;
            assert!(!srtp.note_heard());
        }
    }
}
