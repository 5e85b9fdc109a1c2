//! What is asked for, what is sent again, and what is not: packet by packet.

use std::time::Duration;

use weir_channel::id::ConsumerId;
use weir_channel::message::{
    CodecName, ConsumerRtx, ConsumerStats, DropReason, DumpPage, Method, NotRepaired, Page, Profile, Reply, Scope,
    StreamStats, UnroutedReason, WorkerError,
};
use weir_worker::relay::limits::{RING_AGE, RING_PACKETS};
use weir_worker::relay::nack::REORDERING;
use weir_worker::relay::sink::Port;

use crate::sim::judge::expected_bytes;
use crate::sim::repair::{RTX, RTX_OUT, repairing};
use crate::sim::reports::{Said, said};
use crate::sim::stream::Packet;
use crate::sim::track::{ABS_SEND_TIME, MID, REPAIRED_RID, RID, Track, codec};
use crate::sim::wire::{self, Rtp, nacked};
use crate::sim::{Sim, ms, single};

const D: &[Profile] = &[Profile::Default];
const LAYERS: &[Profile] = &[Profile::Low, Profile::High];

/// Longer than a packet is waited for, and its request's place in time.
const A_WHILE: Duration = ms(8);

/// A camera that sends again what it is asked for, with an RTX stream under a known SSRC.
fn camera(sim: &mut Sim, profiles: &[Profile]) -> Track {
    let room = sim.room();
    let sender = sim.transport(room);
    sim.track(sender, CodecName::Vp8, profiles, |request| {
        request.codecs[0].nack = true;
        request.codecs[0].rtx = Some(RTX);
        for encoding in &mut request.encodings {
            encoding.rtx_ssrc = encoding.ssrc.map(|ssrc| ssrc | 1 << 31);
        }
    })
}

fn viewer(sim: &mut Sim, track: &Track, rtx: bool) -> ConsumerId {
    let transport = sim.transport(track.request.room);
    sim.consumer_with(transport, track, |request| repairing(request, rtx))
}

/// A camera's packet as a retransmission.
fn rtx_of(packet: &Packet) -> Vec<u8> {
    wire::rtx(&packet.bytes, Rtp::read(&packet.bytes).ssrc | 1 << 31, RTX, 1)
}

/// What senders were asked for since the last time.
fn asked(sim: &mut Sim) -> Vec<(u32, u16)> {
    let rtcp = std::mem::take(&mut sim.sink.rtcp);
    rtcp.iter().flat_map(|(_, _, packet)| nacked(packet)).collect()
}

/// What was sent again since the last time.
fn resent(sim: &mut Sim) -> Vec<Vec<u8>> {
    sim.sink.resent.drain(..).map(|(_, _, packet)| packet).collect()
}

/// The consumer's receiver misses these packets.
fn nack(sim: &mut Sim, consumer: ConsumerId, seqs: &[u16]) {
    let request = sim.consumers[&consumer].request.clone();
    sim.send_rtcp(request.transport, &wire::nack(1, request.ssrc, seqs));
}

fn stream(sim: &mut Sim, track: &Track) -> StreamStats {
    sim.producer_stats(track.id()).streams.remove(0)
}

#[track_caller]
fn refused(stats: &ConsumerStats, expected: &[(NotRepaired, u64)]) {
    assert_eq!(stats.not_repaired, expected, "{stats:?}");
}

#[test]
fn what_is_missing_is_asked_for_and_its_retransmission_takes_its_place() {
    let mut sim = Sim::new(1);
    let mut track = camera(&mut sim, D);
    let viewer = viewer(&mut sim, &track, false);
    let sender = track.transport();
    let packets = track.stream().key_frame(6);
    sim.send(sender, &[&packets[..2], &packets[5..]].concat());
    assert!(asked(&mut sim).is_empty(), "they may only be late");
    sim.advance(A_WHILE);
    let ssrc = track.stream().ssrc;
    let missing: Vec<_> = packets[2..5]
        .iter()
        .map(|packet| (ssrc, packet.mark.seq as u16))
        .collect();
    assert_eq!(asked(&mut sim), missing);
    sim.advance(ms(20));
    for packet in [3, 2, 4] {
        sim.send_bytes(sender, &rtx_of(&packets[packet]));
    }
    // A second copy of one, one of a packet that was never lost, one that is too short, and one with padding only.
    let useless = [rtx_of(&packets[3]), rtx_of(&packets[0])];
    for bytes in &useless {
        sim.send_bytes(sender, bytes);
    }
    let mut short = Rtp::read(&useless[0]);
    short.payload.truncate(1);
    sim.send_bytes(sender, &short.write());
    short.payload.clear();
    short.padding = 200;
    sim.send_bytes(sender, &short.write());

    sim.log.originals = Some(Default::default());
    for packet in &packets {
        let originals = sim.log.originals.as_mut().expect("just made");
        originals.insert((packet.mark.stream, packet.mark.seq), packet.bytes.clone());
    }
    let received = sim.received(viewer);
    let marks: Vec<_> = received.iter().map(|received| received.mark().seq).collect();
    let base = packets[0].mark.seq;
    assert_eq!(marks, [0, 1, 5, 3, 2, 4].map(|offset| base + offset));
    sim.judge_bytes(&received, &track.request, &sim.consumers[&viewer].request);
    let stream = stream(&mut sim, &track);
    assert_eq!(
        (
            stream.packets,
            stream.packets_lost,
            stream.packets_repaired,
            stream.rtx_useless
        ),
        (6, 0, 3, 4)
    );
    assert_eq!((stream.nack_count, stream.packets_nacked), (1, 3));
    let round_trip = stream.round_trip_us.expect("an answer came");
    assert!((20_000..=30_000).contains(&round_trip), "{round_trip}");
    sim.check_accounts();
    assert_eq!(sim.stats(viewer).packets_in, 6);
    sim.advance(ms(3_000));
    assert!(asked(&mut sim).is_empty(), "nothing is missing any more");
}

