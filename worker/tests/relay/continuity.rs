//! One SSRC whose numbers never break, whatever is lost, late, doubled, switched, paused or started over.

use weir_channel::id::ConsumerId;
use weir_channel::message::{CodecName, CreateProducer, DropReason, Profile};

use crate::sim::live::Live;
use crate::sim::network::Network;
use crate::sim::random::Random;
use crate::sim::track::Track;
use crate::sim::{Sim, for_each_seed, ms, wire};

/// A simulcast camera known by its MID and RIDs, so that it may change its SSRCs.
fn camera(sim: &mut Sim) -> Track {
    let room = sim.room();
    let sender = sim.transport(room);
    let profiles = [Profile::Low, Profile::Medium, Profile::High];
    let mut track = sim.track(sender, CodecName::Vp8, &profiles, |request: &mut CreateProducer| {
        request.mid = Some("0".into());
        for (encoding, rid) in request.encodings.iter_mut().zip(["l", "m", "h"]) {
            (encoding.ssrc, encoding.rid) = (None, Some(rid.into()));
        }
    });
    track.announce();
    track
}

fn viewer(sim: &mut Sim, track: &Track) -> ConsumerId {
    let receiver = sim.transport(track.request.room);
    sim.consumer(receiver, track)
}

/// Puts every number of a stream shortly before its wrap.
fn close_to_wraps(track: &mut Track, random: &mut Random) {
    for stream in &mut track.streams {
        stream.seq = (2 << 32) - random.range(1..300) as u64;
        stream.timestamp = (2 << 40) - random.range(1..300_000) as u64;
        stream.picture_id = (2 << 15) - random.range(1..200) as u64;
        stream.tl0 = (2 << 8) - random.range(1..50) as u64;
    }
}

/// 100,000 packets of a simulcast camera over a bad network; consumers that are paused, resumed and switched; a producer
/// that is paused; streams that change their SSRC or start over.
#[test]
fn a_hundred_thousand_packets() {
    for_each_seed(3, |seed| {
        let mut sim = Sim::new(seed);
        let mut random = Random::new(seed);
        let mut track = camera(&mut sim);
        close_to_wraps(&mut track, &mut random);
        let producer = track.id();
        let consumers: Vec<_> = (0..6).map(|_| viewer(&mut sim, &track)).collect();
        let mut live = Live::new(sim);
        live.start(track, Network::BAD);
        let (mut paused, mut producer_paused) = (vec![false; consumers.len()], false);
        let mut ssrc = 0x4000_0000;
        while live.sim.log.deliveries.len() < 100_000 {
            let duration = random.range(20..1_500) as u64;
            live.run(ms(duration));
            let place = random.below(consumers.len());
            let consumer = consumers[place];
            match random.below(10) {
                // The first two are never paused by themselves, so that something always flows.
                0..4 if place > 1 => {
                    paused[place] = !paused[place];
                    if paused[place] {
                        live.sim.pause(consumer);
                    } else {
                        live.sim.resume(consumer);
                    }
                }
                4..7 if place > 0 => {
                    let profile = random.pick(&[Profile::Default, Profile::Low, Profile::Medium, Profile::High]);
                    live.sim.prefer(consumer, profile);
                }
                7 => {
                    producer_paused = !producer_paused;
                    if producer_paused {
                        live.sim.pause_producer(producer);
                    } else {
                        live.sim.resume_producer(producer);
                    }
                }
                8 => {
                    ssrc += 1;
                    live.change_ssrc(0, random.below(3), ssrc);
                }
                9 => {
                    // Two packets of the old sequence in order would look like another restart: let them arrive first.
                    live.senders[0].network = Network::GOOD;
                    live.run(ms(200));
                    live.start_over(0, random.below(3));
                    live.run(ms(200));
                    live.senders[0].network = Network::BAD;
                }
                _ => {}
            }
        }
        live.sim.check_accounts();
        for (place, consumer) in consumers.iter().enumerate() {
            let segments = live.sim.judge(*consumer, CodecName::Vp8);
            let packets: usize = segments.iter().map(|segment| segment.packets).sum();
            assert!(
                segments.len() > 10 && packets > 5_000,
                "consumer {place}: {packets} in {}",
                segments.len()
            );
        }
    });
}

