//! Descriptors that call every frame a key frame: nobody starts on what shows nothing, and the sender is asked for more.

use weir_channel::message::{CodecName, DropReason};

use crate::sim::track::Track;
use crate::sim::{Sim, ms};

/// Where the payload begins, behind a header without extensions.
const PAYLOAD: usize = 12;
const VP9_P: u8 = 0x40;
/// An aggregation header with N for two OBU elements, the first of which is a temporal delimiter.
const AV1_NEW_SEQUENCE: [u8; 3] = [0x28, 1, 0x10];

/// A frame of two packets, and 100 ms.
fn send(sim: &mut Sim, track: &mut Track, key: bool) {
    let mut frame = track.stream().frame_of(2, key);
    if track.stream().codec == CodecName::Vp9 {
        frame.iter_mut().for_each(|packet| packet.bytes[PAYLOAD] &= !VP9_P);
    } else {
        frame[0].bytes.splice(PAYLOAD..=PAYLOAD, AV1_NEW_SEQUENCE);
    }
    sim.send(track.transport(), &frame);
    sim.advance(ms(100));
}

/// VP9 without P (RFC 9628 §4.2), as several packetizers write it, and AV1 with N and a temporal delimiter in every frame (RTP payload format for AV1 §4.4, §5):
/// the frame's own header (VP9 bitstream §6.2) and the sequence header say what a decoder can start with.
#[test]
fn nobody_starts_on_what_only_the_descriptor_calls_a_key_frame() {
    for codec in [CodecName::Vp9, CodecName::Av1] {
        let mut sim = Sim::new(1);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.camera(sender, codec);
        send(&mut sim, &mut track, true);
        // Somebody joins in the middle.
        let receiver = sim.transport(room);
        let consumer = sim.consumer(receiver, &track);
        for _ in 0..25 {
            send(&mut sim, &mut track, false);
        }
        assert_eq!(sim.marks(consumer), [], "{codec:?}");
        assert_eq!(sim.dropped(consumer, DropReason::AwaitingKeyFrame), 50);
        assert_eq!(sim.asked().len(), 3, "at once, and after a second and two");
        send(&mut sim, &mut track, true);
        send(&mut sim, &mut track, false);
        let marks = sim.marks(consumer);
        assert!(
            marks[0].key && marks[0].first && marks.len() == 4,
            "{codec:?}: {marks:?}"
        );
        sim.advance(ms(10_000));
        assert_eq!(sim.asked(), []);
        assert_eq!(sim.producer_stats(track.id()).streams[0].key_frames, 2);
        sim.check_accounts();
    }
}