#[test]
fn a_paused_producer_is_repaired_and_relays_nothing() {
    let mut sim = Sim::new(2);
    let mut track = camera(&mut sim, D);
    let viewer = viewer(&mut sim, &track, true);
    sim.pause_producer(track.id());
    let packets = track.stream().key_frame(4);
    sim.send(track.transport(), &[packets[0].clone(), packets[3].clone()]);
    sim.advance(A_WHILE);
    assert_eq!(asked(&mut sim).len(), 2);
    sim.send_bytes(track.transport(), &rtx_of(&packets[1]));
    let stream = stream(&mut sim, &track);
    assert_eq!(
        (stream.packets_repaired, stream.packets_lost, stream.packets_paused),
        (1, 1, 3)
    );
    assert_eq!(sim.dropped(viewer, DropReason::ProducerPaused), 3);
    assert!(sim.received(viewer).is_empty());
    sim.check_accounts();
}

#[test]
fn too_many_losses_ask_for_a_key_frame_once() {
    let mut sim = Sim::new(3);
    let mut track = camera(&mut sim, D);
    viewer(&mut sim, &track, true);
    let sender = track.transport();
    let first = track.stream().key_frame(1);
    sim.send(sender, &first);
    sim.advance(ms(1_500));
    sim.asked();
    for _ in 0..3 {
        track.stream().seq += 2_000;
        let next = track.stream().delta_frame(1);
        sim.send(sender, &next);
        sim.advance(ms(50));
    }
    let asks = sim.asked();
    assert_eq!(asks.len(), 1, "{asks:?}");
    assert_eq!(stream(&mut sim, &track).packets_nacked, 0);
    // A key frame request leaves what is still asked for alone.
    let frame = track.stream().delta_frame(5);
    sim.send(sender, &[frame[0].clone(), frame[4].clone()]);
    sim.advance(ms(2_000));
    assert!(stream(&mut sim, &track).packets_nacked > 3);
}

#[test]
fn a_start_out_of_order_loses_nothing() {
    let mut sim = Sim::new(4);
    let mut track = camera(&mut sim, D);
    let packets = track.stream().key_frame(5);
    for index in [3, 0, 1, 4] {
        sim.send(track.transport(), &packets[index..=index]);
    }
    assert_eq!(stream(&mut sim, &track).packets_lost, 1);
    sim.send(track.transport(), &packets[2..3]);
    assert_eq!(stream(&mut sim, &track).packets_lost, 0);
    // A straggler from long before does not make all after it lost.
    track.stream().seq -= 505;
    let old = track.stream().delta_frame(1);
    sim.send(track.transport(), &old);
    assert_eq!(stream(&mut sim, &track).packets_lost, 0);
}

#[test]
fn what_was_before_the_first_packet_is_not_missing() {
    let mut sim = Sim::new(20);
    let mut track = camera(&mut sim, D);
    let viewer = viewer(&mut sim, &track, false);
    track.stream().seq += 1_000;
    let before = track.stream().delta_frame(40);
    let packets = track.stream().key_frame(3);
    sim.send(track.transport(), &packets);
    // Senders probe for bandwidth with packets that came long ago.
    for packet in &before {
        sim.send_bytes(track.transport(), &rtx_of(packet));
    }
    let stream = stream(&mut sim, &track);
    assert_eq!((stream.rtx_useless, stream.packets_repaired), (40, 0));
    let received = sim.received(viewer);
    assert_eq!(received.len(), 3);
    nack(&mut sim, viewer, &[received[0].rtp.seq.wrapping_sub(5)]);
    refused(&sim.stats(viewer), &[(NotRepaired::NeverSent, 1)]);
}

#[test]
fn reports_count_what_was_lost_on_the_way_repaired_or_not() {
    for rtx in [true, false] {
        let mut sim = Sim::new(21);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.track(sender, CodecName::Vp8, D, |request| {
            request.codecs[0].nack = true;
            if rtx {
                request.codecs[0].rtx = Some(RTX);
                request.encodings[0].rtx_ssrc = request.encodings[0].ssrc.map(|ssrc| ssrc | 1 << 31);
            }
        });
        let again = |packet: &Packet| if rtx { rtx_of(packet) } else { packet.bytes.clone() };
        let ssrc = track.stream().ssrc;
        let mut heard = Vec::new();
        for round in 0..150 {
            let packets = track.stream().frame_of(10, round == 0);
            let lost = 1 + round % 8;
            sim.send(sender, &[&packets[..lost], &packets[lost + 1..]].concat());
            sim.advance(A_WHILE);
            sim.send_bytes(sender, &again(&packets[lost]));
            sim.advance(ms(12));
            for (_, _, packet) in std::mem::take(&mut sim.sink.rtcp) {
                heard.extend(said(&packet).into_iter().filter_map(|said| match said {
                    Said::Block { block, .. } if block.ssrc == ssrc => Some((round as i32, block)),
                    _ => None,
                }));
            }
        }
        assert!(heard.len() >= 2);
        for (round, block) in heard {
            assert!((round..=round + 1).contains(&block.lost), "{block:?} in round {round}");
            // A tenth, and a little more or less at the ends.
            assert!((24..=27).contains(&block.fraction), "{block:?}");
        }
        let stream = stream(&mut sim, &track);
        assert_eq!((stream.packets_lost, stream.packets_repaired), (0, 150), "rtx: {rtx}");
        assert!(stream.fraction_lost >= 24);
    }
}

