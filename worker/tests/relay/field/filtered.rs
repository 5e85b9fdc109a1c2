//! What is withheld by policy leaves no hole in a consumer's numbers, and what was lost on the way in still does
//! (RFC 3550 §6.4.1: a gap in the numbers is a loss, and nothing else is).

use std::collections::BTreeMap;

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CodecName, DropReason, NotRepaired, Profile};

use crate::sim::repair::{RTX_OUT, repairing};
use crate::sim::stream::Packet;
use crate::sim::track::{Track, codec};
use crate::sim::wire::{self, Rtp};
use crate::sim::{Sim, for_each_seed, ms};

/// A packet of nothing but padding, as a prober sends it between two frames: the timestamp is the last frame's.
pub(super) fn padding(track: &mut Track) -> Vec<u8> {
    let stream = track.stream();
    let bytes = Rtp {
        marker: false,
        payload_type: stream.payload_type,
        seq: stream.seq as u16,
        timestamp: stream.timestamp.wrapping_sub(stream.step) as u32,
        ssrc: stream.ssrc,
        csrcs: Vec::new(),
        extensions: None,
        payload: Vec::new(),
        padding: 200,
    };
    stream.seq += 1;
    bytes.write()
}

fn camera(sim: &mut Sim) -> (TransportId, Track) {
    let room = sim.room();
    let sender = sim.transport(room);
    let track = sim.track(sender, CodecName::Vp8, &[Profile::Default], |request| {
        request.codecs[0].nack = true;
    });
    (sender, track)
}

fn viewer(sim: &mut Sim, track: &Track, rtx: bool) -> ConsumerId {
    let transport = sim.transport(track.request.room);
    sim.consumer_with(transport, track, |request| repairing(request, rtx))
}

fn seqs(sim: &mut Sim, consumer: ConsumerId) -> Vec<u16> {
    sim.received(consumer).iter().map(|packet| packet.rtp.seq).collect()
}

fn consecutive(seqs: &[u16]) -> bool {
    seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1))
}

fn nack(sim: &mut Sim, consumer: ConsumerId, seqs: &[u16]) {
    let request = sim.consumers[&consumer].request.clone();
    sim.send_rtcp(request.transport, &wire::nack(1, request.ssrc, seqs));
}

fn resent(sim: &mut Sim) -> Vec<Rtp> {
    let packets = sim.sink.resent.drain(..);
    packets.map(|(_, _, packet)| Rtp::read(&packet)).collect()
}

#[test]
fn padding_reaches_nobody_and_leaves_no_gap() {
    let mut sim = Sim::new(1);
    let (sender, mut track) = camera(&mut sim);
    let consumers = [viewer(&mut sim, &track, false), viewer(&mut sim, &track, true)];
    sim.send(sender, &track.stream().key_frame(3));
    for round in 0..50 {
        for _ in 0..round % 7 {
            let padding = padding(&mut track);
            sim.send_bytes(sender, &padding);
        }
        sim.send(sender, &track.stream().delta_frame(2));
    }
    let padded: u64 = (0..50).map(|round| round % 7).sum();
    for consumer in consumers {
        let seqs = seqs(&mut sim, consumer);
        assert_eq!(seqs.len(), 103);
        assert!(consecutive(&seqs), "{seqs:?}");
        assert_eq!(sim.dropped(consumer, DropReason::Padding), padded);
    }
    sim.check_accounts();
    let stream = sim.producer_stats(track.id()).streams.remove(0);
    assert_eq!((stream.packets_lost, stream.packets), (0, 103 + padded));
}

#[test]
fn a_loss_among_padding_is_a_gap_of_one() {
    let mut sim = Sim::new(2);
    let (sender, mut track) = camera(&mut sim);
    let consumer = viewer(&mut sim, &track, false);
    sim.send(sender, &track.stream().key_frame(1));
    let before = padding(&mut track);
    let lost = track.stream().delta_frame(1);
    let after = padding(&mut track);
    sim.send_bytes(sender, &before);
    sim.send_bytes(sender, &after);
    sim.send(sender, &track.stream().delta_frame(1));
    let out = seqs(&mut sim, consumer);
    assert_eq!(out, [out[0], out[0] + 2]);
    // It was only late: the place is its own. And what a receiver asks for in between is what was sent in between.
    sim.send(sender, &lost);
    assert_eq!(seqs(&mut sim, consumer), [out[0] + 1]);
    nack(&mut sim, consumer, &[out[0] + 1, out[0] + 2]);
    let again = resent(&mut sim);
    assert_eq!(
        again.iter().map(|rtp| rtp.seq).collect::<Vec<_>>(),
        [out[0] + 1, out[0] + 2]
    );
    assert_eq!(again[0].payload.last_chunk::<40>(), lost[0].bytes.last_chunk::<40>());
}

