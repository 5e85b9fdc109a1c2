//! Gear that is no browser: codecs that the relay does not know, what goes along with a codec, and senders that name no SSRC or
//! go over to another one.

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{
    Codec, CodecName, CreateProducer, CreateWebRtcTransport, DropReason, IceCredentials, IceProtocol, Method,
    Notification, Profile, UnroutedReason, WorkerError,
};

use crate::sim::random::Random;
use crate::sim::reports::{Said, bye, said};
use crate::sim::stream::Packet;
use crate::sim::track::{MID, Track, codec};
use crate::sim::wire::{Rtp, rtx};
use crate::sim::{Sim, for_each_seed, ms};

const D: &[Profile] = &[Profile::Default];
const UNKNOWN: UnroutedReason = UnroutedReason::UnknownStream;

/// What an answer of a phone has: G.729 (RFC 3551 §4.5.6), telephone events (RFC 4733) and comfort noise (RFC 3389).
const EVENTS: Codec = companion(101, 8_000);
const NOISE: Codec = companion(13, 8_000);

const fn companion(payload_type: u8, clock_rate: u32) -> Codec {
    Codec {
        payload_type,
        name: CodecName::AudioCompanion,
        clock_rate,
        pli: false,
        fir: false,
        nack: false,
        remb: false,
        rtx: None,
    }
}

fn without_ssrc(request: &mut CreateProducer) {
    request.encodings[0].ssrc = None;
}

fn listener(sim: &mut Sim, track: &Track) -> ConsumerId {
    let receiver = sim.transport(track.request.room);
    sim.consumer(receiver, track)
}

/// So many packets, one each 20 ms, under the track's present SSRC.
fn talk(sim: &mut Sim, track: &mut Track, packets: usize) {
    for _ in 0..packets {
        let packet = track.stream().sound();
        sim.send(track.transport(), &[packet]);
        sim.advance(ms(20));
    }
}

/// The same sender in another life: another SSRC, other numbers.
fn reborn(sim: &mut Sim, track: &Track, ssrc: u32) -> Track {
    let mut other = track.clone();
    let number = sim.stream_number();
    let stream = other.stream();
    (stream.number, stream.ssrc) = (number, ssrc);
    stream.seq += 7_000 + u64::from(ssrc % 1_000);
    stream.timestamp += 1 << 31;
    other
}

/// The SSRCs that producers were said to have gone over to, each with the one before.
fn ssrc_changes(sim: &mut Sim, track: &Track) -> Vec<(Option<u32>, u32)> {
    let told = sim.told().into_iter().filter_map(|notification| match notification {
        Notification::SsrcChanged {
            producer,
            ssrc,
            previous,
        } if producer == track.id() => Some((previous, ssrc)),
        _ => None,
    });
    told.collect()
}

/// How many packets of a stream (by its number) a consumer got since the last time, if it gets them without a hole.
fn got(sim: &mut Sim, consumer: ConsumerId, track: &mut Track) -> usize {
    let number = track.stream().number;
    let received = sim.received(consumer);
    for pair in received.windows(2) {
        assert_eq!(pair[1].rtp.seq, pair[0].rtp.seq.wrapping_add(1));
    }
    received.iter().filter(|packet| packet.mark().stream == number).count()
}

// ---- Codecs.

/// RFC 3550 §2.3: a relay needs not understand what it relays. Sound can be joined anywhere.
#[test]
fn sound_that_nobody_knows_is_relayed_as_it_is_from_anywhere() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    // AAC and G.729 of one sender, under dynamic and static payload types.
    let mut track = sim.track(sender, CodecName::OtherAudio, D, |request| {
        request.codecs.push(Codec {
            payload_type: 18,
            clock_rate: 8_000,
            ..codec(CodecName::OtherAudio)
        });
    });
    talk(&mut sim, &mut track, 7);
    let consumer = listener(&mut sim, &track);
    let mut sent = Vec::new();
    for payload_type in [97, 97, 18, 97] {
        track.stream().payload_type = payload_type;
        let packet = track.stream().sound();
        sent.push(Rtp::read(&packet.bytes));
        sim.send(sender, &[packet]);
        sim.advance(ms(20));
    }
    let received = sim.received(consumer);
    assert_eq!(received.len(), sent.len(), "from the first packet on");
    for (received, sent) in received.iter().zip(&sent) {
        assert_eq!(
            (&received.rtp.payload, received.rtp.marker, received.rtp.payload_type),
            (&sent.payload, sent.marker, sent.payload_type)
        );
    }
    let stats = sim.producer_stats(track.id()).streams.remove(0);
    assert_eq!(
        (stats.codec.as_deref(), stats.payload_type),
        (Some("other-audio"), Some(97))
    );
    assert_eq!(sim.stats(consumer).payload_type, Some(97));
    sim.check_accounts();
}