#[test]
fn requests_that_name_too_many_packets_are_not_looked_into() {
    let mut sim = Sim::new(22);
    let mut track = camera(&mut sim, D);
    let consumer = viewer(&mut sim, &track, true);
    let frame = track.stream().key_frame(3);
    sim.send(track.transport(), &frame);
    let newest = sim.received(consumer).last().expect("a frame").rtp.seq;
    let names: Vec<u16> = (0..17 * 128).map(|offset| newest.wrapping_add(100 + offset)).collect();
    let mut asked = 0;
    for _ in 0..1_000 {
        nack(&mut sim, consumer, &names);
        asked += names.len() as u64;
        sim.advance(ms(10));
    }
    let stats = sim.stats(consumer);
    let [(NotRepaired::NeverSent, looked), (NotRepaired::OverBudget, refusals)] = stats.not_repaired[..] else {
        panic!("{stats:?}");
    };
    assert_eq!(looked + refusals, asked);
    // 2,000 at once, and 5,000 a second, of which not every last one makes up a pair of 17.
    assert!((45_000..=52_000).contains(&looked), "{looked}");
}

#[test]
fn what_is_sent_again_is_counted_and_named_in_reports() {
    for rtx in [false, true] {
        let mut sim = Sim::new(23);
        let mut track = camera(&mut sim, D);
        let consumer = viewer(&mut sim, &track, rtx);
        let request = sim.consumers[&consumer].request.clone();
        let again = request.rtx.as_ref().map(|rtx| rtx.ssrc);
        let name = |ssrc| Said::Name {
            ssrc,
            cname: b"weir".to_vec(),
        };
        let told = |sim: &mut Sim| -> Vec<Said> {
            let index = sim.index(request.transport);
            let rtcp = std::mem::take(&mut sim.sink.rtcp);
            let ours = rtcp.into_iter().filter(|(_, to, _)| *to == index);
            ours.flat_map(|(_, _, packet)| said(&packet)).collect()
        };
        let counted = |said: &[Said]| {
            let mut reports = said.iter().filter_map(|said| match said {
                Said::SenderReport {
                    ssrc, packets, octets, ..
                } => Some((*ssrc, *packets, *octets)),
                _ => None,
            });
            (reports.next(), reports.next())
        };
        let packets = track.stream().key_frame(10);
        sim.send_train(track.transport(), &packets);
        let received = sim.received(consumer);
        let octets: usize = received.iter().map(|packet| packet.rtp.payload.len()).sum();
        let octets = octets as u32;
        sim.advance(ms(1_000));
        let before = told(&mut sim);
        assert_eq!(counted(&before), (Some((request.ssrc, 10, octets)), None));
        assert!(before.contains(&name(request.ssrc)));
        assert!(
            !again.is_some_and(|again| before.contains(&name(again))),
            "nothing was sent again yet"
        );

        let seqs: Vec<u16> = received[..3].iter().map(|packet| packet.rtp.seq).collect();
        nack(&mut sim, consumer, &seqs);
        assert_eq!(resent(&mut sim).len(), 3);
        // What the socket did not take in the end is lost like what the network loses: it has been counted.
        sim.lose(consumer, DropReason::SendFailed, 2);
        sim.advance(ms(1_500));
        let after = told(&mut sim);
        let again_octets: usize = received[..3].iter().map(|packet| packet.rtp.payload.len()).sum();
        let expected = match again {
            None => (request.ssrc, 13, octets + again_octets as u32),
            Some(_) => (request.ssrc, 10, octets),
        };
        assert_eq!(counted(&after).0, Some(expected));
        if let Some(again) = again {
            assert!(after.contains(&name(again)), "{after:?}");
        }
        sim.command(Method::CloseConsumer { consumer });
        sim.advance(ms(100));
        let left: Vec<_> = told(&mut sim)
            .into_iter()
            .filter_map(|said| match said {
                Said::Bye { ssrc } => Some(ssrc),
                _ => None,
            })
            .collect();
        assert_eq!(
            left,
            [Some(request.ssrc), again].into_iter().flatten().collect::<Vec<_>>()
        );
    }
}

