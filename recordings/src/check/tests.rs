//! A relay without faults passes; each fault a relay could have fails its own check, and is named.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use weir_channel::message::CodecName;

use super::{Arrival, Catalogue, Check, SentLog, StreamCheck};
use crate::recording::Recording;
use crate::replay::{Origin, Replay};
use crate::rtp::{self, Packet};
use crate::vp8::{self, Descriptor, Resolution};

const SSRC: u32 = 0x5151_5151;
const PAYLOAD_TYPE: u8 = 101;

fn camera() -> Vec<Arc<Recording>> {
    [
        include_bytes!("../../../tests/media/low.rtpdump").as_slice(),
        include_bytes!("../../../tests/media/medium.rtpdump"),
        include_bytes!("../../../tests/media/high.rtpdump"),
    ]
    .map(|file| Arc::new(Recording::from_rtpdump(file, CodecName::Vp8, 90_000).unwrap()))
    .to_vec()
}

fn microphone() -> Vec<Arc<Recording>> {
    let file = include_bytes!("../../../tests/media/opus.rtpdump");
    vec![Arc::new(
        Recording::from_rtpdump(file, CodecName::Opus, 48_000).unwrap(),
    )]
}

/// A source, a relay that rewrites as a relay must, and the check at the end. What the relay does is scripted.
struct Bench {
    replay: Replay,
    sent: SentLog,
    check: StreamCheck,
    arrivals: Vec<Arrival>,
    seq: u16,
    timestamp: u32,
    picture_id: u16,
    tl0: u8,
    last_timestamp_in: Option<u32>,
}

impl Bench {
    fn new(tracks: Vec<Arc<Recording>>) -> Self {
        let catalogue = Arc::new(Catalogue::new(&tracks));
        Self {
            sent: SentLog::new(&tracks),
            check: StreamCheck::new(catalogue, SSRC, PAYLOAD_TYPE),
            replay: Replay::new(tracks).unwrap(),
            arrivals: Vec::new(),
            // Everything wraps soon.
            seq: 65_500,
            timestamp: u32::MAX - 20_000,
            picture_id: 0x7ffa,
            tl0: 250,
            last_timestamp_in: None,
        }
    }

    /// Sends the next packet and says which it was.
    fn send(&mut self) -> (Origin, Vec<u8>) {
        let due = self.replay.poll(Duration::MAX).unwrap();
        self.sent.begin(due.origin, due.ordinal);
        self.sent.finish(due.bytes.len());
        (due.origin, due.bytes.to_vec())
    }

    /// A packet as a faultless relay sends it on.
    fn rewrite(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
        let view = Packet::parse(&packet).unwrap();
        let (timestamp_in, payload_at) = (view.timestamp, view.payload_at);
        let descriptor = Descriptor::parse(view.payload)
            .ok()
            .filter(|descriptor| descriptor.picture_id.is_some());
        let new_frame = self.last_timestamp_in != Some(timestamp_in);
        if let Some(last) = self.last_timestamp_in.replace(timestamp_in) {
            self.seq = self.seq.wrapping_add(1);
            let step = timestamp_in.wrapping_sub(last);
            self.timestamp = self.timestamp.wrapping_add(step);
        }
        packet[1] = packet[1] & 0x80 | PAYLOAD_TYPE;
        rtp::write_seq(&mut packet, self.seq);
        rtp::write_timestamp(&mut packet, self.timestamp);
        packet[8..12].copy_from_slice(&SSRC.to_be_bytes());
        if let Some(Descriptor {
            picture_id: Some(id),
            tl0_picture_index: Some(tl0),
            temporal_layer: Some(tid),
            ..
        }) = descriptor
        {
            if new_frame {
                self.picture_id = (self.picture_id + 1) & 0x7fff;
                self.tl0 = self.tl0.wrapping_add(u8::from(tid == 0));
            }
            vp8::write_picture_id(&mut packet[payload_at..], id, self.picture_id);
            packet[payload_at + tl0.at] = self.tl0;
        }
        packet
    }

    fn arrive(&mut self, packet: &[u8]) {
        let arrival = self.check.receive(packet, &self.sent);
        self.arrivals.push(arrival);
    }

    /// Relays track `track` until the next key frame's first packet of track `until`, which is relayed too.
    fn relay_until_key_frame(&mut self, track: usize, until: usize) {
        loop {
            let (origin, packet) = self.send();
            let switch = origin.track == until && self.starts_key_frame(origin);
            if origin.track == track || switch {
                let packet = self.rewrite(packet);
                self.arrive(&packet);
            }
            if switch {
                return;
            }
        }
    }

