//! Where the other end is: given, or learned from the first packet that makes sense.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CodecName, Method, Notification, Profile, Remote, UnroutedReason, WorkerError};
use weir_worker::relay::Action;
use weir_worker::relay::sink::Port;

use crate::sim::track::Track;
use crate::sim::wire;
use crate::sim::{Sim, ms, single, train};

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), port).into()
}

/// A comedia transport with a camera, and one with a consumer of it that is known.
fn comedia(sim: &mut Sim, rtcp_mux: bool) -> (TransportId, Track) {
    let room = sim.room();
    let transport = sim.transport_with(room, address(1, 5_000), |request| {
        request.comedia = true;
        request.rtcp_mux = rtcp_mux;
    });
    (transport, sim.camera(transport, CodecName::Vp8))
}

fn send_from(sim: &mut Sim, transport: TransportId, port: Port, source: SocketAddr, bytes: &[u8]) {
    sim.deliver(transport, port, &[single(source, bytes)]);
}

/// A receiver report with one report block (RFC 3550 §6.4.2).
fn report_about(ssrc: u32) -> Vec<u8> {
    let mut report = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
    report.extend(ssrc.to_be_bytes());
    report.extend([0; 20]);
    report
}

/// Nothing has been learned.
#[track_caller]
fn knows_nothing(sim: &mut Sim, transport: TransportId) {
    assert_eq!(sim.transport_stats(transport).remote, None);
    assert_eq!(sim.told(), []);
    assert_eq!(sim.wanted(), []);
}

/// Just now, this has been learned: the shell is to connect, and the supervisor is told.
#[track_caller]
fn learned(sim: &mut Sim, transport: TransportId, remote: Remote) {
    assert_eq!(sim.transport_stats(transport).remote, Some(remote));
    let index = sim.index(transport);
    assert_eq!(
        sim.wanted(),
        [Action::Connect {
            transport: index,
            remote
        }]
    );
    let told: Vec<_> = sim
        .told()
        .into_iter()
        .filter(|notification| !matches!(notification, Notification::EffectiveProfileChanged { .. }))
        .collect();
    assert_eq!(told, [Notification::RemoteLearned { transport, remote }]);
}

#[test]
fn only_a_valid_packet_of_a_known_stream_teaches() {
    let mut sim = Sim::new(1);
    let (transport, mut track) = comedia(&mut sim, true);
    let stranger = address(66, 6_666);
    let frame = track.stream().key_frame(2);
    let mut unknown = track.clone();
    unknown.stream().ssrc = 99;
    let unknown = unknown.stream().key_frame(1);
    let mut wrong_type = track.clone();
    wrong_type.stream().payload_type = 50;
    let wrong_type = wrong_type.stream().key_frame(1);
    let attempts: [(&[u8], UnroutedReason); 7] = [
        (b"", UnroutedReason::Malformed),
        (b"hello, is anybody there?", UnroutedReason::Malformed),
        (&frame[0].bytes[..11], UnroutedReason::Malformed),
        (&unknown[0].bytes, UnroutedReason::UnknownStream),
        (&wrong_type[0].bytes, UnroutedReason::UnknownPayloadType),
        // The sender's own RTCP may come from another port, and anybody can make it up.
        (
            &wire::sender_report(track.stream().ssrc, 1, 2),
            UnroutedReason::NoRemote,
        ),
        (&[0x80, 201, 0, 9], UnroutedReason::NoRemote),
    ];
    for (bytes, reason) in attempts {
        let before = sim.unrouted(transport, reason);
        send_from(&mut sim, transport, Port::Rtp, stranger, bytes);
        assert_eq!(sim.unrouted(transport, reason), before + 1, "{reason:?}");
        knows_nothing(&mut sim, transport);
    }
    let source = address(1, 5_000);
    send_from(&mut sim, transport, Port::Rtp, source, &frame[0].bytes);
    learned(
        &mut sim,
        transport,
        Remote {
            rtp: source,
            rtcp: None,
        },
    );
}