#[test]
fn rtx_streams_are_learned_by_what_they_say_of_themselves() {
    for (mid, rid, names) in [
        (Some("0"), Some("l"), vec![(MID, "0"), (REPAIRED_RID, "l")]),
        (None, Some("l"), vec![(REPAIRED_RID, "l")]),
        // Some senders give the stream's own id.
        (None, Some("l"), vec![(RID, "l")]),
        // With a lone stream the payload type is enough to tell a retransmission.
        (Some("0"), None, vec![(MID, "0")]),
    ] {
        let mut sim = Sim::new(5);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.track(
            sender,
            CodecName::Vp8,
            if rid.is_some() { LAYERS } else { D },
            |request| {
                request.codecs[0].nack = true;
                request.codecs[0].rtx = Some(RTX);
                request.mid = mid.map(str::to_owned);
                for (encoding, other) in request.encodings.iter_mut().zip(["l", "h"]) {
                    encoding.ssrc = None;
                    encoding.rid = rid.map(|_| other.to_owned());
                }
            },
        );
        track.announce();
        let viewer = viewer(&mut sim, &track, true);
        let packets = track.streams[0].key_frame(5);
        sim.send(sender, &[&packets[..1], &packets[4..]].concat());
        let again = |index: usize, ssrc: u32, names: &[(u8, &str)], payload_type: u8| {
            let mut rtp = Rtp::read(&wire::rtx(&packets[index].bytes, ssrc, payload_type, 9));
            let names = names.iter().map(|(id, name)| (*id, name.as_bytes().to_vec()));
            rtp.extensions = (names.len() > 0).then(|| (wire::Form::OneByte, names.collect()));
            rtp.write()
        };
        // Known to nobody yet, and of a payload type that is none of retransmissions.
        sim.send_bytes(sender, &again(1, 501, &[], RTX));
        sim.send_bytes(sender, &again(1, 501, &names, 99));
        assert_eq!(stream(&mut sim, &track).packets_repaired, 0);
        sim.send_bytes(sender, &again(1, 501, &names, RTX));
        // From now on the SSRC is enough; another one takes its place.
        sim.send_bytes(sender, &again(2, 501, &[], RTX));
        sim.send_bytes(sender, &again(3, 502, &names, RTX));
        sim.send_bytes(sender, &again(3, 501, &[], RTX));
        let stream = stream(&mut sim, &track);
        assert_eq!(
            (stream.packets_repaired, stream.rtx_useless, stream.packets_lost),
            (3, 0, 0),
            "{names:?}"
        );
        assert_eq!(sim.marks(viewer).len(), 5);
        // An SSRC of retransmissions carries no media.
        let mut media = Rtp::read(&packets[1].bytes);
        media.ssrc = 502;
        sim.send_bytes(sender, &media.write());
        assert!(sim.unrouted(sender, UnroutedReason::UnknownPayloadType) >= 1);
        sim.check_accounts();
        sim.command(Method::CloseProducer { producer: track.id() });
        sim.send_bytes(sender, &again(3, 502, &[], RTX));
        assert!(sim.unrouted(sender, UnroutedReason::UnknownStream) >= 1);
    }
}

#[test]
fn what_a_receiver_misses_is_sent_again_as_it_was() {
    for rtx in [false, true] {
        let mut sim = Sim::new(6);
        let mut track = camera(&mut sim, D);
        let viewer = viewer(&mut sim, &track, rtx);
        let packets = track.stream().key_frame(20);
        sim.send_train(track.transport(), &packets);
        let received = sim.received(viewer);
        let seqs: Vec<u16> = [1, 2, 18].map(|index| received[index].rtp.seq).to_vec();
        nack(&mut sim, viewer, &seqs);
        let again = resent(&mut sim);
        assert_eq!(again.len(), 3);
        let mut rtx_seq = None;
        for (bytes, index) in again.iter().zip([1, 2, 18]) {
            let original = &received[index];
            if !rtx {
                assert_eq!(*bytes, original.bytes);
                continue;
            }
            let rtp = Rtp::read(bytes);
            let request = &sim.consumers[&viewer].request;
            assert_eq!(
                (Some(rtp.ssrc), rtp.payload_type),
                (request.rtx.as_ref().map(|rtx| rtx.ssrc), RTX_OUT)
            );
            assert_eq!(rtp.payload[..2], original.rtp.seq.to_be_bytes());
            assert_eq!(rtp.payload[2..], original.rtp.payload);
            assert_eq!(
                (rtp.timestamp, rtp.marker),
                (original.rtp.timestamp, original.rtp.marker)
            );
            if let Some(before) = rtx_seq.replace(rtp.seq) {
                assert_eq!(rtp.seq, before.wrapping_add(1), "a sequence of its own");
            }
        }
        let stats = sim.stats(viewer);
        assert_eq!((stats.packets_retransmitted, stats.nack_count), (3, 1));
        assert_eq!(
            stats.bytes_retransmitted,
            again.iter().map(|bytes| bytes.len() as u64).sum::<u64>()
        );
        assert_eq!(stats.packets_forwarded, 20, "what is sent again is counted apart");
        // Once a round trip, which is 100 ms as long as nobody tells.
        nack(&mut sim, viewer, &seqs);
        sim.advance(ms(50));
        nack(&mut sim, viewer, &seqs);
        assert!(resent(&mut sim).is_empty());
        sim.advance(ms(50));
        nack(&mut sim, viewer, &seqs[..1]);
        assert_eq!(resent(&mut sim).len(), 1);
        refused(&sim.stats(viewer), &[(NotRepaired::TooSoon, 6)]);
        sim.check_accounts();
    }
}

