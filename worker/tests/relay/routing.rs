//! Whose packet is it? By SSRC, then MID, then RID (differences §2.5).

use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{
    CodecName, CreateProducer, DumpPage, ExtensionUri, HeaderExtension, Method, Page, Profile, Reply, Scope,
    TransportDump, UnroutedReason, WorkerError,
};

use crate::sim::random::Random;
use crate::sim::stream::Packet;
use crate::sim::track::{MID, REPAIRED_RID, RID, Track, codec};
use crate::sim::wire::Form;
use crate::sim::{Sim, ms};

const D: &[Profile] = &[Profile::Default];
const LAYERS: &[Profile] = &[Profile::Low, Profile::High];

fn mid(name: &'static str) -> impl Fn(&mut CreateProducer) {
    move |request| {
        request.mid = Some(name.into());
        request.encodings[0].ssrc = None;
    }
}

/// Recognised by RIDs `l` and `h`, and a MID if there is one.
fn rids(name: Option<&'static str>) -> impl Fn(&mut CreateProducer) {
    move |request| {
        request.mid = name.map(str::to_owned);
        for (encoding, rid) in request.encodings.iter_mut().zip(["l", "h"]) {
            encoding.ssrc = None;
            encoding.rid = Some(rid.into());
        }
    }
}

fn viewer(sim: &mut Sim, track: &Track) -> ConsumerId {
    let receiver = sim.transport(track.request.room);
    sim.consumer(receiver, track)
}

fn dump(sim: &mut Sim, transport: TransportId) -> TransportDump {
    let room = sim.room_of(transport);
    let page = Page::default();
    let Reply::Dump(DumpPage { transports, .. }) = sim.command(Method::Dump(Scope::Room { room, page })) else {
        panic!("no dump");
    };
    transports
        .into_iter()
        .find(|dump| dump.transport == transport)
        .expect("it is on the first page")
}

/// Which SSRCs a producer has on its transport.
fn ssrcs(sim: &mut Sim, track: &Track) -> Vec<u32> {
    let routes = dump(sim, track.transport()).ssrcs;
    routes
        .into_iter()
        .filter(|(_, producer)| *producer == track.id())
        .map(|(ssrc, _)| ssrc)
        .collect()
}

/// With other extensions, on a packet that was made.
fn with_extensions(track: &mut Track, extensions: &[(u8, &str)]) -> Packet {
    let stream = &mut track.streams[0];
    stream.extensions = extensions
        .iter()
        .map(|(id, value)| (*id, value.as_bytes().to_vec()))
        .collect();
    stream.frame_of(1, true).remove(0)
}

#[test]
fn a_known_ssrc_needs_nothing_else() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    let other = sim.track(sender, CodecName::Vp8, D, mid("other"));
    let (consumer, others) = (viewer(&mut sim, &track), viewer(&mut sim, &other));
    // Not even a MID that is another's: the SSRC was agreed on.
    for extensions in [&[][..], &[(MID, "other")], &[(MID, "nobody"), (RID, "x")]] {
        let packet = with_extensions(&mut track, extensions);
        sim.send(sender, &[packet]);
        assert_eq!(sim.marks(consumer).len(), 1);
    }
    assert_eq!(sim.marks(others), []);
}

#[test]
fn a_mid_alone_leads_to_a_lone_stream() {
    for form in [Form::OneByte, Form::TwoByte] {
        let mut sim = Sim::new(2);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut tracks = [
            sim.track(sender, CodecName::Vp8, D, mid("0")),
            sim.track(sender, CodecName::Vp8, D, mid("1")),
        ];
        let consumers = [viewer(&mut sim, &tracks[0]), viewer(&mut sim, &tracks[1])];
        for (track, consumer) in tracks.iter_mut().zip(consumers) {
            track.announce();
            track.stream().form = form;
            let first = track.stream().key_frame(2);
            sim.send(sender, &first);
            // Once it is known, a sender may leave the MID out.
            track.stream().extensions.clear();
            let second = track.stream().delta_frame(2);
            sim.send(sender, &second);
            let number = track.stream().number;
            let marks = sim.marks(consumer);
            assert!(marks.len() == 4 && marks.iter().all(|mark| mark.stream == number));
            assert_eq!(ssrcs(&mut sim, track), [track.stream().ssrc]);
        }
        assert_eq!(sim.transport_stats(sender).unrouted, []);
    }
}

