//! Reports: what senders and receivers are told once a second, what they tell, and that sound and picture stay together
//! through it (RFC 3550 §6, RFC 3611, REMB).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CodecName, Method, Profile, StreamStats};
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::sink::Port;
use weir_worker::time::{Time, WallClock};

use crate::sim::reports::{self, Block, Said, said};
use crate::sim::track::{Track, codec};
use crate::sim::{Sim, WALL_CLOCK, for_each_seed, ms, single, wire};

/// What was said on a transport since the last time, with the time of each packet.
fn heard(sim: &mut Sim, transport: TransportId) -> Vec<(Time, Vec<Said>)> {
    let index = sim.index(transport);
    let packets = std::mem::take(&mut sim.sink.rtcp);
    let (ours, others): (Vec<_>, Vec<_>) = packets.into_iter().partition(|(_, other, _)| *other == index);
    sim.sink.rtcp = others.into();
    ours.into_iter().map(|(at, _, packet)| (at, said(&packet))).collect()
}

/// All that was said on a transport since the last time.
fn all_heard(sim: &mut Sim, transport: TransportId) -> Vec<Said> {
    heard(sim, transport).into_iter().flat_map(|(_, said)| said).collect()
}

fn blocks(said: &[Said]) -> Vec<Block> {
    said.iter()
        .filter_map(|said| match said {
            Said::Block { block, .. } => Some(*block),
            _ => None,
        })
        .collect()
}

/// The sender reports of an SSRC: (NTP, RTP, packets, octets).
fn sender_reports(said: &[Said], of: u32) -> Vec<(u64, u32, u32, u32)> {
    said.iter()
        .filter_map(|said| match *said {
            Said::SenderReport {
                ssrc,
                ntp,
                rtp,
                packets,
                octets,
            } if ssrc == of => Some((ntp, rtp, packets, octets)),
            _ => None,
        })
        .collect()
}

fn ssrc(sim: &Sim, consumer: ConsumerId) -> u32 {
    sim.consumers[&consumer].request.ssrc
}

/// A microphone and one listener: (sim, track, the listener's transport, consumer).
fn call(seed: u64) -> (Sim, Track, TransportId, ConsumerId) {
    let mut sim = Sim::new(seed);
    let room = sim.room();
    let sender = sim.transport(room);
    let track = sim.microphone(sender);
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    (sim, track, receiver, consumer)
}

/// Sound for so many milliseconds, a packet each 20.
fn talk(sim: &mut Sim, track: &mut Track, duration_ms: u64) {
    for _ in 0..duration_ms / 20 {
        let packet = track.stream().sound();
        sim.send(track.request.transport, &[packet]);
        sim.advance(ms(20));
    }
}

/// A time less what the other end has kept a report for, in 1/65536 s; in microseconds.
fn less(elapsed: Duration, kept: u32) -> u32 {
    let kept_ns = (u128::from(kept) * 1_000_000_000) >> 16;
    ((elapsed.as_nanos() - kept_ns) / 1_000) as u32
}

fn stream_stats(sim: &mut Sim, track: &Track) -> StreamStats {
    sim.producer_stats(track.id()).streams.remove(0)
}

// ---- Sound and picture.

/// A sender whose clock is not ours.
struct Endpoint {
    ahead_ns: u64,
    drift_ppm: i64,
}

impl Endpoint {
    fn clock_ns(&self, at: Time) -> u64 {
        let drift = at.0.cast_signed() / 1_000_000 * self.drift_ppm;
        (at.0 + self.ahead_ns).wrapping_add_signed(drift)
    }

    fn ntp(&self, at: Time) -> u64 {
        let ns = self.clock_ns(at);
        (ns / 1_000_000_000) << 32 | (((ns % 1_000_000_000) << 32) / 1_000_000_000)
    }

    fn ticks(&self, at: Time, rate: u64) -> u64 {
        (u128::from(self.clock_ns(at)) * u128::from(rate) / 1_000_000_000) as u64
    }
}

