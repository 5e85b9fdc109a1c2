//! Transport-wide feedback through the whole relay: what has come is told, with its time, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_channel::id::TransportId;
use weir_channel::message::{
    CodecName, CreateProducer, ExtensionUri, HeaderExtension, Method, Profile, UnroutedReason,
};
use weir_worker::relay::arrivals::{ARRIVALS_MAX, INTERVAL, INTERVAL_MAX, LITTLE_BYTES};
use weir_worker::relay::sink::Port;
use weir_worker::time::Time;

use crate::sim::feedback::{Feedback, feedback, number, numbered};
use crate::sim::random::Random;
use crate::sim::recorder::Recorder;
use crate::sim::repair::{RTX, repairing};
use crate::sim::stream::Packet;
use crate::sim::track::{ABS_SEND_TIME, MID, TRANSPORT_CC, Track};
use crate::sim::wire::{self, Form, Rtp};
use crate::sim::{Sim, for_each_seed, ms, single};

const D: &[Profile] = &[Profile::Default];

/// The bit that tells the SSRC of retransmissions from that of the media.
const RTX_BIT: u32 = 1 << 31;

/// What waits is reported so much sooner, at most, so that transports share moments.
const GRID: Duration = ms(10);

fn sends_again(request: &mut CreateProducer) {
    request.codecs[0].nack = true;
    request.codecs[0].rtx = Some(RTX);
    for encoding in &mut request.encodings {
        encoding.rtx_ssrc = encoding.ssrc.map(|ssrc| ssrc | RTX_BIT);
    }
}

fn without_the_extension(request: &mut CreateProducer) {
    request
        .header_extensions
        .retain(|extension| extension.uri != ExtensionUri::TransportWideCc);
}

/// Feedback sent since the last time, with its time.
fn told(sim: &mut Sim, transport: TransportId) -> Vec<(Time, Feedback)> {
    let index = sim.index(transport);
    std::mem::take(&mut sim.sink.rtcp)
        .into_iter()
        .filter(|(_, to, _)| *to == index)
        .flat_map(|(at, _, packet)| feedback(&packet).into_iter().map(move |told| (at, told)))
        .collect()
}

/// The numbers reported since the last time.
fn reported(sim: &mut Sim, transport: TransportId) -> Vec<u16> {
    told(sim, transport).iter().flat_map(|(_, told)| told.came()).collect()
}

fn send_numbered(sim: &mut Sim, transport: TransportId, packet: &Packet, number: u16) {
    sim.send_bytes(transport, &numbered(&packet.bytes, TRANSPORT_CC, number));
}

/// Padding on a stream of retransmissions, as browsers probe with it.
fn probe(ssrc: u32, payload_type: u8, seq: u16, number: u16) -> Vec<u8> {
    Rtp {
        marker: false,
        payload_type,
        seq,
        timestamp: 0,
        ssrc,
        csrcs: Vec::new(),
        extensions: Some((Form::OneByte, vec![(TRANSPORT_CC, number.to_be_bytes().to_vec())])),
        payload: Vec::new(),
        padding: 255,
    }
    .write()
}

fn ticks(at: Time) -> u32 {
    (at.0 / 250_000) as u32
}