/// MPEG-TS and JPEG (RFC 2250, RFC 2435) have no key frames that a relay could see: whoever waits for one waits for ever.
#[test]
fn pictures_that_nobody_knows_are_relayed_from_anywhere() {
    let mut sim = Sim::new(2);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::OtherVideo);
    let first = track.stream().delta_frame(3);
    sim.send(sender, &first);
    let consumer = listener(&mut sim, &track);
    let mut sent: Vec<Packet> = track.stream().delta_frame(3);
    sent.extend(track.stream().delta_frame(2));
    sim.send(sender, &sent[1..]);
    let received = sim.received(consumer);
    let payloads: Vec<_> = received.iter().map(|packet| &packet.rtp.payload).collect();
    let expected: Vec<_> = sent[1..]
        .iter()
        .map(|packet| Rtp::read(&packet.bytes).payload)
        .collect();
    assert_eq!(payloads, expected.iter().collect::<Vec<_>>());
    // Nobody is asked for what he cannot give, then or later.
    sim.pause(consumer);
    sim.resume(consumer);
    sim.advance(ms(3_000));
    let more = track.stream().delta_frame(1);
    sim.send(sender, &more);
    assert_eq!(sim.marks(consumer).len(), 1);
    assert_eq!(sim.asked(), []);
    sim.check_accounts();
}

/// Forward error correction (RFC 5109, RFC 8627) goes along with pictures: it does not start them.
#[test]
fn what_protects_pictures_does_not_start_them() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, D, |request| {
        // First in the list: it does not speak for the producer either.
        request.codecs.insert(0, codec(CodecName::VideoCompanion));
    });
    let (vp8, ulpfec) = (codec(CodecName::Vp8), codec(CodecName::VideoCompanion));
    track.stream().codec = CodecName::Vp8;
    let consumer = listener(&mut sim, &track);
    let send = |sim: &mut Sim, track: &mut Track, codec: Codec, key| {
        track.stream().payload_type = codec.payload_type;
        let frame = track.stream().frame_of(1, key);
        sim.send(sender, &frame);
        sim.advance(ms(33));
    };
    send(&mut sim, &mut track, vp8, false);
    send(&mut sim, &mut track, ulpfec, true);
    assert_eq!(sim.received(consumer).len(), 0);
    assert!(!sim.asked().is_empty(), "its camera is asked by the means that VP8 has");
    send(&mut sim, &mut track, vp8, true);
    send(&mut sim, &mut track, ulpfec, false);
    send(&mut sim, &mut track, vp8, false);
    let types: Vec<_> = sim
        .received(consumer)
        .iter()
        .map(|packet| packet.rtp.payload_type)
        .collect();
    assert_eq!(types, [96, 116, 96]);
}

/// RFC 4733 §2.1, RFC 3389 §4: events and noise come under the SSRC of the sound. A receiver that did not agree to one of them
/// does not get it (RFC 3264 §6.1), and all the rest.
#[test]
fn telephone_events_go_along_for_those_who_have_them() {
    let mut sim = Sim::new(4);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Opus, D, |request| {
        request.codecs.extend([companion(110, 48_000), EVENTS, NOISE]);
    });
    let receiver = sim.transport(room);
    let all = sim.consumer_with(receiver, &track, |request| {
        request.payload_types = vec![(111, 100), (110, 101), (101, 102), (13, 13)];
    });
    let bare = sim.consumer_with(receiver, &track, |request| request.payload_types = vec![(111, 100)]);
    let order = [111, 110, 111, 101, 101, 13, 111];
    for payload_type in order {
        track.stream().payload_type = payload_type;
        talk(&mut sim, &mut track, 1);
    }
    let types = |sim: &mut Sim, consumer| -> Vec<u8> {
        let received = sim.received(consumer);
        received.iter().map(|packet| packet.rtp.payload_type).collect()
    };
    assert_eq!(types(&mut sim, all), [100, 101, 100, 102, 102, 13, 100]);
    assert_eq!(types(&mut sim, bare), [100, 100, 100]);
    assert_eq!(sim.dropped(bare, DropReason::UnsupportedPayloadType), 4);
    sim.check_accounts();
}