#[test]
fn what_was_learned_is_locked() {
    let mut sim = Sim::new(2);
    let (transport, mut track) = comedia(&mut sim, true);
    let room = track.request.room;
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    let source = address(1, 5_000);
    let frame = track.stream().key_frame(8);
    send_from(&mut sim, transport, Port::Rtp, source, &frame[0].bytes);
    learned(
        &mut sim,
        transport,
        Remote {
            rtp: source,
            rtcp: None,
        },
    );
    // Not from another host, nor from another port of the same; valid or not; alone or as a train.
    for (index, foreign) in [address(1, 5_001), address(2, 5_000)].into_iter().enumerate() {
        send_from(&mut sim, transport, Port::Rtp, foreign, &frame[1].bytes);
        send_from(&mut sim, transport, Port::Rtp, foreign, b"noise");
        send_from(&mut sim, transport, Port::Rtp, foreign, &wire::receiver_report(1));
        sim.deliver(transport, Port::Rtp, &[train(foreign, &frame[2..5])]);
        // RTCP is heard from every port of the remote's IP.
        assert_eq!(sim.unrouted(transport, UnroutedReason::ForeignSource), [5, 11][index]);
    }
    assert_eq!(sim.marks(consumer), [frame[0].mark]);
    send_from(&mut sim, transport, Port::Rtp, source, &frame[1].bytes);
    assert_eq!(sim.marks(consumer), [frame[1].mark]);
    assert_eq!(sim.wanted(), []);
    let stats = sim.transport_stats(transport);
    assert_eq!(stats.packets_received, 3, "what strangers sent is not the remote's");
    sim.check_accounts();
}

#[test]
fn a_train_teaches_with_its_first_valid_packet() {
    let mut sim = Sim::new(3);
    let (transport, mut track) = comedia(&mut sim, true);
    let source = address(1, 5_000);
    let frame = track.stream().key_frame(3);
    let mut arrival = train(source, &frame);
    arrival.bytes[0] = 0; // the first one makes no sense
    let mut foreign = train(address(2, 5_000), &frame);
    foreign.bytes[1] |= 0x7f;
    sim.deliver(transport, Port::Rtp, &[arrival, foreign]);
    learned(
        &mut sim,
        transport,
        Remote {
            rtp: source,
            rtcp: None,
        },
    );
    let stats = sim.transport_stats(transport);
    assert_eq!(stats.packets_received, 2);
    assert_eq!(
        stats.unrouted,
        [(UnroutedReason::ForeignSource, 3), (UnroutedReason::Malformed, 1)]
    );
}

#[test]
fn a_receiver_teaches_with_rtcp_and_its_consumers_begin() {
    let mut sim = Sim::new(4);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    let frame = track.stream().key_frame(1);
    sim.send(sender, &frame);
    let receiver = sim.transport_with(room, address(1, 5_000), |request| request.comedia = true);
    let consumer = sim.consumer(receiver, &track);
    sim.told();
    sim.asked();
    let source = address(1, 5_000);
    let ours = sim.consumers[&consumer].request.ssrc;
    // RTP means nothing where nothing is expected.
    send_from(&mut sim, receiver, Port::Rtp, address(9, 9), &frame[0].bytes);
    send_from(
        &mut sim,
        receiver,
        Port::Rtp,
        address(9, 9),
        &[0x80, 201, 0, 4, 0, 0, 0, 1],
    );
    knows_nothing(&mut sim, receiver);
    send_from(&mut sim, receiver, Port::Rtp, source, &report_about(ours));
    learned(
        &mut sim,
        receiver,
        Remote {
            rtp: source,
            rtcp: None,
        },
    );
    assert_eq!(sim.asked_ssrcs(), [track.stream().ssrc]);
    let frame = track.stream().key_frame(1);
    sim.send(sender, &frame);
    assert_eq!(sim.marks(consumer).len(), 1);
    send_from(&mut sim, receiver, Port::Rtp, address(9, 9), &wire::receiver_report(1));
    assert_eq!(sim.unrouted(receiver, UnroutedReason::ForeignSource), 1);
}