/// How far sound and picture of one sender are apart behind the relay, at worst, in microseconds: by what a receiver
/// computes from its sender reports, over a minute of jitter, with a switch between layers in it.
/// `cnames` are given to its consumers, or if they are made up, said by the sender.
fn worst_offset_us(seed: u64, cnames: [&str; 2], are_made_up: bool) -> i64 {
    let mut sim = Sim::new(seed);
    let room = sim.room();
    let endpoint = Endpoint {
        ahead_ns: 1_700_000_000_000_000_000 + sim.random.below(1_000_000_000) as u64,
        drift_ppm: sim.random.below(200) as i64 - 100,
    };
    let (audio_in, video_in) = (sim.transport(room), sim.transport(room));
    let (mut audio, mut video) = (sim.microphone(audio_in), sim.simulcast(video_in));
    let (audio_out, video_out) = (sim.transport(room), sim.transport(room));
    let given = |index: usize| match are_made_up {
        true => format!("made up {index}"),
        false => cnames[index].to_owned(),
    };
    let sound = sim.consumer_with(audio_out, &audio, |request| {
        (request.cname, request.cname_is_made_up) = (given(0), are_made_up);
    });
    let picture = sim.consumer_with(video_out, &video, |request| {
        (request.cname, request.cname_is_made_up) = (given(1), are_made_up);
    });

    // What arrives, and when.
    let start = sim.now;
    let mut bases = BTreeMap::new();
    let mut arrivals: Vec<(Time, TransportId, Vec<u8>)> = Vec::new();
    let (mut sound_at, mut picture_at) = (start, start);
    let end = start + Duration::from_secs(60);
    while sound_at < end {
        let stream = audio.stream();
        let base = *bases.entry(stream.number).or_insert(stream.timestamp);
        stream.timestamp = base + endpoint.ticks(sound_at, 48_000);
        let jitter = ms(20 + sim.random.below(30) as u64);
        arrivals.push((sound_at + jitter, audio_in, stream.sound().bytes));
        sound_at = sound_at + ms(20);
    }
    while picture_at < end {
        for stream in &mut video.streams {
            let base = *bases.entry(stream.number).or_insert(stream.timestamp);
            stream.timestamp = base + endpoint.ticks(picture_at, 90_000);
            let key = stream.frame % 30 == 0;
            let jitter = ms(20 + sim.random.below(40) as u64);
            arrivals.push((picture_at + jitter, video_in, stream.frame_of(1, key).remove(0).bytes));
        }
        picture_at = picture_at + ms(33);
    }
    let sources: Vec<_> = [(audio_in, audio.stream().clone(), 48_000)]
        .into_iter()
        .chain(video.streams.iter().map(|stream| (video_in, stream.clone(), 90_000)))
        .collect();
    for (transport, stream, rate) in sources {
        let mut at = start + ms(sim.random.below(1_000) as u64);
        while at < end {
            let rtp = bases[&stream.number] + endpoint.ticks(at, rate);
            let mut report = wire::sender_report(stream.ssrc, endpoint.ntp(at), rtp as u32);
            if are_made_up {
                let name = cnames[usize::from(transport == video_in)];
                report.extend(&reports::names(1, &[(stream.ssrc, name.as_bytes())])[8..]);
            }
            // Now and then a report takes very long.
            let slow = if sim.random.chance(50) { 400 } else { 100 };
            arrivals.push((at + ms(20 + sim.random.below(slow) as u64), transport, report));
            at = at + ms(700 + sim.random.below(600) as u64);
        }
    }
    arrivals.sort_by_key(|(at, ..)| *at);

    // What a receiver knows of each consumer: the last packet (its timestamp, when it was captured), and how far its
    // reports put the capture clock from the wall clock.
    let rate = |consumer| if consumer == sound { 48_000 } else { 90_000 };
    let (mut last, mut distance) = (BTreeMap::new(), BTreeMap::new());
    let (mut worst, mut compared) = (0, 0);
    for (index, (at, transport, bytes)) in arrivals.into_iter().enumerate() {
        sim.advance(at.since(sim.now));
        if index == 4_000 {
            sim.prefer(picture, Profile::Low);
        }
        sim.send_bytes(transport, &bytes);
        for consumer in [sound, picture] {
            for packet in sim.received(consumer) {
                let mark = packet.mark();
                let ticks = u128::from(mark.timestamp - bases[&mark.stream]);
                let captured_ns = (ticks * 1_000_000_000 / rate(consumer) as u128) as i64;
                last.insert(consumer, (packet.rtp.timestamp, captured_ns));
            }
        }
        for (consumer, transport) in [(sound, audio_out), (picture, video_out)] {
            let reports = all_heard(&mut sim, transport);
            for (ntp, rtp, ..) in sender_reports(&reports, ssrc(&sim, consumer)) {
                let (timestamp, captured_ns) = last[&consumer];
                let since = i64::from(timestamp.wrapping_sub(rtp).cast_signed()) * 1_000_000_000 / rate(consumer);
                let wall_ns = ((u128::from(ntp) * 1_000_000_000) >> 32) as u64;
                distance.insert(consumer, wall_ns.wrapping_add_signed(since - captured_ns).cast_signed());
            }
        }
        // Once the sender has reported on everything.
        if at.since(start) > ms(5_000)
            && let (Some(sound), Some(picture)) = (distance.get(&sound), distance.get(&picture))
        {
            let offset: i64 = sound - picture;
            worst = worst.max(offset.abs() / 1_000);
            compared += 1;
        }
    }
    assert!(compared > 3_000);
    let stats = sim.stats(picture);
    assert!(
        stats.switches >= 2 && stats.effective_profile == Some(Profile::Low),
        "{stats:?}"
    );
    worst
}

#[test]
fn sound_and_picture_stay_together_whatever_the_network_does() {
    for_each_seed(6, |seed| {
        let worst = worst_offset_us(seed, ["anna", "anna"], false);
        assert!(worst < 2_000, "{worst} µs apart");
    });
}

/// RFC 3550 §6.5.1: also if the sender alone says that they belong together.
#[test]
fn sound_and_picture_that_the_sender_names_alike_stay_together() {
    for_each_seed(6, |seed| {
        let worst = worst_offset_us(seed, ["anna", "anna"], true);
        assert!(worst < 2_000, "{worst} µs apart");
    });
    let worst = worst_offset_us(1, ["anna", "bert"], true);
    assert!(worst > 5_000, "{worst} µs apart");
}

/// The measurement measures: streams of different endpoints are placed each by its own reports, jitter and all.
#[test]
fn streams_of_different_endpoints_are_not_held_together() {
    let worst = worst_offset_us(1, ["anna", "bert"], false);
    assert!(worst > 5_000, "{worst} µs apart");
}

#[test]
fn until_the_sender_has_reported_the_newest_packet_counts() {
    let (mut sim, mut track, receiver, consumer) = call(1);
    talk(&mut sim, &mut track, 3_000);
    let packets = sim.received(consumer);
    let reports = heard(&mut sim, receiver);
    assert!(reports.len() >= 2);
    for (at, said) in reports {
        let newest = packets.iter().rfind(|packet| packet.at <= at).unwrap();
        let [(ntp, rtp, ..)] = sender_reports(&said, ssrc(&sim, consumer))[..] else {
            panic!("{said:?}");
        };
        assert_eq!(ntp, WALL_CLOCK.ntp(at));
        let ticks = at.since(newest.at).as_nanos() * 48_000 / 1_000_000_000;
        assert_eq!(rtp, newest.rtp.timestamp.wrapping_add(ticks as u32));
    }
}