    fn starts_key_frame(&self, origin: Origin) -> bool {
        let recording = &self.replay.tracks()[origin.track];
        let frame = &recording.frames()[recording.packets()[origin.packet].frame];
        frame.key_frame.is_some() && frame.packets.start == origin.packet
    }

    /// Relays `count` packets of a track, each passed through `edit`; what `edit` returns arrives.
    fn relay(&mut self, track: usize, count: usize, mut edit: impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>>) {
        let mut relayed = 0;
        while relayed < count {
            let (origin, packet) = self.send();
            if origin.track == track {
                let packet = self.rewrite(packet);
                for packet in edit(relayed, packet) {
                    self.arrive(&packet);
                }
                relayed += 1;
            }
        }
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.send();
        }
    }

    fn faults(&self) -> Vec<(Check, u64)> {
        let count = |check: Check| (check, self.check.faults(check).count());
        Check::ALL
            .into_iter()
            .map(count)
            .filter(|&(_, count)| count > 0)
            .collect()
    }

    #[track_caller]
    fn assert_clean(&self) {
        let told: Vec<_> = Check::ALL.map(|check| self.check.faults(check).examples()).concat();
        assert_eq!(self.faults(), [], "{told:#?}");
    }

    /// Exactly these checks failed.
    #[track_caller]
    fn assert_failed(&self, expected: &[Check]) {
        let failed: Vec<_> = self.faults().into_iter().map(|(check, _)| check).collect();
        let told: Vec<_> = Check::ALL.map(|check| self.check.faults(check).examples()).concat();
        assert_eq!(failed, expected, "{told:#?}");
        assert!(
            expected
                .iter()
                .all(|&check| !self.check.faults(check).examples().is_empty())
        );
    }
}

fn keep(_: usize, packet: Vec<u8>) -> Vec<Vec<u8>> {
    vec![packet]
}

#[test]
fn a_faultless_relay_passes_over_rounds_switches_and_pauses() {
    let mut bench = Bench::new(camera());
    bench.relay(2, 3000, keep);
    bench.assert_clean();
    assert_eq!(
        bench.check.resolution(),
        Some(Resolution {
            width: 640,
            height: 360
        })
    );
    bench.relay_until_key_frame(2, 0);
    assert_eq!(bench.arrivals.last(), Some(&Arrival::Switched { from: 2, to: 0 }));
    assert_eq!(bench.check.resolution(), Some(Resolution { width: 160, height: 90 }));
    assert_eq!((bench.check.switches(), bench.check.track()), (1, Some(0)));
    bench.relay(0, 700, keep);

    // A pause: one packet is in flight when it is confirmed, the rest of it is not relayed.
    let (origin, packet) = bench.send();
    let mark = bench.sent.mark();
    bench.check.pause(mark);
    if origin.track == 0 {
        let packet = bench.rewrite(packet);
        bench.arrive(&packet);
    }
    bench.skip(500);
    let mark = bench.sent.mark();
    bench.check.resume(mark);
    bench.relay_until_key_frame(usize::MAX, 1);
    assert_eq!(bench.arrivals.last(), Some(&Arrival::Started { track: 1 }));
    bench.relay(1, 1000, keep);
    bench.assert_clean();
    assert_eq!(bench.check.pauses().len(), 1);
    assert_eq!(bench.check.packets(), bench.arrivals.len() as u64);
}

#[test]
fn audio_starts_anywhere() {
    let mut bench = Bench::new(microphone());
    bench.skip(7);
    bench.relay(0, 1200, keep);
    bench.check.pause(bench.sent.mark());
    bench.skip(50);
    bench.check.resume(bench.sent.mark());
    bench.relay(0, 10, keep);
    bench.assert_clean();
    assert_eq!(bench.check.frames(), 1210);
    assert_eq!(
        bench
            .arrivals
            .iter()
            .filter(|&&arrival| arrival != Arrival::Continued)
            .count(),
        2
    );
}

#[test]
fn a_pause_of_exactly_one_round_is_a_pause() {
    let mut bench = Bench::new(microphone());
    bench.relay(0, 100, keep);
    bench.check.pause(bench.sent.mark());
    bench.skip(500);
    bench.check.resume(bench.sent.mark());
    bench.relay(0, 1, keep);
    assert_eq!(bench.arrivals.last(), Some(&Arrival::Started { track: 0 }));
    bench.assert_clean();
}

#[test]
fn packets_that_are_not_rtp_or_of_another_stream() {
    for edit in [
        (|packet| packet.truncate(11)) as fn(&mut Vec<u8>),
        |packet| packet[0] = 0,
        |packet| packet[11] ^= 1,
        |packet| packet[1] ^= 1,
    ] {
        let mut bench = Bench::new(microphone());
        bench.relay(0, 30, |at, mut packet| {
            if at == 29 {
                edit(&mut packet);
            }
            vec![packet]
        });
        bench.assert_failed(&[Check::WellFormed]);
        assert_eq!(bench.arrivals.last(), Some(&Arrival::Wrong));
    }
}