#[test]
fn audio_over_a_bad_network() {
    for_each_seed(3, |seed| {
        let mut sim = Sim::new(seed);
        let mut random = Random::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.microphone(sender);
        close_to_wraps(&mut track, &mut random);
        let producer = track.id();
        let consumers = [viewer(&mut sim, &track), viewer(&mut sim, &track)];
        let mut live = Live::new(sim);
        live.start(track, Network::BAD);
        for round in 0..100 {
            live.run(ms(random.range(20..3_000) as u64));
            match round % 4 {
                0 => live.sim.pause(consumers[0]),
                1 => live.sim.resume(consumers[0]),
                2 => live.sim.pause_producer(producer),
                _ => live.sim.resume_producer(producer),
            }
        }
        live.sim.check_accounts();
        for consumer in consumers {
            let segments = live.sim.judge(consumer, CodecName::Opus);
            assert!(segments.len() > 20);
        }
    });
}

/// Without loss or pauses there is one segment, over the wraps of all numbers.
#[test]
fn wraps_are_nothing_special() {
    for codec in CodecName::ALL {
        for_each_seed(5, |seed| {
            let mut sim = Sim::new(seed);
            let mut random = Random::new(seed);
            let room = sim.room();
            let sender = sim.transport(room);
            let mut track = sim.camera(sender, codec);
            close_to_wraps(&mut track, &mut random);
            track.streams[0].picture_id_bits = if seed % 2 == 0 { 15 } else { 7 };
            let consumer = viewer(&mut sim, &track);
            let mut live = Live::new(sim);
            live.start(track, Network::GOOD);
            // The relay's own numbers begin anywhere, so they wrap somewhere on the way too.
            for _ in 0..40 {
                live.run(ms(1_000));
                let stream = &mut live.senders[0].track.streams[0];
                stream.timestamp += random.below(1 << 27) as u64;
            }
            let segments = live.sim.judge(consumer, codec);
            assert_eq!(segments.len(), 1);
            live.sim.check_accounts();
        });
    }
}

#[test]
fn the_relays_own_numbers_wrap_too() {
    let mut sim = Sim::new(5);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    let consumer = viewer(&mut sim, &track);
    // More packets than sequence numbers, and steps that take the timestamp round four times.
    track.stream().step = (1 << 34) / 70_000;
    for _ in 0..700 {
        let packets = track.stream().frames(100);
        sim.send(sender, &packets);
        sim.advance(ms(10));
    }
    assert_eq!(sim.judge(consumer, CodecName::Vp8).len(), 1);
    assert_eq!(sim.stats(consumer).packets_forwarded, 70_000);
}

/// What is lost leaves a gap of just that size, so that a receiver can count it and ask for it.
#[test]
fn gaps_of_the_input_are_gaps_of_the_output() {
    let mut sim = Sim::new(6);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let consumer = viewer(&mut sim, &track);
    let packets: Vec<_> = (0..3_000).map(|_| track.stream().sound()).collect();
    // 3 and 4 are lost, 6 is late, 8 is doubled, and then a long time nothing arrives.
    let arriving = [0, 1, 2, 5, 7, 6, 8, 8, 9, 2_999];
    for index in arriving {
        sim.send(sender, std::slice::from_ref(&packets[index]));
    }
    let received = sim.received(consumer);
    let first = received[0].rtp.seq;
    let out: Vec<_> = received
        .iter()
        .map(|packet| packet.rtp.seq.wrapping_sub(first))
        .collect();
    assert_eq!(out, [0, 1, 2, 5, 7, 6, 8, 9, 2_999]);
    assert_eq!(sim.dropped(consumer, DropReason::Duplicate), 1);
    let stats = &sim.producer_stats(track.id()).streams[0];
    assert_eq!((stats.packets_lost, stats.packets_duplicated), (3_000 - 9, 1));
}