#[test]
fn a_report_that_makes_no_sense_is_not_believed() {
    let (mut sim, mut track, receiver, consumer) = call(2);
    talk(&mut sim, &mut track, 200);
    // A minute before its packets.
    let rtp = track.stream().timestamp as u32 - 60 * 48_000;
    let report = wire::sender_report(track.stream().ssrc, 7 << 32, rtp);
    sim.send_rtcp(track.transport(), &report);
    talk(&mut sim, &mut track, 2_000);
    let packets = sim.received(consumer);
    let (at, said) = heard(&mut sim, receiver).pop().unwrap();
    let newest = packets.iter().rfind(|packet| packet.at <= at).unwrap();
    let rtp = sender_reports(&said, ssrc(&sim, consumer))[0].1;
    assert!(rtp.wrapping_sub(newest.rtp.timestamp) <= 960);
}

/// What a receiver is told that its media's timestamp was at a moment, less what it was by the arrival of the newest packet, in ticks;
/// after these reports of the sender, one after each second of sound: their NTP times.
fn off_arrival(seed: u64, ntps: &[u64]) -> i64 {
    let (mut sim, mut track, receiver, consumer) = call(seed);
    for ntp in ntps {
        talk(&mut sim, &mut track, 1_000);
        // Captured 400 ms before it arrives: a report tells of that, arrival doesn't.
        let rtp = (track.stream().timestamp as u32).wrapping_add(400 * 48);
        sim.send_rtcp(track.transport(), &wire::sender_report(track.stream().ssrc, *ntp, rtp));
    }
    sim.received(consumer);
    heard(&mut sim, receiver);
    talk(&mut sim, &mut track, 2_000);
    let packets = sim.received(consumer);
    let Some((at, said)) = heard(&mut sim, receiver).pop() else {
        panic!("no report");
    };
    let Some(newest) = packets.iter().rfind(|packet| packet.at <= at) else {
        panic!("no packet");
    };
    let since = (at.since(newest.at).as_nanos() * 48_000 / 1_000_000_000) as u32;
    let rtp = sender_reports(&said, ssrc(&sim, consumer))[0].1;
    i64::from(rtp.wrapping_sub(newest.rtp.timestamp.wrapping_add(since)).cast_signed())
}

/// RFC 3550 §6.4.1: a sender without a wall clock says 0. Nor is it a time that is a day away from the one before.
#[test]
fn no_time_is_no_time() {
    const DAY: u64 = 86_400;
    let at = |seconds: u64| (0xe000_0000 + seconds) << 32;
    let believed = off_arrival(3, &[at(1), at(2), at(3)]);
    assert!((believed - 400 * 48).abs() < 1_000, "{believed}");
    // From the beginning, and from then on.
    assert_eq!(off_arrival(3, &[0, 0, 0]), 0);
    assert_eq!(off_arrival(3, &[at(1), at(2), 0]), 0);
    let again = off_arrival(3, &[0, 0, at(3)]);
    assert!((again - 400 * 48).abs() < 1_000, "{again}");
    // One that is a day or more away, either way, changes nothing.
    for absurd in [at(3 + DAY), at(3) - (DAY << 32), 1, u64::MAX] {
        let kept = off_arrival(3, &[at(1), at(2), absurd]);
        assert!((kept - 400 * 48).abs() < 2_000, "{absurd:x}: {kept}");
    }
    // Nor does one that was overtaken by others, however little it is late: what was said after it counts.
    for late in [at(1), at(2) - (1 << 31), at(2)] {
        let kept = off_arrival(3, &[at(1), at(2), late]);
        assert!((kept - 400 * 48).abs() < 2_000, "{late:x}: {kept}");
    }
    // A clock that is set stays set.
    let set = off_arrival(3, &[at(1), at(2 + DAY), at(3 + DAY), at(4 + DAY)]);
    assert!((set - 400 * 48).abs() < 2_000, "{set}");
    let set_back = off_arrival(3, &[at(11), at(2), at(3), at(4)]);
    assert!((set_back - 400 * 48).abs() < 2_000, "{set_back}");
}

// ---- To receivers.

#[test]
fn a_sender_report_counts_packets_and_payload_bytes_and_names_the_endpoint() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let receiver = sim.transport(room);
    let consumer = sim.consumer_with(receiver, &track, |request| request.cname = "anna@example".into());
    track.stream().extensions = vec![(crate::sim::track::AUDIO_LEVEL, vec![5])];
    // Between the moments that reports are sent at, so that each packet is clearly before a report or after it.
    sim.advance(ms(3));
    talk(&mut sim, &mut track, 4_000);
    let packets = sim.received(consumer);
    let reports = heard(&mut sim, receiver);
    for (at, said) in &reports {
        let before: Vec<_> = packets.iter().filter(|packet| packet.at <= *at).collect();
        let octets: usize = before.iter().map(|packet| packet.rtp.payload.len()).sum();
        let own = ssrc(&sim, consumer);
        let [(_, _, reported_packets, reported_octets)] = sender_reports(said, own)[..] else {
            panic!("{said:?}");
        };
        assert_eq!(
            (reported_packets as usize, reported_octets as usize),
            (before.len(), octets)
        );
        let name = Said::Name {
            ssrc: own,
            cname: b"anna@example".to_vec(),
        };
        assert!(said.contains(&name), "{said:?}");
    }
    assert!(reports.len() >= 3);
    assert_eq!(sim.stats(consumer).codec.as_deref(), Some("opus"));
}