/// A number that nobody could know to be padding counts as a packet's. When the padding comes at last, whoever asks for
/// the number is told with padding that there is nothing.
#[test]
fn padding_that_comes_late_fills_its_place_for_those_who_ask() {
    for rtx in [false, true] {
        let mut sim = Sim::new(3);
        let (sender, mut track) = camera(&mut sim);
        let consumer = viewer(&mut sim, &track, rtx);
        sim.send(sender, &track.stream().key_frame(1));
        let late = padding(&mut track);
        sim.send(sender, &track.stream().delta_frame(1));
        let out = seqs(&mut sim, consumer);
        assert_eq!(out, [out[0], out[0] + 2]);
        nack(&mut sim, consumer, &[out[0] + 1]);
        assert_eq!(resent(&mut sim), [], "nobody knows yet what it is");
        sim.send_bytes(sender, &late);
        assert!(seqs(&mut sim, consumer).is_empty());
        for _ in 0..2 {
            sim.advance(ms(500));
            nack(&mut sim, consumer, &[out[0] + 1]);
        }
        let filled = resent(&mut sim);
        if rtx {
            assert_eq!(filled.len(), 2);
            assert_eq!((filled[0].payload_type, filled[0].payload.len()), (RTX_OUT, 2));
            assert_eq!(filled[0].payload, (out[0] + 1).to_be_bytes());
        } else {
            // Under the media's SSRC a number stands for the same bytes for ever (RFC 3711 §9.1).
            assert_eq!(filled.len(), 1);
            assert_eq!(
                (filled[0].seq, filled[0].payload.len(), filled[0].padding),
                (out[0] + 1, 0, 4)
            );
        }
        sim.check_accounts();
    }
}

/// A packet that was withheld is never what a receiver asked for, over the wrap and many kinds of runs.
#[test]
fn what_receivers_ask_for_is_what_they_were_sent() {
    for_each_seed(20, |seed| {
        let mut sim = Sim::new(seed);
        let (sender, mut track) = camera(&mut sim);
        track.stream().seq = (1 << 32) + 65_300;
        let consumer = viewer(&mut sim, &track, seed % 2 == 0);
        sim.send(sender, &track.stream().key_frame(2));
        let mut sent: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        let mut random = crate::sim::random::Random::new(seed);
        for round in 0..300 {
            for _ in 0..random.below(5) {
                let padding = padding(&mut track);
                if !random.chance(100) {
                    sim.send_bytes(sender, &padding);
                }
            }
            let frame = track.stream().delta_frame(1 + random.below(3));
            let mut frame: Vec<Packet> = frame.into_iter().filter(|_| !random.chance(50)).collect();
            random.shuffle(&mut frame);
            sim.send(sender, &frame);
            if round % 60 == 59 {
                // Everybody starts anew, with other offsets.
                sim.pause_producer(track.id());
                sim.resume_producer(track.id());
                sim.send(sender, &track.stream().key_frame(1));
            }
            sim.advance(ms(5));
            for packet in sim.received(consumer) {
                let twice = sent.insert(packet.rtp.seq, packet.rtp.payload);
                assert_eq!(twice, None, "a number for two packets");
            }
        }
        let newest = sim.stats(consumer).last_seq.expect("something was sent") as u16;
        let asked: Vec<_> = (0..100).map(|back| newest.wrapping_sub(back)).rev().collect();
        nack(&mut sim, consumer, &asked);
        let again = resent(&mut sim);
        assert!(again.len() > 50, "{}", again.len());
        for rtp in again {
            let (seq, payload) = match rtp.payload_type {
                RTX_OUT => (u16::from_be_bytes([rtp.payload[0], rtp.payload[1]]), &rtp.payload[2..]),
                _ => (rtp.seq, &rtp.payload[..]),
            };
            if let Some(expected) = sent.get(&seq) {
                assert!(payload == expected, "{seq} is another packet");
            }
        }
        sim.check_accounts();
    });
}

