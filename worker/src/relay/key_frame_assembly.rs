//! The start of a stream that is coming together: which packet completes what a decoder needs, and which one it begins with.
//!
//! Most codecs start on one packet. H.264 and H.265 need parameter sets, which may come in packets of their own, be lost, be
//! repaired, or come out of order (RFC 6184 §8.4, RFC 7798 §7.1). What belongs to one start has one timestamp, or lies
//! directly before the picture. A stream that has never shown sets has them in its description; once it has shown some, a
//! picture without them starts nothing, until it turns out that this sender does not repeat them.

use weir_channel::message::CodecName;

use crate::rtp::codec::Parts;

use super::limits::RING_PACKETS;

/// Parameter sets and the picture that they are for may be so many numbers apart.
const ADJACENT: u64 = 8;

/// Numbers that a consumer's first start leaves free for packets that were overtaken by it.
pub const RESERVED_SEQS: u64 = 16;

/// So many pictures in a row that came whole and without parameter sets: this sender does not repeat them.
const BARE_PICTURES: u8 = 3;

/// How a packet fits into a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// It completes one that begins with the packet of this number.
    pub first: Option<u64>,
    /// It is the first packet of a picture that a decoder can start at.
    pub is_picture: bool,
    /// Parameter sets that nobody knew of may still come, with lower numbers.
    pub may_be_preceded: bool,
}

/// The start of one stream that was seen last.
#[derive(Debug, Default)]
pub struct KeyFrameAssembler {
    candidate: Option<Candidate>,
    /// The parameter sets that the stream has shown, and not ceased to show.
    in_band: Parts,
    bare_pictures: u8,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    first: u64,
    newest: u64,
    timestamp: u64,
    parts: Parts,
    is_complete: bool,
    /// Nothing was missing right before it.
    is_intact: bool,
}

impl KeyFrameAssembler {
    /// Takes in a packet of the stream by its extended numbers. `is_intact`: the packet before it has come.
    #[inline]
    pub fn on_packet(
        &mut self,
        codec: CodecName,
        seq: u64,
        timestamp: u64,
        parts: Parts,
        is_intact: bool,
    ) -> Assembled {
        if parts.is_empty() {
            return Assembled::default();
        }
        match codec {
            CodecName::H264 | CodecName::H265 => self.on_parts(seq, timestamp, parts, is_intact),
            _ if parts.contains(Parts::PICTURE) => Assembled {
                first: Some(seq),
                is_picture: true,
                may_be_preceded: false,
            },
            _ => Assembled::default(),
        }
    }

    /// Whether the start that was seen last lacks something.
    pub fn is_under_way(&self) -> bool {
        self.candidate.is_some_and(|candidate| !candidate.is_complete)
    }

    /// Another sender, or the same one anew: what it will send has nothing to do with what was seen. What it shows in band, it
    /// most likely shows again.
    pub fn on_restart(&mut self) {
        self.candidate = None;
    }

    fn on_parts(&mut self, seq: u64, timestamp: u64, parts: Parts, is_intact: bool) -> Assembled {
        self.in_band |= parts.and(Parts::SETS);
        let joined = self
            .candidate
            .filter(|candidate| candidate.takes(seq, timestamp, parts));
        let is_start = parts.intersects(Parts::SETS | Parts::PICTURE | Parts::RECOVERY);
        let Some(mut candidate) = joined else {
            let is_newer = self.candidate.is_none_or(|candidate| seq > candidate.newest);
            if is_start && is_newer {
                return self.begin(seq, timestamp, parts, is_intact);
            }
            // The sets before this slice were for it, and it is nothing to start at.
            if is_newer && self.candidate.is_some_and(|candidate| !candidate.has_picture()) {
                self.candidate = None;
            }
            return Assembled::default();
        };
        let had_picture = candidate.has_picture();
        candidate.add(seq, timestamp, parts, is_intact);
        if !had_picture && !candidate.has_picture() && parts.intersects(Parts::OTHER) {
            self.candidate = None;
            return Assembled::default();
        }
        self.candidate = Some(candidate);
        self.look(!had_picture)
    }