#[test]
fn all_that_comes_is_reported_once_in_time_and_with_its_time() {
    for_each_seed(30, |seed| {
        let mut sim = Sim::new(seed);
        let mut random = Random::new(seed);
        // Somewhere: the wrap of 24 bits of reference time is within reach of every fourth.
        if seed % 4 == 0 {
            sim.now = Time((1 << 24) * 64_000_000 - 5_000_000_000);
        }
        let room = sim.room();
        let sender = sim.transport(room);
        let mut camera = sim.track(sender, CodecName::Vp8, D, sends_again);
        let mut microphone = sim.microphone(sender);
        let media = [&camera, &microphone].map(|track| track.request.encodings[0].ssrc.expect("given"));
        let (loss, late) = (random.below(200), random.below(100));
        let rate = random.range(1..40);
        let mut next = 65_000 + random.below(500) as u64; // over the wrap, soon
        let mut on_the_way: BTreeMap<(Time, u64), Vec<u8>> = BTreeMap::new();
        let mut came: BTreeMap<u64, Time> = BTreeMap::new();
        let mut reports: Vec<(Time, Feedback)> = Vec::new();
        let end = sim.now + Duration::from_secs(8);
        let mut serial = 0;
        while sim.now < end {
            let quiet = (sim.now.0 / 1_000_000_000) % 4 == 3;
            let mut packets: Vec<Vec<u8>> = Vec::new();
            if !quiet {
                let frame = camera.stream().frame_of(1 + random.below(rate), random.chance(50));
                packets.extend(frame.into_iter().map(|packet| packet.bytes));
                if random.chance(200) {
                    packets.extend((0..5).map(|seq| probe(media[0] | RTX_BIT, RTX, seq, 0)));
                    packets.push(probe(99, 99, 1, 0));
                }
            }
            packets.push(microphone.stream().sound().bytes);
            for packet in packets {
                next += 1;
                if random.chance(loss) {
                    continue;
                }
                let packet = numbered(&packet, TRANSPORT_CC, next as u16);
                for _ in 0..1 + usize::from(random.chance(20)) {
                    let delay = if random.chance(late) {
                        random.below(300_000)
                    } else {
                        random.below(900)
                    };
                    serial += 1;
                    on_the_way.insert((sim.now + Duration::from_micros(delay as u64), serial), packet.clone());
                }
            }
            let turn = sim.now + ms(random.range(5..40) as u64);
            while let Some(entry) = on_the_way.first_entry().filter(|entry| entry.key().0 <= turn) {
                let ((at, _), packet) = entry.remove_entry();
                sim.advance(at.since(sim.now));
                let number = Rtp::read(&packet)
                    .extension(TRANSPORT_CC)
                    .map(|value| [value[0], value[1]]);
                let number = nearest(next, u16::from_be_bytes(number.expect("numbered")));
                came.entry(number).or_insert(at);
                sim.send_bytes(sender, &packet);
            }
            sim.advance(turn.since(sim.now));
            reports.extend(told(&mut sim, sender));
        }
        sim.advance(INTERVAL_MAX);
        reports.extend(told(&mut sim, sender));

        let mut first_report: BTreeMap<u64, Time> = BTreeMap::new();
        let mut count = reports[0].1.count;
        let mut covered = *came.keys().next().expect("something came");
        for (at, report) in &reports {
            assert_eq!(report.count, count, "one after the other");
            count = count.wrapping_add(1);
            assert!(media.contains(&report.media), "senders must know the stream");
            assert_eq!(report.reporter, reports[0].1.reporter);
            let base = nearest(covered, report.base);
            assert!(base <= covered, "nothing is left out between reports");
            for (number, status) in (base..).zip(&report.statuses) {
                let known = came.get(&number).filter(|came| *came <= at);
                assert_eq!(*status, known.map(|at| ticks(*at)), "{number} at {at:?}");
                if status.is_some() {
                    first_report.entry(number).or_insert(*at);
                }
            }
            covered = covered.max(base + report.statuses.len() as u64);
        }
        for (number, at) in &came {
            let told = first_report
                .get(number)
                .unwrap_or_else(|| panic!("{number} was never reported"));
            assert!(told.since(*at) <= INTERVAL_MAX, "{number}: {:?}", told.since(*at));
        }
        // Within what it costs: 8 s of feedback, every 40 ms at most, and more packets only where one is full.
        let moments: std::collections::BTreeSet<Time> = reports.iter().map(|(at, _)| *at).collect();
        assert!(moments.len() <= 8_200 / 40, "{}", moments.len());
        let stats = sim.transport_stats(sender);
        assert!(stats.rtcp_sent >= reports.len() as u64);
    });
}

/// The number with these 16 bits that is nearest.
fn nearest(near: u64, number: u16) -> u64 {
    near.wrapping_add_signed(i64::from(number.wrapping_sub(near as u16).cast_signed()))
}

