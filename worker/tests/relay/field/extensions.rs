//! Header extensions as they are on real packets: those of gear that knows nothing of RFC 8285, and ids that only the two-byte
//! form can carry.

use weir_channel::id::ConsumerId;
use weir_channel::message::{
    CodecName, CreateProducer, ExtensionUri, HeaderExtension, Method, Notification, Profile, Reply, WorkerError,
};

use crate::sim::feedback::feedback;
use crate::sim::random::Random;
use crate::sim::repair::{RTX, repairing};
use crate::sim::stream::Packet;
use crate::sim::track::Track;
use crate::sim::wire::{self, Form, Rtp, nacked};
use crate::sim::{Sim, for_each_seed, ms};

const D: &[Profile] = &[Profile::Default];

/// The ONVIF streaming specification's (§6.3): an NTP time, and flags.
const ONVIF: u16 = 0xabac;

/// A packet with a block that is not RFC 8285's (RFC 3550 §5.3.1).
fn with_opaque(bytes: &[u8], profile: u16, words: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    assert_eq!(bytes[0] & 0x10, 0);
    bytes[0] |= 0x10;
    let at = 12 + 4 * usize::from(bytes[0] & 15);
    let mut block = profile.to_be_bytes().to_vec();
    block.extend((words as u16).to_be_bytes());
    block.extend(&b"secret! ".repeat(words)[..4 * words]);
    bytes.splice(at..at, block);
    bytes
}

fn with_csrcs(bytes: &[u8], csrcs: u32) -> Vec<u8> {
    Rtp {
        csrcs: (1..=csrcs).collect(),
        ..Rtp::read(bytes)
    }
    .write()
}

/// RFC 3550 §5.3.1: such a block is one value, which a receiver reads by a meaning that it has agreed on. With its bytes wiped,
/// it still says something: of ONVIF's, that the picture was taken in 1900.
#[test]
fn a_block_that_is_not_rfc_8285_is_not_there_at_all_behind_the_relay() {
    for_each_seed(20, |seed| {
        let mut sim = Sim::new(seed);
        let mut random = Random::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.microphone(sender);
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let receiver = sim.transport(room);
                sim.consumer(receiver, &track)
            })
            .collect();
        let mut plain = Vec::new();
        for round in 0..40 {
            let (profile, words) = random.pick(&[(ONVIF, 3), (ONVIF, 0), (0, 1), (0x2000, 9), (0xbedf, 200)]);
            let csrcs = random.pick(&[0, 0, 2, 15]);
            let mut packets: Vec<Packet> = (0..random.range(1..6)).map(|_| track.stream().sound()).collect();
            for packet in &mut packets {
                packet.bytes = with_csrcs(&packet.bytes, csrcs);
                plain.push(packet.bytes.clone());
                // Sometimes only some have one.
                if round % 3 != 0 || random.chance(500) {
                    packet.bytes = with_opaque(&packet.bytes, profile, words);
                }
            }
            let equal = packets
                .windows(2)
                .all(|pair| pair[0].bytes.len() == pair[1].bytes.len());
            if equal && random.chance(500) {
                sim.send_train(sender, &packets);
            } else {
                sim.send(sender, &packets);
            }
        }
        for consumer in consumers {
            let received = sim.received(consumer);
            assert_eq!(received.len(), plain.len());
            for (received, plain) in received.iter().zip(&plain) {
                assert_eq!(received.bytes[0], plain[0], "no extension, and the CSRCs");
                assert_eq!(received.bytes[12..], plain[12..]);
            }
        }
        sim.check_accounts();
    });
}

#[test]
fn what_has_lost_its_block_still_leaves_as_a_train() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    let packets: Vec<_> = (0..6)
        .map(|_| {
            let packet = track.stream().sound();
            Packet {
                bytes: with_opaque(&packet.bytes, ONVIF, 3),
                ..packet
            }
        })
        .collect();
    sim.send_train(sender, &packets);
    let trains: Vec<_> = sim.trains().iter().map(|train| train.packets.len()).collect();
    assert_eq!(trains, [6]);
    assert_eq!(sim.stats(consumer).packets_forwarded, 6);
}

fn sends_again(request: &mut CreateProducer) {
    request.codecs[0].nack = true;
    request.codecs[0].rtx = Some(RTX);
    for encoding in &mut request.encodings {
        encoding.rtx_ssrc = encoding.ssrc.map(|ssrc| ssrc | 1 << 31);
    }
}