/// RFC 3550 §6.4.1: the RTP timestamp of a report is in the units of the stream's media, whatever came last or stands first.
#[test]
fn the_media_tells_the_clock_and_not_what_goes_along() {
    let mut sim = Sim::new(5);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Opus, D, |request| {
        request.codecs.splice(0..0, [NOISE, EVENTS]);
    });
    track.stream().payload_type = 111;
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    let ssrc = sim.consumers[&consumer].request.ssrc;
    let mut reports = Vec::new();
    for _ in 0..4 {
        track.stream().payload_type = 111;
        talk(&mut sim, &mut track, 49);
        track.stream().payload_type = NOISE.payload_type;
        talk(&mut sim, &mut track, 1);
        // Silence follows, through which the clock is told by the time.
        sim.advance(ms(5_000));
        track.stream().timestamp += 5 * 48_000;
        for (_, _, packet) in sim.sink.rtcp.drain(..) {
            reports.extend(said(&packet).into_iter().filter_map(|said| match said {
                Said::SenderReport {
                    ssrc: own, ntp, rtp, ..
                } if own == ssrc => Some((ntp, rtp)),
                _ => None,
            }));
        }
    }
    assert!(reports.len() > 4, "{reports:?}");
    for pair in reports.windows(2) {
        let seconds = (pair[1].0 - pair[0].0) as f64 / f64::from(u32::MAX);
        let ticks = f64::from(pair[1].1.wrapping_sub(pair[0].1));
        assert!((ticks / seconds - 48_000.0).abs() < 2_000.0, "{pair:?}");
    }
}

// ---- Senders without an SSRC.

/// RFC 3550 §8: an SSRC is drawn at random by the sender; who describes it elsewhere need not know it.
#[test]
fn a_sender_without_an_ssrc_is_known_by_its_payload_types() {
    let mut sim = Sim::new(6);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut sound = sim.track(sender, CodecName::OtherAudio, D, |request| {
        without_ssrc(request);
        request.codecs.push(EVENTS);
    });
    let mut pictures = sim.track(sender, CodecName::H264, D, without_ssrc);
    let consumers = [listener(&mut sim, &sound), listener(&mut sim, &pictures)];
    // What goes along with sound comes after it, under its SSRC.
    let mut event = sound.clone();
    event.stream().payload_type = EVENTS.payload_type;
    talk(&mut sim, &mut event, 1);
    assert_eq!(sim.unrouted(sender, UNKNOWN), 1);
    sound.stream().seq = event.stream().seq;
    talk(&mut sim, &mut sound, 3);
    sound.stream().payload_type = EVENTS.payload_type;
    talk(&mut sim, &mut sound, 1);
    sound.stream().payload_type = 97;
    let frame = pictures.stream().key_frame(3);
    sim.send(sender, &frame);
    assert_eq!(sim.marks(consumers[0]).len(), 4);
    assert_eq!(sim.marks(consumers[1]).len(), 3);
    for track in [&mut sound, &mut pictures] {
        let stats = sim.producer_stats(track.id()).streams.remove(0);
        assert_eq!((stats.ssrc, stats.ssrc_changes), (track.stream().ssrc, 0));
    }
    let told: Vec<_> = sim
        .told()
        .into_iter()
        .filter(|notification| matches!(notification, Notification::SsrcChanged { .. }))
        .collect();
    let learned = |track: &mut Track| Notification::SsrcChanged {
        producer: track.id(),
        ssrc: track.stream().ssrc,
        previous: None,
    };
    assert_eq!(told, [learned(&mut sound), learned(&mut pictures)]);
    // It is asked for key frames under the SSRC that it turned out to have.
    sim.asked();
    sim.advance(ms(1_000));
    sim.pli(consumers[1]);
    assert_eq!(sim.asked_ssrcs(), [pictures.stream().ssrc]);
}