#[test]
fn who_sends_nothing_is_no_sender() {
    let (mut sim, mut track, receiver, consumer) = call(4);
    sim.advance(ms(3_000));
    assert_eq!(heard(&mut sim, receiver), [], "nothing was sent yet");
    talk(&mut sim, &mut track, 2_000);
    assert!(!heard(&mut sim, receiver).is_empty());
    // Silence: one more report, as RFC 3550 §6.4 has it, and then no more.
    sim.advance(ms(4_000));
    let last = heard(&mut sim, receiver);
    assert!(last.len() <= 2, "{last:?}");
    sim.advance(ms(5_000));
    assert_eq!(heard(&mut sim, receiver), []);
    // Paused, by itself or with its producer.
    talk(&mut sim, &mut track, 2_000);
    heard(&mut sim, receiver);
    sim.pause(consumer);
    talk(&mut sim, &mut track, 3_000);
    assert_eq!(heard(&mut sim, receiver), []);
    sim.resume(consumer);
    sim.pause_producer(track.id());
    talk(&mut sim, &mut track, 3_000);
    assert_eq!(heard(&mut sim, receiver), []);
    sim.resume_producer(track.id());
    talk(&mut sim, &mut track, 2_000);
    assert!(!heard(&mut sim, receiver).is_empty());
}

#[test]
fn the_wall_clock_is_followed_when_it_is_set() {
    let (mut sim, mut track, receiver, consumer) = call(5);
    talk(&mut sim, &mut track, 2_000);
    heard(&mut sim, receiver);
    let set = WallClock::new(sim.now, 2_000_000_000_000_000_000);
    sim.relay.set_wall_clock(set);
    talk(&mut sim, &mut track, 2_000);
    for (at, said) in heard(&mut sim, receiver) {
        assert_eq!(sender_reports(&said, ssrc(&sim, consumer))[0].0, set.ntp(at));
    }
}

#[test]
fn receivers_are_told_of_consumers_that_close() {
    let mut sim = Sim::new(6);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut tracks = [sim.microphone(sender), sim.microphone(sender)];
    let receiver = sim.transport(room);
    let first: Vec<_> = (0..40).map(|_| sim.consumer(receiver, &tracks[0])).collect();
    let second: Vec<_> = (0..40).map(|_| sim.consumer(receiver, &tracks[1])).collect();
    let silent = sim.consumer_with(receiver, &tracks[1], |request| request.paused = true);
    for track in &mut tracks {
        talk(&mut sim, track, 40);
    }
    let ssrcs = |sim: &Sim, consumers: &[ConsumerId]| -> BTreeSet<u32> {
        consumers.iter().map(|consumer| ssrc(sim, *consumer)).collect()
    };
    let byes = |said: Vec<Said>| -> BTreeSet<u32> {
        said.into_iter()
            .filter_map(|said| match said {
                Said::Bye { ssrc } => Some(ssrc),
                _ => None,
            })
            .collect()
    };
    heard(&mut sim, receiver);
    sim.command(Method::CloseConsumer { consumer: first[0] });
    assert_eq!(byes(all_heard(&mut sim, receiver)), ssrcs(&sim, &first[..1]));
    sim.command(Method::CloseConsumer { consumer: silent });
    assert_eq!(byes(all_heard(&mut sim, receiver)), BTreeSet::new());
    sim.command(Method::CloseProducer {
        producer: tracks[0].id(),
    });
    assert_eq!(byes(all_heard(&mut sim, receiver)), ssrcs(&sim, &first[1..]));
    // The transport itself: its last words come before its sockets go.
    let index = sim.index(receiver);
    sim.command(Method::CloseTransport { transport: receiver });
    let said = sim.sink.rtcp.drain(..).filter(|(_, other, _)| *other == index);
    let said: Vec<Said> = said.flat_map(|(_, _, packet)| said_of(&packet)).collect();
    assert_eq!(byes(said), ssrcs(&sim, &second));
}

fn said_of(packet: &[u8]) -> Vec<Said> {
    said(packet)
}

// ---- From receivers.

#[test]
fn what_receivers_report_is_remembered_and_measures_the_way() {
    let (mut sim, mut track, receiver, consumer) = call(7);
    talk(&mut sim, &mut track, 1_500);
    let (sent_at, said) = heard(&mut sim, receiver).pop().unwrap();
    let own = ssrc(&sim, consumer);
    let ntp = sender_reports(&said, own)[0].0;
    let block = Block {
        ssrc: own,
        fraction: 30,
        lost: -3,
        highest: 5,
        jitter: 77,
        last_report: (ntp >> 16) as u32,
        delay: 6_554, // a tenth of a second
    };
    // What says nothing of the way there and back is remembered all the same.
    for nonsense in [
        Block {
            last_report: 0,
            ..block
        },
        Block {
            last_report: 12_345,
            ..block
        },
        Block {
            delay: u32::MAX,
            ..block
        },
    ] {
        sim.send_rtcp(receiver, &reports::receiver_report(1, &[nonsense]));
        assert_eq!(sim.stats(consumer).round_trip_us, None, "{nonsense:?}");
    }
    sim.advance(ms(130) - sim.now.since(sent_at).min(ms(130)));
    let elapsed = sim.now.since(sent_at);
    let others = [Block { ssrc: 99, ..block }, block, Block { ssrc: 100, ..block }];
    sim.send_rtcp(receiver, &reports::receiver_report(1, &others));
    let stats = sim.stats(consumer);
    assert_eq!((stats.packets_lost, stats.fraction_lost, stats.jitter), (-3, 30, 77));
    let expected = less(elapsed, 6_554);
    assert_eq!(stats.round_trip_us, Some(expected));

    // In a sender report they count as well; and a wall clock that is set does not make the way longer.
    sim.relay.set_wall_clock(WallClock::new(sim.now, 5));
    let block = Block {
        lost: 0x7f_ffff,
        ..block
    };
    sim.send_rtcp(receiver, &reports::sender_report(1, 0, 0, &[block]));
    let stats = sim.stats(consumer);
    assert_eq!((stats.packets_lost, stats.round_trip_us), (0x7f_ffff, Some(expected)));
}