#[test]
fn the_same_rids_under_different_mids_are_told_apart() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut tracks: Vec<_> = ["0", "1"]
        .into_iter()
        .map(|mid| sim.track(sender, CodecName::Vp8, LAYERS, rids(Some(mid))))
        .collect();
    for track in &mut tracks {
        let consumer = viewer(&mut sim, track);
        track.announce();
        for profile in LAYERS {
            let frame = track.layer(*profile).key_frame(2);
            sim.send(sender, &frame);
        }
        let marks = sim.marks(consumer);
        let numbers: Vec<_> = track.streams.iter().map(|stream| stream.number).collect();
        assert_eq!(
            marks.iter().map(|mark| mark.stream).collect::<Vec<_>>(),
            [numbers[0], numbers[0], numbers[1], numbers[1]]
        );
    }
    // A RID alone could be either's.
    let stray = &mut tracks[0];
    stray.streams[0].ssrc = 0x7777;
    let packet = with_extensions(stray, &[(RID, "l")]);
    sim.send(sender, &[packet]);
    assert_eq!(sim.unrouted(sender, UnroutedReason::UnknownStream), 1);
    // A known MID with an unknown RID, or with none, is neither of its layers.
    for extensions in [&[(MID, "0"), (RID, "x")][..], &[(MID, "0")]] {
        let packet = with_extensions(&mut tracks[0], extensions);
        sim.send(sender, &[packet]);
    }
    assert_eq!(sim.unrouted(sender, UnroutedReason::UnknownStream), 3);
}

#[test]
fn a_rid_alone_leads_to_the_only_producer_that_has_it() {
    let mut sim = Sim::new(4);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, LAYERS, rids(None));
    let consumer = viewer(&mut sim, &track);
    let audio = sim.microphone(sender);
    track.announce();
    for profile in LAYERS {
        let frame = track.layer(*profile).key_frame(1);
        sim.send(sender, &frame);
    }
    assert_eq!(sim.marks(consumer).len(), 2);
    assert_eq!(sim.producer_stats(audio.id()).streams[0].packets, 0);
}

/// A packet that names a MID belongs to that MID's producer or to none that has another MID, whatever its RID.
#[test]
fn a_mid_that_nobody_has_is_nobodys() {
    let mut sim = Sim::new(5);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, LAYERS, rids(Some("0")));
    let packet = with_extensions(&mut track, &[(MID, "9"), (RID, "l")]);
    sim.send(sender, &[packet]);
    assert_eq!(sim.unrouted(sender, UnroutedReason::UnknownStream), 1);
    // The presence of a producer without a MID changes nothing for the one that has one.
    let plain = sim.track(sender, CodecName::Vp8, D, |request| {
        request.encodings[0].ssrc = None;
        request.encodings[0].rid = Some("plain".into());
    });
    let packet = with_extensions(&mut track, &[(MID, "9"), (RID, "l")]);
    sim.send(sender, &[packet]);
    assert_eq!(sim.unrouted(sender, UnroutedReason::UnknownStream), 2);
    assert!(ssrcs(&mut sim, &track).is_empty());
    // For that other producer a RID is enough: it never said what its MID would be.
    let mut plain_sender = track.clone();
    plain_sender.streams[0].ssrc = 0x8888;
    let packet = with_extensions(&mut plain_sender, &[(MID, "9"), (RID, "plain")]);
    sim.send(sender, &[packet]);
    assert_eq!(ssrcs(&mut sim, &plain), [0x8888]);
}

#[test]
fn every_producer_reads_packets_with_its_own_extension_ids() {
    let mut sim = Sim::new(6);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut usual = sim.track(sender, CodecName::Vp8, D, mid("a"));
    let mut unusual = sim.track(sender, CodecName::Vp8, D, |request| {
        mid("b")(request);
        request.header_extensions = vec![
            HeaderExtension {
                id: 9,
                uri: ExtensionUri::Mid,
            },
            // What is the MID for the other one.
            HeaderExtension {
                id: MID,
                uri: ExtensionUri::AudioLevel,
            },
        ];
    });
    let consumers = [viewer(&mut sim, &usual), viewer(&mut sim, &unusual)];
    let packets = [
        with_extensions(&mut usual, &[(MID, "a")]),
        with_extensions(&mut unusual, &[(MID, "x"), (9, "b")]),
    ];
    sim.send(sender, &packets);
    for consumer in consumers {
        assert_eq!(sim.marks(consumer).len(), 1);
    }
}