/// RFC 4588 §5.3: retransmissions have an SSRC of their own, which such gear does not name either. Their payload type says whose they are.
#[test]
fn retransmissions_of_a_sender_without_an_ssrc_are_known_likewise() {
    let mut sim = Sim::new(16);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::OtherVideo, D, |request| {
        without_ssrc(request);
        request.codecs[0].nack = true;
        request.codecs[0].rtx = Some(97);
    });
    let consumer = listener(&mut sim, &track);
    for round in 0..2 {
        let packets = track.stream().delta_frame(3);
        sim.send(sender, &[packets[0].clone(), packets[2].clone()]);
        // Each life of the sender has another SSRC for them.
        sim.send_bytes(sender, &rtx(&packets[1].bytes, 0x9000 + round, 97, 100));
        let stats = sim.producer_stats(track.id()).streams.remove(0);
        assert_eq!((stats.packets_repaired, stats.packets_lost), (u64::from(round) + 1, 0));
        assert_eq!(sim.received(consumer).len(), 3);
        sim.advance(ms(2_000));
        track = reborn(&mut sim, &track, 0x7000 + round);
    }
}

#[test]
fn payload_types_of_strangers_stay_unknown() {
    let mut sim = Sim::new(7);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Opus, D, without_ssrc);
    let consumer = listener(&mut sim, &track);
    let mut stranger = reborn(&mut sim, &track, 0x7777);
    stranger.stream().payload_type = 50;
    talk(&mut sim, &mut stranger, 2);
    talk(&mut sim, &mut track, 2);
    talk(&mut sim, &mut stranger, 200);
    assert_eq!(sim.unrouted(sender, UnroutedReason::UnknownPayloadType), 202);
    assert_eq!(sim.marks(consumer).len(), 2);
    let own = track.stream().ssrc;
    assert_eq!(ssrc_changes(&mut sim, &track), [(None, own)]);
}

/// Two that nothing tells apart are refused when the second one is made, and not found out by their packets.
#[test]
fn two_senders_without_an_ssrc_need_payload_types_of_their_own() {
    let mut sim = Sim::new(8);
    let room = sim.room();
    let sender = sim.transport(room);
    let with_events = |request: &mut CreateProducer| {
        without_ssrc(request);
        request.codecs.push(EVENTS);
    };
    let first = sim.track(sender, CodecName::Opus, D, with_events);
    let refused = |result: Result<Track, WorkerError>, what: &str| match result {
        Err(WorkerError::InvalidParameters(sentence)) => assert!(sentence.contains(what), "{sentence}"),
        other => panic!("{other:?}"),
    };
    let same = sim.attempt_track(sender, CodecName::Opus, D, without_ssrc);
    refused(same, &format!("payload type 111 is of {} too", first.id()));
    let main = sim.attempt_track(sender, CodecName::Pcmu, D, |request| {
        without_ssrc(request);
        request.codecs[0].payload_type = EVENTS.payload_type;
    });
    refused(main, "payload type 101");
    // What goes along with either comes under its SSRC. Somebody else's SSRC, MID or transport is enough, too.
    sim.track(sender, CodecName::Pcmu, D, with_events);
    sim.track(sender, CodecName::Opus, D, |_| {});
    sim.track(sender, CodecName::Opus, D, |request| {
        without_ssrc(request);
        request.mid = Some("2".into());
    });
    let other = sim.transport(room);
    sim.track(other, CodecName::Opus, D, without_ssrc);
    // Once the first one is gone, there is room for another.
    sim.command(Method::CloseProducer { producer: first.id() });
    sim.track(sender, CodecName::Opus, D, without_ssrc);
}

/// RFC 8843 §9.2: what is bundled on a WebRTC transport is told apart by SSRC, MID or RID; payload types are shared there.
#[test]
fn on_a_webrtc_transport_a_name_is_needed() {
    let mut sim = Sim::new(9);
    let room = sim.room();
    let transport = TransportId(sim.id());
    sim.command(Method::CreateWebRtcTransport(CreateWebRtcTransport {
        room,
        transport,
        listeners: vec![IceProtocol::Udp],
        connected: Vec::new(),
        ice: IceCredentials {
            username_fragment: "abcd".into(),
            password: "0123456789012345678901".into(),
        },
    }));
    let address = sim.address();
    sim.know_transport(room, transport, address);
    let index = sim.index(transport);
    sim.relay.set_peer(sim.now, index, Some(address));
    let result = sim.attempt_track(transport, CodecName::Opus, D, without_ssrc);
    assert!(matches!(result, Err(WorkerError::InvalidParameters(_))), "{result:?}");
    let mut track = sim.microphone(transport);
    let consumer = listener(&mut sim, &track);
    talk(&mut sim, &mut track, 2);
    sim.advance(ms(5_000));
    let mut other = reborn(&mut sim, &track, 0x7777);
    talk(&mut sim, &mut other, 100);
    assert_eq!(sim.marks(consumer).len(), 2);
    assert_eq!(sim.unrouted(transport, UNKNOWN), 100);
    // Layers have to be told apart on any.
    let plain = sim.transport(room);
    let layers = sim.attempt_track(plain, CodecName::Vp8, &[Profile::Low, Profile::High], without_ssrc);
    assert!(matches!(layers, Err(WorkerError::InvalidParameters(_))), "{layers:?}");
}