    fn begin(&mut self, seq: u64, timestamp: u64, parts: Parts, is_intact: bool) -> Assembled {
        let is_bare = |last: &Candidate| last.has_picture() && last.is_intact && !last.is_complete;
        match self.candidate {
            Some(last) if is_bare(&last) => self.bare_pictures += 1,
            Some(last) if last.is_complete => self.bare_pictures = 0,
            _ => {}
        }
        if self.bare_pictures >= BARE_PICTURES {
            self.bare_pictures = 0;
            self.in_band = parts.and(Parts::SETS);
        }
        let mut candidate = Candidate {
            first: seq,
            newest: seq,
            timestamp,
            parts: Parts::NONE,
            is_complete: false,
            is_intact,
        };
        candidate.add(seq, timestamp, parts, is_intact);
        self.candidate = Some(candidate);
        self.look(true)
    }

    /// Whether the candidate is complete now.
    fn look(&mut self, is_new: bool) -> Assembled {
        let Some(candidate) = &mut self.candidate else {
            return Assembled::default();
        };
        let needed = self.in_band | Parts::PICTURE;
        let completes = !candidate.is_complete && candidate.parts.contains(needed);
        candidate.is_complete |= completes;
        Assembled {
            first: completes.then_some(candidate.first),
            is_picture: is_new && candidate.has_picture(),
            may_be_preceded: completes && self.in_band.is_empty(),
        }
    }
}

impl Candidate {
    fn has_picture(&self) -> bool {
        self.parts.contains(Parts::PICTURE)
    }

    /// Whether a packet belongs to it.
    fn takes(&self, seq: u64, timestamp: u64, parts: Parts) -> bool {
        if timestamp == self.timestamp {
            return seq.abs_diff(self.newest) < RING_PACKETS as u64;
        }
        let is_sets_only = parts.without(Parts::SETS).is_empty();
        let follows = seq > self.newest && seq - self.newest <= ADJACENT;
        let precedes = seq < self.newest && seq + ADJACENT >= self.first;
        // Sets of an earlier timestamp, and then the picture; or the other way round, if they were overtaken.
        !self.has_picture() && follows || is_sets_only && precedes
    }