#[test]
fn a_port_of_its_own_for_rtcp_is_learned_from_the_same_host() {
    let mut sim = Sim::new(5);
    let (transport, mut track) = comedia(&mut sim, false);
    let (rtp, rtcp) = (address(1, 5_000), address(1, 5_001));
    let report = wire::sender_report(track.stream().ssrc, 1, 2);
    // Before anybody is known, RTCP teaches nothing.
    send_from(&mut sim, transport, Port::Rtcp, rtcp, &report);
    knows_nothing(&mut sim, transport);
    assert_eq!(sim.unrouted(transport, UnroutedReason::NoRemote), 1);
    let frame = track.stream().key_frame(1);
    send_from(&mut sim, transport, Port::Rtp, rtp, &frame[0].bytes);
    learned(&mut sim, transport, Remote { rtp, rtcp: None });
    // Not from another host, not RTP, not garbage.
    send_from(&mut sim, transport, Port::Rtcp, address(2, 5_001), &report);
    assert_eq!(sim.unrouted(transport, UnroutedReason::ForeignSource), 1);
    send_from(&mut sim, transport, Port::Rtcp, rtcp, &frame[0].bytes);
    send_from(&mut sim, transport, Port::Rtcp, rtcp, &report[..7]);
    assert_eq!(sim.unrouted(transport, UnroutedReason::Malformed), 2);
    assert_eq!(sim.wanted(), []);
    let both = Remote { rtp, rtcp: Some(rtcp) };
    send_from(&mut sim, transport, Port::Rtcp, rtcp, &report);
    learned(&mut sim, transport, both);
    // Locked too, though another port is heard; and RTCP does not belong on the other port.
    send_from(&mut sim, transport, Port::Rtcp, address(1, 5_003), &report);
    assert_eq!(sim.unrouted(transport, UnroutedReason::ForeignSource), 1);
    send_from(&mut sim, transport, Port::Rtp, rtp, &report);
    assert_eq!(sim.unrouted(transport, UnroutedReason::Malformed), 3);
    send_from(&mut sim, transport, Port::Rtcp, rtcp, &report);
    assert_eq!(sim.transport_stats(transport).rtcp_received, 3);
    assert_eq!(sim.transport_stats(transport).remote, Some(both));
    assert_eq!(sim.told(), []);
}

#[test]
fn given_remotes_are_all_that_is_listened_to() {
    let mut sim = Sim::new(6);
    let room = sim.room();
    let transport = sim.unconnected_transport(room);
    let mut track = sim.camera(transport, CodecName::Vp8);
    let frame = track.stream().key_frame(4);
    send_from(&mut sim, transport, Port::Rtp, address(1, 5_000), &frame[0].bytes);
    send_from(&mut sim, transport, Port::Rtp, address(1, 5_000), b"noise");
    assert_eq!(sim.unrouted(transport, UnroutedReason::NoRemote), 2);
    let set = |sim: &mut Sim, rtp, rtcp| {
        sim.attempt(Method::SetRemote {
            transport,
            remote: Remote { rtp, rtcp },
        })
    };
    for (rtp, rtcp) in [(address(1, 0), None), (address(1, 5_000), Some(address(1, 5_001)))] {
        let refused = set(&mut sim, rtp, rtcp);
        assert!(matches!(refused, Err(WorkerError::InvalidParameters(_))), "{refused:?}");
    }
    set(&mut sim, address(1, 5_000), None).expect("a place to send to");
    send_from(&mut sim, transport, Port::Rtp, address(1, 5_000), &frame[1].bytes);
    send_from(&mut sim, transport, Port::Rtp, address(2, 5_000), &frame[2].bytes);
    // Moved.
    set(&mut sim, address(2, 5_000), None).expect("another place");
    send_from(&mut sim, transport, Port::Rtp, address(1, 5_000), &frame[2].bytes);
    send_from(&mut sim, transport, Port::Rtp, address(2, 5_000), &frame[3].bytes);
    assert_eq!(sim.transport_stats(transport).packets_received, 2);
    assert_eq!(sim.unrouted(transport, UnroutedReason::ForeignSource), 2);
}