#[test]
fn what_receivers_can_take_is_known() {
    let (mut sim, _, receiver, consumer) = call(8);
    let own = ssrc(&sim, consumer);
    for (mantissa, exponent, bps) in [
        (1_000, 0, Some(1_000)),
        (0x3_ffff, 10, Some(0x3_ffff << 10)),
        (2, 63, Some(u64::MAX)),
    ] {
        sim.send_rtcp(receiver, &reports::remb(1, mantissa, exponent, &[own]));
        assert_eq!(sim.transport_stats(receiver).remote_bitrate_bps, bps);
    }
}

#[test]
fn receivers_that_ask_for_the_way_are_answered() {
    let (mut sim, mut track, receiver, _) = call(9);
    talk(&mut sim, &mut track, 1_000);
    heard(&mut sim, receiver);
    let asked = sim.now;
    for reporter in [5, 6, 5] {
        sim.send_rtcp(
            receiver,
            &reports::reference_time(reporter, 0x1111_2222_3333_4444 + u64::from(reporter)),
        );
    }
    talk(&mut sim, &mut track, 3_000);
    let answers: Vec<_> = heard(&mut sim, receiver)
        .into_iter()
        .flat_map(|(at, said)| said.into_iter().map(move |said| (at, said)))
        .filter_map(|(at, said)| match said {
            Said::Delay { ssrc, reference, since } => Some((at, ssrc, reference, since)),
            _ => None,
        })
        .collect();
    let since = (answers[0].0.since(asked).as_nanos() * 65_536 / 1_000_000_000) as u32;
    let at = answers[0].0;
    assert_eq!(
        answers,
        [(at, 5, 0x2222_3333, since), (at, 6, 0x2222_3333, since)],
        "each once"
    );
}

// ---- To senders.

#[test]
fn senders_are_told_how_their_streams_arrive_also_while_paused() {
    let (mut sim, mut track, _, _) = call(10);
    let sender = track.transport();
    sim.pause_producer(track.id());
    let stream_ssrc = track.stream().ssrc;
    let first = track.stream().seq;
    let mut reports = Vec::new();
    for number in 0..250 {
        let packet = track.stream().sound();
        if number % 5 != 3 {
            sim.send(sender, &[packet]);
        }
        if number == 100 {
            sim.send_rtcp(sender, &wire::sender_report(stream_ssrc, 0x1234_5678_9abc_def0, 0));
        }
        let at = sim.now;
        sim.advance(ms(20));
        reports.extend(
            heard(&mut sim, sender)
                .into_iter()
                .map(|(when, said)| (number, at, when, said)),
        );
    }
    assert!(reports.len() >= 4);
    let mut expected_before = 0;
    for (number, _, when, said) in reports {
        let [block] = blocks(&said)[..] else { panic!("{said:?}") };
        let lost_of = |numbers: u64| (0..=numbers).filter(|number| number % 5 == 3).count() as i64;
        let newest = if number % 5 == 3 { number - 1 } else { number };
        let (expected, lost) = (newest as i64 + 1, lost_of(newest));
        let lost_before = if expected_before == 0 {
            0
        } else {
            lost_of(expected_before as u64 - 1)
        };
        assert_eq!(block.ssrc, stream_ssrc);
        assert_eq!(i64::from(block.lost), lost);
        let fraction = ((lost - lost_before) << 8) / (expected - expected_before);
        assert_eq!(i64::from(block.fraction), fraction);
        let newest = (first & 0xffff) + newest;
        assert_eq!(u64::from(block.highest), newest, "cycles count from the first packet's");
        assert_eq!(block.jitter, 0);
        if number > 100 {
            assert_eq!(block.last_report, 0x5678_9abc);
            assert!(block.delay > 0 && block.delay < 4 << 16);
        } else {
            assert_eq!((block.last_report, block.delay), (0, 0));
        }
        expected_before = expected;
        let _ = when;
    }
    let stats = stream_stats(&mut sim, &track);
    assert_eq!((stats.codec.as_deref(), stats.jitter), (Some("opus"), 0));
    assert!(stats.fraction_lost > 40);
}

#[test]
fn a_start_out_of_order_is_no_gain_and_what_is_older_does_not_count() {
    let (mut sim, mut track, _, _) = call(22);
    let sender = track.transport();
    track.stream().seq += 1_000;
    let packets: Vec<_> = (0..200).map(|_| track.stream().sound()).collect();
    // 191 is the first to come, 190 and 127 (63 before it) are late, 62 is older than a start can be, however often it comes.
    for number in [191, 190, 192, 127, 62, 62] {
        sim.send(sender, &packets[number..=number]);
    }
    sim.advance(ms(1_000));
    let [block] = blocks(&all_heard(&mut sim, sender))[..] else {
        panic!("one report");
    };
    assert_eq!(block.lost, 62, "128 to 189");
    assert_eq!(u64::from(block.highest), packets[192].mark.seq & 0xffff);
    for number in 193..200 {
        sim.send(sender, &packets[number..=number]);
    }
    sim.advance(ms(2_000));
    let [block] = blocks(&all_heard(&mut sim, sender))[..] else {
        panic!("one report");
    };
    assert_eq!((block.lost, block.fraction), (62, 0));
}

