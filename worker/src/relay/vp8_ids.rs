//! The counters of a VP8 stream without their wraps, whatever width the sender writes them in.
//!
//! Picture ids have 7 or 15 bits, or are absent (RFC 7741 §4.2), and senders mix these: many write ids below 128 in the short
//! form, some leave 0 out, and so do it again whenever the 15 bits wrap. Others never write but 7 bits, and go from 127 to 0.
//! Told apart by what comes next: 0 after 127 is a wrap of 7 bits, 128 is not.

use crate::page::layout::CounterPlace;
use crate::rtp::codec::vp8::Ids;
use crate::rtp::seq::{ahead, beyond};

use super::packet::{PictureIdMeta, Vp8Meta};

/// The counters of one stream, from one restart to the next.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Vp8Ids {
    tl0: Tl0,
    picture_id: PictureIds,
}

impl Vp8Ids {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: std::ops::Range<usize> = 0..std::mem::offset_of!(Self, picture_id.before);

    /// Goes on where others were: the newest picture id, the newest one in another width, TL0PICIDX.
    pub(super) fn resumed([last, before, tl0]: [CounterPlace; 3]) -> Self {
        Self {
            picture_id: PictureIds {
                last: Place::resumed(last),
                before: Place::resumed(before),
            },
            tl0: Tl0(Place::resumed(tl0)),
        }
    }

    /// Where they are.
    pub(super) fn places(&self) -> [CounterPlace; 3] {
        [self.picture_id.last, self.picture_id.before, self.tl0.0]
            .map(|place| place.map_or_else(CounterPlace::default, Place::kept))
    }

    /// Extends the counters of the packet with this extended sequence number.
    #[inline]
    pub(super) fn extend(&mut self, seq: u64, ids: Ids) -> Vp8Meta {
        Vp8Meta {
            picture_id: ids.picture_id.map(|id| PictureIdMeta {
                offset: id.offset,
                wide: id.wide,
                value: self.picture_id.extend(seq, id.value, id.wide),
            }),
            tl0: ids.tl0_pic_idx.map(|tl0| (tl0.offset, self.tl0.extend(seq, tl0.value))),
            upcoming: (self.picture_id.upcoming(), self.tl0.upcoming()),
        }
    }
}

/// The first extended value: as far from zero as nothing comes late, and the same whatever the sender begins with, so that
/// it is known before that.
const FIRST: u64 = 1 << 32;

/// With its width, a sender may change its numbers, too. What is so far ahead after such a change, or less, is loss; it is
/// as much as is believed of sequence numbers (RFC 3550 appendix A.1, MAX_DROPOUT).
const LOST_MAX: i16 = 3_000;

/// A packet's place: its sequence number, what it said, and what that is without wraps.
#[derive(Clone, Copy, Debug)]
struct Place {
    seq: u64,
    value: u16,
    wide: bool,
    extended: u64,
}

impl Place {
    fn resumed(kept: CounterPlace) -> Option<Self> {
        (kept.is_some != 0).then_some(Self {
            seq: kept.seq,
            value: kept.value,
            wide: kept.wide != 0,
            extended: kept.extended,
        })
    }

    fn kept(self) -> CounterPlace {
        CounterPlace {
            seq: self.seq,
            extended: self.extended,
            value: self.value,
            wide: u8::from(self.wide),
            is_some: 1,
            spare: 0,
        }
    }
}

#[derive(Debug, Default)]
#[repr(C)]
struct PictureIds {
    /// The newest packet's.
    last: Option<Place>,
    /// The newest one's from before the width changed.
    before: Option<Place>,
}

impl PictureIds {
    fn extend(&mut self, seq: u64, value: u16, wide: bool) -> u64 {
        let Some(last) = self.last else {
            self.last = Some(Place {
                seq,
                value,
                wide,
                extended: FIRST,
            });
            return FIRST;
        };
        if seq < last.seq {
            return self.late(last, value, wide);
        }
        let extended = last.extended.wrapping_add_signed(match (last.wide, wide) {
            (true, true) => i64::from(ahead::<15>(value, last.value)),
            // Frames come in order, so whatever lies between was lost.
            (false, false) => i64::from(beyond::<7>(value, last.value)),
            _ => {
                self.before = Some(last);
                match ahead::<15>(value, last.value) {
                    // One counter, written in another width.
                    ahead @ 0..=LOST_MAX => i64::from(ahead),
                    // Another counter.
                    _ => 1,
                }
            }
        });
        self.last = Some(Place {
            seq,
            value,
            wide,
            extended,
        });
        extended
    }

