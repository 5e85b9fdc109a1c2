//! Only pictures and sound are a sign of life: padding, copies and silence are not (differences §2.8 counts bytes,
//! whatever they are; RFC 3550 §5.1 says what padding is for: for nobody behind the next hop).

use std::time::Duration;

use weir_channel::id::ConsumerId;
use weir_channel::message::{CodecName, Notification, Profile};

use super::filtered::padding;
use crate::sim::track::Track;
use crate::sim::wire::Rtp;
use crate::sim::{Sim, ms};

const L: Profile = Profile::Low;
const H: Profile = Profile::High;

fn simulcast(sim: &mut Sim) -> Track {
    let room = sim.room();
    let sender = sim.transport(room);
    sim.track(sender, CodecName::Vp8, &[L, H], |_| {})
}

fn viewer(sim: &mut Sim, track: &Track) -> ConsumerId {
    let transport = sim.transport(track.request.room);
    sim.consumer(transport, track)
}

fn frame(sim: &mut Sim, track: &mut Track, layer: Profile, key: bool) {
    let frame = track.layer(layer).frame_of(1, key);
    sim.send(track.transport(), &frame);
}

/// A probe on a layer.
fn probe(sim: &mut Sim, track: &mut Track, layer: Profile) {
    let stream = track.layer(layer);
    let packet = Rtp {
        marker: false,
        payload_type: stream.payload_type,
        seq: stream.seq as u16,
        timestamp: stream.timestamp as u32,
        ssrc: stream.ssrc,
        csrcs: Vec::new(),
        extensions: None,
        payload: Vec::new(),
        padding: 255,
    };
    stream.seq += 1;
    sim.send_bytes(track.transport(), &packet.write());
}

/// Whether producers were said to send, in the order of telling.
fn activity(sim: &mut Sim) -> Vec<bool> {
    let told = sim.told().into_iter();
    told.filter_map(|notification| match notification {
        Notification::ProducerActivityChanged { active, .. } => Some(active),
        _ => None,
    })
    .collect()
}

#[test]
fn a_layer_of_padding_is_left_for_the_next_one_and_taken_by_nobody() {
    let mut sim = Sim::new(1);
    let mut track = simulcast(&mut sim);
    let consumer = viewer(&mut sim, &track);
    for layer in [H, L] {
        frame(&mut sim, &mut track, layer, true);
    }
    assert_eq!(sim.stats(consumer).effective_profile, Some(H));
    sim.changes();
    // The high layer is only probed from now on, as often as pictures came.
    for _ in 0..50 {
        sim.advance(ms(33));
        frame(&mut sim, &mut track, L, false);
        probe(&mut sim, &mut track, H);
    }
    assert_eq!(sim.stats(consumer).target_profile, Some(L));
    frame(&mut sim, &mut track, L, true);
    assert_eq!(sim.changes(), [(consumer, None), (consumer, Some(L))]);
    let newcomer = viewer(&mut sim, &track);
    assert_eq!(sim.stats(newcomer).target_profile, Some(L));
    // Pictures bring it back; padding does not.
    probe(&mut sim, &mut track, H);
    assert_eq!(sim.stats(consumer).target_profile, Some(L));
    frame(&mut sim, &mut track, H, true);
    assert_eq!(sim.stats(consumer).effective_profile, Some(H));
    sim.check_accounts();
}

#[test]
fn copies_and_late_packets_do_not_bring_a_layer_back() {
    let mut sim = Sim::new(2);
    let mut track = simulcast(&mut sim);
    let consumer = viewer(&mut sim, &track);
    let old = track.layer(H).frame_of(3, true);
    sim.send(track.transport(), &old[..1]);
    sim.send(track.transport(), &old[2..]);
    frame(&mut sim, &mut track, L, true);
    for _ in 0..50 {
        sim.advance(ms(33));
        frame(&mut sim, &mut track, L, false);
    }
    assert_eq!(sim.stats(consumer).target_profile, Some(L));
    sim.send(track.transport(), &old);
    assert_eq!(sim.stats(consumer).target_profile, Some(L));
}

