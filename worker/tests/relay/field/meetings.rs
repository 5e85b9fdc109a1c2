//! Where several kinds meet: slow pictures in many packets, error correction between pictures, kept groups with stragglers and
//! with consumers of different codecs. Each of these was once right by itself and wrong together.

use weir_channel::message::{CodecName, DropReason, Method, Notification, Profile};

use crate::sim::stream::Stream;
use crate::sim::track::{Track, codec};
use crate::sim::wire::Rtp;
use crate::sim::{Sim, ms};

/// Error correction for the frame that was made last, under a payload type of its own.
fn correction(track: &mut Track) -> Vec<u8> {
    let stream = track.stream();
    let packet = Rtp {
        marker: false,
        payload_type: 116,
        seq: stream.seq as u16,
        timestamp: (stream.timestamp - stream.step) as u32,
        ssrc: stream.ssrc,
        csrcs: Vec::new(),
        extensions: None,
        payload: vec![7; 120],
        padding: 0,
    };
    stream.seq += 1;
    packet.write()
}

/// Layers of 12 packets a picture, 30 ms apart, a picture in 1.3 s.
#[test]
fn layers_of_slow_cadence_and_large_pictures_do_not_flap() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, &[Profile::Low, Profile::High], |_| {});
    let transport = sim.transport(room);
    let consumer = sim.consumer(transport, &track);
    sim.advance(ms(235));
    for round in 0..120 {
        let frame = track.layer(Profile::Low).frame_of(12, round == 0);
        sim.send(sender, &frame);
        sim.advance(ms(30));
        let frame = track.layer(Profile::High).frame_of(12, round == 0);
        sim.send(sender, &frame);
        sim.advance(ms(1_270));
    }
    let stats = sim.stats(consumer);
    assert!(
        stats.switches <= 2
            && stats
                .dropped
                .iter()
                .all(|(reason, _)| *reason == DropReason::OtherProfile),
        "{stats:?}"
    );
}

/// One picture in two seconds, in twelve packets.
#[test]
fn a_slow_screen_of_large_pictures_is_not_told_of_again_and_again() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    let transport = sim.transport(room);
    sim.consumer(transport, &track);
    let mut told = 0;
    for round in 0..30 {
        let frame = track.stream().frame_of(12, round == 0);
        sim.send(sender, &frame);
        sim.advance(ms(2_000));
        told += sim
            .told()
            .into_iter()
            .filter(|n| matches!(n, Notification::ProducerActivityChanged { .. }))
            .count();
    }
    assert!(told <= 2, "{told}");
}

/// Error correction between pictures, a viewer without it and without NACK.
#[test]
fn error_correction_between_pictures_hides_no_parameter_sets() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::H264, &[Profile::Default], |request| {
        request.codecs.push(codec(CodecName::VideoCompanion));
    });
    sim.send(sender, &track.stream().key_frame(3));
    let transport = sim.transport(room);
    let consumer = sim.consumer_with(transport, &track, |request| {
        request.payload_types.retain(|(source, _)| *source != 116);
    });
    for round in 0..100 {
        let frame = track.stream().frame_of(4, round % 10 == 9);
        sim.send(sender, &frame);
        let fec = correction(&mut track);
        sim.send_bytes(sender, &fec);
        sim.advance(ms(33));
    }
    assert!(!sim.received(consumer).is_empty(), "{:?}", sim.stats(consumer));
}

/// A packet of the group before comes behind the key frame of a group that is kept.
#[test]
fn a_straggler_of_the_group_before_is_no_part_of_the_one_that_is_kept() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    let mut first = None;
    let mut straggler = Vec::new();
    for frames in 0..510 {
        if frames == 25 {
            let transport = sim.transport(room);
            first = Some(sim.consumer(transport, &track));
        }
        let frame = track.stream().frame_of(3, frames % 250 == 0);
        if frames == 499 {
            straggler = frame[2..].to_vec();
            sim.send(sender, &frame[..2]);
        } else {
            sim.send(sender, &frame);
        }
        if frames == 500 {
            sim.send(sender, &straggler);
        }
        sim.advance(ms(40));
    }
    let first = first.expect("somebody joined early");
    sim.received(first);
    let transport = sim.transport(room);
    let late = sim.consumer(transport, &track);
    let frame = track.stream().frame_of(3, false);
    sim.send(sender, &frame);
    sim.advance(ms(500));
    let received = sim.received(late);
    assert!(!received.is_empty());
    let keys: Vec<_> = received
        .iter()
        .take(4)
        .map(|p| (p.rtp.seq, p.mark().key, p.mark().frame))
        .collect();
    let lowest = received.iter().map(|p| p.rtp.seq).min();
    assert_eq!(lowest, Some(received[0].rtp.seq), "{keys:?}");
}