    /// Of a packet that was overtaken by the one at `last`: of its frame, or of one before.
    fn late(&self, last: Place, value: u16, wide: bool) -> u64 {
        let back = |from: Place| match (from.wide, wide) {
            (false, false) => i64::from(beyond::<7>(from.value, value)),
            _ => i64::from(ahead::<15>(from.value, value)),
        };
        // Where the width changes and the numbers don't, both say the same; where they do, only the second is right.
        let from = match self.before {
            Some(before) if last.wide != wide && !(0..=i64::from(LOST_MAX)).contains(&back(last)) => before,
            _ => last,
        };
        from.extended.wrapping_add_signed(-back(from))
    }

    /// What follows the newest.
    fn upcoming(&self) -> u64 {
        self.last.map_or(FIRST, |last| last.extended.wrapping_add(1))
    }
}

/// TL0PICIDX: 8 bits, of every frame that of the lowest layer's newest (RFC 7741 §4.2).
#[derive(Debug, Default)]
struct Tl0(Option<Place>);

impl Tl0 {
    fn extend(&mut self, seq: u64, value: u8) -> u64 {
        let value = u16::from(value);
        let extended = match self.0 {
            Some(last) if seq < last.seq => {
                return last.extended.wrapping_sub(u64::from(beyond::<8>(last.value, value)));
            }
            Some(last) => last.extended.wrapping_add(u64::from(beyond::<8>(value, last.value))),
            None => FIRST,
        };
        self.0 = Some(Place {
            seq,
            value,
            wide: false,
            extended,
        });
        extended
    }

