//! From one producer to many consumers: who gets what, byte for byte, and in which trains.

use std::collections::BTreeMap;

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{
    Codec, CodecName, CreateConsumer, DropReason, ExtensionUri, HeaderExtension, Method, Profile, Remote,
    UnroutedReason,
};
use weir_worker::relay::limits::{BATCH_PACKETS_MAX, TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX};
use weir_worker::relay::sink::Port;

use crate::sim::random::Random;
use crate::sim::stream::Packet;
use crate::sim::track::{ABS_SEND_TIME, AUDIO_LEVEL, MID, ORIENTATION, RID, TRANSPORT_CC, Track, codec};
use crate::sim::wire::{Form, Rtp};
use crate::sim::{Sim, for_each_seed, ms, single, train};

/// A camera in a room of its own, and the transport of a receiver.
fn camera_and_receiver(sim: &mut Sim) -> (Track, TransportId) {
    let room = sim.room();
    let sender = sim.transport(room);
    let receiver = sim.transport(room);
    (sim.camera(sender, CodecName::Vp8), receiver)
}

#[test]
fn every_consumer_gets_every_packet_once_and_in_order() {
    for codec in CodecName::ALL {
        let mut sim = Sim::new(1);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.camera(sender, codec);
        let consumers: Vec<_> = (0..5)
            .map(|_| {
                let receiver = sim.transport(room);
                sim.consumer(receiver, &track)
            })
            .collect();
        sim.log.originals = Some(Default::default());
        let mut sent = Vec::new();
        for round in 0..20 {
            let frame = track.stream().frame_of(1 + round % 4, round % 10 == 0);
            sim.send(sender, &frame);
            sim.advance(ms(33));
            sent.extend(frame);
        }
        let marks: Vec<_> = sent.iter().map(|packet| packet.mark).collect();
        for consumer in consumers {
            let received = sim.received(consumer);
            assert_eq!(
                received.iter().map(|packet| packet.mark()).collect::<Vec<_>>(),
                marks,
                "{codec:?}"
            );
            sim.judge_bytes(&received, &track.request, &sim.consumers[&consumer].request);
        }
        sim.check_accounts();
    }
}

#[test]
fn rooms_know_nothing_of_each_other() {
    let mut sim = Sim::new(2);
    // The same SSRC, MID and RID in three rooms.
    let mut rooms = Vec::new();
    for _ in 0..3 {
        let room = sim.room();
        let sender = sim.transport(room);
        let track = sim.track(sender, CodecName::Vp8, &[Profile::Default], |request| {
            request.mid = Some("0".into());
            request.encodings[0].ssrc = Some(7);
            request.encodings[0].rid = Some("q".into());
        });
        let receiver = sim.transport(room);
        let consumer = sim.consumer_with(receiver, &track, |request| request.ssrc = 9);
        rooms.push((track, consumer));
    }
    for (track, _) in &mut rooms {
        let packets = track.stream().frames(4);
        sim.send(track.transport(), &packets);
    }
    for (track, consumer) in &rooms {
        let marks = sim.marks(*consumer);
        assert_eq!(marks.len(), 4);
        assert!(marks.iter().all(|mark| mark.stream == track.streams[0].number));
    }
    // What arrives on one room's transport does not reach another room's producer.
    let stranger = rooms[0].0.stream().delta_frame(1);
    let other = rooms[1].0.transport();
    let source = sim.addresses[&rooms[0].0.transport()];
    sim.deliver(other, Port::Rtp, &[single(source, &stranger[0].bytes)]);
    assert_eq!(sim.unrouted(other, UnroutedReason::ForeignSource), 1);
    for (_, consumer) in &rooms {
        assert_eq!(sim.marks(*consumer), []);
    }
    sim.check_accounts();
}