#[test]
fn changed_content() {
    // A flipped bit in the media, in the marker, in the start of frame, in the temporal layer.
    for (at_byte, bit) in [(100, 1), (1, 0x80), (12, 0x10), (17, 0x40)] {
        let mut bench = Bench::new(camera());
        // The last packet of the first frame and those behind it are in the second frame.
        bench.relay(2, 16, |at, mut packet| {
            if at == 15 {
                packet[at_byte] ^= bit;
            }
            vec![packet]
        });
        let failed: Vec<_> = bench.faults().into_iter().map(|(check, _)| check).collect();
        assert!(failed.contains(&Check::ContentIntact), "{at_byte}: {failed:?}");
    }
    // A payload that was recorded but never sent is as foreign as any other.
    let mut bench = Bench::new(microphone());
    let recording = bench.replay.tracks()[0].clone();
    bench.relay(0, 1, keep);
    let mut packet = recording.bytes_of(&recording.packets()[1]).to_vec();
    packet = bench.rewrite(packet);
    bench.arrive(&packet);
    bench.assert_failed(&[Check::ContentIntact]);
}

#[test]
fn lost_repeated_and_reordered_packets() {
    let mut bench = Bench::new(camera());
    bench.relay(2, 100, |at, packet| if at == 50 { vec![] } else { vec![packet] });
    bench.assert_failed(&[Check::SequenceUnbroken, Check::NothingMissing]);

    let mut bench = Bench::new(camera());
    bench.relay(2, 100, |at, packet| vec![packet; if at == 50 { 2 } else { 1 }]);
    bench.assert_failed(&[Check::SequenceUnbroken]);
    assert_eq!(bench.faults()[0].1, 1);

    let mut bench = Bench::new(camera());
    let mut held = VecDeque::new();
    bench.relay(2, 100, |at, packet| {
        held.push_back(packet);
        if at == 50 {
            vec![]
        } else {
            held.drain(..).rev().collect()
        }
    });
    bench.assert_failed(&[Check::SequenceUnbroken, Check::NothingMissing]);
}

#[test]
fn a_loss_that_rewriting_hides() {
    let mut bench = Bench::new(camera());
    bench.relay(2, 50, keep);
    // The relay loses some packets and numbers the others as if nothing had happened.
    bench.skip(40);
    bench.relay(2, 50, keep);
    bench.assert_failed(&[Check::NothingMissing]);
}

#[test]
fn timestamps_that_stand_still_run_or_go_back() {
    for shift in [-3000i32, 1, 90_000] {
        let mut bench = Bench::new(camera());
        bench.relay(2, 60, |at, mut packet| {
            if at == 40 {
                let timestamp = Packet::parse(&packet).unwrap().timestamp;
                rtp::write_timestamp(&mut packet, timestamp.wrapping_add_signed(shift));
            }
            vec![packet]
        });
        bench.assert_failed(&[Check::TimestampsAdvance]);
    }
    let mut bench = Bench::new(camera());
    bench.relay(2, 60, keep);
    bench.timestamp = bench.timestamp.wrapping_sub(1_000_000);
    bench.relay_until_key_frame(2, 1);
    bench.assert_failed(&[Check::TimestampsAdvance]);
}

#[test]
fn picture_ids_that_jump_stay_or_vanish() {
    let edits: [fn(&mut Vec<u8>); 4] = [
        |packet| packet[15] ^= 1,
        |packet| packet[16] ^= 1,
        // 7 bits instead of 15, and none at all; the bytes that are left over are taken out.
        |packet| {
            packet[14] &= 0x7f;
            packet.remove(15);
        },
        |packet| {
            packet[13] = 0x60;
            packet.drain(14..16);
        },
    ];
    for edit in edits {
        let mut bench = Bench::new(camera());
        bench.relay(2, 60, |at, mut packet| {
            if at == 40 {
                edit(&mut packet);
            }
            vec![packet]
        });
        bench.assert_failed(&[Check::PictureIdsContinuous]);
    }
}