#[test]
fn what_is_no_media_of_the_producer_is_not_taken_for_it() {
    let mut sim = Sim::new(7);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, LAYERS, rids(Some("0")));
    let consumer = viewer(&mut sim, &track);
    track.announce();
    let media = track.layer(Profile::Low).key_frame(1);
    sim.send(sender, &media);
    let ssrc = track.streams[0].ssrc;
    // RTX (RFC 4588): its own SSRC and payload type, the same MID, and a repaired RID; Firefox sends a RID (differences
    // §2.6).
    for extensions in [&[(MID, "0"), (REPAIRED_RID, "l")][..], &[(MID, "0"), (RID, "l")]] {
        let mut rtx = track.clone();
        rtx.streams[0].ssrc = 0x9999;
        rtx.streams[0].payload_type = 97;
        let packet = with_extensions(&mut rtx, extensions);
        sim.send(sender, &[packet]);
    }
    assert_eq!(ssrcs(&mut sim, &track), [ssrc]);
    // A payload type that was not agreed on, under the known SSRC: counted, and nothing of its numbers believed.
    let mut other = track.clone();
    other.streams[0].payload_type = 127;
    other.streams[0].seq += 20_000;
    let packets: Vec<_> = (0..3).map(|_| with_extensions(&mut other, &[])).collect();
    sim.send(sender, &packets);
    assert_eq!(sim.unrouted(sender, UnroutedReason::UnknownPayloadType), 4);
    assert_eq!(sim.unrouted(sender, UnroutedReason::UnknownStream), 1);
    let media = track.layer(Profile::Low).delta_frame(1);
    sim.send(sender, &media);
    assert_eq!(sim.marks(consumer).len(), 2);
    let stats = sim.stats(consumer);
    assert_eq!((stats.packets_in, stats.packets_forwarded), (2, 2));
}

#[test]
fn a_sender_may_change_its_ssrc_and_the_newest_counts() {
    let mut sim = Sim::new(8);
    let room = sim.room();
    let sender = sim.transport(room);
    // Even one that was agreed on.
    let mut track = sim.track(sender, CodecName::Vp8, D, |request| request.mid = Some("0".into()));
    let consumer = viewer(&mut sim, &track);
    track.announce();
    let first = track.stream().ssrc;
    let frame = track.stream().key_frame(1);
    sim.send(sender, &frame);
    let mut late = track.clone();
    let late = late.stream().delta_frame(1);

    let number = sim.stream_number();
    (track.stream().number, track.stream().ssrc) = (number, 0xaaaa);
    let frame = track.stream().key_frame(2);
    sim.send(sender, &frame[..1]);
    assert_eq!(ssrcs(&mut sim, &track), [0xaaaa]);
    // A packet of the old one comes late, and says the same MID: it does not bring the old one back.
    sim.send(sender, &late);
    assert_eq!(ssrcs(&mut sim, &track), [0xaaaa]);
    assert_eq!(sim.unrouted(sender, UnroutedReason::UnknownStream), 1);
    sim.send(sender, &frame[1..]);
    let marks: Vec<_> = sim.marks(consumer).iter().map(|mark| mark.stream).collect();
    assert_eq!(marks, [late[0].mark.stream, number, number]);
    // Much later it may be used again.
    sim.advance(ms(5_000));
    track.stream().ssrc = first;
    let frame = track.stream().key_frame(1);
    sim.send(sender, &frame);
    assert_eq!(ssrcs(&mut sim, &track), [first]);
    // Without a MID or RID to vouch for it, a new SSRC is nobody's.
    track.stream().ssrc = 0xbbbb;
    let stray = with_extensions(&mut track, &[]);
    sim.send(sender, &[stray]);
    assert_eq!(sim.unrouted(sender, UnroutedReason::UnknownStream), 2);
    sim.check_accounts();
}

#[test]
fn a_flood_of_ssrcs_leaves_one_for_each_stream() {
    let mut sim = Sim::new(9);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, LAYERS, rids(Some("0")));
    let consumer = viewer(&mut sim, &track);
    track.announce();
    let mut random = Random::new(9);
    for round in 0..20_000 {
        let stream = &mut track.streams[round % 2];
        stream.ssrc = random.next() as u32;
        let frame = stream.frame_of(1, random.chance(500));
        sim.send(sender, &frame);
        if round % 1_000 == 0 {
            sim.advance(ms(100));
            assert!(dump(&mut sim, sender).ssrcs.len() <= 2);
        }
    }
    let ssrcs = ssrcs(&mut sim, &track);
    assert!(ssrcs.len() <= 2, "{ssrcs:?}");
    sim.check_accounts();
    assert_eq!(sim.marks(consumer).len() as u64, sim.stats(consumer).packets_forwarded);
}