/// Both ways: what a sender sends again has its block too (RFC 4588 §4), and what a receiver is sent again has none.
#[test]
fn retransmissions_have_no_such_block_either() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::H264, D, sends_again);
    let receiver = sim.transport(room);
    let viewer = sim.consumer_with(receiver, &track, |request| repairing(request, false));
    let frame = track.stream().key_frame(4);
    let opaque: Vec<_> = frame
        .iter()
        .map(|packet| with_opaque(&packet.bytes, ONVIF, 3))
        .collect();
    for bytes in [&opaque[0], &opaque[1], &opaque[3]] {
        sim.send_bytes(sender, bytes);
    }
    sim.advance(ms(20));
    let rtcp = std::mem::take(&mut sim.sink.rtcp);
    let asked: Vec<_> = rtcp.iter().flat_map(|(_, _, packet)| nacked(packet)).collect();
    assert_eq!(asked, [(track.stream().ssrc, frame[2].mark.seq as u16)]);
    let ssrc = track.stream().ssrc | 1 << 31;
    let again = wire::rtx(&frame[2].bytes, ssrc, RTX, 1);
    sim.send_bytes(sender, &with_opaque(&again, ONVIF, 3));
    let mut received = sim.received(viewer);
    received.sort_by_key(|received| received.rtp.seq);
    assert_eq!(received.len(), 4);
    for (received, original) in received.iter().zip(&frame) {
        assert_eq!(received.bytes[0], original.bytes[0]);
        assert_eq!(received.bytes[12..], original.bytes[12..]);
    }
    let seqs: Vec<u16> = received.iter().map(|received| received.rtp.seq).collect();
    let media = sim.consumers[&viewer].request.ssrc;
    sim.send_rtcp(receiver, &wire::nack(1, media, &seqs));
    let resent: Vec<_> = sim.sink.resent.drain(..).map(|(_, _, packet)| packet).collect();
    let sent: Vec<_> = received.iter().map(|received| received.bytes.clone()).collect();
    assert_eq!(resent, sent);
}

/// What the producer and its receivers call two extensions.
fn extensions(level: u8, time: u8) -> Vec<HeaderExtension> {
    let extension = |id, uri| HeaderExtension { id, uri };
    let mut extensions = vec![
        extension(level, ExtensionUri::AudioLevel),
        extension(time, ExtensionUri::AbsCaptureTime),
    ];
    extensions.retain(|extension| extension.id > 0);
    extensions
}

/// A track with these ids, and consumers with those.
fn track_and_consumers(sim: &mut Sim, own: (u8, u8), theirs: &[(u8, u8)]) -> (Track, Vec<ConsumerId>) {
    let room = sim.room();
    let sender = sim.transport(room);
    let track = sim.track(sender, CodecName::Opus, D, |request| {
        request.header_extensions = extensions(own.0, own.1);
    });
    let consumers = theirs
        .iter()
        .map(|(level, time)| {
            let receiver = sim.transport(room);
            sim.consumer_with(receiver, &track, |request| {
                request.header_extensions = extensions(*level, *time);
            })
        })
        .collect();
    (track, consumers)
}

/// The elements of the only packet that a consumer got.
fn elements(sim: &mut Sim, consumer: ConsumerId) -> Vec<(u8, Vec<u8>)> {
    let received = sim.received(consumer);
    assert_eq!(received.len(), 1);
    received[0]
        .rtp
        .extensions
        .clone()
        .map(|(_, elements)| elements)
        .unwrap_or_default()
}

/// RFC 8285 §4.3: 255 ids, and 15 is one like the others.
#[test]
fn ids_above_14_are_each_sides_own_in_the_two_byte_form() {
    let theirs = [(1, 2), (200, 255), (255, 200), (15, 16), (14, 0), (0, 0)];
    for own in [(200, 255), (15, 14), (3, 100)] {
        let mut sim = Sim::new(1);
        let (mut track, consumers) = track_and_consumers(&mut sim, own, &theirs);
        track.stream().form = Form::TwoByte;
        track.stream().extensions = vec![
            (own.0, vec![0x91]),
            // Nobody's.
            (77, vec![1; 30]),
            (own.1, vec![7; 16]),
        ];
        let packet = track.stream().sound();
        sim.send(track.transport(), &[packet]);
        for (consumer, (level, time)) in consumers.into_iter().zip(theirs) {
            let mut expected = vec![(level, vec![0x91]), (time, vec![7; 16])];
            expected.retain(|(id, _)| *id > 0);
            assert_eq!(elements(&mut sim, consumer), expected, "{own:?} to {level}, {time}");
        }
        sim.check_accounts();
    }
}

