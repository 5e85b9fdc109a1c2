//! A start is whole: a consumer begins with all that decoding takes, whatever the network did to the order of it
//! (RFC 6184 §8.4 and RFC 7798 §7.1: a picture is of no use without its parameter sets; RFC 3550 §1: packets come in any order).

use weir_channel::id::ConsumerId;
use weir_channel::message::{CodecName, DropReason, Profile};

use crate::sim::repair::repairing;
use crate::sim::stream::{Mark, Packet};
use crate::sim::track::Track;
use crate::sim::wire::Rtp;
use crate::sim::{Sim, for_each_seed, ms};

const CODECS: [CodecName; 5] = [
    CodecName::Vp8,
    CodecName::Vp9,
    CodecName::H264,
    CodecName::H265,
    CodecName::Av1,
];

const SETS: [CodecName; 2] = [CodecName::H264, CodecName::H265];

fn camera(sim: &mut Sim, codec: CodecName) -> Track {
    let room = sim.room();
    let sender = sim.transport(room);
    sim.camera(sender, codec)
}

fn viewer(sim: &mut Sim, track: &Track) -> ConsumerId {
    let transport = sim.transport(track.request.room);
    sim.consumer(transport, track)
}

/// The stream's first key frame with a picture behind it, which shows what it has in band.
fn show(sim: &mut Sim, track: &mut Track) {
    let sender = track.transport();
    sim.send(sender, &track.stream().key_frame(3));
    sim.send(sender, &track.stream().delta_frame(2));
}

/// What a consumer got, in the order of its numbers, which must be one after the other.
#[track_caller]
fn in_order(sim: &mut Sim, consumer: ConsumerId) -> Vec<Mark> {
    let mut received = sim.received(consumer);
    received.sort_by_key(|packet| packet.rtp.seq);
    let steps = received.windows(2).map(|pair| pair[1].rtp.seq - pair[0].rtp.seq);
    assert!(steps.into_iter().all(|step| step == 1), "{received:?}");
    received.iter().map(|packet| packet.mark()).collect()
}

fn marks(packets: &[Packet]) -> Vec<Mark> {
    packets.iter().map(|packet| packet.mark).collect()
}

/// Every order of a key frame's packets, for receivers that cannot ask for anything.
#[test]
fn a_key_frame_comes_through_in_any_order() {
    for codec in CODECS {
        for order in [[0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 2, 3, 0]] {
            let mut sim = Sim::new(1);
            let mut track = camera(&mut sim, codec);
            show(&mut sim, &mut track);
            let consumers = [viewer(&mut sim, &track), viewer(&mut sim, &track)];
            let key = track.stream().key_frame(4);
            let next = track.stream().delta_frame(1);
            for index in order {
                sim.send(track.transport(), &key[index..=index]);
                sim.advance(ms(2));
            }
            sim.send(track.transport(), &next);
            for consumer in consumers {
                assert_eq!(
                    in_order(&mut sim, consumer),
                    marks(&[&key[..], &next].concat()),
                    "{codec:?} {order:?}"
                );
                let stats = sim.stats(consumer);
                assert_eq!((stats.dropped.len(), stats.switches), (0, 1), "{stats:?}");
            }
            sim.check_accounts();
        }
    }
}

/// The whole picture came, and 40 ms later the parameter sets, repaired.
#[test]
fn sets_that_are_repaired_later_open_what_has_come_since() {
    for codec in SETS {
        for nack in [false, true] {
            let mut sim = Sim::new(2);
            let mut track = camera(&mut sim, codec);
            show(&mut sim, &mut track);
            let transport = sim.transport(track.request.room);
            let consumer = sim.consumer_with(transport, &track, |request| {
                if nack {
                    repairing(request, true);
                }
            });
            let mut all = track.stream().key_frame(30);
            sim.send(track.transport(), &all[1..]);
            for _ in 0..2 {
                sim.advance(ms(20));
                let frame = track.stream().delta_frame(3);
                sim.send(track.transport(), &frame);
                all.extend(frame);
            }
            assert_eq!(in_order(&mut sim, consumer), [], "nobody can decode that");
            sim.send(track.transport(), &all[..1]);
            let frame = track.stream().delta_frame(1);
            sim.send(track.transport(), &frame);
            all.extend(frame);
            assert_eq!(in_order(&mut sim, consumer), marks(&all), "{codec:?}");
            assert_eq!(sim.dropped(consumer, DropReason::AwaitingKeyFrame), 0);
            sim.check_accounts();
        }
    }
}

/// Sets that were lost, or sent before anybody was there: the picture starts nothing, and is asked for again.
#[test]
fn a_picture_whose_sets_are_gone_is_no_start_and_is_asked_for_again() {
    for codec in SETS {
        for joins_between in [false, true] {
            let mut sim = Sim::new(3);
            let mut track = camera(&mut sim, codec);
            show(&mut sim, &mut track);
            let key = track.stream().key_frame(4);
            if joins_between {
                sim.send(track.transport(), &key[..1]);
            }
            let consumer = viewer(&mut sim, &track);
            assert_eq!(sim.asked().len(), 1);
            sim.advance(ms(1_500));
            sim.send(track.transport(), &key[1..]);
            for _ in 0..20 {
                let frame = track.stream().delta_frame(2);
                sim.send(track.transport(), &frame);
                sim.advance(ms(100));
            }
            assert_eq!(in_order(&mut sim, consumer), [], "{codec:?}");
            assert!(!sim.asked().is_empty(), "not served, so asked again");
            let key = track.stream().key_frame(4);
            sim.send(track.transport(), &key);
            assert_eq!(in_order(&mut sim, consumer), marks(&key));
            sim.check_accounts();
        }
    }
}