#[test]
fn extensions_and_padding_of_what_is_sent_again() {
    for rtx in [false, true] {
        let mut sim = Sim::new(7);
        let mut track = camera(&mut sim, D);
        let transport = sim.transport(track.request.room);
        let viewer = sim.consumer_with(transport, &track, |request| {
            repairing(request, rtx);
            request
                .header_extensions
                .iter_mut()
                .for_each(|own| own.id = 15 - own.id);
        });
        let sender = track.transport();
        track.stream().extensions = vec![(ABS_SEND_TIME, vec![1, 2, 3]), (MID, b"0".to_vec()), (7, vec![5])];
        let packet = track.stream().key_frame(1).remove(0);
        let padded = Rtp {
            padding: 9,
            csrcs: vec![1, 2],
            ..Rtp::read(&packet.bytes)
        }
        .write();
        sim.send_bytes(sender, &padded);
        let train = sim.trains().pop().expect("it is relayed");
        let sent = Rtp::read(&train.packets[0]);
        assert_eq!(sent.extension(15 - ABS_SEND_TIME), Some(&wire::send_time(sim.now)[..]));
        sim.advance(ms(500));
        nack(&mut sim, viewer, &[sent.seq]);
        let resent = resent(&mut sim);
        assert!(rtx || resent == train.packets, "byte for byte");
        let again = Rtp::read(&resent[0]);
        // A retransmission is another packet, which says when it was sent; padding is not media. Without RTX it is the same
        // packet, and protected under the same index again: not a byte may differ.
        if rtx {
            assert_eq!(again.extension(15 - ABS_SEND_TIME), Some(&wire::send_time(sim.now)[..]));
            assert_ne!(again.extension(15 - ABS_SEND_TIME), sent.extension(15 - ABS_SEND_TIME));
        }
        assert_eq!(again.extension(15 - 7), Some(&[5][..]));
        assert_eq!((again.csrcs, again.padding), (vec![1, 2], if rtx { 0 } else { 9 }));
        assert_eq!(again.extensions.map_or(0, |(_, elements)| elements.len()), 2);
        let media = if rtx { &again.payload[2..] } else { &again.payload[..] };
        assert_eq!(*media, sent.payload);
    }
}

#[test]
fn a_nack_across_a_switch() {
    let mut sim = Sim::new(8);
    let mut track = camera(&mut sim, LAYERS);
    let viewer = viewer(&mut sim, &track, false);
    let sender = track.transport();
    sim.prefer(viewer, Profile::Low);
    for frame in 0..6 {
        for (place, profile) in [Profile::Low, Profile::High].into_iter().enumerate() {
            let packets = track.streams[place].frame_of(4, frame % 2 == 0);
            assert_eq!(track.request.encodings[place].profile, profile);
            sim.send(sender, &packets);
        }
        if frame == 2 {
            sim.prefer(viewer, Profile::High);
        }
        sim.advance(ms(33));
    }
    let received = sim.received(viewer);
    let switched = received
        .iter()
        .position(|packet| packet.mark().stream != received[0].mark().stream)
        .expect("it has switched");
    let around: Vec<u16> = received[switched - 3..switched + 3]
        .iter()
        .map(|packet| packet.rtp.seq)
        .collect();
    nack(&mut sim, viewer, &around);
    let again = resent(&mut sim);
    assert_eq!(again.len(), 6);
    for (bytes, original) in again.iter().zip(&received[switched - 3..]) {
        assert_eq!(*bytes, original.bytes);
    }
    // All of it, from before and after, many switches later.
    let first = received[0].rtp.seq;
    nack(&mut sim, viewer, &[first.wrapping_sub(1), first]);
    assert_eq!(resent(&mut sim), [received[0].bytes.clone()]);
    refused(&sim.stats(viewer), &[(NotRepaired::NeverSent, 1)]);
}

#[test]
fn each_refusal_has_its_reason() {
    let mut sim = Sim::new(9);
    let mut track = camera(&mut sim, D);
    let consumer = viewer(&mut sim, &track, true);
    let sender = track.transport();
    // Before anything was sent.
    nack(&mut sim, consumer, &[5]);
    refused(&sim.stats(consumer), &[(NotRepaired::NeverSent, 1)]);
    let packets = track.stream().key_frame(5);
    sim.send(sender, &[&packets[..2], &packets[3..]].concat());
    let seqs: Vec<u16> = sim.received(consumer).iter().map(|packet| packet.rtp.seq).collect();
    // Not sent yet, and not received.
    nack(&mut sim, consumer, &[seqs[1].wrapping_add(1)]);
    nack(&mut sim, consumer, &[seqs[3].wrapping_add(1)]);
    refused(
        &sim.stats(consumer),
        &[(NotRepaired::NeverSent, 2), (NotRepaired::NotReceived, 1)],
    );
    // It comes, and is forwarded.
    sim.advance(A_WHILE);
    sim.send_bytes(sender, &rtx_of(&packets[2]));
    assert_eq!(sim.marks(consumer)[0], packets[2].mark);
    nack(&mut sim, consumer, &[seqs[1].wrapping_add(1)]);
    assert_eq!(resent(&mut sim).len(), 1);
    // The socket is full.
    sim.sink.refuses_resends = true;
    nack(&mut sim, consumer, &[seqs[0]]);
    sim.sink.refuses_resends = false;
    assert_eq!(sim.stats(consumer).not_repaired[2], (NotRepaired::SendFailed, 1));
    // Which is no reason not to try again at once.
    nack(&mut sim, consumer, &[seqs[0]]);
    assert_eq!(resent(&mut sim).len(), 1);
    // Paused, and resumed: what was before is over.
    sim.pause(consumer);
    nack(&mut sim, consumer, &[seqs[1]]);
    assert!(resent(&mut sim).is_empty());
    assert_eq!(sim.stats(consumer).not_repaired[2], (NotRepaired::TooOld, 1));
    sim.resume(consumer);
    // Too old.
    sim.advance(RING_AGE + ms(1));
    nack(&mut sim, consumer, &[seqs[1]]);
    assert!(resent(&mut sim).is_empty());
    assert_eq!(sim.stats(consumer).not_repaired[2], (NotRepaired::TooOld, 2));
    sim.check_accounts();
}