/// Consumers of one producer that call everything otherwise: in-place patches of one must not show in another.
#[test]
fn payload_types_and_extension_ids_are_each_consumers_own() {
    for_each_seed(20, |seed| {
        let mut sim = Sim::new(seed);
        let mut random = Random::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let two_codecs = |payload_type| Codec {
            payload_type,
            ..codec(CodecName::Vp8)
        };
        let mut track = sim.track(sender, CodecName::Vp8, &[Profile::Default], |request| {
            request.codecs = vec![two_codecs(96), two_codecs(120)];
        });
        let relayed = [
            ExtensionUri::AudioLevel,
            ExtensionUri::AbsSendTime,
            ExtensionUri::VideoOrientation,
        ];
        let mut consumers = Vec::new();
        for _ in 0..8 {
            // Any ids, in any order, some extensions unknown; those that are never relayed are asked for too.
            let mut ids: Vec<u8> = (1..=14).collect();
            random.shuffle(&mut ids);
            let mut extensions: Vec<_> = relayed
                .into_iter()
                .chain([
                    ExtensionUri::Mid,
                    ExtensionUri::TransportWideCc,
                    ExtensionUri::PlayoutDelay,
                ])
                .map(|uri| HeaderExtension {
                    id: ids.pop().expect("14 are enough"),
                    uri,
                })
                .collect();
            extensions.truncate(random.range(0..7));
            if random.chance(300) {
                extensions = track.request.header_extensions.clone();
            }
            let own = random.pick(&[(96, 120), (97, 96), (33, 34)]);
            let receiver = sim.transport(room);
            consumers.push(sim.consumer_with(receiver, &track, |request| {
                request.payload_types = vec![(96, own.0), (120, own.1)];
                request.header_extensions = extensions;
            }));
        }
        sim.log.originals = Some(Default::default());
        for round in 0..30 {
            let stream = track.stream();
            stream.form = random.pick(&[Form::OneByte, Form::TwoByte]);
            stream.payload_type = random.pick(&[96, 120]);
            stream.picture_id_bits = random.pick(&[15, 15, 7, 0]);
            let all: [(u8, Vec<u8>); 8] = [
                (MID, b"0".to_vec()),
                (TRANSPORT_CC, vec![1, 2]),
                (AUDIO_LEVEL, vec![0x91]),
                (RID, b"q".to_vec()),
                (ABS_SEND_TIME, vec![3, 4, 5]),
                (13, vec![7; 5]),
                (ORIENTATION, vec![1]),
                (14, vec![8; 16]),
            ];
            stream.extensions = all.into_iter().filter(|_| random.chance(700)).collect();
            random.shuffle(&mut stream.extensions);
            // With another width, the picture ids start anew: so does the flow of every consumer, on a key frame.
            let frame = stream.frame_of(1 + round % 5, round % 3 == 0);
            if random.chance(500) {
                sim.send_train(sender, &frame);
            } else {
                sim.send(sender, &frame);
            }
        }
        for consumer in consumers {
            let received = sim.received(consumer);
            assert!(!received.is_empty());
            sim.judge_bytes(&received, &track.request, &sim.consumers[&consumer].request);
        }
        sim.check_accounts();
    });
}

#[test]
fn nothing_the_relay_does_not_know_is_readable_behind_it() {
    let mut sim = Sim::new(3);
    let (mut track, receiver) = camera_and_receiver(&mut sim);
    let consumer = sim.consumer(receiver, &track);
    let sender = track.transport();
    let plain = track.stream().key_frame(1).remove(0);
    let header = |profile: u16, block: &[u8]| {
        let mut bytes = plain.bytes.clone();
        bytes[0] |= 0x10;
        let mut extension = profile.to_be_bytes().to_vec();
        extension.extend((block.len() as u16 / 4).to_be_bytes());
        extension.extend(block);
        bytes.splice(12..12, extension);
        bytes
    };
    let secret = *b"mid0";
    let cases: [(u16, Vec<u8>, Vec<u8>); 4] = [
        // One-byte form: id 15 ends the walk (RFC 8285 §4.2); what stands behind it is not the relay's to pass on.
        (
            0xbede,
            [vec![ABS_SEND_TIME << 4 | 2, 1, 2, 3, 0xf0, 0], secret[..2].to_vec()].concat(),
            // And the time of sending is the relay's.
            [
                vec![ABS_SEND_TIME << 4 | 2],
                crate::sim::wire::send_time(sim.now).to_vec(),
                vec![0; 4],
            ]
            .concat(),
        ),
        // An element that runs past the block.
        (0xbede, vec![ABS_SEND_TIME << 4 | 15, 1, 2, 3], vec![0; 4]),
        // Two-byte form: ids that nobody declared; an element without a value.
        (0x1000, vec![200, 2, 1, 2, ORIENTATION, 1, 9, 250, 0, 0, 0, 0], {
            vec![0, 0, 0, 0, ORIENTATION, 1, 9, 0, 0, 0, 0, 0]
        }),
        // A length that is cut off.
        (0x1003, vec![ORIENTATION, 1, 9, ORIENTATION], vec![ORIENTATION, 1, 9, 0]),
    ];
    // Not RFC 8285 at all.
    sim.send_bytes(sender, &header(0xabac, &secret.repeat(3)));
    let train = sim.trains().pop().expect("it is relayed");
    let bytes = &train.packets[0];
    assert_eq!((bytes[0], bytes.len()), (plain.bytes[0], plain.bytes.len()));
    assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    let mut seq = u16::from_be_bytes([plain.bytes[2], plain.bytes[3]]).wrapping_add(1);
    for (profile, block, expected) in cases {
        let mut bytes = header(profile, &block);
        bytes[2..4].copy_from_slice(&seq.to_be_bytes());
        seq = seq.wrapping_add(1);
        sim.send_bytes(sender, &bytes);
        let train = sim.trains().pop().expect("it is relayed");
        assert_eq!(
            &train.packets[0][16..16 + block.len()],
            expected,
            "block {block:02x?} of profile {profile:#06x}"
        );
        assert_eq!(train.packets[0].len(), bytes.len());
    }
    assert_eq!(sim.stats(consumer).packets_forwarded, 5);
}

