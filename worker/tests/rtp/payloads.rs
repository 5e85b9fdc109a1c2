//! Peeks at the payloads of real senders, and at payloads of nobody.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_channel::message::CodecName;
use weir_worker::rtp::codec::{Peek, peek, vp8};
use weir_worker::rtp::seq::beyond;
use weir_worker::rtp::{Arrival, Header, SeqExtender, TimestampExtender};

const VIDEO: [CodecName; 5] = [
    CodecName::Vp8,
    CodecName::Vp9,
    CodecName::H264,
    CodecName::H265,
    CodecName::Av1,
];

fn codec(name: &str) -> CodecName {
    match name {
        "VP8" => CodecName::Vp8,
        "VP9" => CodecName::Vp9,
        "H264" => CodecName::H264,
        "H265" => CodecName::H265,
        other => panic!("no such codec in the vectors: {other}"),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

/// Frame → payloads.
type Frames = BTreeMap<u32, Vec<Vec<u8>>>;

/// The vectors, by codec and sender.
fn vectors() -> BTreeMap<(&'static str, &'static str), Frames> {
    let mut streams = BTreeMap::<_, Frames>::new();
    for line in include_str!("../vectors/payloads.txt").lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let [codec, sender, frame, payload] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let frames = streams.entry((codec, sender)).or_default();
        let payloads = frames.entry(frame.parse().unwrap()).or_default();
        payloads.push(bytes(payload));
    }
    streams
}

#[test]
fn key_frames_of_real_senders() {
    let streams = vectors();
    assert_eq!(streams.len(), 9);
    for ((name, sender), frames) in streams {
        assert_eq!(frames.keys().copied().collect::<Vec<_>>(), [0, 1, 7, 8, 9]);
        for (frame, payloads) in frames {
            let marked: Vec<usize> = (0..payloads.len())
                .filter(|packet| peek(codec(name), &payloads[*packet]).key_frame)
                .collect();
            let is_key_frame = frame % 8 == 0;
            assert_eq!(!marked.is_empty(), is_key_frame, "{name} of {sender}, frame {frame}");
            if is_key_frame && matches!(name, "VP8" | "VP9") {
                assert_eq!(marked, [0], "{name} of {sender}, frame {frame}");
            }
        }
    }
}

#[test]
fn picture_ids_of_real_senders_grow_by_one_with_each_frame() {
    for sender in ["ffmpeg", "gstreamer-15-bit-id"] {
        let frames = &vectors()[&("VP8", sender)];
        let mut first = None;
        for (frame, payloads) in frames {
            for payload in payloads {
                let id = peek(CodecName::Vp8, payload).vp8.unwrap().picture_id.unwrap();
                assert!(id.wide, "{sender}, frame {frame}");
                let id = u32::from(id.value);
                assert_eq!(id, *first.get_or_insert(id) + frame, "{sender}, frame {frame}");
            }
        }
    }
    for payload in vectors()[&("VP8", "gstreamer-no-id")].values().flatten() {
        assert_eq!(peek(CodecName::Vp8, payload).vp8, Some(vp8::Ids::default()));
    }
}

/// The packets of a recording (rtpdump: a line of text, 16 bytes, then packets behind 8 bytes of which the first two are the
/// length of both).
fn recorded(mut dump: &[u8]) -> Vec<&[u8]> {
    let line = dump.iter().position(|byte| *byte == b'\n').unwrap();
    dump = &dump[line + 1 + 16..];
    let mut packets = vec![];
    while let [high, low, ..] = dump {
        let (record, rest) = dump.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        packets.push(&record[8..]);
        dump = rest;
    }
    packets
}

/// A frame of a recording: its packets' headers and what they say.
type Frame<'a> = Vec<(Header, Peek, &'a [u8])>;

fn frames(codec: CodecName, dump: &[u8]) -> Vec<Frame<'_>> {
    let mut frames: Vec<Frame> = vec![];
    for packet in recorded(dump) {
        let header = Header::parse(packet).unwrap();
        let peek = peek(codec, header.payload(packet));
        match frames.last_mut() {
            Some(frame) if frame[0].0.timestamp == header.timestamp => frame.push((header, peek, packet)),
            _ => frames.push(vec![(header, peek, packet)]),
        }
    }
    frames
}

const LOW: &[u8] = include_bytes!("../../../tests/media/low.rtpdump");
const MEDIUM: &[u8] = include_bytes!("../../../tests/media/medium.rtpdump");
const HIGH: &[u8] = include_bytes!("../../../tests/media/high.rtpdump");
const VP9: &[u8] = include_bytes!("../../../tests/media/vp9.rtpdump");
const H264: &[u8] = include_bytes!("../../../tests/media/h264.rtpdump");
const OPUS: &[u8] = include_bytes!("../../../tests/media/opus.rtpdump");

