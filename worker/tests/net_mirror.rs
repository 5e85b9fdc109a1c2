//! Mirrors: copies of what a transport receives and sends, on real sockets.

mod loopback;
mod supervisor;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use weir_channel::id::TransportId;
use weir_channel::message::{Method, Mirror, Page, Reply, Scope, TransportStats, WorkerError};
use weir_worker::net::egress::Egress;
use weir_worker::net::mirror::MirrorSocket;
use weir_worker::net::receive::{DATAGRAM_BYTES_MAX, ReceiveBatch};
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::sink::{Port, Sink, TransportIx};

use loopback::{Gated, OWNER, Peer, address_of, attach, connect_to, link, packet, port, remote, train, udp};
use supervisor::{ROOM, Supervisor, assert_closed, rtp, ssrc_of};

/// A socket that is connected to somebody, as the supervisor makes it.
fn socket_to(peer: &Peer) -> OwnedFd {
    let socket = udp("127.0.0.1:0");
    connect_to(&socket, peer.address);
    socket
}

fn mirror_to(peer: &Peer, flows: [bool; 4]) -> Mirror {
    let [send_rtp, send_rtcp, recv_rtp, recv_rtcp] = flows;
    Mirror {
        remote: peer.address,
        send_rtp,
        send_rtcp,
        recv_rtp,
        recv_rtcp,
    }
}

fn start(supervisor: &mut Supervisor, transport: u64, peer: &Peer, flows: [bool; 4]) -> Result<Reply, WorkerError> {
    let method = Method::StartMirroring {
        transport: TransportId(transport),
        mirror: mirror_to(peer, flows),
    };
    supervisor.request_with(method, &[socket_to(peer)])
}

fn stop(supervisor: &mut Supervisor, transport: u64) -> Result<Reply, WorkerError> {
    supervisor.request(Method::StopMirroring {
        transport: TransportId(transport),
    })
}

fn stats(supervisor: &mut Supervisor, transport: u64) -> TransportStats {
    let transport = TransportId(transport);
    match supervisor.request(Method::Stats(Scope::Transport(transport))) {
        Ok(Reply::Stats(mut page)) => page.transports.remove(0),
        other => panic!("{other:?}"),
    }
}

/// A room with a producer on transport 1 and its consumer on transport 2; the address of the first.
fn call(source: &Peer, listener: &Peer) -> (Supervisor, std::net::SocketAddr) {
    let mut supervisor = Supervisor::with_worker();
    assert_eq!(supervisor.request(Method::CreateRouter { room: ROOM }), Ok(Reply::Done));
    let addresses = [(1, source), (2, listener)].map(|(transport, peer)| {
        let (unconnected, connected, local) = port();
        let created = supervisor.create_transport(transport, Some(remote(peer.address)), &[unconnected, connected]);
        assert_eq!(created, Ok(Reply::Done));
        local
    });
    supervisor.create_producer(1, 1, 0xaaaa);
    supervisor.create_consumer(1, 1, 2, 0xbbbb);
    (supervisor, addresses[0])
}

/// The next packet that is RTP, or is not.
fn next(peer: &Peer, is_rtcp: bool) -> Vec<u8> {
    loop {
        let packet = peer.receive();
        if matches!(packet[1], 192..=223) == is_rtcp {
            return packet;
        }
    }
}

#[test]
fn what_is_received_is_copied_as_it_came_and_what_is_sent_as_it_left() {
    let (source, listener) = (Peer::new(), Peer::new());
    let (before, after, stranger) = (Peer::new(), Peer::new(), Peer::new());
    let (mut supervisor, address) = call(&source, &listener);
    assert_eq!(
        start(&mut supervisor, 1, &before, [false, false, true, true]),
        Ok(Reply::Done)
    );
    assert_eq!(
        start(&mut supervisor, 2, &after, [true, true, false, false]),
        Ok(Reply::Done)
    );
    for seq in 0..100 {
        let packet = rtp(0xaaaa, seq, b"some sound");
        stranger.send_to(address, &packet);
        source.send_to(address, &packet);
        assert_eq!(before.receive(), packet, "untouched");
        let heard = next(&listener, false);
        assert_eq!(ssrc_of(&heard), 0xbbbb);
        assert_eq!(next(&after, false), heard);
    }
    let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    source.send_to(address, &report);
    assert_eq!(before.receive(), report);
    // Of reports, those that the worker makes come by themselves.
    let heard = next(&listener, true);
    assert_eq!(next(&after, true), heard);
    let (first, second) = (stats(&mut supervisor, 1), stats(&mut supervisor, 2));
    assert_eq!((first.packets_mirrored, first.mirror_failures), (101, 0));
    assert_eq!(second.packets_mirrored, second.packets_sent);
}

