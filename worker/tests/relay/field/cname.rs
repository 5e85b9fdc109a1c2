//! What senders call themselves: receivers tie sound and picture together by the canonical name, so it goes through
//! (RFC 3550 §6.5.1, §7.2), unless the application has given another one.

use std::collections::BTreeSet;

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CodecName, ConsumerRtx};

use crate::sim::reports::{Said, names, said};
use crate::sim::track::{Track, codec};
use crate::sim::{Sim, ms, wire};

const MADE_UP: &str = "made-up";

/// A microphone, and a listener whose stream nobody has given a name.
fn call(sim: &mut Sim) -> (Track, ConsumerId) {
    let room = sim.room();
    let (sender, receiver) = (sim.transport(room), sim.transport(room));
    let track = sim.microphone(sender);
    let consumer = nameless(sim, receiver, &track);
    (track, consumer)
}

fn nameless(sim: &mut Sim, receiver: TransportId, track: &Track) -> ConsumerId {
    sim.consumer_with(receiver, track, |request| {
        request.cname = MADE_UP.to_owned();
        request.cname_is_made_up = true;
    })
}

/// Says names on the transport that a track comes on.
fn say(sim: &mut Sim, track: &Track, chunks: &[(u32, &[u8])]) {
    sim.send_rtcp(track.transport(), &names(9, chunks));
}

/// Sends until there have been reports, and returns what the consumers' SSRCs were called in them.
fn called(sim: &mut Sim, tracks: &mut [&mut Track], consumers: &[ConsumerId]) -> Vec<String> {
    sim.sink.rtcp.clear();
    for _ in 0..100 {
        for track in &mut *tracks {
            let packets = match track.request.kind {
                weir_channel::message::MediaKind::Audio => vec![track.stream().sound()],
                weir_channel::message::MediaKind::Video => track.stream().key_frame(1),
            };
            sim.send(track.transport(), &packets);
        }
        sim.advance(ms(20));
    }
    let said: Vec<Said> = sim.sink.rtcp.iter().flat_map(|(_, _, packet)| said(packet)).collect();
    let called = |consumer: &ConsumerId| {
        let own = sim.consumers[consumer].request.ssrc;
        let names = said.iter().filter_map(|said| match said {
            Said::Name { ssrc, cname } if *ssrc == own => Some(String::from_utf8(cname.clone()).expect("UTF-8")),
            _ => None,
        });
        let names: BTreeSet<String> = names.collect();
        assert_eq!(names.len(), 1, "one name in all reports: {names:?}");
        names.into_iter().next().expect("one")
    };
    consumers.iter().map(called).collect()
}

#[test]
fn the_senders_name_is_passed_on_unless_one_was_given() {
    let mut sim = Sim::new(1);
    let (mut track, consumer) = call(&mut sim);
    let receiver = sim.consumers[&consumer].request.transport;
    let given = sim.consumer_with(receiver, &track, |request| request.cname = "given".to_owned());
    let all = [consumer, given];
    assert_eq!(called(&mut sim, &mut [&mut track], &all), [MADE_UP, "given"]);
    let ssrc = track.stream().ssrc;
    say(&mut sim, &track, &[(ssrc, b"camera@studio")]);
    assert_eq!(called(&mut sim, &mut [&mut track], &all), ["camera@studio", "given"]);
    // Another one later, e.g. after a restart; and whoever joins afterwards gets it at once.
    say(&mut sim, &track, &[(ssrc, b"again")]);
    let late = nameless(&mut sim, receiver, &track);
    assert_eq!(
        called(&mut sim, &mut [&mut track], &[consumer, given, late]),
        ["again", "given", "again"]
    );
}

#[test]
fn each_ssrc_has_the_name_that_was_said_of_it() {
    let mut sim = Sim::new(2);
    let room = sim.room();
    let (sender, other, receiver) = (sim.transport(room), sim.transport(room), sim.transport(room));
    // Two endpoints behind one transport (a mixer's, or another relay's), and a third stream of the first of them elsewhere.
    let mut anna = sim.microphone(sender);
    let mut bert = sim.microphone(sender);
    let mut camera = sim.camera(other, CodecName::Vp8);
    let consumers = [&anna, &bert, &camera].map(|track| nameless(&mut sim, receiver, track));
    let ssrcs = [anna.stream().ssrc, bert.stream().ssrc, camera.stream().ssrc];
    say(&mut sim, &anna, &[(ssrcs[0], b"anna"), (ssrcs[1], b"bert")]);
    // What is said of an SSRC elsewhere means nothing there.
    say(
        &mut sim,
        &camera,
        &[(ssrcs[1], b"mallory"), (ssrcs[2], b"anna"), (12_345, b"nobody")],
    );
    let mut tracks = [&mut anna, &mut bert, &mut camera];
    assert_eq!(called(&mut sim, &mut tracks, &consumers), ["anna", "bert", "anna"]);
}