/// RFC 8285 §4.2: the one-byte form has ids 1 to 14. What a receiver has called by a greater one cannot stand in it.
#[test]
fn an_id_that_the_form_of_a_packet_has_not_is_left_out_of_it_and_nothing_else_is() {
    let theirs = [(20, 5), (15, 5), (6, 255)];
    let mut sim = Sim::new(1);
    let (mut track, consumers) = track_and_consumers(&mut sim, (4, 5), &theirs);
    track.stream().extensions = vec![(4, vec![0x91]), (5, vec![7; 8])];
    let packet = track.stream().sound();
    let len = packet.bytes.len();
    sim.send(track.transport(), &[packet]);
    let expected = [vec![(5, vec![7; 8])], vec![(5, vec![7; 8])], vec![(6, vec![0x91])]];
    for (consumer, expected) in consumers.iter().zip(expected) {
        let received = sim.received(*consumer);
        assert_eq!(received[0].bytes.len(), len, "padding stands where it was (§4.1.2)");
        assert_eq!(received[0].rtp.extensions, Some((Form::OneByte, expected)));
    }
    // The same sender's packets in the other form have it.
    track.stream().form = Form::TwoByte;
    let packet = track.stream().sound();
    sim.send(track.transport(), &[packet]);
    for (consumer, (level, time)) in consumers.into_iter().zip(theirs) {
        assert_eq!(elements(&mut sim, consumer), [(level, vec![0x91]), (time, vec![7; 8])]);
    }
}

/// Routing (MID, RID), feedback and audio levels read packets with whatever ids the producer has.
#[test]
fn what_the_relay_reads_itself_may_have_any_id() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut tracks: Vec<_> = [("a", 15_u8), ("b", 251)]
        .into_iter()
        .map(|(mid, first)| {
            sim.track(sender, CodecName::Opus, D, |request| {
                request.mid = Some(mid.to_owned());
                request.encodings[0].ssrc = None;
                let uris = [
                    ExtensionUri::Mid,
                    ExtensionUri::AudioLevel,
                    ExtensionUri::TransportWideCc,
                ];
                request.header_extensions = (first..)
                    .zip(uris)
                    .map(|(id, uri)| HeaderExtension { id, uri })
                    .collect();
            })
        })
        .collect();
    sim.command(Method::SetAudioLevels { room, enabled: true });
    for (track, (first, level)) in tracks.iter_mut().zip([(15, 20), (251, 30)]) {
        let mid = track.request.mid.clone().expect("it has one").into_bytes();
        track.stream().form = Form::TwoByte;
        track.stream().extensions = vec![(first, mid), (first + 1, vec![level]), (first + 2, vec![0, level])];
        let packet = track.stream().sound();
        sim.send(sender, &[packet]);
        assert_eq!(sim.producer_stats(track.id()).streams[0].packets, 1);
    }
    sim.advance(ms(600));
    let levels = sim.told().into_iter().find_map(|told| match told {
        Notification::AudioLevels { levels, .. } => Some(levels),
        _ => None,
    });
    assert_eq!(levels, Some(vec![(tracks[0].id(), -20), (tracks[1].id(), -30)]));
    let rtcp = std::mem::take(&mut sim.sink.rtcp);
    let came: Vec<u16> = rtcp
        .iter()
        .flat_map(|(_, _, packet)| feedback(packet))
        .flat_map(|told| told.came())
        .collect();
    assert_eq!(came, [20, 30]);
}

#[test]
fn ids_that_no_form_has_and_ids_given_twice_are_refused() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    for (first, second, is_accepted) in [(1, 255, true), (15, 16, true), (255, 255, false), (0, 1, false)] {
        let request = |request: &mut CreateProducer| {
            request.header_extensions = vec![
                HeaderExtension {
                    id: first,
                    uri: ExtensionUri::AudioLevel,
                },
                HeaderExtension {
                    id: second,
                    uri: ExtensionUri::AbsSendTime,
                },
            ];
        };
        let track = sim.microphone(sender);
        let mut create = track.request.clone();
        request(&mut create);
        let closed = sim.command(Method::CloseProducer { producer: track.id() });
        assert_eq!(closed, Reply::Done);
        let created = sim.attempt(Method::CreateProducer(create));
        if is_accepted {
            assert_eq!(created, Ok(Reply::Done));
            sim.command(Method::CloseProducer { producer: track.id() });
        } else {
            assert!(matches!(created, Err(WorkerError::InvalidParameters(_))), "{created:?}");
        }
    }
}