/// Sound with comfort noise and key presses: each receiver has numbers without gaps, whatever it lacks.
#[test]
fn codecs_that_a_consumer_lacks_leave_no_gap() {
    let mut sim = Sim::new(5);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Opus, &[Profile::Default], |request| {
        request.codecs.push(codec(CodecName::Pcmu));
        request.codecs.push(codec(CodecName::Pcma));
    });
    let sets: [&[u8]; 6] = [&[111, 0, 8], &[111, 0], &[111], &[111], &[8], &[0]];
    let consumers: Vec<_> = sets
        .iter()
        .map(|set| {
            let transport = sim.transport(room);
            sim.consumer_with(transport, &track, |request| {
                request.payload_types = set.iter().map(|own| (*own, *own)).collect();
            })
        })
        .collect();
    let script = [111, 111, 0, 111, 8, 8, 111, 0, 8, 111, 111, 0, 111, 8];
    for payload_type in script.into_iter().cycle().take(140) {
        let mut packet = track.stream().sound();
        packet.bytes[1] = packet.bytes[1] & 0x80 | payload_type;
        sim.send(sender, &[packet]);
    }
    for (set, consumer) in sets.iter().zip(&consumers) {
        let received = sim.received(*consumer);
        let expected = script.iter().filter(|own| set.contains(own)).count() * 10;
        assert_eq!(received.len(), expected, "{set:?}");
        let seqs: Vec<_> = received.iter().map(|packet| packet.rtp.seq).collect();
        // Slots for four sets; the fifth and the sixth consumer share what is left.
        let is_served = set.len() > 1 || set[0] != 0;
        assert_eq!(consecutive(&seqs), is_served, "{set:?}");
        assert_eq!(
            sim.dropped(*consumer, DropReason::UnsupportedPayloadType),
            140 - expected as u64
        );
    }
    // A slot that is left is another's.
    sim.command(weir_channel::message::Method::CloseConsumer { consumer: consumers[4] });
    sim.consumers.remove(&consumers[4]);
    let transport = sim.transport(room);
    let late = sim.consumer_with(transport, &track, |request| request.payload_types = vec![(0, 0)]);
    sim.received(consumers[0]);
    for payload_type in script {
        let mut packet = track.stream().sound();
        packet.bytes[1] = packet.bytes[1] & 0x80 | payload_type;
        sim.send(sender, &[packet]);
    }
    let out = seqs(&mut sim, late);
    assert_eq!(out.len(), 3);
    assert!(consecutive(&out), "{out:?}");
    sim.check_accounts();
}

/// An SSRC that is changed begins its numbers anew: what was withheld of the old one has no part in them.
#[test]
fn another_ssrc_begins_with_nothing_withheld() {
    let mut sim = Sim::new(6);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, &[Profile::Default], |request| {
        request.codecs[0].nack = true;
        request.mid = Some("v".to_owned());
        request.header_extensions = vec![weir_channel::message::HeaderExtension {
            uri: weir_channel::message::ExtensionUri::Mid,
            id: crate::sim::track::MID,
        }];
    });
    track.announce();
    let consumer = viewer(&mut sim, &track, false);
    sim.send(sender, &track.stream().key_frame(2));
    for _ in 0..100 {
        let padding = padding(&mut track);
        sim.send_bytes(sender, &padding);
        sim.send(sender, &track.stream().delta_frame(1));
    }
    let before = seqs(&mut sim, consumer);
    assert!(consecutive(&before));
    track.stream().ssrc ^= 0x55;
    track.stream().seq = (1 << 32) + 7;
    sim.send(sender, &track.stream().key_frame(2));
    let padding = padding(&mut track);
    sim.send_bytes(sender, &padding);
    sim.send(sender, &track.stream().delta_frame(1));
    let after = seqs(&mut sim, consumer);
    assert!(
        consecutive(&[&before[before.len() - 1..], &after[..]].concat()),
        "{after:?}"
    );
    nack(&mut sim, consumer, &[after[2], before[100]]);
    assert_eq!(resent(&mut sim).len(), 1, "of the old numbers nothing is known");
    assert_eq!(sim.stats(consumer).not_repaired, [(NotRepaired::TooOld, 1)]);
}