#[test]
fn a_name_is_utf8_of_255_bytes_at_most_and_what_makes_no_sense_is_passed_over() {
    let mut sim = Sim::new(3);
    let (mut track, consumer) = call(&mut sim);
    let ssrc = track.stream().ssrc;
    let long = "x".repeat(255);
    let cases: [(&[u8], &str); 6] = [
        (b"", MADE_UP), // RFC 3550 §6.5.1: every source must have one, so this is none
        (b"Zo\xc3\xab", "Zoë"),
        (b"", "Zoë"),
        (b"a\xffb", "a\u{fffd}b"),
        (b"a\r\n\0", "a\u{fffd}\u{fffd}\u{fffd}"),
        (long.as_bytes(), &long),
    ];
    for (said, expected) in cases {
        say(&mut sim, &track, &[(ssrc, said)]);
        assert_eq!(called(&mut sim, &mut [&mut track], &[consumer]), [expected]);
    }
    // However a description breaks off: the packet counts, what else it says is heeded, and the name stays.
    let whole = names(9, &[(ssrc, b"broken")]);
    let (report, description) = whole.split_at(8);
    for words in 1..description.len() / 4 - 2 {
        let mut broken = report.to_vec();
        broken.extend(&description[..4 + 4 * words]);
        broken[11] = words as u8;
        broken.extend(wire::pli(1, 2));
        let before = sim.transport_stats(track.transport()).rtcp_received;
        sim.send_rtcp(track.transport(), &broken);
        assert_eq!(sim.transport_stats(track.transport()).rtcp_received, before + 1);
    }
    assert_eq!(called(&mut sim, &mut [&mut track], &[consumer]), [long.as_str()]);
    assert_eq!(sim.transport_stats(track.transport()).unrouted, []);
}

#[test]
fn names_without_end_are_bounded() {
    let mut sim = Sim::new(4);
    let (mut track, consumer) = call(&mut sim);
    let ssrc = track.stream().ssrc;
    // One compound packet with a thousand names of one source: no more than the first 31 are looked at.
    let mut packet = wire::receiver_report(9);
    for number in 0..1_000 {
        packet.extend(&names(9, &[(ssrc, format!("name {number}").as_bytes())])[8..]);
    }
    sim.send_rtcp(track.transport(), &packet);
    assert_eq!(called(&mut sim, &mut [&mut track], &[consumer]), ["name 30"]);
}

/// RFC 4588 §5.3: retransmissions go by the name of what they repeat.
#[test]
fn rfc4588_5_3_what_is_sent_again_has_the_same_name() {
    let mut sim = Sim::new(5);
    let room = sim.room();
    let (sender, receiver) = (sim.transport(room), sim.transport(room));
    let mut track = sim.track(
        sender,
        CodecName::Vp8,
        &[weir_channel::message::Profile::Default],
        |request| {
            request.codecs[0].rtx = Some(97);
            request.encodings[0].rtx_ssrc = Some(0x7777);
        },
    );
    let payload_type = codec(CodecName::Vp8).payload_type;
    let consumer = sim.consumer_with(receiver, &track, |request| {
        request.nack = true;
        request.rtx = Some(ConsumerRtx {
            ssrc: 0x9999,
            payload_types: vec![(payload_type, 97)],
        });
        request.cname_is_made_up = true;
    });
    let ssrc = track.stream().ssrc;
    // What the retransmissions' own description says is not asked.
    say(&mut sim, &track, &[(ssrc, b"camera"), (0x7777, b"other")]);
    let packets = track.stream().key_frame(3);
    sim.send(sender, &packets);
    let seq = sim.received(consumer)[1].rtp.seq;
    sim.send_rtcp(receiver, &wire::nack(1, sim.consumers[&consumer].request.ssrc, &[seq]));
    sim.sink.rtcp.clear();
    sim.send(sender, &track.stream().delta_frame(1));
    sim.advance(ms(3_000));
    let said: Vec<Said> = sim.sink.rtcp.iter().flat_map(|(_, _, packet)| said(packet)).collect();
    for ssrc in [sim.consumers[&consumer].request.ssrc, 0x9999] {
        let cname = b"camera".to_vec();
        assert!(said.contains(&Said::Name { ssrc, cname }), "{ssrc:#x} {said:?}");
    }
}

/// One relay behind another: what the first one sends names the sender, and the second one passes that on.
#[test]
fn a_name_goes_through_a_chain_of_relays() {
    let (mut first, mut second) = (Sim::new(6), Sim::new(7));
    let (mut track, between) = call(&mut first);
    let ssrc = track.stream().ssrc;
    say(&mut first, &track, &[(ssrc, b"camera@studio")]);
    let (mut onward, last) = call(&mut second);
    // The second one's producer is the first one's consumer.
    let room = second.room_of(onward.transport());
    let sender = second.transport(room);
    let own = first.consumers[&between].request.ssrc;
    onward = second.track(
        sender,
        CodecName::Opus,
        &[weir_channel::message::Profile::Default],
        |request| {
            request.encodings[0].ssrc = Some(own);
        },
    );
    let receiver = second.consumers[&last].request.transport;
    let last = nameless(&mut second, receiver, &onward);
    assert_eq!(called(&mut first, &mut [&mut track], &[between]), ["camera@studio"]);
    let index = first.index(first.consumers[&between].request.transport);
    let reports = std::mem::take(&mut first.sink.rtcp);
    for (_, _, packet) in reports.iter().filter(|(_, to, _)| *to == index) {
        second.send_rtcp(onward.transport(), packet);
    }
    assert_eq!(called(&mut second, &mut [&mut onward], &[last]), ["camera@studio"]);
}