#[test]
fn a_jump_is_believed_the_second_time() {
    let mut sim = Sim::new(7);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let consumer = viewer(&mut sim, &track);
    let mut send = |sim: &mut Sim, jump: u64| {
        track.stream().seq += jump;
        let packet = track.stream().sound();
        sim.send(sender, &[packet]);
        let received = sim.received(consumer);
        received.iter().map(|packet| packet.rtp.seq).collect::<Vec<_>>()
    };
    let first = send(&mut sim, 0)[0];
    let number = |behind: u16| first.wrapping_add(behind);
    // RFC 3550 appendix A.1: 3,000 ahead is a jump, and so is 1,500 behind.
    assert_eq!(send(&mut sim, 2_998), [number(2_999)]);
    assert_eq!(send(&mut sim, 2_999), [0_u16; 0]);
    assert_eq!(sim.dropped(consumer, DropReason::BadSequence), 1);
    assert_eq!(
        send(&mut sim, 0),
        [number(3_000), number(3_001)],
        "right behind, not 3,000 later"
    );
    assert_eq!(send(&mut sim, 65_536 - 1_502), [0_u16; 0]);
    assert_eq!(send(&mut sim, 0), [number(3_002), number(3_003)]);
    assert_eq!(sim.dropped(consumer, DropReason::BadSequence), 0);
    sim.check_accounts();
}

/// A pause does not move the clock: the receiver's playout goes on where the sender's clock is.
#[test]
fn a_resumption_keeps_the_clock_of_its_stream() {
    for codec in [CodecName::Opus, CodecName::Vp8, CodecName::H264] {
        let mut sim = Sim::new(8);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.camera(sender, codec);
        let consumer = viewer(&mut sim, &track);
        let mut marks = Vec::new();
        for round in 0..6 {
            let frame = track.stream().key_frame(2);
            // Late on the way: arrival times say nothing.
            sim.advance(ms(33 + 7 * round));
            sim.send(sender, &frame);
            marks.extend(sim.received(consumer));
            if round % 2 == 0 {
                sim.pause(consumer);
                let frame = track.stream().key_frame(2);
                sim.send(sender, &frame);
                sim.advance(ms(10_000));
                track.stream().timestamp += 900_000;
                sim.resume(consumer);
            } else {
                sim.pause_producer(track.id());
                sim.resume_producer(track.id());
            }
        }
        let offset = |packet: &crate::sim::Received| packet.rtp.timestamp.wrapping_sub(packet.mark().timestamp as u32);
        let offsets: Vec<_> = marks.iter().map(offset).collect();
        assert!(
            offsets.len() == 12 && offsets.iter().all(|own| *own == offsets[0]),
            "{offsets:?}"
        );
    }
}

/// A frame of both layers at one instant, each on its own clock.
fn send_pair(sim: &mut Sim, track: &mut Track, key: bool) {
    for profile in [Profile::Low, Profile::High] {
        let frame = track.layer(profile).frame_of(1, key);
        sim.send(track.request.transport, &frame);
    }
}

/// (timestamp that flowed last before a switch, first one after it, ticks of 90 kHz from one capture to the other)
fn switch(reports: Option<i64>, delay_ms: u64) -> (u32, u32) {
    // NTP is 32.32 seconds; the second is 250 ms later.
    let ntp = 0xe000_0000_u64 << 32;
    switch_by(reports.map(|_| [ntp, ntp + (1 << 30)]), reports.unwrap_or(0), delay_ms)
}