#[test]
fn a_comedia_transport_can_be_told_after_all() {
    let mut sim = Sim::new(7);
    let (transport, mut track) = comedia(&mut sim, true);
    let remote = Remote {
        rtp: address(3, 3_000),
        rtcp: None,
    };
    sim.command(Method::SetRemote { transport, remote });
    let frame = track.stream().key_frame(2);
    send_from(&mut sim, transport, Port::Rtp, address(1, 5_000), &frame[0].bytes);
    assert_eq!(sim.unrouted(transport, UnroutedReason::ForeignSource), 1);
    send_from(&mut sim, transport, Port::Rtp, remote.rtp, &frame[0].bytes);
    assert_eq!(sim.transport_stats(transport).packets_received, 1);
    assert_eq!(
        (sim.told(), sim.wanted()),
        (vec![], vec![]),
        "there was nothing to learn"
    );
    sim.advance(ms(1_000));
}

/// A receiver's transport, its consumer's SSRC, and the sender's camera.
fn receiver(sim: &mut Sim, comedia_from: Option<&str>) -> (TransportId, u32) {
    let room = sim.room();
    let sender = sim.transport(room);
    let track = sim.camera(sender, CodecName::Vp8);
    let receiver = sim.transport_with(room, address(1, 5_000), |request| {
        request.comedia = true;
        request.comedia_from = comedia_from.map(|ip| ip.parse().expect("an IP"));
    });
    let consumer = sim.consumer(receiver, &track);
    sim.told();
    sim.asked();
    sim.wanted();
    (receiver, sim.consumers[&consumer].request.ssrc)
}

/// Eight bytes from anywhere had the media sent there. RFC 3550 §6.4.2, RFC 4585 §6, RFC 5104 §4.3.1: who receives a stream names it.
#[test]
fn rtcp_that_names_no_stream_of_ours_teaches_nothing() {
    let mut sim = Sim::new(8);
    let (transport, ours) = receiver(&mut sim, None);
    let stranger = address(66, 6_666);
    let wrong = ours ^ 1;
    let attempts: [&[u8]; 10] = [
        &wire::receiver_report(1),
        &wire::receiver_report(ours),
        &report_about(wrong),
        &wire::pli(ours, wrong),
        &wire::fir(ours, &[(wrong, 1)]),
        &wire::nack(ours, wrong, &[1, 2]),
        &wire::sender_report(ours, 1, 2),
        // A goodbye and a name; anybody can say them.
        &[0x81, 203, 0, 1, 0, 0, 0, 1],
        &[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 1, b'x', 0],
        &[0x80, 204, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0],
    ];
    for (count, attempt) in (1..).zip(attempts) {
        send_from(&mut sim, transport, Port::Rtp, stranger, attempt);
        assert_eq!(sim.unrouted(transport, UnroutedReason::Unproven), count);
        knows_nothing(&mut sim, transport);
    }
    // What names it and is not well-formed.
    let broken = &report_about(ours)[..31];
    send_from(&mut sim, transport, Port::Rtp, stranger, broken);
    assert_eq!(sim.unrouted(transport, UnroutedReason::Malformed), 1);
    knows_nothing(&mut sim, transport);
}