#[test]
fn video_that_starts_resumes_or_switches_elsewhere_than_on_a_key_frame() {
    let mut bench = Bench::new(camera());
    bench.skip(300);
    bench.relay(2, 1, keep);
    bench.assert_failed(&[Check::KeyFrameFirst]);

    let mut bench = Bench::new(camera());
    bench.relay(2, 100, keep);
    bench.check.pause(bench.sent.mark());
    bench.skip(100);
    bench.check.resume(bench.sent.mark());
    bench.relay(2, 1, keep);
    bench.assert_failed(&[Check::KeyFrameFirst]);

    // To the second packet of the key frame, which has the same timestamp and the same picture.
    let mut bench = Bench::new(camera());
    bench.relay_until_key_frame(0, 0);
    bench.relay_until_key_frame(0, 0);
    loop {
        let (origin, packet) = bench.send();
        let recording = &bench.replay.tracks()[origin.track];
        let frame = &recording.frames()[recording.packets()[origin.packet].frame];
        if origin.track == 2 && frame.packets.start + 1 == origin.packet {
            bench.last_timestamp_in = bench.last_timestamp_in.map(|last| last.wrapping_sub(1));
            let packet = bench.rewrite(packet);
            bench.arrive(&packet);
            break;
        }
    }
    bench.assert_failed(&[Check::KeyFrameFirst]);
}

#[test]
fn a_switch_that_puts_two_frames_under_one_timestamp() {
    // The first key frames of low and high show the same picture, and this relay gives both the same timestamp.
    let mut bench = Bench::new(camera());
    bench.relay_until_key_frame(0, 2);
    assert_eq!(bench.arrivals.first(), Some(&Arrival::Started { track: 0 }));
    assert_eq!(bench.arrivals.last(), Some(&Arrival::Switched { from: 0, to: 2 }));
    bench.assert_failed(&[Check::TimestampsAdvance, Check::PictureIdsContinuous]);
}

#[test]
fn a_switch_that_goes_back() {
    let mut bench = Bench::new(camera());
    bench.relay_until_key_frame(2, 2);
    // The second key frame of low is held back until that of high and the start of the frame behind it are through.
    let mut low = Vec::new();
    while bench.check.frames() < 62 {
        let (origin, packet) = bench.send();
        if origin.track == 0 && bench.starts_key_frame(origin) {
            low.push(packet.clone());
        }
        if origin.track == 2 {
            let packet = bench.rewrite(packet);
            bench.arrive(&packet);
        }
    }
    let timestamp = bench.last_timestamp_in.unwrap();
    for mut packet in low.drain(..) {
        rtp::write_timestamp(&mut packet, timestamp.wrapping_add(1));
        let packet = bench.rewrite(packet);
        bench.arrive(&packet);
    }
    assert_eq!(bench.arrivals.last(), Some(&Arrival::Switched { from: 2, to: 0 }));
    bench.assert_failed(&[Check::NothingMissing]);
}

#[test]
fn a_switch_that_loses_pictures() {
    let mut bench = Bench::new(camera());
    bench.relay(2, 100, keep);
    bench.relay_until_key_frame(usize::MAX, 0);
    bench.assert_failed(&[Check::NothingMissing]);
}

#[test]
fn what_was_sent_in_a_pause_and_arrives() {
    // A relay that goes on as if nothing had happened.
    let mut bench = Bench::new(microphone());
    bench.relay(0, 100, keep);
    bench.check.pause(bench.sent.mark());
    bench.relay(0, 10, keep);
    bench.check.resume(bench.sent.mark());
    bench.relay(0, 10, keep);
    bench.assert_failed(&[Check::SilentWhilePaused]);
    assert_eq!(bench.faults()[0].1, 10);

    // A relay that keeps packets and sends them after the pause: their numbers are fine, their time is not.
    let mut bench = Bench::new(microphone());
    bench.relay(0, 100, keep);
    bench.check.pause(bench.sent.mark());
    let kept: Vec<_> = (0..10).map(|_| bench.send().1).collect();
    bench.check.resume(bench.sent.mark());
    for packet in kept {
        let packet = bench.rewrite(packet);
        bench.arrive(&packet);
    }
    bench.assert_failed(&[Check::SilentWhilePaused]);
}

#[test]
fn the_log_counts_what_was_begun_taken_and_refused() {
    let tracks = microphone();
    let log = SentLog::new(&tracks);
    let origin = Origin { track: 0, packet: 3 };
    assert_eq!((log.mark(), log.ordinal(origin)), (0, None));
    log.begin(origin, 0);
    assert_eq!((log.mark(), log.packets(), log.ordinal(origin)), (1, 0, Some(0)));
    log.finish(100);
    log.begin(origin, 1);
    log.fail();
    assert_eq!((log.mark(), log.packets(), log.bytes(), log.failures()), (2, 1, 100, 1));
    assert_eq!(log.ordinal(origin), Some(1));
    assert_eq!(log.ordinal(Origin { track: 1, packet: 0 }), None);
}