/// A refused request changed nothing.
#[track_caller]
fn refused(sim: &mut Sim, transport: TransportId, method: Method) -> WorkerError {
    let before = (sim.relay.counts(), dump(sim, transport));
    let error = sim.attempt(method).expect_err("it must be refused");
    assert_eq!((sim.relay.counts(), dump(sim, transport)), before);
    error
}

#[test]
fn ssrcs_and_mids_that_are_taken_are_refused() {
    let mut sim = Sim::new(10);
    let room = sim.room();
    let transport = sim.transport(room);
    let mut first = sim.track(transport, CodecName::Vp8, LAYERS, |request| {
        request.mid = Some("0".into())
    });
    let consumer = sim.consumer_with(transport, &first, |request| request.ssrc = 0x5555);
    let agreed = first.streams[1].ssrc;
    let producer = |request: &CreateProducer, ssrc: u32| {
        let mut request = request.clone();
        request.producer = ProducerId(999);
        request.mid = None;
        request.encodings.truncate(1);
        request.encodings[0].profile = Profile::Default;
        request.encodings[0].ssrc = Some(ssrc);
        request
    };
    let in_use = |ssrc, owner: String| WorkerError::SsrcInUse { ssrc, owner, transport };

    // Another producer's, and a consumer's.
    let request = Method::CreateProducer(producer(&first.request, agreed));
    assert_eq!(
        refused(&mut sim, transport, request),
        in_use(agreed, first.id().to_string())
    );
    let request = Method::CreateProducer(producer(&first.request, 0x5555));
    assert_eq!(
        refused(&mut sim, transport, request),
        in_use(0x5555, consumer.to_string())
    );
    // The same for a consumer.
    for (ssrc, owner) in [(agreed, first.id().to_string()), (0x5555, consumer.to_string())] {
        let request = sim.consumer_request(transport, &first, |request| request.ssrc = ssrc);
        assert_eq!(
            refused(&mut sim, transport, Method::CreateConsumer(request)),
            in_use(ssrc, owner)
        );
    }
    // One that was learned.
    first.announce();
    first.streams[0].ssrc = 0x6666;
    first.streams[0].extensions = vec![(MID, b"0".to_vec())];
    let mut learned = sim.track(transport, CodecName::Vp8, D, mid("learns"));
    learned.announce();
    learned.stream().ssrc = 0x6666;
    let frame = learned.stream().key_frame(1);
    sim.send(transport, &frame);
    let request = Method::CreateProducer(producer(&first.request, 0x6666));
    assert_eq!(
        refused(&mut sim, transport, request),
        in_use(0x6666, learned.id().to_string())
    );
    // A MID.
    let mut request = producer(&first.request, 0x7777);
    request.mid = Some("0".into());
    let error = refused(&mut sim, transport, Method::CreateProducer(request));
    let owner = first.id();
    let mid = "0".to_string();
    assert_eq!(error, WorkerError::MidInUse { mid, owner, transport });

    // All of that is free on another transport, and here when its owner is gone.
    let other = sim.transport(room);
    let mut request = producer(&first.request, agreed);
    request.transport = other;
    request.mid = Some("0".into());
    sim.command(Method::CreateProducer(request));
    sim.command(Method::CloseProducer { producer: first.id() });
    let mut request = producer(&first.request, agreed);
    request.producer = ProducerId(1_000);
    request.mid = Some("0".into());
    sim.command(Method::CreateProducer(request));
    let request = sim.consumer_request(transport, &learned, |request| request.ssrc = 0x5555);
    sim.command(Method::CreateConsumer(request));
}

#[test]
fn payload_types_of_rtcp_are_refused_and_the_codecs_own_are_told_apart() {
    let mut sim = Sim::new(11);
    let room = sim.room();
    let sender = sim.transport(room);
    for payload_type in [64, 72, 95, 128, 255] {
        let result = sim.attempt_track(sender, CodecName::Opus, D, |request| {
            request.codecs[0].payload_type = payload_type;
        });
        assert!(
            matches!(result, Err(WorkerError::InvalidParameters(_))),
            "{payload_type}"
        );
    }
    // One SSRC, two video codecs: each packet is looked at as its own codec.
    let mut track = sim.track(sender, CodecName::Vp8, D, |request| {
        request.codecs.push(codec(CodecName::H264))
    });
    let consumer = viewer(&mut sim, &track);
    let stream = track.stream();
    (stream.codec, stream.payload_type) = (CodecName::H264, 102);
    let frame = stream.key_frame(3);
    sim.send(sender, &frame);
    let received = sim.received(consumer);
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|packet| packet.rtp.payload_type == 102));
}