#[test]
fn rtcp_that_names_a_consumer_teaches() {
    type Say = fn(u32) -> Vec<u8>;
    let rows: [Say; 5] = [
        report_about,
        |ours| wire::pli(1, ours),
        |ours| wire::fir(1, &[(7, 1), (ours, 1)]),
        |ours| wire::nack(1, ours, &[1, 2]),
        |ours| [wire::receiver_report(1), wire::pli(1, ours)].concat(),
    ];
    for say in rows {
        let mut sim = Sim::new(9);
        let (transport, ours) = receiver(&mut sim, None);
        let source = address(1, 5_000);
        send_from(&mut sim, transport, Port::Rtp, source, &say(ours));
        let remote = Some(Remote {
            rtp: source,
            rtcp: None,
        });
        assert_eq!(sim.transport_stats(transport).remote, remote);
    }
}

/// A datagram of RTCP has space for thousands of guesses; the first few count.
#[test]
fn guesses_at_wholesale_teach_nothing() {
    let mut sim = Sim::new(9);
    let (transport, ours) = receiver(&mut sim, None);
    let mut guesses: Vec<(u32, u8)> = (0..100).map(|ssrc| (ssrc, 1)).collect();
    guesses.push((ours, 1));
    send_from(
        &mut sim,
        transport,
        Port::Rtp,
        address(66, 6_666),
        &wire::fir(1, &guesses),
    );
    assert_eq!(sim.transport_stats(transport).remote, None);
}

/// A receiver that has received nothing yet has no SSRC to name. Who knows where it is says so when it makes the transport.
#[test]
fn a_receiver_whose_ip_is_expected_is_learned_there_only() {
    for (from, good, bad) in [
        ("10.0.0.1", "10.0.0.1:5000", "10.0.0.2:5000"),
        ("::ffff:10.0.0.1", "10.0.0.1:5000", "10.0.0.2:5000"),
        ("10.0.0.1", "[::ffff:10.0.0.1]:5000", "[::ffff:10.0.0.2]:5000"),
        ("2001:db8::1", "[2001:db8::1]:5000", "[2001:db8::2]:5000"),
    ] {
        let mut sim = Sim::new(10);
        let (transport, ours) = receiver(&mut sim, Some(from));
        for report in [wire::receiver_report(1), report_about(ours), wire::pli(1, ours)] {
            send_from(
                &mut sim,
                transport,
                Port::Rtp,
                bad.parse().expect("an address"),
                &report,
            );
        }
        knows_nothing(&mut sim, transport);
        assert_eq!(sim.unrouted(transport, UnroutedReason::ForeignSource), 3);
        send_from(
            &mut sim,
            transport,
            Port::Rtp,
            good.parse().expect("an address"),
            b"hello",
        );
        knows_nothing(&mut sim, transport);
        let source = good.parse().expect("an address");
        send_from(&mut sim, transport, Port::Rtp, source, &wire::receiver_report(1));
        let remote = Some(Remote {
            rtp: source,
            rtcp: None,
        });
        assert_eq!(sim.transport_stats(transport).remote, remote, "{from} {good}");
    }
}

/// The same for a sender, whose SSRC may be known to others, and also when it starts over.
#[test]
fn a_sender_whose_ip_is_expected_is_learned_there_only() {
    let mut sim = Sim::new(11);
    let room = sim.room();
    let transport = sim.transport_with(room, address(1, 5_000), |request| {
        request.comedia = true;
        request.comedia_from = Some("10.0.0.1".parse().expect("an IP"));
    });
    let mut track = sim.camera(transport, CodecName::Vp8);
    let frame = track.stream().key_frame(4);
    send_from(&mut sim, transport, Port::Rtp, address(2, 5_000), &frame[0].bytes);
    knows_nothing(&mut sim, transport);
    for port in [5_000, 5_001] {
        sim.advance(ms(6_000));
        let packet = track.stream().key_frame(1);
        send_from(&mut sim, transport, Port::Rtp, address(2, port), &packet[0].bytes);
        let packet = track.stream().key_frame(1);
        send_from(&mut sim, transport, Port::Rtp, address(1, port), &packet[0].bytes);
        let rtp = address(1, port);
        assert_eq!(sim.transport_stats(transport).remote, Some(Remote { rtp, rtcp: None }));
    }
}