/// A stream that has never shown parameter sets has them in its description (sprop-parameter-sets).
#[test]
fn sets_out_of_band_are_not_waited_for() {
    for codec in SETS {
        let mut sim = Sim::new(4);
        let mut track = camera(&mut sim, codec);
        let first = viewer(&mut sim, &track);
        let mut sent = Vec::new();
        for round in 0..3 {
            // The sender leaves out what would be the first packet.
            let mut key = track.stream().key_frame(3);
            key.remove(0);
            for packet in &mut key {
                let seq = u16::from_be_bytes([packet.bytes[2], packet.bytes[3]]) - round as u16 - 1;
                packet.bytes[2..4].copy_from_slice(&seq.to_be_bytes());
            }
            sim.send(track.transport(), &key);
            sim.advance(ms(33));
            sent.extend(marks(&key));
        }
        assert_eq!(in_order(&mut sim, first), sent, "{codec:?}");
        sim.check_accounts();
    }
}

/// The first key frame of all, overtaken by its own picture: nobody can know that there are parameter sets, so the picture is
/// sent; and they follow, under numbers that were left free for them.
#[test]
fn sets_that_nobody_knew_of_still_go_out() {
    for codec in SETS {
        let mut sim = Sim::new(5);
        let mut track = camera(&mut sim, codec);
        let consumer = viewer(&mut sim, &track);
        let key = track.stream().key_frame(3);
        for index in [1, 0, 2] {
            sim.send(track.transport(), &key[index..=index]);
        }
        assert_eq!(in_order(&mut sim, consumer), marks(&key), "{codec:?}");
        let last = sim.stats(consumer).last_seq.expect("packets were sent");
        assert!(
            last < 1 << 15,
            "receivers take the stream to be in its first cycle: {last}"
        );
        // A straggler of the time before has no place among them.
        sim.check_accounts();
    }
}

/// Each layer of simulcast, with any loss of whole packets: whoever is switched gets a whole start or none.
#[test]
fn whatever_is_lost_a_start_is_whole() {
    for_each_seed(40, |seed| {
        let mut random = crate::sim::random::Random::new(seed);
        let codec = CODECS[seed as usize % CODECS.len()];
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let profiles = [Profile::Low, Profile::High];
        let mut track = sim.track(sender, codec, &profiles, |_| {});
        for layer in 0..2 {
            let frame = track.streams[layer].frame_of(2, true);
            sim.send(sender, &frame);
        }
        let consumer = viewer(&mut sim, &track);
        for round in 0..300 {
            for layer in 0..2 {
                let key = round % 10 == 0 || random.chance(50);
                let mut frame = track.streams[layer].frame_of(2 + random.below(3), key);
                frame.retain(|_| !random.chance(100));
                if random.chance(300) {
                    random.shuffle(&mut frame);
                }
                sim.send(sender, &frame);
            }
            if random.chance(100) {
                sim.prefer(consumer, random.pick(&profiles));
            }
            if random.chance(30) {
                sim.pause(consumer);
                sim.resume(consumer);
            }
            sim.advance(ms(33));
        }
        // In the order of the numbers, a frame of another layer begins with the packet that a decoder can start on.
        let mut received = sim.received(consumer);
        assert!(received.len() > 100, "{}", received.len());
        let base = received[0].rtp.seq.wrapping_sub(1 << 12);
        received.sort_by_key(|packet| packet.rtp.seq.wrapping_sub(base));
        let mut stream = None;
        for packet in received {
            let mark = packet.mark();
            if stream.replace(mark.stream) != Some(mark.stream) {
                assert!(mark.key && mark.first, "{codec:?} {mark:?}");
            }
        }
        sim.check_accounts();
    });
}

/// Parameter sets without a picture to start at (an encoder that repeats them every second) are no start.
#[test]
fn sets_before_another_picture_are_no_start() {
    let mut sim = Sim::new(6);
    let mut track = camera(&mut sim, CodecName::H264);
    show(&mut sim, &mut track);
    let consumer = viewer(&mut sim, &track);
    let mut sets = track.stream().key_frame(2);
    // The second packet is a slice of another picture.
    let mut rtp = Rtp::read(&sets[1].bytes);
    rtp.payload[..2].copy_from_slice(&[0x41, 0x9a]);
    sets[1].bytes = rtp.write();
    sim.send(track.transport(), &sets);
    sim.send(track.transport(), &track.stream().delta_frame(3));
    assert_eq!(in_order(&mut sim, consumer), []);
    let key = track.stream().key_frame(2);
    sim.send(track.transport(), &key);
    assert_eq!(in_order(&mut sim, consumer), marks(&key));
    sim.check_accounts();
}