// ---- Senders that go over to another SSRC.

/// RFC 3550 §8.2, §5.1: an SSRC may change at any time, when a call is transferred or a program starts again. Whether it was declared
/// or not: it is the same sender, and consumers hear on.
#[test]
fn a_sender_may_go_over_to_another_ssrc() {
    for declared in [false, true] {
        let mut sim = Sim::new(10);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.track(sender, CodecName::OtherAudio, D, |request| {
            if !declared {
                without_ssrc(request);
            }
        });
        let consumer = listener(&mut sim, &track);
        talk(&mut sim, &mut track, 100);
        assert_eq!(got(&mut sim, consumer, &mut track), 100);
        sim.told();

        // A transfer: the new one begins where the old one ends. It has to come for 200 ms.
        let first = track.stream().ssrc;
        let mut second = reborn(&mut sim, &track, 0x7001);
        talk(&mut sim, &mut second, 100);
        assert_eq!(got(&mut sim, consumer, &mut second), 90, "declared: {declared}");
        assert_eq!(ssrc_changes(&mut sim, &track), [(Some(first), 0x7001)]);

        // A restart: the old one said goodbye, or has not been heard of for a second. Its first packet counts.
        sim.send_rtcp(sender, &bye(&[0x7001]));
        let mut third = reborn(&mut sim, &track, 0x7002);
        talk(&mut sim, &mut third, 100);
        assert_eq!(got(&mut sim, consumer, &mut third), 100);
        sim.advance(ms(1_000));
        let mut fourth = reborn(&mut sim, &track, 0x7003);
        talk(&mut sim, &mut fourth, 100);
        assert_eq!(got(&mut sim, consumer, &mut fourth), 100);
        // And back again.
        sim.advance(ms(1_000));
        talk(&mut sim, &mut track, 100);
        assert_eq!(got(&mut sim, consumer, &mut track), 100);
        let stats = sim.producer_stats(track.id()).streams.remove(0);
        assert_eq!((stats.ssrc, stats.ssrc_changes), (first, 4));
        sim.check_accounts();
    }
}

/// A program that is started again begins with a key frame, and may send no other for a long time.
#[test]
fn a_restart_under_another_ssrc_begins_with_its_key_frame() {
    let mut sim = Sim::new(11);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::H264, D, without_ssrc);
    let consumer = listener(&mut sim, &track);
    let frames = track.stream().frames(30);
    sim.send(sender, &frames);
    sim.advance(ms(2_000));
    let mut again = reborn(&mut sim, &track, 0x7001);
    let mut sent = again.stream().key_frame(3);
    sent.extend(again.stream().delta_frame(2));
    sim.received(consumer);
    sim.send(sender, &sent);
    assert_eq!(got(&mut sim, consumer, &mut again), 5);
}

/// RFC 3550 §8.2: two sources that both send are two sources. The one that was there stays.
#[test]
fn two_senders_that_contend_do_not_take_turns() {
    for_each_seed(20, |seed| {
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.track(sender, CodecName::OtherAudio, D, without_ssrc);
        let consumer = listener(&mut sim, &track);
        talk(&mut sim, &mut track, 1);
        let mut other = reborn(&mut sim, &track, 0x7001);
        let mut random = Random::new(seed);
        let mut sent = 1;
        for _ in 0..1_000 {
            if random.chance(900) {
                talk(&mut sim, &mut track, 1);
                sent += 1;
            }
            talk(&mut sim, &mut other, 1);
        }
        assert_eq!(got(&mut sim, consumer, &mut track), sent);
        let own = track.stream().ssrc;
        assert_eq!(ssrc_changes(&mut sim, &track), [(None, own)]);
    });
}