#[test]
fn little_is_reported_after_100_ms_and_more_after_50() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut microphone = sim.microphone(sender);
    let mut camera = sim.camera(sender, CodecName::Vp8);
    camera.stream().payload_len = 1_000;
    let mut next = 0;
    for offset in [0, 1, 4] {
        sim.advance(ms(offset));
        let begun = sim.now;
        let mut sound = [microphone.stream().sound()];
        number(&mut sound, TRANSPORT_CC, &mut next);
        sim.send(sender, &sound);
        sim.advance(ms(200));
        let [(at, report)] = &told(&mut sim, sender)[..] else {
            panic!("one report");
        };
        assert_eq!(report.statuses, [Some(ticks(begun))]);
        assert!(at.since(begun) <= INTERVAL_MAX && at.since(begun) > INTERVAL_MAX - GRID);
        assert_eq!(at.0 % GRID.as_nanos() as u64, 0);

        let begun = sim.now;
        let mut frame = camera.stream().key_frame(3);
        assert!(frame.iter().map(|packet| packet.bytes.len()).sum::<usize>() > LITTLE_BYTES as usize);
        number(&mut frame, TRANSPORT_CC, &mut next);
        sim.send(sender, &frame);
        sim.advance(ms(200));
        let [(at, report)] = &told(&mut sim, sender)[..] else {
            panic!("one report");
        };
        assert_eq!(report.statuses, [Some(ticks(begun)); 3], "a batch has one time");
        assert!(at.since(begun) <= INTERVAL && at.since(begun) > INTERVAL - GRID);
    }
    // Silence is not reported.
    sim.advance(ms(10_000));
    assert!(told(&mut sim, sender).is_empty());
}

