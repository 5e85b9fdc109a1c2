//! The last group of pictures of a sender that answers no key frame requests, from its start on: most cameras, and ffmpeg. Who
//! joins in the middle of it would otherwise see nothing until the next one.
//!
//! They are kept only while a sender is like that ([`Responsiveness`]), and never more than a few megabytes, packets and seconds of a stream. A
//! group that grows beyond is forgotten until the next start.

use std::time::Duration;

use crate::time::Time;

use super::packet::{Kept, PacketMeta};

/// Packets of one group.
pub const GOP_PACKETS: usize = 8_192;

/// Their bytes: 8 Mbit/s for eight seconds.
pub const GOP_BYTES: usize = 8 << 20;

/// How long a group may be.
pub const GOP_AGE: Duration = Duration::from_secs(20);

/// Groups that one worker keeps.
pub const GOPS_MAX: u32 = 64;

/// A packet is looked for so many places around the one that it has if nothing was lost or moved.
const MOVED_MAX: u64 = 256;

/// A sender that answers a request does so within this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// So many requests without an answer: it does not hear any. Fewer after an answer that may have been chance.
const UNRESPONSIVE_AFTER: u8 = 2;

/// Whether a sender answers key frame requests.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Responsiveness {
    /// When it was asked, if nothing has come since.
    asked: Option<Time>,
    /// It has sent something else since, long enough after. Who sends nothing at all has not refused.
    went_on: bool,
    unanswered: u8,
}

impl Responsiveness {
    /// It is asked.
    pub fn on_ask(&mut self, now: Time) {
        match self.asked {
            Some(asked) if now.since(asked) >= ANSWER_WITHIN => {
                self.on_unanswered();
                self.asked = Some(now);
                self.went_on = false;
            }
            Some(_) => {}
            None => self.asked = Some(now),
        }
    }

    /// It sends something, and has before, at this time.
    #[inline]
    pub fn on_media(&mut self, before: Option<Time>) {
        if let (Some(asked), Some(before)) = (self.asked, before) {
            self.went_on |= before >= asked + ANSWER_WITHIN / 2;
        }
    }

    /// A key frame has come.
    pub fn on_key_frame(&mut self, now: Time) {
        let asked = self.asked.take();
        match asked {
            Some(asked) if now.since(asked) >= ANSWER_WITHIN => self.on_unanswered(),
            Some(_) => self.unanswered = self.unanswered.saturating_sub(1),
            None => {}
        }
        self.went_on = false;
    }

    /// Whether it answers nothing.
    pub fn is_unresponsive(&self) -> bool {
        self.unanswered >= UNRESPONSIVE_AFTER
    }

    fn on_unanswered(&mut self) {
        if self.went_on {
            self.unanswered = (self.unanswered + 1).min(UNRESPONSIVE_AFTER + 1);
        }
    }
}

/// How many groups are kept, and how many may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct GopBudget {
    pub kept: u32,
    pub max: u32,
}

impl Default for GopBudget {
    fn default() -> Self {
        Self { kept: 0, max: GOPS_MAX }
    }
}

/// Where a consumer is that is sent a group after the event.
#[derive(Clone, Copy, Debug)]
pub(super) struct GopCursor {
    pub encoding: u8,
    /// The number of the group.
    pub number: u32,
    /// The next of its packets.
    pub place: usize,
    pub began: Time,
    /// When the group's first packet came.
    pub first_at: Time,
    /// The newest timestamp sent, as the producer had it.
    pub newest: u64,
}

/// The packets of a group, in the order of their arrival.
#[derive(Debug)]
pub struct Gop {
    bytes: Vec<u8>,
    packets: Vec<Kept>,
    /// Counts groups, so that who is in the middle of one notices that it is gone.
    number: u32,
    /// The number that it begins with.
    first: u64,
    /// It begins with a start, and lacks nothing that has come since.
    is_whole: bool,
}

impl Default for Gop {
    /// An empty group, with all the memory that it will ever have. Memory that was never written to costs nothing.
    fn default() -> Self {
        Self {
            bytes: Vec::with_capacity(GOP_BYTES),
            packets: Vec::with_capacity(GOP_PACKETS),
            number: 0,
            first: 0,
            is_whole: false,
        }
    }
}