    fn upcoming(&self) -> u64 {
        self.0.map_or(FIRST, |last| last.extended.wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::rtp::codec::vp8::{PictureId, Tl0};

    use super::*;

    /// How a sender writes the id of its n-th frame: the value, and whether in 15 bits; `None` if it leaves it out.
    type Writer = fn(u64) -> Option<(u16, bool)>;

    fn widening(frame: u64) -> Option<(u16, bool)> {
        let id = frame as u16 & 0x7fff;
        Some((id, id >= 128))
    }

    fn widening_from_none(frame: u64) -> Option<(u16, bool)> {
        widening(frame).filter(|(id, _)| *id > 0)
    }

    fn short(frame: u64) -> Option<(u16, bool)> {
        Some((frame as u16 & 0x7f, false))
    }

    fn long(frame: u64) -> Option<(u16, bool)> {
        Some((frame as u16 & 0x7fff, true))
    }

    const WRITERS: [Writer; 4] = [widening, widening_from_none, short, long];

    fn ids(written: Option<(u16, bool)>, frame: u64) -> Ids {
        Ids {
            picture_id: written.map(|(value, wide)| PictureId { offset: 2, value, wide }),
            tl0_pic_idx: Some(Tl0 {
                offset: 4,
                value: (frame / 2) as u8,
            }),
        }
    }

    fn extend(counters: &mut Vp8Ids, seq: u64, written: Option<(u16, bool)>) -> Option<u64> {
        let meta = counters.extend(seq, ids(written, 0));
        meta.picture_id.map(|id| id.value)
    }

    /// RFC 7741 §4.2: over the whole cycle, none → 7 bits → 15 bits → 32,767 → 0, and every other way to write it, each frame
    /// is one further.
    #[test]
    fn whole_cycles_of_every_writer() {
        for writer in WRITERS {
            for first in [0, 1, 100, 127, 128, 32_760] {
                let mut counters = Vp8Ids::default();
                let mut offset = None;
                for frame in first..first + 70_000 {
                    // Two packets to a frame.
                    for seq in [2 * frame, 2 * frame + 1] {
                        let Some(id) = extend(&mut counters, seq, writer(frame)) else {
                            continue;
                        };
                        assert_eq!(
                            id.wrapping_sub(frame),
                            *offset.get_or_insert(id.wrapping_sub(frame)),
                            "{frame}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn changes_of_the_width_with_and_without_new_numbers() {
        const WIDE: bool = true;
        const NARROW: bool = false;
        // (sequence number, id, width, distance from the first)
        type Row = (u64, u16, bool, i64);
        let rows: [&[Row]; 6] = [
            // Loss where the width changes, on either side.
            &[(10, 120, NARROW, 0), (50, 160, WIDE, 40), (10_000, 3_100, WIDE, 2_980)],
            &[(10, 32_700, WIDE, 0), (90, 12, NARROW, 80), (91, 13, NARROW, 81)],
            // Late packets from before it, which the first may be one of.
            &[
                (10, 127, NARROW, 0),
                (13, 129, WIDE, 2),
                (11, 127, NARROW, 0),
                (12, 128, WIDE, 1),
            ],
            &[
                (10, 32_766, WIDE, 0),
                (14, 2, NARROW, 4),
                (12, 0, NARROW, 2),
                (11, 32_767, WIDE, 1),
                (9, 32_766, WIDE, 0),
            ],
            // Another counter begins with another width: the next frame. What comes late from before keeps its number.
            &[
                (10, 20_000, WIDE, 0),
                (12, 5, NARROW, 1),
                (11, 20_000, WIDE, 0),
                (13, 5, NARROW, 1),
                (9, 19_999, WIDE, -1),
                (14, 6, NARROW, 2),
            ],
            // More than half of the short cycle is lost: still forward.
            &[
                (10, 5, NARROW, 0),
                (200, 105, NARROW, 100),
                (201, 128, WIDE, 123),
                (150, 90, NARROW, 85),
            ],
        ];
        for row in rows {
            let mut counters = Vp8Ids::default();
            for &(seq, value, wide, distance) in row {
                let id = extend(&mut counters, seq, Some((value, wide))).unwrap();
                assert_eq!(id.wrapping_sub(FIRST).cast_signed(), distance, "{seq} of {row:?}");
            }
        }
    }

    /// What a flow that starts on a packet without counters goes on from.
    #[test]
    fn what_comes_next_is_known_before_anything_came() {
        let mut counters = Vp8Ids::default();
        assert_eq!(counters.extend(1, Ids::default()).upcoming, (FIRST, FIRST));
        let first = counters.extend(2, ids(Some((77, false)), 300));
        assert_eq!(first.picture_id.map(|id| id.value), Some(FIRST));
        assert_eq!(first.tl0, Some((4, FIRST)));
        assert_eq!(counters.extend(3, Ids::default()).upcoming, (FIRST + 1, FIRST + 1));
    }

    proptest! {
        /// Loss of up to 100 frames in a row, reordering within a window, any place in the cycle: the distance between any two
        /// frames is the true one.
        #[test]
        fn loss_and_reordering_change_nothing(
            writer in prop::sample::select(WRITERS.to_vec()),
            first in prop_oneof![1_u64..300, 32_500_u64..33_000, 1_u64..40_000],
            losses in prop::collection::vec((1_u64..60, 0_u64..40), 1..60),
            shuffles in prop::collection::vec(0_usize..8, 64),
        ) {
            // Runs of frames that come, and of frames that are lost.
            let mut frames = vec![];
            let mut frame = first;
            for (come, lost) in losses {
                frames.extend((frame..frame + come).flat_map(|frame| [(2 * frame, frame), (2 * frame + 1, frame)]));
                frame += come + lost;
            }
            // Each is late by a few places, but for the first.
            let mut arriving: Vec<_> = frames.into_iter().enumerate().collect();
            arriving.sort_by_key(|(at, _)| at + shuffles[at % shuffles.len()] * usize::from(*at > 0));
            let arriving = arriving.into_iter().map(|(_, packet)| packet);
            let mut counters = Vp8Ids::default();
            let (mut id_offset, mut tl0_offset) = (None, None);
            for (seq, frame) in arriving {
                let meta = counters.extend(seq, ids(writer(frame), frame));
                if let Some(id) = meta.picture_id {
                    let offset = id.value.wrapping_sub(frame);
                    prop_assert_eq!(offset, *id_offset.get_or_insert(offset), "{}", frame);
                }
                let offset = meta.tl0.unwrap().1.wrapping_sub(frame / 2);
                prop_assert_eq!(offset, *tl0_offset.get_or_insert(offset), "{}", frame);
            }
        }

        /// Whatever a sender writes, nothing panics.
        #[test]
        fn any_ids_are_taken(packets in prop::collection::vec((any::<u64>(), any::<u16>(), any::<bool>(), any::<u8>()), 1..200)) {
            let mut counters = Vp8Ids::default();
            for (seq, value, wide, tl0) in packets {
                let value = value & if wide { 0x7fff } else { 0x7f };
                counters.extend(seq, ids(Some((value, wide)), u64::from(tl0)));
            }
        }
    }
}
