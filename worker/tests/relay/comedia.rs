//! Where the other end is: given, or learned from the first packet that makes sense.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use weir_channel::id::TransportId;
use weir_channel::message::{CodecName, Method, Notification, Remote, UnroutedReason, WorkerError};
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
    send_from(&mut sim, receiver, Port::Rtp, source, &wire::receiver_report(1));
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