    fn add(&mut self, seq: u64, timestamp: u64, parts: Parts, is_intact: bool) {
        if seq < self.first {
            self.first = seq;
            self.is_intact = is_intact;
        }
        if seq > self.newest {
            self.newest = seq;
            if !self.has_picture() {
                self.timestamp = timestamp;
            }
        }
        self.parts |= parts.without(Parts::OTHER);
        // A decoder can start at a recovery point as at any other picture.
        if parts.intersects(Parts::OTHER) && self.parts.contains(Parts::RECOVERY) {
            self.parts |= Parts::PICTURE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: Parts = Parts::SPS;
    const PPS: Parts = Parts::PPS;
    const IDR: Parts = Parts::PICTURE;
    const SLICE: Parts = Parts::OTHER;

    /// Which packets complete a start, and what it begins with, of (number, timestamp, parts) in the order of arrival.
    fn starts(packets: &[(u64, u64, Parts)]) -> Vec<(u64, u64)> {
        let mut assembler = KeyFrameAssembler::default();
        let mut come = std::collections::BTreeSet::new();
        let mut starts = Vec::new();
        for (seq, timestamp, parts) in packets {
            come.insert(*seq);
            let is_intact = come.contains(&(seq - 1));
            let assembled = assembler.on_packet(CodecName::H264, *seq, *timestamp, *parts, is_intact);
            starts.extend(assembled.first.map(|first| (*seq, first)));
        }
        starts
    }

    #[test]
    fn other_codecs_start_on_their_pictures() {
        let mut assembler = KeyFrameAssembler::default();
        let assembled = assembler.on_packet(CodecName::Vp8, 5, 9, IDR, false);
        assert_eq!(
            (assembled.first, assembled.is_picture, assembled.may_be_preceded),
            (Some(5), true, false)
        );
        let middle = assembler.on_packet(CodecName::Vp9, 6, 9, Parts::NONE, true);
        assert_eq!(middle, Assembled::default());
        assert!(!assembler.is_under_way());
    }

    #[test]
    fn sets_before_the_picture_are_where_it_starts() {
        assert_eq!(
            starts(&[(10, 1, SPS), (11, 1, PPS), (12, 1, IDR), (13, 2, SLICE)]),
            [(12, 10)]
        );
        assert_eq!(starts(&[(10, 1, SPS | PPS), (11, 1, IDR), (12, 1, IDR)]), [(11, 10)]);
        assert_eq!(starts(&[(10, 1, SPS | PPS | IDR)]), [(10, 10)]);
        // Under a timestamp of their own.
        assert_eq!(starts(&[(10, 1, SPS), (11, 1, PPS), (12, 2, IDR)]), [(12, 10)]);
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let shown = [(1, 1, SPS | PPS), (2, 1, IDR), (3, 2, SLICE)];
        let late = [(12, 5, IDR), (13, 6, SLICE), (14, 7, SLICE), (11, 5, PPS), (10, 5, SPS)];
        assert_eq!(starts(&[&shown[..], &late].concat()), [(2, 1), (10, 10)]);
        let late = [(12, 6, IDR), (10, 5, SPS), (11, 5, PPS)];
        assert_eq!(starts(&[&shown[..], &late].concat()), [(2, 1), (11, 10)]);
    }

    #[test]
    fn a_picture_without_its_sets_starts_nothing_once_some_were_shown() {
        let shown = [(1, 1, SPS | PPS), (2, 1, IDR), (3, 2, SLICE)];
        // The packet with the sets, or with one of them, is lost.
        assert_eq!(
            starts(&[&shown[..], &[(12, 5, IDR), (13, 6, SLICE)]].concat()),
            [(2, 1)]
        );
        let half = [(11, 5, PPS), (12, 5, IDR), (13, 6, SLICE)];
        assert_eq!(starts(&[&shown[..], &half].concat()), [(2, 1)]);
        // Sets for some other picture, far before.
        let before = [(4, 3, SPS | PPS), (5, 3, SLICE), (6, 4, IDR)];
        assert_eq!(starts(&[&shown[..], &before].concat()), [(2, 1)]);
    }

    #[test]
    fn sets_that_were_never_shown_are_known_otherwise() {
        assert_eq!(
            starts(&[(10, 1, IDR), (11, 1, IDR), (12, 2, SLICE), (20, 9, IDR)]),
            [(10, 10), (20, 20)]
        );
        // They may have been overtaken, the first time.
        let mut assembler = KeyFrameAssembler::default();
        let assembled = assembler.on_packet(CodecName::H264, 10, 1, IDR, false);
        assert!(assembled.may_be_preceded);
        assembler.on_packet(CodecName::H264, 9, 1, SPS | PPS, false);
        let assembled = assembler.on_packet(CodecName::H264, 20, 9, SPS | PPS | IDR, true);
        assert_eq!((assembled.first, assembled.may_be_preceded), (Some(20), false));
    }

    #[test]
    fn a_sender_that_ceases_to_send_sets_is_believed_after_three_pictures() {
        let mut packets = vec![(1, 1, SPS | PPS), (2, 1, IDR)];
        for number in 3..9 {
            packets.push((number, number, IDR));
        }
        assert_eq!(starts(&packets)[..2], [(2, 1), (6, 6)]);
        // Of those with a loss before them nobody knows.
        let lossy: Vec<_> = (1..9).map(|number| (number * 10, number, IDR)).collect();
        assert_eq!(
            starts(&[&[(1, 0, SPS | PPS), (2, 0, IDR)][..], &lossy].concat()),
            [(2, 1)]
        );
    }

    /// Intra refresh: no IDR picture ever, but recovery points with parameter sets.
    #[test]
    fn a_recovery_point_is_a_start() {
        let point = [
            (1, 1, SPS),
            (2, 1, PPS),
            (3, 1, Parts::RECOVERY),
            (4, 1, SLICE),
            (5, 2, SLICE),
        ];
        assert_eq!(starts(&point), [(4, 1)]);
        assert_eq!(starts(&[(1, 1, SPS | PPS), (2, 1, SLICE), (3, 2, SLICE)]), []);
    }
}