#[test]
fn what_nobody_gets_has_come_all_the_same() {
    let mut sim = Sim::new(2);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut camera = sim.track(sender, CodecName::Vp8, D, |request| {
        sends_again(request);
        request.paused = true;
    });
    let ssrc = camera.request.encodings[0].ssrc.expect("given");
    let packet = camera.stream().key_frame(1).remove(0);
    let other_type = Rtp {
        payload_type: 33,
        ..Rtp::read(&packet.bytes)
    };
    let packets = [
        numbered(&packet.bytes, TRANSPORT_CC, 0), // paused
        probe(ssrc | RTX_BIT, RTX, 1, 1),         // padding that probes
        numbered(&wire::rtx(&packet.bytes, ssrc | RTX_BIT, RTX, 2), TRANSPORT_CC, 2), // a repetition
        probe(77, 100, 1, 3),                     // nobody's
        numbered(&other_type.write(), TRANSPORT_CC, 4), // of no codec
        numbered(&packet.bytes, TRANSPORT_CC, 5), // once more
    ];
    for packet in &packets {
        sim.send_bytes(sender, packet);
    }
    let stranger = sim.address();
    sim.deliver(
        sender,
        Port::Rtp,
        &[single(stranger, &numbered(&packet.bytes, TRANSPORT_CC, 6))],
    );
    // Three bytes are no number.
    let mut odd = Rtp::read(&packet.bytes);
    odd.extensions = Some((Form::OneByte, vec![(TRANSPORT_CC, vec![0, 7, 0])]));
    sim.send_bytes(sender, &odd.write());
    sim.advance(INTERVAL_MAX);
    let [(_, report)] = &told(&mut sim, sender)[..] else {
        panic!("one report");
    };
    assert_eq!(report.came(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(report.media, ssrc, "a stream that the sender looks for");
    assert_eq!(sim.unrouted(sender, UnroutedReason::ForeignSource), 1);
}

#[test]
fn each_producers_packets_are_read_with_its_own_id_and_nobodys_with_the_shared_one() {
    const OTHER: u8 = 9;
    let other_id = |request: &mut CreateProducer| {
        for extension in &mut request.header_extensions {
            if extension.uri == ExtensionUri::TransportWideCc {
                extension.id = OTHER;
            }
        }
    };
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    // No producer has it: nothing is told, whatever packets carry.
    let mut mute = sim.track(sender, CodecName::Opus, D, without_the_extension);
    send_numbered(&mut sim, sender, &mute.stream().sound(), 1);
    sim.send_bytes(sender, &probe(77, 100, 1, 2));
    sim.advance(INTERVAL_MAX);
    assert!(told(&mut sim, sender).is_empty());

    // One has it: only its own packets, and nobody's, are read.
    let mut first = sim.microphone(sender);
    send_numbered(&mut sim, sender, &mute.stream().sound(), 3);
    send_numbered(&mut sim, sender, &first.stream().sound(), 4);
    sim.send_bytes(sender, &probe(77, 100, 1, 5));
    sim.advance(INTERVAL_MAX);
    assert_eq!(reported(&mut sim, sender), [4, 5]);

    // Another one calls it otherwise: both count in one space, and nobody's are not understood.
    let mut second = sim.track(sender, CodecName::Opus, D, other_id);
    let both = numbered(&first.stream().sound().bytes, OTHER, 900);
    sim.send_bytes(sender, &numbered(&both, TRANSPORT_CC, 6));
    let both = numbered(&second.stream().sound().bytes, TRANSPORT_CC, 900);
    sim.send_bytes(sender, &numbered(&both, OTHER, 7));
    sim.send_bytes(sender, &probe(77, 100, 1, 8));
    sim.advance(INTERVAL_MAX);
    assert_eq!(reported(&mut sim, sender), [6, 7]);

    // A producer without it uses the id for something else: nobody's could be that.
    sim.command(Method::CloseProducer { producer: second.id() });
    let other = sim.track(sender, CodecName::Opus, D, |request| {
        without_the_extension(request);
        request.header_extensions.push(HeaderExtension {
            id: TRANSPORT_CC,
            uri: ExtensionUri::PlayoutDelay,
        });
    });
    sim.send_bytes(sender, &probe(77, 100, 1, 8));
    send_numbered(&mut sim, sender, &first.stream().sound(), 9);
    sim.advance(INTERVAL_MAX);
    assert_eq!(reported(&mut sim, sender), [9]);
    sim.command(Method::CloseProducer { producer: other.id() });
    sim.send_bytes(sender, &probe(77, 100, 1, 10));
    sim.advance(INTERVAL_MAX);
    assert_eq!(reported(&mut sim, sender), [10]);

    // A stream that is known by its MID alone is its producer's from its first packet on.
    let mut named = sim.track(sender, CodecName::Vp8, D, |request| {
        other_id(request);
        request.mid = Some("v".into());
        request.encodings[0].ssrc = None;
    });
    named.stream().extensions = vec![(MID, b"v".to_vec())];
    let packet = named.stream().key_frame(1).remove(0);
    sim.send_bytes(sender, &numbered(&packet.bytes, OTHER, 11));
    sim.advance(INTERVAL_MAX);
    assert_eq!(reported(&mut sim, sender), [11]);

    // With the last one that has it, it ends; what was noted is still told.
    send_numbered(&mut sim, sender, &first.stream().sound(), 12);
    for producer in [first.id(), named.id()] {
        sim.command(Method::CloseProducer { producer });
    }
    send_numbered(&mut sim, sender, &mute.stream().sound(), 13);
    sim.send_bytes(sender, &probe(77, 100, 1, 14));
    sim.advance(INTERVAL_MAX);
    assert_eq!(reported(&mut sim, sender), [12]);
}

/// A transport with a microphone whose packets are numbered by the test.
fn one_microphone(seed: u64) -> (Sim, TransportId, Track) {
    let mut sim = Sim::new(seed);
    let room = sim.room();
    let sender = sim.transport(room);
    let microphone = sim.microphone(sender);
    (sim, sender, microphone)
}

#[test]
fn jumps_are_followed_and_a_stray_packet_is_not() {
    let (mut sim, sender, mut microphone) = one_microphone(4);
    let mut send = |sim: &mut Sim, number: u16| send_numbered(sim, sender, &microphone.stream().sound(), number);
    for number in 65_530..=65_535 {
        send(&mut sim, number);
    }
    // Ahead over the wrap, farther than is remembered: what came before is told at once, what is lost as far as it goes.
    send(&mut sim, 5_000);
    assert_eq!(reported(&mut sim, sender), (65_530..=65_535).collect::<Vec<_>>());
    send(&mut sim, 5_001);
    sim.advance(INTERVAL_MAX);
    let [(_, report)] = &told(&mut sim, sender)[..] else {
        panic!("one report");
    };
    assert_eq!(report.came(), [5_000, 5_001]);
    assert!(report.statuses.len() <= ARRIVALS_MAX && report.statuses.len() > 1_000);
    // A packet from long ago changes nothing.
    send(&mut sim, 65_000);
    send(&mut sim, 5_003);
    send(&mut sim, 65_001);
    send(&mut sim, 5_004);
    sim.advance(INTERVAL_MAX);
    let [(_, report)] = &told(&mut sim, sender)[..] else {
        panic!("one report");
    };
    assert_eq!((report.base, report.came()), (5_002, vec![5_003, 5_004]));
    // Two in a row are a sender that has begun anew; both are told of, and so is what it had sent before.
    send(&mut sim, 5_005);
    send(&mut sim, 60_000);
    let begun = sim.now;
    sim.advance(ms(3));
    send(&mut sim, 60_002);
    send(&mut sim, 59_999);
    sim.advance(INTERVAL_MAX);
    let reports = told(&mut sim, sender);
    let [(_, before), (_, after)] = &reports[..] else {
        panic!("two reports, not {reports:?}");
    };
    assert_eq!((before.base, before.came()), (5_005, vec![5_005]));
    let expected = [Some(begun + ms(3)), Some(begun), None, Some(begun + ms(3))].map(|at| at.map(ticks));
    assert_eq!((after.base, &after.statuses[..]), (59_999, &expected[..]));
    assert_eq!(after.count, before.count.wrapping_add(1));
}

#[test]
fn what_comes_late_is_told_then_and_what_comes_twice_is_not() {
    let (mut sim, sender, mut microphone) = one_microphone(5);
    let mut send = |sim: &mut Sim, number: u16| send_numbered(sim, sender, &microphone.stream().sound(), number);
    for number in [10, 11, 14, 12] {
        send(&mut sim, number);
    }
    let first = ticks(sim.now);
    sim.advance(INTERVAL_MAX);
    let [(_, report)] = &told(&mut sim, sender)[..] else {
        panic!("one report");
    };
    assert_eq!(
        report.statuses,
        [Some(first), Some(first), Some(first), None, Some(first)]
    );
    // Twice, and before the first.
    send(&mut sim, 11);
    sim.advance(ms(1_000));
    assert!(told(&mut sim, sender).is_empty());
    send(&mut sim, 13);
    let late = ticks(sim.now);
    sim.advance(INTERVAL_MAX);
    let [(_, report)] = &told(&mut sim, sender)[..] else {
        panic!("one report");
    };
    assert_eq!(
        (report.base, &report.statuses[..]),
        (13, &[Some(late), Some(first)][..])
    );
    send(&mut sim, 8);
    sim.advance(INTERVAL_MAX);
    let [(_, report)] = &told(&mut sim, sender)[..] else {
        panic!("one report");
    };
    assert_eq!((report.base, report.came()), (8, vec![8, 10, 11, 12, 13, 14]));
}

#[test]
fn more_than_is_remembered_is_told_at_once_and_in_packets_that_fit() {
    let (mut sim, sender, mut microphone) = one_microphone(6);
    let mut numbers = Vec::new();
    // 5,000 packets in 30 ms, of which many are shuffled.
    let mut random = Random::new(6);
    for chunk in 0..50_u16 {
        let mut batch: Vec<u16> = (0..100).map(|index| chunk * 100 + index).collect();
        random.shuffle(&mut batch);
        for number in batch {
            send_numbered(&mut sim, sender, &microphone.stream().sound(), number);
            sim.advance(Duration::from_micros(6));
            numbers.push(number);
        }
    }
    let early: Vec<u16> = reported(&mut sim, sender);
    assert!(early.len() >= 5_000 - ARRIVALS_MAX / 2 - 100, "{}", early.len());
    sim.advance(INTERVAL_MAX);
    let mut all = early;
    all.extend(reported(&mut sim, sender));
    all.sort_unstable();
    all.dedup();
    let missing: Vec<u16> = (0..5_000).filter(|number| all.binary_search(number).is_err()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Somebody whose packets each undo what the last one did is sent no more than he sends.
#[test]
fn no_number_makes_us_send_much() {
    for_each_seed(10, |seed| {
        let (mut sim, sender, mut microphone) = one_microphone(seed);
        let mut random = Random::new(seed);
        let packet = microphone.stream().sound();
        let (mut number, mut sent) = (0_u16, 0);
        let begun = sim.now;
        for _ in 0..20_000 {
            number = match random.below(5) {
                0 => number.wrapping_add(ARRIVALS_MAX as u16 + random.below(30) as u16),
                1 => number.wrapping_sub(random.below(ARRIVALS_MAX) as u16),
                2 => number.wrapping_add(40_000),
                3 => number.wrapping_add(2),
                _ => random.next() as u16,
            };
            let bytes = numbered(&packet.bytes, TRANSPORT_CC, number);
            sent += bytes.len();
            sim.send_bytes(sender, &bytes);
            sim.advance(Duration::from_micros(random.below(60) as u64));
        }
        let seconds = sim.now.since(begun).as_secs_f64() + 1.0;
        let told: usize = sim.sink.rtcp.iter().map(|(.., packet)| packet.len()).sum();
        // Beside 20 full reports a second, of three packets.
        let reports = seconds * 20.0 * 3.0 * 1_200.0;
        assert!(told as f64 <= sent as f64 + reports, "{told} for {sent} in {seconds} s");
    });
}

#[test]
fn feedback_is_in_a_compound_packet_for_those_who_want_that() {
    let (mut sim, sender, mut microphone) = one_microphone(7);
    send_numbered(&mut sim, sender, &microphone.stream().sound(), 1);
    sim.advance(INTERVAL_MAX);
    let lone = |sim: &mut Sim| {
        std::mem::take(&mut sim.sink.rtcp)
            .iter()
            .map(|(.., packet)| wire::rtcp_packets(packet))
            .find(|packets| packets.iter().any(|packet| packet[..2] == [0x8f, 205]))
            .map(|packets| packets.len() == 1)
    };
    assert_eq!(lone(&mut sim), Some(true));
    let strict = sim.track(sender, CodecName::Opus, D, |request| request.reduced_size = false);
    send_numbered(&mut sim, sender, &microphone.stream().sound(), 2);
    sim.advance(INTERVAL_MAX);
    assert_eq!(lone(&mut sim), Some(false));
    sim.command(Method::CloseProducer { producer: strict.id() });
    send_numbered(&mut sim, sender, &microphone.stream().sound(), 3);
    sim.advance(INTERVAL_MAX);
    assert_eq!(lone(&mut sim), Some(true));
}

#[test]
fn nobody_is_told_where_there_is_no_place_to_tell() {
    let mut sim = Sim::new(8);
    let room = sim.room();
    // RTCP has a port of its own, which is not known, and there is none above (RFC 3550 §11).
    let mut address = sim.address();
    address.set_port(u16::MAX);
    let sender = sim.transport_with(room, address, |request| {
        request.rtcp_mux = false;
        request.comedia = true;
    });
    let mut microphone = sim.microphone(sender);
    for number in 0..3_000 {
        send_numbered(&mut sim, sender, &microphone.stream().sound(), number);
    }
    sim.advance(ms(5_000));
    assert!(told(&mut sim, sender).is_empty());
    assert_eq!(sim.transport_stats(sender).rtcp_sent, 0);
}

#[test]
fn thousands_of_transports_are_told_in_small_turns() {
    let mut sim = Sim::new(9);
    let room = sim.room();
    let mut microphones: Vec<_> = (0..1_000)
        .map(|_| {
            let sender = sim.transport(room);
            sim.microphone(sender)
        })
        .collect();
    for track in &mut microphones {
        let transport = track.transport();
        let packet = track.stream().sound();
        send_numbered(&mut sim, transport, &packet, 1);
    }
    let end = sim.now + INTERVAL_MAX;
    let mut sink = Recorder::default();
    let mut turns = 0;
    let mut count = 0;
    while let Some(due) = sim.relay.next_timeout().filter(|due| *due <= end) {
        sim.now = sim.now.max(due);
        sim.relay.handle_timeout(sim.now, &mut sink);
        let told = sink
            .rtcp
            .drain(..)
            .map(|(.., packet)| feedback(&packet).len())
            .sum::<usize>();
        assert!(told <= 128, "{told} in one turn");
        turns += usize::from(told > 0);
        count += told;
    }
    assert_eq!(count, 1_000);
    assert!(turns <= 10, "{turns} turns of wakeful work");
}

/// Transport sequence numbers are for the next hop, and so they end here.
#[test]
fn transport_numbers_reach_no_consumer() {
    for form in [Form::OneByte, Form::TwoByte] {
        for rtx in [false, true] {
            let mut sim = Sim::new(10);
            let room = sim.room();
            let sender = sim.transport(room);
            let mut camera = sim.track(sender, CodecName::Vp8, D, sends_again);
            // One that lists it under the producer's id, under another, and not at all.
            let viewers = [Some(TRANSPORT_CC), Some(12), None].map(|id| {
                let transport = sim.transport(room);
                sim.consumer_with(transport, &camera, |request| {
                    repairing(request, rtx);
                    request.header_extensions.extend(id.map(|id| HeaderExtension {
                        id,
                        uri: ExtensionUri::TransportWideCc,
                    }));
                })
            });
            camera.stream().form = form;
            camera.stream().extensions = vec![(ABS_SEND_TIME, vec![1, 2, 3])];
            let mut next = 0xabc0;
            let mut packets = camera.stream().key_frame(4);
            number(&mut packets, TRANSPORT_CC, &mut next);
            for packet in &mut packets {
                let mut rtp = Rtp::read(&packet.bytes);
                rtp.extensions.as_mut().expect("numbered").0 = form;
                packet.bytes = rtp.write();
            }
            let ssrc = Rtp::read(&packets[0].bytes).ssrc;
            sim.send(sender, &[packets[0].clone(), packets[1].clone(), packets[3].clone()]);
            sim.advance(ms(10));
            // One came by retransmission, under a number of its own.
            sim.send_bytes(sender, &wire::rtx(&packets[2].bytes, ssrc | RTX_BIT, RTX, 1));
            sim.advance(INTERVAL_MAX);
            assert!(!reported(&mut sim, sender).is_empty());
            for viewer in viewers {
                let received = sim.received(viewer);
                assert_eq!(received.len(), 4);
                let request = sim.consumers[&viewer].request.clone();
                let seqs: Vec<u16> = received.iter().map(|packet| packet.rtp.seq).collect();
                sim.send_rtcp(request.transport, &wire::nack(1, request.ssrc, &seqs));
                let again = sim.sink.resent.drain(..).map(|(.., packet)| packet);
                let all: Vec<Vec<u8>> = received
                    .iter()
                    .map(|packet| packet.bytes.clone())
                    .chain(again)
                    .collect();
                assert_eq!(all.len(), 8);
                for packet in all {
                    let rtp = Rtp::read(&packet);
                    let ids: Vec<u8> = rtp
                        .extensions
                        .iter()
                        .flat_map(|(_, all)| all.iter().map(|(id, _)| *id))
                        .collect();
                    assert_eq!(ids, [ABS_SEND_TIME], "{form:?}");
                    let end = packet.len() - rtp.payload.len();
                    assert!(
                        !packet[12..end]
                            .windows(2)
                            .any(|pair| pair[0] == 0xab && pair[1] >> 4 == 0xc)
                    );
                }
            }
            sim.check_accounts();
        }
    }
}

/// The draft, §3.1: the count is that of feedback packets, by which a sender knows that one was lost.
#[test]
fn feedback_is_numbered_on_over_a_death() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut camera = sim.track(sender, CodecName::Vp8, D, |_| ());
    let (mut counts, mut numbers, mut next) = (Vec::new(), Vec::new(), 0_u16);
    for death in 0..4 {
        // Over the end of its 8 bits.
        for _ in 0..90 {
            for packet in camera.stream().frame_of(3, false) {
                next += 1;
                send_numbered(&mut sim, sender, &packet, next);
            }
            sim.advance(INTERVAL_MAX);
        }
        for (_, told) in told(&mut sim, sender) {
            counts.push(told.count);
            numbers.extend(told.came());
        }
        if death < 3 {
            sim.die();
            sim.succeed();
        }
    }
    assert!(counts.len() > 300, "{}", counts.len());
    let went_on = (0..counts.len()).map(|place| place as u8);
    assert!(counts.iter().copied().eq(went_on), "{counts:?}");
    assert!(numbers.is_sorted(), "nothing is told twice");
}
