//! A WebRTC transport's peer comes, moves and goes: what its consumers are sent.

use std::net::SocketAddr;

use weir_channel::id::{RoomId, TransportId};
use weir_channel::message::{
    CodecName, ConsumerRtx, CreateWebRtcTransport, DropReason, IceCredentials, IceProtocol, Method, Remote,
    UnroutedReason, WorkerError,
};

use weir_worker::relay::Action;

use crate::sim::repair::repairing;
use crate::sim::track::Track;
use crate::sim::wire::{Means, Rtp, nack};
use crate::sim::{Sim, ms};

/// A transport whose peer is not there yet.
fn webrtc_transport(sim: &mut Sim, room: RoomId) -> (TransportId, SocketAddr) {
    let transport = TransportId(sim.id());
    let request = CreateWebRtcTransport {
        room,
        transport,
        listeners: vec![IceProtocol::Udp],
        connected: Vec::new(),
        ice: IceCredentials {
            username_fragment: "abcd".into(),
            password: "0123456789012345678901".into(),
        },
    };
    sim.command(Method::CreateWebRtcTransport(request));
    let address = sim.address();
    sim.know_transport(room, transport, address);
    (transport, address)
}

fn set_peer(sim: &mut Sim, transport: TransportId, peer: Option<SocketAddr>) {
    let index = sim.index(transport);
    sim.relay.set_peer(sim.now, index, peer);
    sim.advance(ms(0));
}

fn frame(sim: &mut Sim, camera: &mut Track, key: bool) {
    let packets = camera.stream().frame_of(3, key);
    sim.send(camera.transport(), &packets);
    sim.advance(ms(33));
}

#[test]
fn a_consumer_flows_from_a_key_frame_when_its_peer_comes_and_stops_when_it_goes() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut camera = sim.camera(sender, CodecName::Vp8);
    let mut microphone = sim.microphone(sender);
    let (receiver, address) = webrtc_transport(&mut sim, room);
    let viewer = sim.consumer(receiver, &camera);
    let listener = sim.consumer(receiver, &microphone);

    // Nobody is there: nothing leaves, and nobody asks for key frames in vain.
    for index in 0..5 {
        frame(&mut sim, &mut camera, index == 0);
        sim.send(sender, &[microphone.stream().sound()]);
    }
    assert!(sim.received(viewer).is_empty() && sim.received(listener).is_empty());
    assert!(sim.asked().is_empty());
    assert_eq!(sim.dropped(viewer, DropReason::NoRemote), 15);
    assert_eq!(sim.transport_stats(receiver).remote, None);

    // Somebody comes: the sender is asked at once, and the flow begins with what he sends then.
    set_peer(&mut sim, receiver, Some(address));
    let asked: Vec<_> = sim.asked().iter().map(|ask| (ask.at, ask.ssrc, ask.means)).collect();
    assert_eq!(asked, [(sim.now, camera.stream().ssrc, Means::Pli)]);
    let known = Remote {
        rtp: address,
        rtcp: None,
    };
    assert_eq!(sim.transport_stats(receiver).remote, Some(known));
    frame(&mut sim, &mut camera, false);
    assert!(sim.received(viewer).is_empty());
    assert_eq!(sim.dropped(viewer, DropReason::AwaitingKeyFrame), 3);
    sim.send(sender, &[microphone.stream().sound()]);
    assert_eq!(sim.marks(listener).len(), 1, "sound begins at once");
    frame(&mut sim, &mut camera, true);
    frame(&mut sim, &mut camera, false);
    let first = sim.received(viewer);
    assert_eq!(first.len(), 6);
    assert!(first[0].mark().key && first[0].mark().first);

    // He goes: nothing leaves any more, and all of it is counted.
    set_peer(&mut sim, receiver, None);
    let before = sim.stats(viewer).packets_forwarded;
    for index in 0..4 {
        frame(&mut sim, &mut camera, index == 2);
    }
    assert!(sim.received(viewer).is_empty());
    assert_eq!(sim.stats(viewer).packets_forwarded, before);
    assert_eq!(sim.dropped(viewer, DropReason::NoRemote), 15 + 12);
    // Also what his receiver would ask for.
    sim.asked();
    sim.command(Method::RequestKeyFrame { consumer: viewer });
    sim.advance(ms(2_000));
    assert!(sim.asked().is_empty());

    // He comes back: from a key frame again, and with the numbers that follow.
    set_peer(&mut sim, receiver, Some(address));
    assert_eq!(sim.asked_ssrcs(), [camera.stream().ssrc]);
    frame(&mut sim, &mut camera, false);
    frame(&mut sim, &mut camera, true);
    let second = sim.received(viewer);
    assert_eq!(second.len(), 3);
    assert!(second[0].mark().key);
    let last = first.last().expect("six packets").rtp.seq;
    assert_eq!(second[0].rtp.seq, last.wrapping_add(1));
    sim.check_accounts();
}