#[test]
fn packets_that_a_full_socket_did_not_take_can_be_had_later() {
    let mut sim = Sim::new(10);
    let mut track = camera(&mut sim, D);
    let viewer = viewer(&mut sim, &track, false);
    let first = track.stream().key_frame(1);
    sim.send(track.transport(), &first);
    sim.sink.refusals = Some((crate::sim::random::Random::new(1), 1_000));
    let frame = track.stream().delta_frame(4);
    sim.send_train(track.transport(), &frame);
    sim.sink.refusals = None;
    let sent = sim.received(viewer);
    let last = sent.last().expect("the first").rtp.seq;
    let lost = 5 - sent.len();
    assert!(lost > 0);
    let missing: Vec<u16> = (1..=lost as u16).map(|offset| last.wrapping_add(offset)).collect();
    nack(&mut sim, viewer, &missing);
    let again = resent(&mut sim);
    assert_eq!(again.len(), lost);
    for (bytes, packet) in again.iter().zip(&frame[4 - lost..]) {
        let request = sim.consumers[&viewer].request.clone();
        let expected = expected_bytes(&packet.bytes, sim.now, &Rtp::read(bytes), &track.request, &request);
        assert_eq!(*bytes, expected);
    }
    sim.check_accounts();
}

#[test]
fn a_storm_of_requests_gets_no_more_than_its_budget() {
    let mut sim = Sim::new(11);
    let mut track = camera(&mut sim, D);
    let consumer = viewer(&mut sim, &track, false);
    let sender = track.transport();
    track.stream().payload_len = 1_000;
    let mut sent = 0;
    let mut again = 0;
    let mut asked = 0;
    for round in 0..300 {
        let frame = track.stream().frame_of(10, round == 0);
        sim.send_train(sender, &frame);
        let seqs: Vec<u16> = sim.received(consumer).iter().map(|packet| packet.rtp.seq).collect();
        sent += seqs.len();
        // Everything of the last frames, over and over, and what was never sent.
        let newest = *seqs.last().expect("a frame");
        for back in 0..20_u16 {
            let first = newest.wrapping_sub(back * 17);
            let all: Vec<u16> = (0..17).map(|offset| first.wrapping_add(offset)).collect();
            asked += all.len() as u64;
            nack(&mut sim, consumer, &all);
        }
        again += resent(&mut sim).len();
        sim.advance(ms(33));
    }
    assert!(again > sent / 2 && again <= sent + 200, "{again} again of {sent}");
    let stats = sim.stats(consumer);
    let refusals: u64 = stats.not_repaired.iter().map(|(_, count)| count).sum();
    assert_eq!(
        stats.packets_retransmitted + refusals,
        asked,
        "each is counted once: {stats:?}"
    );
    assert!(
        stats
            .not_repaired
            .iter()
            .any(|(reason, _)| *reason == NotRepaired::OverBudget)
    );
    assert_eq!(stats.nack_count, 6_000);

    // One RTCP packet as long as a datagram can be: a bounded part of it is answered, the rest is refused.
    let mut sim = Sim::new(12);
    let mut track = camera(&mut sim, D);
    let consumer = viewer(&mut sim, &track, false);
    let frame = track.stream().key_frame(1);
    sim.send(track.transport(), &frame);
    let request = sim.consumers[&consumer].request.clone();
    let pairs = 16_000_u16;
    let mut packet = vec![0x81, 205];
    packet.extend((pairs + 2).to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(request.ssrc.to_be_bytes());
    packet.extend([0xff; 4].repeat(usize::from(pairs)));
    sim.send_rtcp(request.transport, &packet);
    let stats = sim.stats(consumer);
    let refusals: u64 = stats.not_repaired.iter().map(|(_, count)| count).sum();
    assert_eq!(refusals + stats.packets_retransmitted, 17 * u64::from(pairs));
    assert!(
        stats
            .not_repaired
            .contains(&(NotRepaired::OverBudget, 17 * (u64::from(pairs) - 117))),
        "{stats:?}"
    );
}

#[test]
fn the_ring_keeps_the_last_packets_and_lives_as_long_as_somebody_may_ask() {
    let mut sim = Sim::new(13);
    let mut track = camera(&mut sim, D);
    let sender = track.transport();
    let consumer = viewer(&mut sim, &track, false);
    let mut seqs = Vec::new();
    for round in 0..300 {
        let frame = track.stream().frame_of(5, round == 0);
        sim.send_train(sender, &frame);
        seqs.extend(sim.received(consumer).iter().map(|packet| packet.rtp.seq));
        sim.advance(ms(2));
    }
    assert_eq!(seqs.len(), 1_500);
    let oldest = seqs[1_500 - RING_PACKETS];
    nack(&mut sim, consumer, &[oldest.wrapping_sub(1), oldest]);
    assert_eq!(resent(&mut sim).len(), 1);
    refused(&sim.stats(consumer), &[(NotRepaired::TooOld, 1)]);

    // With the last one who asks, what was kept goes; the next one finds only what came after it.
    sim.command(Method::CloseConsumer { consumer });
    let consumer = viewer(&mut sim, &track, false);
    let frame = track.stream().key_frame(3);
    sim.send_train(sender, &frame);
    let seqs: Vec<u16> = sim.received(consumer).iter().map(|packet| packet.rtp.seq).collect();
    nack(&mut sim, consumer, &[seqs[0].wrapping_sub(1), seqs[0], seqs[2]]);
    assert_eq!(resent(&mut sim).len(), 2);
}

#[test]
fn strangers_and_those_who_did_not_say_so_get_nothing() {
    let mut sim = Sim::new(14);
    let mut track = camera(&mut sim, D);
    let consumer = viewer(&mut sim, &track, true);
    let mute = sim.transport(track.request.room);
    let mute = sim.consumer(mute, &track);
    let frame = track.stream().key_frame(3);
    sim.send_train(track.transport(), &frame);
    let seqs: Vec<u16> = sim.received(consumer).iter().map(|packet| packet.rtp.seq).collect();
    let others: Vec<u16> = sim.received(mute).iter().map(|packet| packet.rtp.seq).collect();
    let request = sim.consumers[&consumer].request.clone();
    let packet = wire::nack(1, request.ssrc, &seqs);
    // From another address, and on another transport.
    let stranger = sim.address();
    sim.deliver(request.transport, Port::Rtp, &[single(stranger, &packet)]);
    sim.send_rtcp(track.transport(), &packet);
    assert!(resent(&mut sim).is_empty());
    assert_eq!(sim.stats(consumer).nack_count, 0);
    // From somebody who has not negotiated it: noted, not answered.
    nack(&mut sim, mute, &others);
    assert!(resent(&mut sim).is_empty());
    let stats = sim.stats(mute);
    assert_eq!((stats.nack_count, stats.packets_retransmitted), (1, 0));
    // What is said of the stream of retransmissions means nothing for the media.
    sim.asked();
    sim.advance(ms(2_000));
    let rtx = request.rtx.expect("negotiated").ssrc;
    for packet in [wire::nack(1, rtx, &seqs), wire::pli(1, rtx), wire::fir(1, &[(rtx, 1)])] {
        sim.send_rtcp(request.transport, &packet);
    }
    sim.advance(ms(2_000));
    assert!(resent(&mut sim).is_empty());
    assert!(sim.asked().is_empty());
    let stats = sim.stats(consumer);
    assert_eq!((stats.nack_count, stats.pli_count, stats.fir_count), (0, 0, 0));
}

#[test]
fn ssrcs_and_payload_types_of_retransmissions_are_nobody_elses() {
    let mut sim = Sim::new(15);
    let track = camera(&mut sim, LAYERS);
    let room = track.request.room;
    let sender = track.transport();
    let taken = track.request.encodings[0].rtx_ssrc.expect("it has one");
    let in_use = |result: Result<Reply, WorkerError>| {
        assert!(matches!(result, Err(WorkerError::SsrcInUse { .. })), "{result:?}");
    };
    let invalid = |result: Result<Reply, WorkerError>| {
        assert!(matches!(result, Err(WorkerError::InvalidParameters(_))), "{result:?}");
    };
    let mut attempt = |edit: &dyn Fn(&mut weir_channel::message::CreateProducer)| {
        let mut request = track.request.clone();
        request.producer = weir_channel::id::ProducerId(sim.id());
        for (index, encoding) in request.encodings.iter_mut().enumerate() {
            (encoding.ssrc, encoding.rtx_ssrc) = (Some(900 + index as u32), Some(910 + index as u32));
        }
        edit(&mut request);
        sim.attempt(Method::CreateProducer(request))
    };
    in_use(attempt(&|request| request.encodings[1].ssrc = Some(taken)));
    in_use(attempt(&|request| request.encodings[1].rtx_ssrc = Some(taken)));
    invalid(attempt(&|request| request.encodings[1].rtx_ssrc = Some(900)));
    invalid(attempt(&|request| request.encodings[1].rtx_ssrc = Some(910)));
    invalid(attempt(&|request| request.codecs[0].rtx = Some(96)));
    invalid(attempt(&|request| request.codecs[0].rtx = Some(70)));
    invalid(attempt(&|request| {
        let mut other = request.codecs[0];
        other.payload_type = 100;
        request.codecs.push(other);
    }));

    let receiver = sim.transport(room);
    let viewer = sim.consumer_with(receiver, &track, |request| repairing(request, true));
    let own = sim.consumers[&viewer].request.clone();
    let rtx = own.rtx.clone().expect("negotiated");
    let mut attempt = |edit: &dyn Fn(&mut ConsumerRtx), ssrc: u32| {
        let request = sim.consumer_request(receiver, &track, |request| {
            request.ssrc = ssrc;
            repairing(request, true);
            edit(request.rtx.as_mut().expect("just made"));
        });
        sim.attempt(Method::CreateConsumer(request))
    };
    in_use(attempt(&|again| again.ssrc = 801, rtx.ssrc));
    in_use(attempt(&|again| again.ssrc = rtx.ssrc, 800));
    in_use(attempt(&|again| again.ssrc = own.ssrc, 800));
    invalid(attempt(&|again| again.ssrc = 800, 800));
    invalid(attempt(&|again| again.payload_types[0].1 = 96, 800));
    invalid(attempt(&|again| again.payload_types[0].1 = 80, 800));
    invalid(attempt(&|again| again.payload_types[0].0 = 97, 800));
    invalid(attempt(&|again| again.payload_types.push((96, 99)), 800));
    invalid(attempt(&|again| again.payload_types = vec![(96, 99); 17], 800));

    let page = Page::default();
    let Reply::Dump(DumpPage { consumers, .. }) = sim.command(Method::Dump(Scope::Room { room, page })) else {
        panic!("no dump");
    };
    assert_eq!(consumers[0].rtx_ssrc, Some(rtx.ssrc));
    // Closed, they are free again.
    sim.command(Method::CloseConsumer { consumer: viewer });
    sim.consumer_with(receiver, &track, |request| request.ssrc = rtx.ssrc);
    sim.command(Method::CloseProducer { producer: track.id() });
    sim.track(sender, CodecName::Vp8, D, |request| {
        request.encodings[0].ssrc = Some(taken)
    });
}

#[test]
fn requests_of_many_streams_share_their_moments() {
    let mut sim = Sim::new(16);
    let mut tracks: Vec<_> = (0..40).map(|_| camera(&mut sim, D)).collect();
    for track in &mut tracks {
        let packets = track.stream().key_frame(3);
        sim.send(track.transport(), &[packets[0].clone(), packets[2].clone()]);
        sim.advance(Duration::from_micros(20));
    }
    sim.asked();
    let mut moments = 0;
    let end = sim.now + ms(1_000);
    let mut count = 0;
    while sim.now < end {
        sim.advance(ms(1));
        let asked = asked(&mut sim).len();
        count += asked;
        moments += usize::from(asked > 0);
    }
    assert!(count >= 40 * 4, "{count}");
    assert!(moments <= 16, "{moments} moments for {count} requests");
    assert!(REORDERING < A_WHILE);
}

#[test]
fn requests_are_counted_by_packets() {
    let mut sim = Sim::new(21);
    let mut track = camera(&mut sim, D);
    let (one, other) = (viewer(&mut sim, &track, false), viewer(&mut sim, &track, true));
    let packets = track.stream().key_frame(60);
    sim.send(track.transport(), &packets);
    let seqs: Vec<u16> = sim.received(one).iter().map(|packet| packet.rtp.seq).collect();
    let request = sim.consumers[&one].request.clone();
    // Two in one compound packet, the second with several pairs; and one about somebody who is elsewhere.
    let elsewhere = sim.consumers[&other].request.ssrc;
    let compound = [
        wire::receiver_report(1),
        wire::nack(1, request.ssrc, &seqs[..1]),
        wire::nack(1, request.ssrc, &[seqs[2], seqs[30], seqs[59]]),
        wire::nack(1, elsewhere, &seqs[..1]),
    ]
    .concat();
    sim.send_rtcp(request.transport, &compound);
    assert_eq!(resent(&mut sim).len(), 4);
    let stats = sim.stats(one);
    assert_eq!((stats.nack_count, stats.packets_retransmitted), (2, 4));
    assert_eq!(sim.stats(other).nack_count, 0);
}

#[test]
fn a_codec_that_is_not_sent_again_is_not_asked_for() {
    let mut sim = Sim::new(22);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, D, |request| {
        request.codecs[0].nack = true;
        request.codecs.push(codec(CodecName::H264));
    });
    let plain = codec(CodecName::H264).payload_type;
    let ssrc = track.stream().ssrc;
    let packets = track.stream().key_frame(40);
    let seq = |index: usize| packets[index].mark.seq as u16;
    let send = |sim: &mut Sim, index: usize, payload_type: Option<u8>| {
        let mut rtp = Rtp::read(&packets[index].bytes);
        rtp.payload_type = payload_type.unwrap_or(rtp.payload_type);
        sim.send_bytes(sender, &rtp.write());
    };
    send(&mut sim, 0, None);
    // A gap of each: 1 and 2 before a packet that would be sent again, 4 to 9 before one that would not.
    send(&mut sim, 3, None);
    send(&mut sim, 10, Some(plain));
    sim.advance(A_WHILE);
    assert_eq!(asked(&mut sim), [(ssrc, seq(1)), (ssrc, seq(2))]);
    // It goes on from there, in both.
    send(&mut sim, 12, Some(plain));
    send(&mut sim, 14, None);
    sim.advance(A_WHILE);
    assert_eq!(asked(&mut sim), [(ssrc, seq(13))]);
    // Nor is a key frame asked for when very much of it is missing.
    sim.asked();
    sim.advance(ms(2_000));
    sim.asked();
    let mut rtp = Rtp::read(&packets[15].bytes);
    (rtp.payload_type, rtp.seq) = (plain, seq(14).wrapping_add(1_200));
    sim.send_bytes(sender, &rtp.write());
    sim.advance(ms(2_000));
    assert!(asked(&mut sim).is_empty());
    assert!(sim.asked().is_empty());
}