#[test]
fn a_senders_answer_measures_the_way_to_it() {
    let (mut sim, mut track, _, _) = call(11);
    let sender = track.transport();
    talk(&mut sim, &mut track, 1_500);
    let (sent_at, said) = heard(&mut sim, sender).pop().unwrap();
    let (reporter, ntp) = said
        .iter()
        .find_map(|said| match said {
            Said::ReferenceTime { reporter, ntp } => Some((*reporter, *ntp)),
            _ => None,
        })
        .expect("a reference time goes with reception reports");
    assert_eq!(ntp, WALL_CLOCK.ntp(sent_at));
    let reference = (ntp >> 16) as u32;
    let stream_ssrc = track.stream().ssrc;
    sim.advance(ms(50));
    let elapsed = sim.now.since(sent_at);
    // Not ours, and not sent.
    sim.send_rtcp(sender, &reports::delay(stream_ssrc, reporter ^ 1, reference, 0));
    sim.send_rtcp(sender, &reports::delay(stream_ssrc, reporter, reference ^ 1, 0));
    assert_eq!(stream_stats(&mut sim, &track).round_trip_us, None);
    sim.send_rtcp(sender, &reports::delay(stream_ssrc, reporter, reference, 655));
    let round_trip = stream_stats(&mut sim, &track).round_trip_us;
    assert_eq!(round_trip, Some(less(elapsed, 655)));
}

#[test]
fn many_streams_and_consumers_are_split_and_each_is_reported_once() {
    let mut sim = Sim::new(12);
    let room = sim.room();
    let shared = sim.transport(room);
    let mut tracks: Vec<_> = (0..70).map(|_| sim.microphone(shared)).collect();
    let consumers: Vec<_> = (0..20)
        .flat_map(|index| [0, 1].map(|_| index))
        .map(|index| {
            sim.consumer_with(shared, &tracks[index], |request| {
                request.cname = "x".repeat(1 + index * 12);
            })
        })
        .collect();
    let deadline = sim.now + ms(750);
    for track in &mut tracks {
        let packet = track.stream().sound();
        sim.send(shared, &[packet]);
    }
    sim.advance(deadline.since(sim.now));
    // Every packet was checked to be a compound packet of at most 1,200 bytes, with at most 31 of everything.
    let said = all_heard(&mut sim, shared);
    let mut reported: Vec<_> = blocks(&said).iter().map(|block| block.ssrc).collect();
    reported.sort_unstable();
    let mut sent: Vec<_> = tracks.iter().map(|track| track.streams[0].ssrc).collect();
    sent.sort_unstable();
    assert_eq!(reported, sent);
    for consumer in consumers {
        assert_eq!(sender_reports(&said, ssrc(&sim, consumer)).len(), 1);
    }
}

#[test]
fn thousands_of_consumers_are_reported_on_in_small_turns() {
    const CONSUMERS: usize = 5_000;
    let mut sim = Sim::new(13);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let receiver = sim.transport(room);
    let consumers: Vec<_> = (0..CONSUMERS).map(|_| sim.consumer(receiver, &track)).collect();
    let packet = track.stream().sound();
    sim.send(sender, &[packet]);
    sim.trains();
    sim.advance(ms(1_000));
    let reports = heard(&mut sim, receiver);
    let mut turns: BTreeMap<Time, usize> = BTreeMap::new();
    for (at, _) in &reports {
        *turns.entry(*at).or_default() += 1;
    }
    assert!(turns.values().all(|packets| *packets <= 5), "{turns:?}");
    let (first, last) = (turns.keys().next().unwrap(), turns.keys().last().unwrap());
    assert!(last.since(*first) < ms(200), "{turns:?}");
    let said: Vec<_> = reports.into_iter().flat_map(|(_, said)| said).collect();
    let reported: BTreeSet<_> = said
        .iter()
        .filter_map(|said| match said {
            Said::SenderReport { ssrc, .. } => Some(*ssrc),
            _ => None,
        })
        .collect();
    let all: BTreeSet<_> = consumers.iter().map(|consumer| ssrc(&sim, *consumer)).collect();
    assert_eq!(reported, all);
}

#[test]
fn rfc3550_6_2_reports_are_a_random_half_to_one_and_a_half_seconds_apart() {
    let (mut sim, mut track, receiver, _) = call(14);
    let start = sim.now;
    talk(&mut sim, &mut track, 100_000);
    let times: Vec<_> = heard(&mut sim, receiver).iter().map(|(at, _)| *at).collect();
    let first = times[0].since(start);
    assert!((ms(250)..=ms(750)).contains(&first), "{first:?}");
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.iter().all(|gap| (ms(500)..=ms(1_500)).contains(gap)), "{gaps:?}");
    assert!((85..=115).contains(&times.len()), "{} in 100 s", times.len());
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(*least < ms(600) && *most > ms(1_400), "{least:?} to {most:?}");
}

/// Nobody has to wake up for a report where packets are relayed all the time; and there are as many as without them.
#[test]
fn reports_leave_with_the_packets_that_are_relayed_anyway() {
    let (mut sim, mut track, receiver, _) = call(15);
    let start = sim.now;
    // What is due by itself is so at whole hundredths of a second, and no packet comes then.
    sim.advance(ms(3));
    for _ in 0..5_000 {
        let packet = track.stream().sound();
        sim.send(track.request.transport, &[packet]);
        sim.report_early();
        sim.advance(ms(20));
    }
    let times: Vec<_> = heard(&mut sim, receiver).iter().map(|(at, _)| *at).collect();
    assert!(
        times
            .iter()
            .all(|at| (at.since(start).as_millis() - 3).is_multiple_of(20)),
        "{times:?}"
    );
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.iter().all(|gap| (ms(400)..=ms(1_600)).contains(gap)), "{gaps:?}");
    assert!((85..=115).contains(&times.len()), "{} in 100 s", times.len());
}

#[test]
fn the_parts_of_a_report_keep_their_distance_also_if_packets_are_relayed() {
    let mut sim = Sim::new(16);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let receiver = sim.transport(room);
    for _ in 0..1_000 {
        sim.consumer(receiver, &track);
    }
    let mut turns: BTreeMap<Time, usize> = BTreeMap::new();
    for _ in 0..2_000 {
        let packet = track.stream().sound();
        sim.send(sender, &[packet]);
        sim.report_early();
        sim.report_early();
        for (at, _) in heard(&mut sim, receiver) {
            *turns.entry(at).or_default() += 1;
        }
        sim.advance(Duration::from_micros(500));
    }
    assert!(turns.len() > 5, "{turns:?}");
    assert!(turns.values().all(|packets| *packets <= 5), "{turns:?}");
    let times: Vec<_> = turns.keys().copied().collect();
    assert!(
        times.windows(2).all(|pair| pair[1].since(pair[0]) >= ms(1)),
        "{turns:?}"
    );
}