impl Gop {
    /// Keeps a packet; `train` is what its `start` counts in.
    pub fn store(&mut self, now: Time, packet: &PacketMeta, train: &[u8], ordinal: u64) {
        let start = packet.start as usize;
        let Some(bytes) = train.get(start..start + packet.len as usize) else {
            return;
        };
        let is_other_epoch = self
            .packets
            .first()
            .is_some_and(|first| first.packet.epoch != packet.epoch);
        let is_old = self.packets.first().is_some_and(|first| now.since(first.at) > GOP_AGE);
        let is_full = self.packets.len() == GOP_PACKETS || self.bytes.len() + bytes.len() > GOP_BYTES;
        if is_other_epoch || is_old || is_full {
            self.clear();
        }
        // The last of the group before.
        if self.is_whole && packet.seq < self.first {
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.packets.push(Kept {
            packet: PacketMeta {
                start: start as u32,
                ..*packet
            },
            at: now,
            ordinal,
        });
        if packet.key_frame {
            self.begin(packet.first);
        }
    }

    /// The last packet completes a start that begins with this number: what is older goes.
    fn begin(&mut self, first: u64) {
        let is_there = self.packets.iter().any(|kept| kept.packet.seq == first);
        self.number = self.number.wrapping_add(1);
        self.is_whole = is_there;
        self.first = first;
        let mut end = 0;
        let Self { bytes, packets, .. } = self;
        packets.retain_mut(|kept| {
            let is_part = kept.packet.seq >= first;
            if is_part {
                let start = kept.packet.start as usize;
                bytes.copy_within(start..start + kept.packet.len as usize, end);
                kept.packet.start = end as u32;
                end += kept.packet.len as usize;
            }
            is_part
        });
        bytes.truncate(end);
    }

    /// Forgets everything, until the next start.
    fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
        self.is_whole = false;
        self.number = self.number.wrapping_add(1);
    }

    /// The number of the group, if somebody could start with it.
    pub fn number(&self) -> Option<u32> {
        self.is_whole.then_some(self.number)
    }

    /// The packet that it begins with: the one with the lowest number.
    pub fn first(&self) -> Option<&Kept> {
        self.packets.iter().find(|kept| kept.packet.seq == self.first)
    }

    /// The packet with this extended sequence number and epoch, if it is here. Its `start` is 0.
    pub fn find(&self, seq: u64, epoch: u32) -> Option<(PacketMeta, &[u8])> {
        // Each number that is missing moves those behind it one place to the front, and the network moves some a little.
        let first = self.packets.first()?.packet.seq;
        let furthest = seq
            .saturating_sub(first)
            .saturating_add(MOVED_MAX)
            .min(self.packets.len() as u64);
        let place = (0..furthest as usize)
            .rev()
            .take(2 * MOVED_MAX as usize)
            .find(|place| self.packets[*place].packet.seq == seq)?;
        let (kept, bytes) = self.get(place)?;
        let packet = PacketMeta {
            start: 0,
            ..kept.packet
        };
        (packet.epoch == epoch).then_some((packet, bytes))
    }