#[test]
fn csrcs_and_padding_come_through() {
    let mut sim = Sim::new(4);
    let (mut track, receiver) = camera_and_receiver(&mut sim);
    let consumer = sim.consumer(receiver, &track);
    let plain = track.stream().key_frame(1).remove(0);
    let rtp = Rtp {
        csrcs: vec![1, 2, 3],
        padding: 9,
        ..Rtp::read(&plain.bytes)
    };
    sim.send_bytes(track.transport(), &rtp.write());
    let received = sim.received(consumer);
    assert_eq!(received[0].rtp.csrcs, [1, 2, 3]);
    assert_eq!(received[0].rtp.padding, 9);
    assert_eq!(received[0].mark(), plain.mark);
}

#[test]
fn a_train_that_arrives_as_one_leaves_as_one_for_each_consumer() {
    let mut sim = Sim::new(5);
    let (mut track, receiver) = camera_and_receiver(&mut sim);
    let room = track.request.room;
    let other = sim.transport(room);
    let consumers = [sim.consumer(receiver, &track), sim.consumer(other, &track)];
    for count in [1, 2, 8, 63, 64] {
        let frame = track.stream().key_frame(count);
        sim.send_train(track.transport(), &frame);
        let trains = sim.trains();
        assert_eq!(trains.len(), consumers.len());
        for train in trains {
            assert_eq!(train.packets.len(), count);
            assert_eq!(train.segment, frame[0].bytes.len());
            assert_eq!(train.packets[count - 1].len(), frame[count - 1].bytes.len());
        }
    }
}

/// The sizes of the packets of each train.
fn sizes(sim: &mut Sim) -> Vec<Vec<usize>> {
    let trains = sim.trains();
    trains
        .iter()
        .map(|train| train.packets.iter().map(Vec::len).collect())
        .collect()
}

/// Packets of one frame each, of these lengths in all.
fn packets_of(track: &mut Track, lens: &[usize]) -> Vec<Packet> {
    let stream = track.stream();
    lens.iter()
        .enumerate()
        .map(|(index, len)| {
            stream.payload_len = len - 12;
            stream.frame_of(1, index == 0).remove(0)
        })
        .collect()
}

#[test]
fn packets_that_arrive_apart_leave_in_trains_of_equal_sizes() {
    let mut sim = Sim::new(6);
    let (mut track, receiver) = camera_and_receiver(&mut sim);
    sim.consumer(receiver, &track);
    let sender = track.transport();
    let cases: [(&[usize], &[&[usize]]); 6] = [
        (&[200, 200, 200], &[&[200, 200, 200]]),
        (&[200, 200, 150], &[&[200, 200, 150]]),
        (&[200, 200, 150, 150], &[&[200, 200, 150], &[150]]),
        (&[150, 200, 200], &[&[150], &[200, 200]]),
        (&[200, 150, 200], &[&[200, 150], &[200]]),
        // A little shorter is made equal; see `equal_sizes.rs`.
        (&[200, 199, 198], &[&[200, 200, 198]]),
    ];
    for (arriving, leaving) in cases {
        let packets = packets_of(&mut track, arriving);
        sim.send(sender, &packets);
        assert_eq!(sizes(&mut sim), leaving, "{arriving:?}");
    }
}