// ---- Limits.

#[test]
fn a_limit_is_told_at_once_and_with_each_report_until_it_is_taken_away() {
    let mut sim = Sim::new(15);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut camera = sim.track(sender, CodecName::Vp8, &[Profile::Low, Profile::High], |request| {
        request.codecs[0].remb = true;
    });
    let mut deaf = sim.microphone(sender);
    let heeding: Vec<_> = camera.streams.iter().map(|stream| stream.ssrc).collect();
    let limits = |said: Vec<Said>| -> Vec<(u64, Vec<u32>)> {
        said.into_iter()
            .filter_map(|said| match said {
                Said::Remb { bps, ssrcs, .. } => Some((bps, ssrcs)),
                _ => None,
            })
            .collect()
    };
    let run = |sim: &mut Sim, camera: &mut Track, deaf: &mut Track, duration: u64| {
        for _ in 0..duration / 20 {
            for stream in &mut camera.streams {
                let frame = stream.delta_frame(1);
                sim.send(sender, &frame);
            }
            talk(sim, deaf, 20);
        }
    };
    run(&mut sim, &mut camera, &mut deaf, 2_000);
    assert_eq!(limits(all_heard(&mut sim, sender)), []);
    let limit = |bitrate_bps| Method::SetMaxBitrate {
        transport: sender,
        bitrate_bps,
    };
    sim.command(limit(Some(1_000_001)));
    // 1,000,001 takes 20 bits, so the lowest two are not said; a limit is not exceeded.
    let told = (1_000_000, heeding.clone());
    assert_eq!(limits(all_heard(&mut sim, sender)), std::slice::from_ref(&told));
    assert_eq!(sim.transport_stats(sender).max_bitrate_bps, Some(1_000_001));
    sim.command(limit(Some(1_000_001)));
    assert_eq!(limits(all_heard(&mut sim, sender)), [], "nothing new");
    run(&mut sim, &mut camera, &mut deaf, 3_000);
    let repeated = limits(all_heard(&mut sim, sender));
    assert!(repeated.len() >= 2 && repeated.iter().all(|again| *again == told));
    sim.command(limit(None));
    assert_eq!(limits(all_heard(&mut sim, sender)), [(1 << 40, heeding.clone())]);
    run(&mut sim, &mut camera, &mut deaf, 6_000);
    // The one packet could be lost.
    assert_eq!(limits(all_heard(&mut sim, sender)), vec![(1 << 40, heeding); 2]);
    let unknown = Method::SetMaxBitrate {
        transport: TransportId(999),
        bitrate_bps: None,
    };
    assert!(sim.attempt(unknown).is_err());
}

#[test]
fn nobody_who_does_not_heed_limits_is_told_of_them() {
    let (mut sim, mut track, _, _) = call(16);
    let sender = track.transport();
    assert!(!codec(CodecName::Opus).remb);
    sim.command(Method::SetMaxBitrate {
        transport: sender,
        bitrate_bps: Some(50_000),
    });
    talk(&mut sim, &mut track, 3_000);
    let said = all_heard(&mut sim, sender);
    assert!(!said.is_empty() && !said.iter().any(|said| matches!(said, Said::Remb { .. })));
}

// ---- Goodbyes of senders.

#[test]
fn a_layer_that_says_goodbye_is_off_the_offer_at_once_if_another_lives() {
    let mut sim = Sim::new(17);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.simulcast(sender);
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    for stream in &mut track.streams {
        let frame = stream.key_frame(1);
        sim.send(sender, &frame);
    }
    sim.settle();
    sim.settle();
    let ssrcs: Vec<_> = track.streams.iter().map(|stream| stream.ssrc).collect();
    sim.send_rtcp(sender, &reports::bye(&[77, ssrcs[2]]));
    assert_eq!(sim.changes(), [(consumer, None)]);
    sim.settle();
    let frame = track.layer(Profile::Medium).key_frame(1);
    sim.send(sender, &frame);
    assert_eq!(sim.changes(), [(consumer, Some(Profile::Medium))]);
    sim.settle();
    // It comes back with a packet.
    let frame = track.layer(Profile::High).key_frame(1);
    sim.send(sender, &frame);
    assert_eq!(sim.changes(), [(consumer, Some(Profile::High))]);
    // Who leaves altogether leaves the last layer on offer: nothing better is there.
    for ssrc in &ssrcs {
        sim.send_rtcp(sender, &reports::bye(&[*ssrc]));
    }
    let active: Vec<_> = sim
        .producer_stats(track.id())
        .streams
        .iter()
        .map(|stream| stream.active)
        .collect();
    assert_eq!(active, [false, false, true]);
    assert_eq!(sim.changes(), []);
}

#[test]
fn a_lone_stream_that_says_goodbye_may_come_back() {
    let (mut sim, mut track, _, consumer) = call(18);
    talk(&mut sim, &mut track, 100);
    let ssrc = track.stream().ssrc;
    sim.changes();
    sim.send_rtcp(track.transport(), &reports::bye(&[ssrc]));
    talk(&mut sim, &mut track, 100);
    assert_eq!(sim.received(consumer).len(), 10);
    assert_eq!(sim.changes(), []);
}

