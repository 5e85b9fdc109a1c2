//! Picture ids in whatever width a VP8 sender writes them (RFC 7741 §4.2: 7 or 15 bits, or none): many write those below 128 in 7
//! bits, some leave 0 out, and so again after each wrap of the 15 bits; others never write but 7. Consumers see one number for
//! each frame, in 15 bits, that goes up by one.

use weir_channel::id::ConsumerId;
use weir_channel::message::{CodecName, Profile};

use crate::sim::live::Live;
use crate::sim::network::Network;
use crate::sim::random::Random;
use crate::sim::repair::{Call, Link};
use crate::sim::stream::{WIDENING, WIDENING_FROM_NONE};
use crate::sim::track::Track;
use crate::sim::wire::vp8_ids;
use crate::sim::{Sim, for_each_seed, ms};

const WRITERS: [u32; 4] = [WIDENING, WIDENING_FROM_NONE, 7, 15];

/// A VP8 camera whose next frame has this id, written so, and a consumer of it.
fn camera(sim: &mut Sim, writer: u32, picture_id: u64) -> (Track, ConsumerId) {
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    track.stream().picture_id_bits = writer;
    track.stream().picture_id = picture_id;
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    (track, consumer)
}

/// None → 7 bits → 15 bits → 32,767 → 0, and once more: not read by the simulator's judge alone, but here, too.
#[test]
fn they_go_up_by_one_over_the_whole_cycle() {
    for writer in WRITERS {
        let mut sim = Sim::new(1);
        let (mut track, consumer) = camera(&mut sim, writer, 1 << 15);
        let (mut last, mut frames) = (None, 0_u16);
        while frames < 33_000 {
            let packets: Vec<_> = (0..20)
                .flat_map(|_| {
                    let key = track.stream().frame == 0;
                    track.stream().frame_of(2, key)
                })
                .collect();
            sim.send(track.transport(), &packets);
            for packet in sim.received(consumer).iter().step_by(2) {
                frames += 1;
                let Some((id, bits)) = vp8_ids(&packet.rtp.payload).0 else {
                    assert_eq!(writer, WIDENING_FROM_NONE);
                    continue;
                };
                assert_eq!(bits, 15);
                if let Some((last_id, last_frame)) = last.replace((id, frames)) {
                    assert_eq!(
                        id.wrapping_sub(last_id) & 0x7fff,
                        frames - last_frame,
                        "writer {writer}, frame {frames}"
                    );
                }
            }
            sim.advance(ms(10));
        }
        sim.check_accounts();
    }
}

/// With loss, reordering, pauses, at any place of the cycle; judged number by number.
#[test]
fn they_go_up_with_the_frames_over_a_bad_network() {
    for writer in WRITERS {
        for_each_seed(4, |seed| {
            let mut sim = Sim::new(seed);
            let mut random = Random::new(seed);
            let near = random.pick(&[1 << 15, (1 << 15) + 128, 2 << 15]);
            let (track, consumer) = camera(&mut sim, writer, near - random.range(1..100) as u64);
            let mut live = Live::new(sim);
            live.start(track, Network::BAD);
            for _ in 0..4 {
                live.run(ms(random.range(500..3_000) as u64));
                live.sim.pause(consumer);
                live.run(ms(random.range(1..500) as u64));
                live.sim.resume(consumer);
            }
            live.run(ms(2_000));
            live.sim.check_accounts();
            assert!(live.sim.judge(consumer, CodecName::Vp8).len() > 2);
        });
    }
}

/// The second byte is there in trains as in single packets, in what is mixed with wide ids, behind header extensions, and all else
/// is as it was.
#[test]
fn nothing_else_changes_and_trains_stay_trains() {
    for writer in WRITERS {
        let mut sim = Sim::new(3);
        let (mut track, consumer) = camera(&mut sim, writer, (1 << 15) + 110);
        sim.log.originals = Some(Default::default());
        for frame in 0..40 {
            // Twenty packets of equal size but for the last.
            let packets = track.stream().frame_of(20, frame == 0);
            if frame % 2 == 0 {
                sim.send_train(track.transport(), &packets);
            } else {
                sim.send(track.transport(), &packets);
            }
            let trains = sim.sink.trains.len();
            assert_eq!(trains, frame + 1, "one message each");
        }
        // Frames of both widths in one batch.
        let packets: Vec<_> = (0..3).flat_map(|_| track.stream().frame_of(3, false)).collect();
        sim.send(track.transport(), &packets);
        let received = sim.received(consumer);
        assert_eq!(received.len(), 809);
        sim.judge_bytes(&received, &track.request, &sim.consumers[&consumer].request);
        let octets: usize = received.iter().map(|packet| packet.bytes.len()).sum();
        assert_eq!(sim.stats(consumer).bytes_forwarded, octets as u64);
    }
}