#[test]
fn each_flow_by_itself() {
    for flow in 0..4 {
        let (source, listener, copies) = (Peer::new(), Peer::new(), Peer::new());
        let (mut supervisor, address) = call(&source, &listener);
        let mut flows = [false; 4];
        flows[flow] = true;
        let transport = if flow < 2 { 2 } else { 1 };
        assert_eq!(start(&mut supervisor, transport, &copies, flows), Ok(Reply::Done));
        let reports = [0x80, 201, 0, 1, 0, 0, 0, 9];
        for seq in 0..20 {
            source.send_to(address, &rtp(0xaaaa, seq, b"some sound"));
            source.send_to(address, &reports);
        }
        // The worker's own report shows that all before it has been worked off; and it is the third flow's only packet.
        let own = next(&listener, true);
        let expected: Vec<Vec<u8>> = match flow {
            0 => listener.drain(),
            1 => vec![own],
            2 => (0..20).map(|seq| rtp(0xaaaa, seq, b"some sound")).collect(),
            _ => vec![reports.to_vec(); 20],
        };
        let mut copied = vec![copies.receive()];
        while copied.len() < expected.len() {
            copied.push(copies.receive());
        }
        match flow {
            // What the listener got before its first report has been read away; there were 20 in all.
            0 => {
                while copied.len() < 20 {
                    copied.push(copies.receive());
                }
                assert!(copied.iter().all(|packet| ssrc_of(packet) == 0xbbbb), "{copied:?}");
            }
            _ => assert_eq!(copied, expected),
        }
        // Other flows have had their packets too by now, and left nothing.
        assert_eq!(stop(&mut supervisor, transport), Ok(Reply::Done));
        let is_rtcp = flow % 2 == 1;
        assert!(
            copies
                .drain()
                .iter()
                .all(|packet| matches!(packet[1], 192..=223) == is_rtcp)
        );
    }
}