    /// The packet in this place, and its bytes.
    pub fn get(&self, place: usize) -> Option<(&Kept, &[u8])> {
        let kept = self.packets.get(place)?;
        let start = kept.packet.start as usize;
        Some((kept, self.bytes.get(start..start + kept.packet.len as usize)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn meta(seq: u64, len: u32, first: Option<u64>) -> PacketMeta {
        PacketMeta {
            len,
            seq,
            key_frame: first.is_some(),
            first: first.unwrap_or(seq),
            ..PacketMeta::default()
        }
    }

    fn store(gop: &mut Gop, now: Time, seq: u64, len: usize, first: Option<u64>) {
        gop.store(now, &meta(seq, len as u32, first), &vec![seq as u8; len], seq);
    }

    fn seqs(gop: &Gop) -> Vec<u64> {
        let packets = (0..).map_while(|place| gop.get(place));
        packets
            .map(|(kept, bytes)| {
                assert!(bytes.iter().all(|byte| *byte == kept.packet.seq as u8));
                kept.packet.seq
            })
            .collect()
    }

    #[test]
    fn a_sender_that_answers_in_time_hears() {
        let mut responsiveness = Responsiveness::default();
        for round in 0..10 {
            responsiveness.on_ask(at(round * 5_000));
            responsiveness.on_ask(at(round * 5_000 + 1_000));
            responsiveness.on_key_frame(at(round * 5_000 + 1_900));
            assert!(!responsiveness.is_unresponsive());
        }
    }

    /// Asks at `asked`, with pictures every 40 ms from then until `until`.
    fn ask(responsiveness: &mut Responsiveness, asked: u64, until: u64) {
        responsiveness.on_ask(at(asked));
        for time in (asked..until).step_by(40) {
            responsiveness.on_media(Some(at(time)));
        }
    }

    #[test]
    fn two_requests_without_an_answer_are_enough_and_chance_is_not() {
        let mut responsiveness = Responsiveness::default();
        for second in 0..4 {
            ask(&mut responsiveness, second * 1_000, second * 1_000 + 1_000);
            assert!(!responsiveness.is_unresponsive(), "{second}");
        }
        ask(&mut responsiveness, 4_000, 10_000);
        assert!(responsiveness.is_unresponsive());
        // It sends one in ten seconds, whatever it is asked.
        responsiveness.on_key_frame(at(10_000));
        for round in 1..5 {
            ask(&mut responsiveness, round * 10_000 + 9_000, round * 10_000 + 10_000);
            responsiveness.on_key_frame(at(round * 10_000 + 10_000));
            ask(&mut responsiveness, round * 10_000 + 11_000, round * 10_000 + 18_000);
            responsiveness.on_key_frame(at(round * 10_000 + 18_000));
            assert!(responsiveness.is_unresponsive(), "{round}");
        }
        // Now it does.
        for round in 0..2 {
            responsiveness.on_ask(at(100_000 + round * 3_000));
            responsiveness.on_key_frame(at(100_100 + round * 3_000));
        }
        assert!(!responsiveness.is_unresponsive());
    }

    /// A screen on which nothing moves, a tab in the background.
    #[test]
    fn who_sends_nothing_has_refused_nothing() {
        let mut responsiveness = Responsiveness::default();
        for second in 0..60 {
            responsiveness.on_ask(at(second * 1_000));
        }
        responsiveness.on_media(Some(at(500)));
        responsiveness.on_key_frame(at(60_000));
        assert!(!responsiveness.is_unresponsive());
    }

    #[test]
    fn a_group_begins_with_its_start_and_goes_with_the_next() {
        let mut gop = Gop::default();
        store(&mut gop, at(0), 1, 100, None);
        assert_eq!(gop.number(), None);
        // Parameter sets, and the picture that completes them; something from before came in between.
        store(&mut gop, at(1), 11, 50, None);
        store(&mut gop, at(2), 2, 60, None);
        store(&mut gop, at(3), 12, 70, Some(11));
        let number = gop.number().expect("it is whole");
        store(&mut gop, at(4), 13, 80, None);
        assert_eq!(seqs(&gop), [11, 12, 13]);
        assert_eq!(gop.first().map(|first| first.packet.seq), Some(11));
        store(&mut gop, at(5), 14, 90, Some(14));
        assert_eq!(seqs(&gop), [14]);
        assert_ne!(gop.number(), Some(number));
    }

    #[test]
    fn a_group_that_is_too_long_is_forgotten_until_the_next_start() {
        let mut gop = Gop::default();
        store(&mut gop, at(0), 1, 1_000, Some(1));
        for seq in 2..20_000 {
            store(&mut gop, at(seq), seq, 1_000, None);
            assert!(gop.bytes.len() <= GOP_BYTES && gop.bytes.capacity() == GOP_BYTES);
            assert!(gop.packets.capacity() == GOP_PACKETS);
        }
        assert_eq!(gop.number(), None);
        store(&mut gop, at(20_000), 20_000, 1_000, Some(20_000));
        assert!(gop.number().is_some());
        store(&mut gop, at(41_000), 20_001, 1_000, None);
        assert_eq!(gop.number(), None, "too old");
        // What completes a start of which the beginning is gone is no start.
        store(&mut gop, at(41_001), 20_003, 1_000, Some(20_002));
        assert_eq!(gop.number(), None);
    }
}