/// The same, with reports of these NTP times, the second of which is as far off as `error` says.
fn switch_by(ntps: Option<[u64; 2]>, error: i64, delay_ms: u64) -> (u32, u32) {
    let mut sim = Sim::new(9);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, &[Profile::Low, Profile::High], |_| {});
    let consumer = viewer(&mut sim, &track);
    sim.prefer(consumer, Profile::Low);
    send_pair(&mut sim, &mut track, true);
    if let Some([ntp_of_low, ntp_of_high]) = ntps {
        // Both reports name the instant of the next frame, the second one 250 ms later.
        let low = track.layer(Profile::Low);
        let report = wire::sender_report(low.ssrc, ntp_of_low, low.timestamp as u32);
        sim.send_bytes(sender, &report);
        let high = track.layer(Profile::High);
        let later = (high.timestamp + 22_500).wrapping_add_signed(error) as u32;
        let report = wire::sender_report(high.ssrc, ntp_of_high, later);
        sim.send_bytes(sender, &report);
    }
    sim.prefer(consumer, Profile::High);
    for _ in 0..3 {
        sim.advance(ms(33));
        let frame = track.layer(Profile::Low).delta_frame(1);
        sim.send(sender, &frame);
        track.layer(Profile::High).delta_frame(1);
    }
    let before = sim.received(consumer).last().expect("low flows").rtp.timestamp;
    sim.advance(ms(delay_ms));
    let frame = track.layer(Profile::High).key_frame(1);
    sim.send(sender, &frame);
    let after = sim.received(consumer)[0].rtp.timestamp;
    assert_eq!(sim.judge(consumer, CodecName::Vp8).len(), 0);
    (before, after)
}

#[test]
fn a_switch_moves_the_clock_by_what_the_sender_reports_say() {
    // The key frame was captured one frame (3,000 ticks) after the last one of the low layer, however long it took.
    for delay in [0, 10, 33, 400] {
        let (before, after) = switch(Some(0), delay);
        assert_eq!(after.wrapping_sub(before), 3_000, "{delay} ms on the way");
    }
    // Reports that put it before what has been sent: still after it.
    let (before, after) = switch(Some(5_000), 33);
    assert_eq!(after.wrapping_sub(before), 1);
    // Reports that are a minute off are not believed.
    for absurd in [60 * 90_000, -60 * 90_000] {
        let (before, after) = switch(Some(absurd), 33);
        assert_eq!(after.wrapping_sub(before), 33 * 90);
    }
}

/// RFC 3550 §6.4.1: an NTP time of 0 is none, and two of them are no time apart.
#[test]
fn a_switch_by_reports_that_tell_no_time_moves_the_clock_by_the_time_that_went_by() {
    for delay in [1, 33, 500] {
        let (before, after) = switch_by(Some([0, 0]), 0, delay);
        assert_eq!(after.wrapping_sub(before), delay as u32 * 90, "{delay} ms on the way");
    }
}

#[test]
fn a_switch_without_reports_moves_the_clock_by_the_time_that_went_by() {
    for delay in [1, 33, 500, 5_000] {
        let (before, after) = switch(None, delay);
        assert_eq!(after.wrapping_sub(before), delay as u32 * 90);
    }
    let (before, after) = switch(None, 0);
    assert_eq!(after.wrapping_sub(before), 1, "time never stands still");
}

#[test]
fn what_is_older_than_a_start_is_not_sent_behind_it() {
    let mut sim = Sim::new(10);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    let consumer = viewer(&mut sim, &track);
    let delta = track.stream().delta_frame(2);
    let key = track.stream().key_frame(3);
    // The key frame overtakes the frame before it; its second packet overtakes its first.
    for packet in [&key[1], &key[0], &delta[0], &key[2], &delta[1]] {
        sim.send(sender, std::slice::from_ref(packet));
    }
    let received = sim.received(consumer);
    assert_eq!(
        received.iter().map(|packet| packet.mark()).collect::<Vec<_>>(),
        [key[0].mark, key[1].mark, key[2].mark]
    );
    // What came before the packet that the frame begins with was held for it; what is older than that was not.
    let seqs: Vec<_> = received
        .iter()
        .map(|packet| packet.rtp.seq.wrapping_sub(received[0].rtp.seq))
        .collect();
    assert_eq!(seqs, [0, 1, 2]);
    assert_eq!(sim.dropped(consumer, DropReason::AwaitingKeyFrame), 0);
    assert_eq!(sim.dropped(consumer, DropReason::BeforeSwitch), 2);
    // Nor what is older than a resumption.
    let before = track.stream().delta_frame(1);
    sim.pause(consumer);
    sim.resume(consumer);
    let key = track.stream().key_frame(1);
    sim.send(sender, &key);
    sim.send(sender, &before);
    assert_eq!(sim.marks(consumer), [key[0].mark]);
    sim.check_accounts();
}