#[test]
fn a_mirror_is_started_once_and_ended_any_number_of_times() {
    let (source, listener, copies) = (Peer::new(), Peer::new(), Peer::new());
    let (mut supervisor, address) = call(&source, &listener);
    let all = [true; 4];
    assert_eq!(
        start(&mut supervisor, 9, &copies, all),
        Err(WorkerError::UnknownTransport(TransportId(9)))
    );
    assert_eq!(
        stop(&mut supervisor, 9),
        Err(WorkerError::UnknownTransport(TransportId(9)))
    );
    assert_eq!(stop(&mut supervisor, 1), Ok(Reply::Done));
    assert_eq!(start(&mut supervisor, 1, &copies, all), Ok(Reply::Done));
    assert_eq!(
        start(&mut supervisor, 1, &copies, all),
        Err(WorkerError::Mirrored(TransportId(1)))
    );
    let dump = |supervisor: &mut Supervisor| {
        let method = Method::Dump(Scope::Room {
            room: ROOM,
            page: Page::default(),
        });
        match supervisor.request(method) {
            Ok(Reply::Dump(page)) => page.transports[0].mirror,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(dump(&mut supervisor), Some(copies.address));
    source.send_to(address, &rtp(0xaaaa, 1, b"one"));
    assert_eq!(next(&copies, false), rtp(0xaaaa, 1, b"one"));
    assert_eq!(stop(&mut supervisor, 1), Ok(Reply::Done));
    assert_eq!(stop(&mut supervisor, 1), Ok(Reply::Done));
    assert_eq!(dump(&mut supervisor), None);
    source.send_to(address, &rtp(0xaaaa, 2, b"two"));
    next(&listener, false);
    next(&listener, false);
    assert!(copies.drain().iter().all(|packet| matches!(packet[1], 192..=223)));
    assert!(
        stats(&mut supervisor, 1).packets_mirrored >= 1,
        "what was counted stays"
    );
    // Another one may follow, and ends with its transport.
    let other = Peer::new();
    assert_eq!(start(&mut supervisor, 1, &other, all), Ok(Reply::Done));
    source.send_to(address, &rtp(0xaaaa, 3, b"three"));
    assert_eq!(next(&other, false), rtp(0xaaaa, 3, b"three"));
    let close = Method::CloseTransport {
        transport: TransportId(1),
    };
    assert_eq!(supervisor.request(close), Ok(Reply::Done));
    assert_eq!(
        stop(&mut supervisor, 1),
        Err(WorkerError::UnknownTransport(TransportId(1)))
    );
}

#[test]
fn sockets_that_are_none_are_refused_and_closed() {
    let (source, listener, copies) = (Peer::new(), Peer::new(), Peer::new());
    let (mut supervisor, _) = call(&source, &listener);
    let method = || Method::StartMirroring {
        transport: TransportId(1),
        mirror: mirror_to(&copies, [true; 4]),
    };
    for (count, descriptors) in [(0, vec![]), (2, vec![socket_to(&copies), socket_to(&copies)])] {
        let refused = Err(WorkerError::Descriptors {
            expected: 1,
            received: count,
        });
        assert_eq!(supervisor.request_with(method(), &descriptors), refused);
    }
    let unconnected = supervisor.request_with(method(), &[udp("127.0.0.1:0")]);
    assert!(
        matches!(unconnected, Err(WorkerError::InvalidParameters(_))),
        "{unconnected:?}"
    );
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stream = supervisor.request_with(method(), &[OwnedFd::from(theirs)]);
    assert!(matches!(stream, Err(WorkerError::InvalidParameters(_))), "{stream:?}");
    assert_closed(ours);
    assert_eq!(start(&mut supervisor, 1, &copies, [true; 4]), Ok(Reply::Done));
}

#[test]
fn copies_that_a_full_socket_does_not_take_are_counted_and_media_goes_on() {
    let (listener, copies) = (Peer::new(), Peer::new());
    let socket = socket_to(&copies);
    let full = socket.as_raw_fd();
    let mut egress = Egress::with_backend(Gated::new(|socket| match socket.as_raw_fd() == full {
        true => Err(Errno::EAGAIN),
        false => Ok(()),
    }));
    attach(&mut egress, 0, listener.address);
    let transport = TransportIx(0);
    let socket = MirrorSocket::adopt(vec![socket]).unwrap();
    egress
        .mirrors
        .start(transport, mirror_to(&copies, [true; 4]), socket)
        .unwrap();
    let packets: Vec<_> = (0..10).map(|number| packet(number, 500)).collect();
    for _ in 0..3 {
        assert_eq!(egress.send(transport, OWNER, &train(&packets), 500).accepted, 10);
        egress.flush_mirrors();
    }
    assert_eq!(listener.drain(), [&packets[..]; 3].concat());
    let stats = egress.mirrors.stats(transport);
    assert_eq!((stats.packets, stats.failures), (0, 30));
    assert_eq!(egress.sockets.stats(transport).unwrap().packets_sent, 30);
}

#[test]
fn what_is_sent_again_is_copied_and_what_could_not_be_sent_is_not() {
    let (listener, copies) = (Peer::new(), Peer::new());
    let transport = TransportIx(0);
    for flows in [[true, false, false, false], [false, true, true, true]] {
        let mut egress = Egress::new();
        attach(&mut egress, 0, listener.address);
        let socket = MirrorSocket::adopt(vec![socket_to(&copies)]).unwrap();
        let mirror = mirror_to(&copies, flows);
        egress.mirrors.start(transport, mirror, socket).unwrap();
        let again = packet(7, 300);
        assert!(egress.resend(transport, &again));
        assert!(!egress.resend(TransportIx(1), &again), "there is no such transport");
        egress.flush_mirrors();
        assert_eq!(listener.receive(), again);
        let expected = if flows[0] { vec![again] } else { Vec::new() };
        assert_eq!(copies.drain(), expected);
        assert_eq!(egress.mirrors.stats(transport).packets, expected.len() as u64);
    }
}

#[test]
fn trains_are_copied_as_trains_and_more_than_there_is_room_for_leaves_early() {
    let (listener, copies) = (Peer::new(), Peer::new());
    let (socket, receiver) = link();
    let mut egress = Egress::new();
    attach(&mut egress, 0, listener.address);
    let transport = TransportIx(0);
    let mirror = Mirror {
        remote: address_of(&receiver),
        ..mirror_to(&copies, [true; 4])
    };
    let socket = MirrorSocket::adopt(vec![socket]).unwrap();
    egress.mirrors.start(transport, mirror, socket).unwrap();
    let mut batch = ReceiveBatch::new(64, DATAGRAM_BYTES_MAX);

    // What comes and goes in one turn, in its order; equal sizes as one train.
    let received: Vec<_> = (0..6).map(|number| packet(number, 800)).collect();
    let sent: Vec<_> = (6..10).map(|number| packet(number, 800)).collect();
    let mut bytes = train(&received);
    let datagrams = [Datagram {
        start: 0,
        len: bytes.len() as u32,
        segment: 800,
        source: listener.address,
    }];
    egress.mirror_received(transport, Port::Rtp, &bytes, &datagrams);
    bytes.fill(0xee); // the relay has its way with them
    egress.gather(transport, OWNER, &train(&sent), 800);
    egress.flush_gathered();
    egress.flush_mirrors();
    let got = batch.receive(receiver.as_fd(), 64).unwrap();
    let trains: Vec<_> = got
        .datagrams
        .iter()
        .map(|datagram| (got.bytes[datagram.range()].to_vec(), datagram.segment))
        .collect();
    assert_eq!(trains, [(train(&[received, sent].concat()), 800)]);
    assert_eq!(listener.drain().len(), 4);

    // Three megabytes in one turn.
    let big: Vec<_> = (0..50).map(|number| packet(number, 1_200)).collect();
    for _ in 0..50 {
        egress.send(transport, OWNER, &train(&big), 1_200);
        listener.drain();
    }
    egress.flush_mirrors();
    let stats = egress.mirrors.stats(transport);
    assert_eq!(stats.packets + stats.failures, 10 + 2_500);
    assert_eq!(stats.failures, 0);
}