#[test]
fn trains_and_single_packets_of_one_batch_join() {
    let mut sim = Sim::new(7);
    let (mut track, receiver) = camera_and_receiver(&mut sim);
    let consumer = sim.consumer(receiver, &track);
    let sender = track.transport();
    let source = sim.addresses[&sender];
    let packets = packets_of(&mut track, &[300; 8]);
    let arrivals = [
        train(source, &packets[..3]),
        single(source, &packets[3].bytes),
        train(source, &packets[4..]),
    ];
    sim.deliver(sender, Port::Rtp, &arrivals);
    assert_eq!(sim.sink.trains.len(), 1);
    let marks: Vec<_> = packets.iter().map(|packet| packet.mark).collect();
    assert_eq!(sim.marks(consumer), marks);
}

#[test]
fn a_train_is_never_longer_than_the_kernel_takes() {
    let mut sim = Sim::new(8);
    let (mut track, receiver) = camera_and_receiver(&mut sim);
    let consumer = sim.consumer(receiver, &track);
    let sender = track.transport();
    // Too many packets.
    let packets = packets_of(&mut track, &[100; 150]);
    sim.send(sender, &packets);
    assert_eq!(sim.marks(consumer).len(), 150);
    assert_eq!(
        sim.trains().iter().map(|train| train.packets.len()).collect::<Vec<_>>(),
        [TRAIN_PACKETS_MAX, TRAIN_PACKETS_MAX, 150 - 2 * TRAIN_PACKETS_MAX]
    );
    // Too many bytes: 46 × 1,400 fit, 47 do not.
    let packets = packets_of(&mut track, &[1_400; 60]);
    sim.send(sender, &packets);
    let fitting = TRAIN_BYTES_MAX / 1_400;
    assert_eq!(
        sim.trains().iter().map(|train| train.packets.len()).collect::<Vec<_>>(),
        [fitting, 60 - fitting]
    );
    // More packets than are looked at in one go.
    let packets = packets_of(&mut track, &[90; BATCH_PACKETS_MAX + 100]);
    let marks: Vec<_> = packets.iter().map(|packet| packet.mark).collect();
    sim.send(sender, &packets);
    assert_eq!(sim.marks(consumer), marks);
    sim.check_accounts();
}

#[test]
fn the_largest_packet_is_relayed_and_a_larger_one_counted() {
    let mut sim = Sim::new(9);
    let (mut track, receiver) = camera_and_receiver(&mut sim);
    let consumer = sim.consumer(receiver, &track);
    let sender = track.transport();
    let packets = packets_of(&mut track, &[TRAIN_BYTES_MAX, TRAIN_BYTES_MAX]);
    sim.send(sender, &packets);
    assert_eq!(sizes(&mut sim), [[TRAIN_BYTES_MAX], [TRAIN_BYTES_MAX]]);
    // IPv6 has room for 20 bytes more, which could not leave over IPv4.
    for len in [TRAIN_BYTES_MAX + 1, TRAIN_BYTES_MAX + 20, 65_535] {
        let packet = packets_of(&mut track, &[len]).remove(0);
        sim.send(sender, &[packet]);
    }
    assert_eq!(sim.trains(), []);
    assert_eq!(sim.unrouted(sender, UnroutedReason::TooLong), 3);
    assert_eq!(sim.stats(consumer).packets_in, 2);
}

#[test]
fn streams_that_arrive_interleaved_leave_as_one_train_each() {
    let mut sim = Sim::new(10);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut tracks: Vec<_> = (0..3).map(|_| sim.camera(sender, CodecName::Vp8)).collect();
    let consumers: Vec<_> = tracks
        .iter()
        .map(|track| {
            let receiver = sim.transport(room);
            sim.consumer(receiver, track)
        })
        .collect();
    let frames: Vec<_> = tracks.iter_mut().map(|track| packets_of(track, &[250; 6])).collect();
    let interleaved: Vec<_> = (0..6)
        .flat_map(|index| frames.iter().map(move |frame| frame[index].clone()))
        .collect();
    sim.send(sender, &interleaved);
    assert_eq!(sim.sink.trains.len(), 3);
    for (consumer, frame) in consumers.into_iter().zip(frames) {
        let marks: Vec<_> = frame.iter().map(|packet| packet.mark).collect();
        assert_eq!(sim.marks(consumer), marks, "order within a stream");
    }
}