/// What a producer's packets are known by beside their SSRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Mid,
    Rid,
    PayloadType,
}

/// A comedia transport with a producer that has declared no SSRC, a listener, and a stranger who has guessed what it is known by.
fn undeclared(sim: &mut Sim, known: Known) -> (TransportId, Track, ConsumerId, Track) {
    let room = sim.room();
    let transport = sim.transport_with(room, address(1, 5_000), |request| request.comedia = true);
    let mut track = sim.track(transport, CodecName::Vp8, &[Profile::Default], |request| {
        request.encodings[0].ssrc = None;
        match known {
            Known::Mid => request.mid = Some("0".into()),
            Known::Rid => request.encodings[0].rid = Some("a".into()),
            Known::PayloadType => {}
        }
    });
    if known != Known::PayloadType {
        track.announce();
    }
    let listener = sim.transport(room);
    let consumer = sim.consumer(listener, &track);
    sim.told();
    sim.wanted();
    let mut stranger = track.clone();
    stranger.stream().ssrc ^= 0x5555;
    (transport, track, consumer, stranger)
}

/// RFC 8852 §3, RFC 8843 §15: such names are a character or two; 70 guesses took a producer's place.
#[test]
fn a_name_alone_teaches_nothing() {
    for known in [Known::Mid, Known::Rid, Known::PayloadType] {
        let mut sim = Sim::new(12);
        let (transport, mut track, consumer, mut stranger) = undeclared(&mut sim, known);
        // From everywhere, in no order that a sender has.
        for round in 0..70 {
            stranger.stream().seq += 7;
            let packet = stranger.stream().delta_frame(1);
            send_from(
                &mut sim,
                transport,
                Port::Rtp,
                address(66, 6_000 + round % 20),
                &packet[0].bytes,
            );
        }
        knows_nothing(&mut sim, transport);
        assert_eq!(sim.unrouted(transport, UnroutedReason::Unproven), 70, "{known:?}");
        assert_eq!(sim.marks(consumer), []);
        // The sender shows a stream, and not one packet of it is lost.
        let frame = track.stream().key_frame(6);
        for packet in &frame[..3] {
            send_from(&mut sim, transport, Port::Rtp, address(1, 5_000), &packet.bytes);
            knows_nothing(&mut sim, transport);
        }
        for packet in &frame[3..] {
            send_from(&mut sim, transport, Port::Rtp, address(1, 5_000), &packet.bytes);
        }
        let rtp = address(1, 5_000);
        assert_eq!(
            sim.transport_stats(transport).remote,
            Some(Remote { rtp, rtcp: None }),
            "{known:?}"
        );
        let expected: Vec<_> = frame.iter().map(|packet| packet.mark).collect();
        assert_eq!(sim.marks(consumer), expected, "{known:?}");
        assert_eq!(sim.unrouted(transport, UnroutedReason::Unproven), 70, "{known:?}");
        assert_eq!(sim.transport_stats(transport).packets_received, 6);
        sim.check_accounts();
    }
}

#[test]
fn a_stream_is_shown_by_one_address_and_in_one_train_too() {
    let mut sim = Sim::new(13);
    let (transport, mut track, consumer, _) = undeclared(&mut sim, Known::PayloadType);
    let frame = track.stream().key_frame(8);
    // Two that share the numbers of a stream show none.
    for (index, packet) in frame.iter().enumerate() {
        send_from(
            &mut sim,
            transport,
            Port::Rtp,
            address(1, 5_000 + index as u16 % 2),
            &packet.bytes,
        );
    }
    knows_nothing(&mut sim, transport);
    let frame = track.stream().key_frame(8);
    sim.deliver(transport, Port::Rtp, &[train(address(1, 5_000), &frame)]);
    let expected: Vec<_> = frame.iter().map(|packet| packet.mark).collect();
    assert_eq!(sim.marks(consumer), expected);
    assert_eq!(sim.unrouted(transport, UnroutedReason::Unproven), 8);
    sim.check_accounts();
}