/// A stray packet after a silence (RFC 3551 §4.1: sound may be left out) moves nothing for long: the first packet of the one that was
/// there takes the place back.
#[test]
fn a_stray_packet_after_a_silence_is_no_new_sender() {
    let mut sim = Sim::new(15);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let consumer = listener(&mut sim, &track);
    talk(&mut sim, &mut track, 10);
    sim.marks(consumer);
    sim.told();
    for round in 0..5 {
        sim.advance(ms(1_500));
        let mut stray = reborn(&mut sim, &track, 0x7000 + round);
        talk(&mut sim, &mut stray, 1);
        talk(&mut sim, &mut track, 100);
        assert_eq!(got(&mut sim, consumer, &mut track), 100);
        // Nor does it come back right after.
        talk(&mut sim, &mut stray, 1);
        talk(&mut sim, &mut track, 1);
        assert_eq!(got(&mut sim, consumer, &mut track), 1);
        let own = track.stream().ssrc;
        let stray = 0x7000 + round;
        assert_eq!(ssrc_changes(&mut sim, &track), [(Some(own), stray), (Some(stray), own)]);
    }
}

/// However many SSRCs come, and whatever they do: no more than two changes a second, each counted and told.
#[test]
fn changes_are_bounded() {
    for_each_seed(20, |seed| {
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let track = sim.track(sender, CodecName::OtherAudio, D, without_ssrc);
        let consumer = listener(&mut sim, &track);
        let mut random = Random::new(seed);
        let mut talkers: Vec<_> = (0..40).map(|ssrc| reborn(&mut sim, &track, 0x7000 + ssrc)).collect();
        let begin = sim.now;
        for _ in 0..400 {
            let talker = random.below(talkers.len());
            let packets = random.below(30);
            talk(&mut sim, &mut talkers[talker], packets);
            if random.chance(500) {
                let ssrc = talkers[random.below(40)].stream().ssrc;
                sim.send_rtcp(sender, &bye(&[ssrc]));
            }
            if random.chance(50) {
                sim.advance(ms(1_500));
            }
        }
        let seconds = sim.now.since(begin).as_secs();
        let changes = ssrc_changes(&mut sim, &track);
        assert!(
            changes.len() > 10 && changes.len() as u64 <= 2 * seconds + 1,
            "{} in {seconds} s",
            changes.len()
        );
        assert!(changes.windows(2).all(|pair| pair[1].0 == Some(pair[0].1)));
        let stats = sim.producer_stats(track.id()).streams.remove(0);
        assert_eq!(stats.ssrc_changes, changes.len() as u64 - 1);
        sim.check_accounts();
        assert_eq!(sim.marks(consumer).len() as u64, sim.stats(consumer).packets_forwarded);
    });
}