/// Picture ids that go back by as much as they can, packet for packet.
#[test]
fn picture_ids_that_go_back_without_end_harm_nobody() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    let transport = sim.transport(room);
    let consumer = sim.consumer(transport, &track);
    // The first one out has 2^32 + 1; back to -1.
    let mut rest: u64 = (1 << 32) + 2;
    let mut id: u64 = 5;
    let packet = |stream: &mut Stream, id: u64, key: bool| {
        let mut payload = vec![
            0x90,
            0x80,
            0x80 | (id >> 8 & 0x7f) as u8,
            id as u8,
            if key { 0x10 } else { 0x11 },
        ];
        payload.extend([0; 20]);
        let packet = Rtp {
            marker: true,
            payload_type: stream.payload_type,
            seq: stream.seq as u16,
            timestamp: stream.timestamp as u32,
            ssrc: stream.ssrc,
            csrcs: Vec::new(),
            extensions: None,
            payload,
            padding: 0,
        };
        stream.seq += 1;
        stream.timestamp += 30;
        packet.write()
    };
    let bytes = packet(track.stream(), id, true);
    sim.send_bytes(sender, &bytes);
    let mut count = 0u64;
    while rest > 0 {
        let step = rest.min(16_384);
        rest -= step;
        id = id.wrapping_sub(step) & 0x7fff;
        let bytes = packet(track.stream(), id, false);
        sim.send_bytes(sender, &bytes);
        count += 1;
        if count.is_multiple_of(1_000) {
            sim.advance(ms(10));
            sim.sink = Default::default();
        }
    }
    sim.pause(consumer);
    sim.resume(consumer);
    let before = sim.stats(consumer).packets_forwarded;
    let bytes = packet(track.stream(), id, true);
    sim.send_bytes(sender, &bytes);
    assert_eq!(sim.stats(consumer).packets_forwarded, before + 1);
}

/// A slot that is taken over by somebody who lacks other codecs, while a group is kept.
#[test]
fn a_kept_group_is_not_counted_by_what_others_lacked() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, &[Profile::Default], |request| {
        request.codecs.push(codec(CodecName::VideoCompanion));
        let mut other = codec(CodecName::VideoCompanion);
        other.payload_type = 117;
        request.codecs.push(other);
    });
    let transport = sim.transport(room);
    let run = |sim: &mut Sim, track: &mut Track, from: u32, to: u32| {
        for frames in from..to {
            let frame = track.stream().frame_of(3, frames % 250 == 0);
            sim.send(sender, &frame);
            let fec = correction(track);
            sim.send_bytes(sender, &fec);
            sim.advance(ms(40));
        }
    };
    run(&mut sim, &mut track, 0, 25);
    let none = sim.consumer_with(transport, &track, |request| {
        request.payload_types.retain(|(source, _)| *source == 96);
    });
    run(&mut sim, &mut track, 25, 550);
    sim.received(none);
    sim.command(Method::CloseConsumer { consumer: none });
    sim.consumers.remove(&none);
    let transport = sim.transport(room);
    let late = sim.consumer_with(transport, &track, |request| {
        request.payload_types.retain(|(source, _)| *source != 117);
    });
    run(&mut sim, &mut track, 550, 580);
    let received = sim.received(late);
    assert!(!received.is_empty());
    let mut seqs: Vec<_> = received.iter().map(|p| p.rtp.seq).collect();
    seqs.sort_unstable();
    let count = seqs.len();
    seqs.dedup();
    assert_eq!(seqs.len(), count, "numbers used twice");
}

/// How often the sender of a camera of this codec is asked for one packet that was lost.
fn requests_for_a_lost_packet(codec: CodecName) -> u64 {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, codec, &[Profile::Default], |request| {
        request.codecs[0].nack = true;
    });
    let transport = sim.transport(room);
    sim.consumer(transport, &track);
    for round in 0..40 {
        let mut frame = track.stream().frame_of(6, round == 0);
        if round == 10 {
            frame.remove(2);
        }
        sim.send(sender, &frame);
        sim.advance(ms(33));
    }
    sim.producer_stats(track.id()).streams[0].nack_count
}

/// Opaque video whose sender sends again.
#[test]
fn opaque_video_is_asked_for_like_any_other() {
    let expected = requests_for_a_lost_packet(CodecName::Vp8);
    assert!(expected > 1, "{expected}");
    assert_eq!(requests_for_a_lost_packet(CodecName::OtherVideo), expected);
}