#[test]
fn a_packet_that_is_not_forwarded_splits_its_train() {
    let mut sim = Sim::new(11);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Opus, &[Profile::Default], |request| {
        request.codecs.push(codec(CodecName::Pcmu));
    });
    let receiver = sim.transport(room);
    let consumer = sim.consumer_with(receiver, &track, |request| request.payload_types = vec![(111, 111)]);
    let packets: Vec<_> = (0..8)
        .map(|index| {
            track.stream().payload_type = if index == 3 || index == 4 { 0 } else { 111 };
            track.stream().sound()
        })
        .collect();
    sim.send_train(sender, &packets);
    assert_eq!(
        sim.trains().iter().map(|train| train.packets.len()).collect::<Vec<_>>(),
        [3, 3]
    );
    assert_eq!(sim.dropped(consumer, DropReason::UnsupportedPayloadType), 2);
}

#[test]
fn a_flow_starts_in_the_middle_of_a_train() {
    let mut sim = Sim::new(12);
    let (mut track, receiver) = camera_and_receiver(&mut sim);
    let consumer = sim.consumer(receiver, &track);
    let mut packets = track.stream().delta_frame(1);
    packets.extend(track.stream().delta_frame(1));
    packets.extend(track.stream().key_frame(1));
    packets.extend(track.stream().delta_frame(1));
    sim.send_train(track.transport(), &packets);
    let marks: Vec<_> = packets[2..].iter().map(|packet| packet.mark).collect();
    assert_eq!(sim.marks(consumer), marks);
    assert_eq!(sim.sink.trains.len(), 1);
    assert_eq!(sim.dropped(consumer, DropReason::AwaitingKeyFrame), 2);
    assert_eq!(sim.changes(), [(consumer, Some(Profile::Default))]);
}

#[test]
fn several_consumers_of_a_transport_are_gathered_a_lone_one_is_not() {
    let mut sim = Sim::new(13);
    let (mut track, receiver) = camera_and_receiver(&mut sim);
    let sender = track.transport();
    let room = track.request.room;
    let lone = sim.transport(room);
    sim.consumer(lone, &track);
    let mut shared = Vec::new();
    let pattern = sim.consumers.values().next().expect("the lone one").request.clone();
    let mut gathered = |sim: &mut Sim| {
        let frame = track.stream().key_frame(1);
        sim.send(sender, &frame);
        let (lone_index, shared_index) = (sim.index(lone), sim.index(receiver));
        let mut ways: BTreeMap<_, Vec<bool>> = BTreeMap::new();
        for train in sim.trains() {
            ways.entry(train.transport).or_default().push(train.gathered);
        }
        assert_eq!(ways[&lone_index], [false]);
        ways.remove(&shared_index).unwrap_or_default()
    };
    for count in 1..=4 {
        let id = sim.id();
        let request = CreateConsumer {
            consumer: ConsumerId(id),
            ssrc: 0x2000_0000 + id as u32,
            transport: receiver,
            ..pattern.clone()
        };
        sim.command(Method::CreateConsumer(request.clone()));
        shared.push(sim.know_consumer(request));
        assert_eq!(gathered(&mut sim), vec![count > 1; count]);
    }
    // In an order in which first, middle and last leave.
    for place in [1, 0, 1] {
        let consumer = shared.remove(place);
        sim.command(Method::CloseConsumer { consumer });
        sim.consumers.remove(&consumer);
        assert_eq!(gathered(&mut sim), vec![shared.len() > 1; shared.len()]);
    }
}

#[test]
fn a_consumer_on_its_producers_own_transport_gets_it_back() {
    let mut sim = Sim::new(14);
    let room = sim.room();
    let transport = sim.transport(room);
    let mut track = sim.microphone(transport);
    let consumer = sim.consumer(transport, &track);
    let packets: Vec<_> = (0..10).map(|_| track.stream().sound()).collect();
    sim.send(transport, &packets);
    assert_eq!(sim.marks(consumer).len(), 10);
}

#[test]
fn without_a_remote_nothing_leaves_and_everything_is_counted() {
    let mut sim = Sim::new(15);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let receiver = sim.unconnected_transport(room);
    let consumer = sim.consumer(receiver, &track);
    let packets: Vec<_> = (0..10).map(|_| track.stream().sound()).collect();
    sim.send(sender, &packets[..5]);
    assert_eq!(sim.marks(consumer), []);
    assert_eq!(sim.dropped(consumer, DropReason::NoRemote), 5);
    let rtp = sim.addresses[&receiver];
    sim.command(Method::SetRemote {
        transport: receiver,
        remote: Remote { rtp, rtcp: None },
    });
    sim.send(sender, &packets[5..]);
    assert_eq!(sim.marks(consumer).len(), 5);
    sim.check_accounts();
}