/// As many packets as a train carries, and so long that with their second bytes they are too long for one.
#[test]
fn trains_have_room_for_what_grows() {
    let mut sim = Sim::new(7);
    let (mut track, consumer) = camera(&mut sim, 7, 0);
    sim.log.originals = Some(Default::default());
    track.stream().payload_len = 1_023 - 12;
    for frame in 0..3 {
        let packets: Vec<_> = (0..64)
            .flat_map(|index| track.stream().frame_of(1, frame + index == 0))
            .collect();
        sim.send_train(track.transport(), &packets);
    }
    assert!(sim.sink.trains.iter().all(|train| train.segment == 1_024));
    let packets: Vec<_> = sim.sink.trains.iter().map(|train| train.packets.len()).collect();
    assert_eq!(packets, [63, 1, 63, 1, 63, 1]);
    let received = sim.received(consumer);
    sim.judge_bytes(&received, &track.request, &sim.consumers[&consumer].request);
}

/// What is sent again is what was sent.
#[test]
fn repairs_are_as_wide() {
    for (writer, rtx) in [(WIDENING, true), (WIDENING_FROM_NONE, false), (7, true)] {
        let mut call = Call::new(4, &[Profile::Default], 2, rtx, [Link::random(50); 4]);
        call.track.streams[0].picture_id_bits = writer;
        call.track.streams[0].picture_id = (1 << 15) + 1;
        call.run(ms(20_000));
        for receiver in 0..2 {
            assert!(call.receivers[receiver].repaired > 50);
            call.judge(receiver);
        }
        call.sim.check_accounts();
    }
}

/// A flow that starts where there are no ids yet goes on when they come, and so does the next one.
#[test]
fn ids_that_begin_in_the_middle_go_on_at_the_next_start() {
    for bits in [7, 15] {
        let mut sim = Sim::new(5);
        let (mut track, consumer) = camera(&mut sim, 15, 20_000);
        let send = |sim: &mut Sim, track: &mut Track, frames: usize, bits| {
            track.stream().picture_id_bits = bits;
            let packets = track.stream().frames(frames);
            sim.send(track.transport(), &packets);
            sim.advance(ms(33));
        };
        send(&mut sim, &mut track, 5, 15);
        // Another source of the same camera, without ids; then with others.
        sim.pause(consumer);
        sim.resume(consumer);
        send(&mut sim, &mut track, 5, 0);
        track.stream().picture_id = 77;
        send(&mut sim, &mut track, 5, bits);
        sim.pause(consumer);
        sim.resume(consumer);
        send(&mut sim, &mut track, 5, bits);
        let received = sim.received(consumer);
        let ids: Vec<_> = received
            .iter()
            .filter_map(|packet| vp8_ids(&packet.rtp.payload).0)
            .map(|(id, _)| id)
            .collect();
        assert_eq!((received.len(), ids.len()), (20, 15));
        let (with_ids, last) = (&ids[..14], &ids[1..]);
        let steps: Vec<_> = with_ids
            .iter()
            .zip(last)
            .map(|(id, next)| (next - id) & 0x7fff)
            .collect();
        assert_eq!(steps[..4], [1; 4]);
        assert_eq!(steps[5..], [1; 9], "{ids:?}");
    }
}

/// UDP over IPv4 carries 65,507 bytes, and a packet that has them all cannot grow.
#[test]
fn a_packet_of_all_the_bytes_there_are_keeps_its_width() {
    for (len, bits) in [(65_506, 15), (65_507, 7)] {
        let mut sim = Sim::new(6);
        let (mut track, consumer) = camera(&mut sim, 7, 100);
        track.stream().payload_len = len - 12;
        let packet = track.stream().key_frame(1);
        assert_eq!(packet[0].bytes.len(), len);
        sim.send(track.transport(), &packet);
        let received = sim.received(consumer);
        assert_eq!(received[0].bytes.len(), 65_507);
        assert_eq!(vp8_ids(&received[0].rtp.payload).0.map(|id| id.1), Some(bits));
    }
}