#[test]
fn a_peer_that_moves_sees_no_gap() {
    let mut sim = Sim::new(2);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut camera = sim.camera(sender, CodecName::Vp8);
    let (receiver, address) = webrtc_transport(&mut sim, room);
    let viewer = sim.consumer(receiver, &camera);
    set_peer(&mut sim, receiver, Some(address));
    frame(&mut sim, &mut camera, true);
    sim.advance(ms(2_000)); // a second request would not have to wait
    sim.asked();
    let mut moved = address;
    for _ in 0..5 {
        frame(&mut sim, &mut camera, false);
        moved.set_port(moved.port() + 1);
        set_peer(&mut sim, receiver, Some(moved));
        assert_eq!(
            sim.transport_stats(receiver).remote.map(|remote| remote.rtp),
            Some(moved)
        );
    }
    let received = sim.received(viewer);
    assert_eq!(received.len(), 18);
    for pair in received.windows(2) {
        assert_eq!(pair[1].rtp.seq, pair[0].rtp.seq.wrapping_add(1));
    }
    assert!(sim.asked().is_empty(), "no key frame is needed");
    let stats = sim.stats(viewer);
    assert_eq!((stats.packets_forwarded, stats.dropped.total()), (18, 0));
}

#[test]
fn what_a_peer_sends_is_taken_also_while_nothing_can_be_sent_to_it() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let (sender, address) = webrtc_transport(&mut sim, room);
    let mut camera = sim.camera(sender, CodecName::Vp8);
    let receiver = sim.transport(room);
    let viewer = sim.consumer(receiver, &camera);
    // The shell has unprotected the packets; that the way back is not proven yet is no reason to lose them.
    frame(&mut sim, &mut camera, true);
    assert_eq!(sim.received(viewer).len(), 3);
    set_peer(&mut sim, sender, Some(address));
    frame(&mut sim, &mut camera, true);
    assert_eq!(sim.received(viewer).len(), 3);
    // The shell has looked at the packets: whichever path they took, they are the peer's.
    let elsewhere = sim.address();
    sim.addresses.insert(sender, elsewhere);
    frame(&mut sim, &mut camera, false);
    assert_eq!(sim.received(viewer).len(), 3);
    set_peer(&mut sim, sender, None);
    frame(&mut sim, &mut camera, false);
    assert_eq!(sim.received(viewer).len(), 3);
    assert_eq!(sim.unrouted(sender, UnroutedReason::NotConnected), 0);
    // Its remote is nobody's to set.
    let remote = Remote {
        rtp: address,
        rtcp: None,
    };
    let refused = sim.attempt(Method::SetRemote {
        transport: sender,
        remote,
    });
    assert_eq!(refused.err(), Some(WorkerError::NotPlain(sender)));
}

/// RFC 3711 §3.3.1, §9.1: the key stays, so an SSRC's index goes on; the shell keeps no more of it than that.
#[test]
fn an_ssrc_that_is_taken_up_again_goes_on_where_it_stopped() {
    const MEDIA: u32 = 0x00aa_0001;
    const AGAIN: u32 = 0x00aa_0002;
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut camera = sim.camera(sender, CodecName::Vp8);
    let (receiver, address) = webrtc_transport(&mut sim, room);
    set_peer(&mut sim, receiver, Some(address));
    let index = sim.index(receiver);
    let mut last = [None; 2];
    for round in 0..20 {
        let viewer = sim.consumer_with(receiver, &camera, |request| {
            repairing(request, true);
            request.ssrc = MEDIA;
            request.rtx = request.rtx.take().map(|rtx| ConsumerRtx { ssrc: AGAIN, ..rtx });
        });
        // Every third one is closed before it is sent anything, which takes no number.
        let is_sent_to = round % 3 != 2;
        if is_sent_to {
            frame(&mut sim, &mut camera, true);
            let numbers: Vec<u16> = sim.received(viewer).iter().map(|packet| packet.rtp.seq).collect();
            assert_eq!(numbers.len(), 3);
            sim.send_rtcp(receiver, &nack(1, MEDIA, &numbers));
            let resent: Vec<u16> = sim
                .sink
                .resent
                .drain(..)
                .map(|(_, _, packet)| Rtp::read(&packet))
                .inspect(|packet| assert_eq!(packet.ssrc, AGAIN))
                .map(|packet| packet.seq)
                .collect();
            for (last, numbers) in last.iter_mut().zip([numbers, resent]) {
                let first: u16 = last.map_or(numbers[0], |last: u16| last + 1);
                assert!(
                    last.is_some() || (1..0x8000).contains(&first),
                    "in its first cycle: {first}"
                );
                assert_eq!(numbers, [first, first + 1, first + 2], "round {round}");
                *last = Some(first + 2);
            }
        }
        sim.wanted();
        sim.command(Method::CloseConsumer { consumer: viewer });
        let retire = |ssrc| Action::Retire { transport: index, ssrc };
        let retired = if is_sent_to {
            vec![retire(MEDIA), retire(AGAIN)]
        } else {
            vec![]
        };
        assert_eq!(sim.wanted(), retired);
    }
}