/// What another one of the transport could mean as well is nobody's, like before.
#[test]
fn an_ssrc_that_could_be_anothers_is_nobodys() {
    let with_layers: &[Profile] = &[Profile::Low, Profile::High];
    let named = |request: &mut CreateProducer| request.mid = Some("1".into());
    let anonymous = |_: &mut CreateProducer| {};
    type Edit<'a> = &'a dyn Fn(&mut CreateProducer);
    let rivals: [(&[Profile], Edit<'_>); 3] = [(D, &anonymous), (with_layers, &anonymous), (D, &named)];
    for (profiles, edit) in rivals {
        let mut sim = Sim::new(12);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.camera(sender, CodecName::OtherVideo);
        let rival = sim.track(sender, CodecName::OtherVideo, profiles, edit);
        let consumers = [listener(&mut sim, &track), listener(&mut sim, &rival)];
        let mut other = reborn(&mut sim, &track, 0x7001);
        talk(&mut sim, &mut other, 100);
        talk(&mut sim, &mut track, 1);
        sim.advance(ms(5_000));
        talk(&mut sim, &mut other, 100);
        assert_eq!(sim.unrouted(sender, UNKNOWN), 200);
        assert_eq!(sim.marks(consumers[0]).len(), 1);
        assert!(sim.marks(consumers[1]).is_empty());
    }
}

/// An SSRC says who it is to those who know it: a consumer's own (a loop, RFC 3550 §8.2), a closed producer's, a producer's that is
/// made a little later.
#[test]
fn an_ssrc_that_means_something_else_is_not_taken_over() {
    let mut sim = Sim::new(13);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let consumer = listener(&mut sim, &track);
    talk(&mut sim, &mut track, 1);
    sim.advance(ms(2_000));
    // The sender's own echo.
    let echoed = sim.consumer(sender, &track);
    let ssrc = sim.consumers[&echoed].request.ssrc;
    let mut echo = reborn(&mut sim, &track, ssrc);
    talk(&mut sim, &mut echo, 50);
    // A sender that has not heard that its producer is closed.
    let mut closed = sim.microphone(sender);
    talk(&mut sim, &mut closed, 1);
    sim.command(Method::CloseProducer { producer: closed.id() });
    talk(&mut sim, &mut closed, 50);
    assert_eq!(sim.unrouted(sender, UNKNOWN), 100);
    // One that sends before its producer is made: at first it is taken for the silent one, and then it is itself.
    let mut early = reborn(&mut sim, &track, 0x7001);
    talk(&mut sim, &mut early, 1);
    assert_eq!(sim.producer_stats(track.id()).streams[0].ssrc, 0x7001);
    let later = sim.track(sender, CodecName::Opus, D, |request| {
        request.encodings[0].ssrc = Some(0x7001);
    });
    let late_listener = listener(&mut sim, &later);
    sim.marks(consumer);
    talk(&mut sim, &mut early, 10);
    talk(&mut sim, &mut track, 10);
    assert_eq!(got(&mut sim, late_listener, &mut early), 10);
    assert_eq!(got(&mut sim, consumer, &mut track), 10);
    assert!(sim.marks(consumer).is_empty());
    sim.check_accounts();
}

/// A closed producer's SSRC is somebody's again once a producer is made for it, or for whatever comes.
#[test]
fn an_ssrc_that_is_declared_again_is_known_again() {
    for declared in [false, true] {
        let mut sim = Sim::new(17);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.microphone(sender);
        let own = track.stream().ssrc;
        talk(&mut sim, &mut track, 5);
        sim.command(Method::CloseProducer { producer: track.id() });
        let again = sim.track(sender, CodecName::Opus, D, |request| {
            request.encodings[0].ssrc = declared.then_some(own);
        });
        let consumer = listener(&mut sim, &again);
        talk(&mut sim, &mut track, 5);
        assert_eq!(got(&mut sim, consumer, &mut track), 5, "declared: {declared}");
        // It may be left and come back to like any other.
        let mut other = reborn(&mut sim, &track, 0x7001);
        for talker in [&mut other, &mut track] {
            sim.advance(ms(1_500));
            talk(&mut sim, talker, 5);
            assert_eq!(got(&mut sim, consumer, talker), 5, "declared: {declared}");
        }
    }
}

/// Gear that puts names on its packets is known by them.
#[test]
fn names_go_before_payload_types() {
    let mut sim = Sim::new(14);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut named = sim.track(sender, CodecName::Opus, D, |request| {
        without_ssrc(request);
        request.mid = Some("1".into());
    });
    let mut nameless = sim.track(sender, CodecName::Opus, D, without_ssrc);
    let consumers = [listener(&mut sim, &named), listener(&mut sim, &nameless)];
    // Another MID than the one that there is: nobody's.
    named.stream().extensions = vec![(MID, b"9".to_vec())];
    talk(&mut sim, &mut named, 1);
    assert_eq!(sim.unrouted(sender, UNKNOWN), 1);
    named.announce();
    talk(&mut sim, &mut named, 2);
    talk(&mut sim, &mut nameless, 2);
    assert_eq!(sim.marks(consumers[0]).len(), 2);
    assert_eq!(sim.marks(consumers[1]).len(), 2);
}

#[test]
fn a_declared_ssrc_takes_its_place_back() {
    let mut sim = Sim::new(16);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let consumer = listener(&mut sim, &track);
    talk(&mut sim, &mut track, 10);
    sim.advance(ms(1_500)); // muted
    let mut other = reborn(&mut sim, &track, 0x7000);
    talk(&mut sim, &mut other, 100);
    sim.marks(consumer);
    for _ in 0..1_000 {
        talk(&mut sim, &mut track, 1);
        let packet = other.stream().sound();
        sim.send(other.transport(), &[packet]);
    }
    let received = sim.received(consumer);
    let own = track.stream().number;
    let n = received.iter().filter(|packet| packet.mark().stream == own).count();
    assert!(
        n > 900,
        "{n} of 1,000 packets of the declared SSRC, {} in all",
        received.len()
    );
}