/// A simulcast camera on which all layers flow, and its viewers.
fn layers(seed: u64, viewers: usize) -> (Sim, Track, Vec<ConsumerId>) {
    let mut sim = Sim::new(seed);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.simulcast(sender);
    let receiver = sim.transport(room);
    let viewers = (0..viewers).map(|_| sim.consumer(receiver, &track)).collect();
    for stream in &mut track.streams {
        let frame = stream.key_frame(1);
        sim.send(sender, &frame);
    }
    sim.settle();
    sim.settle();
    (sim, track, viewers)
}

#[test]
fn goodbyes_over_and_over_are_heard_once_a_second() {
    for together in [false, true] {
        let (mut sim, mut track, viewers) = layers(20, 3);
        let sender = track.transport();
        let goodbye = reports::bye(&[track.layer(Profile::High).ssrc]);
        let mut changes = 0;
        for _ in 0..200 {
            let living = track.layer(Profile::Low).delta_frame(1);
            sim.send(sender, &living);
            let back = track.layer(Profile::High).key_frame(1).remove(0);
            let source = sim.addresses[&sender];
            let arrivals = [single(source, &goodbye), single(source, &back.bytes)];
            if together {
                sim.deliver(sender, Port::Rtp, &arrivals);
            } else {
                for arrival in &arrivals {
                    sim.deliver(sender, Port::Rtp, std::slice::from_ref(arrival));
                }
            }
            changes += sim.changes().len();
            sim.advance(ms(50));
        }
        // Ten seconds of it; what has changed back before anybody was told is no change.
        let heard = if together { 0 } else { 10 };
        assert_eq!(changes, 2 * viewers.len() * heard);
        assert_eq!(sim.stats(viewers[0]).effective_profile, Some(Profile::High));
        assert_eq!(sim.stats(viewers[0]).switches, 3 + 10);
    }
}

#[test]
fn only_the_latest_change_of_a_profile_waits_to_be_told() {
    let (mut sim, mut track, viewers) = layers(21, 3);
    let sender = track.transport();
    let goodbye = reports::bye(&[track.layer(Profile::High).ssrc]);
    let source = sim.addresses[&sender];
    let index = sim.index(sender);
    // Nobody takes what the relay has to tell.
    let arrive = |sim: &mut Sim, mut bytes: Vec<u8>| {
        let datagram = Datagram {
            start: 0,
            len: bytes.len() as u32,
            segment: 0,
            source,
        };
        sim.relay
            .handle_datagrams(sim.now, index, Port::Rtp, &mut bytes, &[datagram], &mut sim.sink);
    };
    for _ in 0..20 {
        sim.now = sim.now + ms(1_000);
        for profile in [Profile::Low, Profile::Medium, Profile::High] {
            let frame = track.layer(profile).key_frame(1).remove(0);
            arrive(&mut sim, frame.bytes);
        }
        arrive(&mut sim, goodbye.clone());
        let medium = track.layer(Profile::Medium).key_frame(1).remove(0);
        arrive(&mut sim, medium.bytes);
    }
    sim.command(Method::CloseConsumer { consumer: viewers[0] });
    let told: BTreeSet<_> = sim.changes().into_iter().collect();
    let medium = Some(Profile::Medium);
    assert_eq!(told, BTreeSet::from([(viewers[1], medium), (viewers[2], medium)]));
}

// ---- Feedback.

#[test]
fn rfc5506_feedback_stands_alone_only_for_senders_that_take_it_so() {
    for reduced in [false, true] {
        let mut sim = Sim::new(19);
        let room = sim.room();
        let sender = sim.transport(room);
        let track = sim.track(sender, CodecName::Vp8, &[Profile::Default], |request| {
            request.reduced_size = reduced
        });
        let receiver = sim.transport(room);
        sim.consumer(receiver, &track);
        let frame = track.streams[0].clone().delta_frame(1);
        sim.send(sender, &frame);
        let (.., packet) = sim.sink.rtcp.pop_front().expect("a key frame is asked for");
        let kinds: Vec<_> = wire::rtcp_packets(&packet).iter().map(|packet| packet[1]).collect();
        assert_eq!(kinds, if reduced { vec![206] } else { vec![201, 202, 206] });
    }
}

// ---- Retransmissions.

/// Differences §13.2: v2 reports on media alone. A sender of retransmissions is told how they arrive, under their own
/// SSRC.
#[test]
fn retransmissions_are_reported_on_like_any_stream() {
    const RTX: u8 = 97;
    let mut sim = Sim::new(31);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, &[Profile::Default], |request| {
        request.codecs[0].nack = true;
        request.codecs[0].rtx = Some(RTX);
        request.encodings[0].rtx_ssrc = Some(0x0077_0077);
    });
    let packets = track.stream().key_frame(8);
    sim.send(sender, &packets);
    sim.advance(ms(2_000));
    let media = track.stream().ssrc;
    let said = blocks(&all_heard(&mut sim, sender));
    assert!(said.iter().all(|block| block.ssrc == media), "none has come: {said:?}");

    // Of five, the third is lost; what they repair does not matter.
    for seq in [65_534, 65_535, 1, 2] {
        let again = wire::rtx(&packets[0].bytes, 0x0077_0077, RTX, seq);
        sim.send_bytes(sender, &again);
        sim.advance(ms(7));
    }
    sim.send_rtcp(sender, &wire::sender_report(0x0077_0077, 0x1234_5678_9abc_def0, 1));
    sim.advance(ms(2_000));
    let said = blocks(&all_heard(&mut sim, sender));
    let of_rtx: Vec<&Block> = said.iter().filter(|block| block.ssrc == 0x0077_0077).collect();
    let [block] = of_rtx[..] else {
        panic!("one report is enough for one burst: {said:?}");
    };
    assert_eq!((block.lost, block.fraction), (1, (256_u32 / 5) as u8));
    assert_eq!((block.highest, block.jitter), ((1 << 16) + 2, 0));
    assert_eq!(block.last_report, 0x5678_9abc);
    assert!(block.delay > 0);

    sim.check_accounts();
}