/// Screen sharing at one picture a second, the layers 30 ms apart, each a little early or late.
#[test]
fn layers_of_equal_slow_cadence_do_not_flap() {
    let mut sim = Sim::new(3);
    let mut track = simulcast(&mut sim);
    let consumer = viewer(&mut sim, &track);
    for second in 0_u64..132 {
        let late = second * 7 % 60;
        sim.advance(ms(second * 1_000 + late).saturating_sub(Duration::from_nanos(sim.now.0)));
        frame(&mut sim, &mut track, L, second == 0);
        sim.advance(ms(30 + second % 3 * 20));
        frame(&mut sim, &mut track, H, second == 0);
    }
    assert!(sim.now.0 > 131_000_000_000, "{:?}", sim.now);
    assert!(sim.stats(consumer).switches <= 2, "{}", sim.stats(consumer).switches);
    assert_eq!(sim.stats(consumer).effective_profile, Some(H));
}

#[test]
fn a_static_screen_stays_as_it_is() {
    let mut sim = Sim::new(4);
    let mut track = simulcast(&mut sim);
    let consumer = viewer(&mut sim, &track);
    for layer in [H, L] {
        frame(&mut sim, &mut track, layer, true);
    }
    sim.changes();
    sim.received(consumer);
    sim.advance(ms(600_000));
    assert_eq!(sim.changes(), []);
    for layer in [L, H] {
        frame(&mut sim, &mut track, layer, false);
    }
    assert_eq!(sim.received(consumer).len(), 1, "no key frame is needed");
}

#[test]
fn a_lone_producer_whose_sender_stops_is_told_of_and_goes_on_where_it_was() {
    for (codec, silence) in [(CodecName::Vp8, 1_250), (CodecName::Opus, 2_250)] {
        let mut sim = Sim::new(5);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.camera(sender, codec);
        let consumer = viewer(&mut sim, &track);
        sim.advance(ms(5_000));
        assert!(activity(&mut sim).is_empty(), "one that has never sent has not stopped");
        for round in 0..100 {
            frame(&mut sim, &mut track, Profile::Default, round == 0);
            sim.advance(ms(20));
        }
        assert!(activity(&mut sim).is_empty());
        assert!(sim.producer_stats(track.id()).streams[0].active);
        sim.advance(ms(silence));
        assert_eq!(activity(&mut sim), [false], "{codec:?}");
        assert!(!sim.producer_stats(track.id()).streams[0].active);
        let padded = padding(&mut track);
        sim.send_bytes(sender, &padded);
        assert!(activity(&mut sim).is_empty(), "padding is nothing");
        sim.received(consumer);
        frame(&mut sim, &mut track, Profile::Default, false);
        assert_eq!(activity(&mut sim), [true]);
        assert!(sim.producer_stats(track.id()).streams[0].active);
        assert_eq!(sim.received(consumer).len(), 1, "and nobody has to wait");
        assert_eq!(sim.stats(consumer).effective_profile, Some(Profile::Default));
        // Silent and back again before anybody asks: nothing has changed.
        sim.advance(ms(10_000));
        frame(&mut sim, &mut track, Profile::Default, false);
        let told = activity(&mut sim);
        assert!(told.is_empty() || told == [false, true], "{told:?}");
    }
}

/// What DTX and slow screens do is no end.
#[test]
fn pauses_that_belong_to_a_producer_are_no_silence() {
    let mut sim = Sim::new(6);
    let room = sim.room();
    let sender = sim.transport(room);
    // Comfort packets of DTX, every 400 ms, of which every third is lost; and a screen at a picture in two seconds.
    let mut sound = sim.microphone(sender);
    let mut screen = sim.camera(sender, CodecName::Vp8);
    for step in 0..600_u64 {
        if step % 2 == 0 && step % 6 != 0 {
            frame(&mut sim, &mut sound, Profile::Default, true);
        }
        if step % 10 == 0 {
            frame(&mut sim, &mut screen, Profile::Default, step == 0);
        }
        sim.advance(ms(200));
        if step > 20 {
            assert!(activity(&mut sim).is_empty(), "at step {step}");
        } else {
            activity(&mut sim);
        }
    }
}