#[test]
fn key_frames_of_recordings() {
    const EVERY_60: &[usize] = &[0, 60, 120, 180, 240];
    // x264 put some of its own where it saw the scene change.
    const SCENES: &[usize] = &[0, 28, 56, 84, 112, 140, 167, 195, 222, 249, 276];
    for (codec, dump, expected) in [
        (CodecName::Vp8, LOW, EVERY_60),
        (CodecName::Vp8, MEDIUM, EVERY_60),
        (CodecName::Vp8, HIGH, EVERY_60),
        (CodecName::Vp9, VP9, EVERY_60),
        (CodecName::H264, H264, SCENES),
    ] {
        let frames = frames(codec, dump);
        assert_eq!(frames.len(), 300);
        for (number, frame) in frames.iter().enumerate() {
            let marked: Vec<usize> = (0..frame.len()).filter(|packet| frame[*packet].1.key_frame).collect();
            let expected: &[usize] = match (expected.contains(&number), codec) {
                (true, CodecName::H264) => &[0, 1], // the parameter sets, and the first slice
                (true, _) => &[0],
                (false, _) => &[],
            };
            assert_eq!(marked, expected, "{codec:?}, frame {number}");
        }
    }
    let sound = frames(CodecName::Opus, OPUS);
    assert_eq!(sound.len(), 500);
    assert!(sound.iter().flatten().all(|(_, peek, _)| *peek == Peek::default()));
}

#[test]
fn counters_of_recordings_grow_across_their_wraps() {
    for dump in [LOW, MEDIUM, HIGH] {
        let (mut seqs, mut timestamps) = (SeqExtender::default(), TimestampExtender::default());
        let mut first = None;
        let packets = frames(CodecName::Vp8, dump)
            .into_iter()
            .enumerate()
            .flat_map(|(number, frame)| frame.into_iter().map(move |packet| (number as u64, packet)));
        for (count, (frame, (header, peek, _))) in packets.enumerate() {
            let (Arrival::First(seq) | Arrival::InOrder(seq)) = seqs.accept(header.seq) else {
                panic!("frame {frame}");
            };
            let ids = peek.vp8.unwrap();
            let (picture_id, tl0) = (ids.picture_id.unwrap().value, ids.tl0_pic_idx.unwrap().value);
            let timestamp = timestamps.extend(header.timestamp);
            let first = first.get_or_insert((seq, timestamp, picture_id, tl0));
            // 30 frames a second; every other frame is of the second temporal layer, which TL0PICIDX does not count.
            assert_eq!(seq - first.0, count as u64);
            assert_eq!(timestamp - first.1, 3_000 * frame);
            assert_eq!(u64::from(beyond::<15>(picture_id, first.2)), frame % (1 << 15));
            assert_eq!(u64::from(beyond::<8>(tl0.into(), first.3.into())), frame / 2 % (1 << 8));
        }
    }
}

#[test]
fn every_truncation_of_a_recorded_packet_is_taken() {
    for (codec, dump) in [
        (CodecName::Vp8, LOW),
        (CodecName::Vp9, VP9),
        (CodecName::H264, H264),
        (CodecName::Opus, OPUS),
    ] {
        for packet in recorded(dump).into_iter().take(20) {
            for len in 0..packet.len() {
                let parsed = Header::parse(&packet[..len]);
                assert_eq!(parsed.is_ok(), len >= 12);
                if let Ok(header) = parsed {
                    assert_eq!(usize::from(header.payload_len), len - 12);
                    peek(codec, header.payload(&packet[..len]));
                }
            }
        }
    }
}

#[test]
fn every_truncation_of_a_real_payload_is_taken() {
    for ((name, _), frames) in vectors() {
        for payload in frames.values().flatten() {
            for len in 0..payload.len() {
                // Whatever it says, it says it of the bytes that are there.
                if let Some(ids) = peek(codec(name), &payload[..len]).vp8 {
                    assert!(ids.picture_id.is_none_or(|id| usize::from(id.offset) < len));
                    assert!(ids.tl0_pic_idx.is_none_or(|tl0| usize::from(tl0.offset) < len));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_bytes_can_be_peeked_at(payload in prop::collection::vec(any::<u8>(), 0..64)) {
        for codec in VIDEO {
            let Peek { vp8, .. } = peek(codec, &payload);
            prop_assert!(vp8.is_none() || codec == CodecName::Vp8);
        }
    }

    #[test]
    fn rewritten_ids_change_themselves_and_nothing_else(
        payload in prop::collection::vec(any::<u8>(), 1..12),
        picture_id in any::<u16>(),
        tl0 in any::<u8>(),
    ) {
        let before = peek(CodecName::Vp8, &payload);
        let Some(ids) = before.vp8 else { return Ok(()) };
        let mut after = payload.clone();
        let mut expected = before;
        let mut changed = vec![];
        if let (Some(id), Some(vp8)) = (ids.picture_id, &mut expected.vp8) {
            vp8::write_picture_id(&mut after[usize::from(id.offset)..], id.wide, picture_id);
            let value = picture_id & if id.wide { 0x7fff } else { 0x7f };
            vp8.picture_id = Some(vp8::PictureId { value, ..id });
            changed.extend(usize::from(id.offset)..usize::from(id.offset) + 1 + usize::from(id.wide));
        }
        if let (Some(index), Some(vp8)) = (ids.tl0_pic_idx, &mut expected.vp8) {
            after[usize::from(index.offset)] = tl0;
            vp8.tl0_pic_idx = Some(vp8::Tl0 { value: tl0, ..index });
            changed.push(usize::from(index.offset));
        }
        prop_assert_eq!(peek(CodecName::Vp8, &after), expected);
        for (at, (before, after)) in payload.iter().zip(&after).enumerate() {
            prop_assert!(before == after || changed.contains(&at));
        }
    }
}
