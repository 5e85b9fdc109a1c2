//! WebRTC transports that share one port of UDP and one of TCP: who is whose, through one socket and through many.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use weir_channel::id::TransportId;
use weir_channel::message::{
    DtlsState, IceCredentials, IceProtocol, IceState, IceTuple, Method, Notification, OpenSharedPorts, Reply,
    UnroutedReason, WorkerError,
};
use weir_channel::page::Page;
use weir_worker::net::clock;

use crate::client::{Client, Wire};
use crate::loopback::{Peer, address_of, connect_to, udp, udp_at};
use crate::room::{
    await_dtls, await_unrouted, connect, create_webrtc, has_moved, ice_credentials, plain_transport, room, stats,
    webrtc_stats,
};
use crate::supervisor::{ROOM, Supervisor, rtp, ssrc_of};

/// The shared ports of a worker.
pub(crate) struct SharedPort {
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
}

impl SharedPort {
    pub(crate) fn open(supervisor: &mut Supervisor, connected: bool) -> Self {
        let unconnected = udp("127.0.0.1:0");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Self {
            udp: address_of(&unconnected),
            tcp: listener.local_addr().unwrap(),
        };
        let protocols = vec![IceProtocol::Udp, IceProtocol::Tcp];
        let opened = supervisor.request_with(
            Method::OpenSharedPorts(OpenSharedPorts { protocols, connected }),
            &[unconnected, listener.into()],
        );
        assert_eq!(opened, Ok(Reply::Done));
        port
    }

    /// A transport on the shared ports, and a client that has not begun.
    fn client(&self, supervisor: &mut Supervisor, transport: u64) -> Client {
        create_webrtc(supervisor, transport, &[], &[]).unwrap();
        Client::new(self.udp, &ice_credentials(transport, 0), true)
    }

    pub(crate) fn connected_client(&self, supervisor: &mut Supervisor, transport: u64) -> Client {
        let client = self.client(supervisor, transport);
        connect(supervisor, transport, client)
    }

    fn connected_over_tcp(&self, supervisor: &mut Supervisor, transport: u64) -> Client {
        create_webrtc(supervisor, transport, &[], &[]).unwrap();
        let client = Client::over(Wire::tcp(self.tcp), self.tcp, &ice_credentials(transport, 0), true);
        connect(supervisor, transport, client)
    }

    /// A socket as the supervisor makes one.
    pub(crate) fn socket(&self, tuple: IceTuple) -> OwnedFd {
        assert_eq!((tuple.protocol, tuple.local), (IceProtocol::Udp, self.udp));
        let socket = udp_at(tuple.local);
        connect_to(&socket, tuple.remote);
        socket
    }

    /// Waits until a transport asks for a socket, and gives it one.
    pub(crate) fn give_socket(&self, supervisor: &mut Supervisor, transport: u64) -> SocketAddr {
        let tuple = await_request(supervisor, transport);
        let socket = self.socket(tuple);
        assert_eq!(answer_request(supervisor, transport, tuple, socket), Ok(Reply::Done));
        assert!(self.connected_to().contains(&tuple.remote));
        tuple.remote
    }

    /// Where sockets of the port are connected to, as the kernel has it. It does not write its table at once: a row may be passed
    /// over while a socket closes, so the table is read until it is the same twice.
    fn connected_to(&self) -> Vec<SocketAddr> {
        let mut before = self.read_connected_to();
        loop {
            let now = self.read_connected_to();
            if now == before {
                return now;
            }
            before = now;
        }
    }

    fn read_connected_to(&self) -> Vec<SocketAddr> {
        let address = |text: &str| {
            let (ip, port) = text.split_once(':')?;
            let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
            Some(SocketAddr::from((ip, u16::from_str_radix(port, 16).ok()?)))
        };
        let table = std::fs::read_to_string("/proc/self/net/udp").unwrap();
        let rows = table.lines().skip(1).filter_map(|row| {
            let mut words = row.split_whitespace().skip(1);
            Some((address(words.next()?)?, address(words.next()?)?))
        });
        rows.filter(|(local, remote)| *local == self.udp && remote.port() != 0)
            .map(|(_, remote)| remote)
            .collect()
    }
}

pub(crate) fn await_request(supervisor: &mut Supervisor, id: u64) -> IceTuple {
    loop {
        if let Notification::SocketWanted { transport, tuple } = supervisor.notification()
            && transport == TransportId(id)
        {
            return tuple;
        }
    }
}

pub(crate) fn answer_request(
    supervisor: &mut Supervisor,
    transport: u64,
    tuple: IceTuple,
    socket: OwnedFd,
) -> Result<Reply, WorkerError> {
    let transport = TransportId(transport);
    supervisor.request_with(Method::UseConnectedSocket { transport, tuple }, &[socket])
}

fn await_ice(supervisor: &mut Supervisor, id: u64, wanted: IceState) {
    loop {
        if let Notification::IceStateChanged { transport, state, .. } = supervisor.notification()
            && (transport, state) == (TransportId(id), wanted)
        {
            return;
        }
    }
}

fn await_unrouted_of_worker(supervisor: &mut Supervisor, count: u64) {
    let end = clock::monotonic() + Duration::from_secs(30);
    while supervisor.stats().unrouted < count {
        assert!(clock::monotonic() < end, "{}", supervisor.stats().unrouted);
    }
    assert_eq!(supervisor.stats().unrouted, count);
}

/// What one sends, all others get.
fn assert_heard(from: &mut Client, ssrc: u32, seq: u16, to: &mut [(Client, u32)]) {
    let payload = vec![seq as u8; usize::from(20 + seq % 100 * 11)];
    from.send_rtp(&rtp(ssrc, seq, &payload));
    for (client, theirs) in to {
        let packet = client.receive_rtp();
        assert_eq!((ssrc_of(&packet), &packet[12..]), (*theirs, &payload[..]));
        assert_eq!(client.unprotect_failures, 0);
    }
}

#[test]
fn many_clients_share_a_port() {
    for connected in [false, true] {
        let mut supervisor = room();
        let port = SharedPort::open(&mut supervisor, connected);
        let mut from = port.connected_client(&mut supervisor, 1);
        if connected {
            port.give_socket(&mut supervisor, 1);
        }
        supervisor.create_producer(1, 1, 0xaaaa);
        let mut to = Vec::new();
        for transport in 2..8_u64 {
            // The last stay with the shared port, as when there are no descriptors left.
            let client = port.connected_client(&mut supervisor, transport);
            if connected && transport < 6 {
                assert_eq!(port.give_socket(&mut supervisor, transport), client.wire.address());
            }
            let ssrc = 0xb000 + transport as u32;
            supervisor.create_consumer(transport, 1, transport, ssrc);
            to.push((client, ssrc));
        }
        for seq in 0..100 {
            assert_heard(&mut from, 0xaaaa, seq, &mut to);
        }
        assert_eq!(supervisor.stats().unrouted, 0);
        assert_eq!(port.connected_to().len(), if connected { 5 } else { 0 });
        for transport in 1..8 {
            let counted = stats(&mut supervisor, transport);
            assert_eq!(counted.unrouted, []);
            let webrtc = counted.webrtc.unwrap();
            assert_eq!(
                (
                    webrtc.ice_state,
                    webrtc.dtls_state,
                    webrtc.ice_selected_tuple.unwrap().local
                ),
                (IceState::Completed, DtlsState::Connected, port.udp)
            );
        }
        // Reports come the other way, from all of them to their own transports.
        let mut empty = vec![0x80, 201, 0, 1];
        empty.extend(7_u32.to_be_bytes());
        for (client, _) in &mut to {
            let protected = client.protect_rtcp(&empty);
            client.send(&protected);
        }
        for transport in 2..8 {
            while stats(&mut supervisor, transport).rtcp_received == 0 {}
        }
    }
}

#[test]
fn trains_reach_a_plain_peer_and_come_from_one() {
    for connected in [false, true] {
        let mut supervisor = room();
        let port = SharedPort::open(&mut supervisor, connected);
        let plain = Peer::new();
        let address = plain_transport(&mut supervisor, 1, &plain);
        let mut client = port.connected_client(&mut supervisor, 2);
        if connected {
            port.give_socket(&mut supervisor, 2);
        }
        supervisor.create_producer(1, 2, 0xaaaa);
        supervisor.create_consumer(1, 1, 1, 0xbbbb);
        supervisor.create_producer(2, 1, 0xcccc);
        supervisor.create_consumer(2, 2, 2, 0xdddd);
        for round in 0..20_u16 {
            for seq in round * 10..round * 10 + 10 {
                client.send_rtp(&rtp(0xaaaa, seq, &[seq as u8; 800]));
                plain.send_to(address, &rtp(0xcccc, seq, &[!seq as u8; 800]));
            }
            for seq in round * 10..round * 10 + 10 {
                let packet = plain.receive_rtp();
                assert_eq!((ssrc_of(&packet), &packet[12..]), (0xbbbb, &[seq as u8; 800][..]));
                let packet = client.receive_rtp();
                assert_eq!((ssrc_of(&packet), &packet[12..]), (0xdddd, &[!seq as u8; 800][..]));
            }
        }
        assert_eq!((client.unprotect_failures, supervisor.stats().unrouted), (0, 0));
    }
}

#[test]
fn a_client_moves_and_its_socket_with_it() {
    for connected in [false, true] {
        let mut supervisor = room();
        let port = SharedPort::open(&mut supervisor, connected);
        let mut from = port.connected_client(&mut supervisor, 1);
        supervisor.create_producer(1, 1, 0xaaaa);
        if connected {
            port.give_socket(&mut supervisor, 1);
        }
        let client = port.connected_client(&mut supervisor, 2);
        supervisor.create_consumer(1, 1, 2, 0xbbbb);
        let mut to = [(client, 0xbbbb)];
        if connected {
            port.give_socket(&mut supervisor, 2);
        }
        let mut seq = 0;
        let mut next = || {
            seq += 1;
            seq
        };
        assert_heard(&mut from, 0xaaaa, next(), &mut to);
        // To another port of the same address; the last time to TCP and back.
        for round in 0..3 {
            if round == 2 {
                to[0].0.move_to(Wire::tcp(port.tcp), port.tcp, &ice_credentials(2, 0));
                to[0].0.run_until(|client| client.nominated);
                assert_heard(&mut from, 0xaaaa, next(), &mut to);
            }
            let before = to[0].0.wire.address();
            to[0].0.move_to(Wire::udp(), port.udp, &ice_credentials(2, 0));
            let now = to[0].0.wire.address();
            to[0]
                .0
                .run_until(|client| client.nominated && has_moved(&mut supervisor, 2, client));
            while webrtc_stats(&mut supervisor, 2).ice_selected_tuple.unwrap().remote != now {}
            assert!(!port.connected_to().contains(&before));
            assert_heard(&mut from, 0xaaaa, next(), &mut to);
            if connected {
                assert_eq!(port.give_socket(&mut supervisor, 2), now);
                assert_heard(&mut from, 0xaaaa, next(), &mut to);
            }
        }
        assert_eq!(supervisor.stats().unrouted, 0);
    }
}

#[test]
fn a_socket_that_comes_too_late_is_not_used() {
    let mut supervisor = room();
    let port = SharedPort::open(&mut supervisor, true);
    let mut client = port.connected_client(&mut supervisor, 1);
    let tuple = await_request(&mut supervisor, 1);
    client.move_to(Wire::udp(), port.udp, &ice_credentials(1, 0));
    client.run_until(|client| client.nominated && has_moved(&mut supervisor, 1, client));
    let now = client.wire.address();
    while webrtc_stats(&mut supervisor, 1).ice_selected_tuple.unwrap().remote != now {}
    let socket = port.socket(tuple);
    assert_eq!(answer_request(&mut supervisor, 1, tuple, socket), Ok(Reply::Done));
    assert_eq!(port.connected_to(), []);
    // It wants another one, and no other socket than that.
    let tuple = await_request(&mut supervisor, 1);
    assert_eq!(tuple.remote, now);
    let elsewhere = udp("127.0.0.1:0");
    connect_to(&elsewhere, tuple.remote);
    assert!(matches!(
        answer_request(&mut supervisor, 1, tuple, elsewhere),
        Err(WorkerError::InvalidParameters(_))
    ));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(matches!(
        answer_request(&mut supervisor, 1, tuple, listener.into()),
        Err(WorkerError::InvalidParameters(_))
    ));
    let socket = port.socket(tuple);
    assert_eq!(answer_request(&mut supervisor, 1, tuple, socket), Ok(Reply::Done));
    assert_eq!(port.connected_to(), [now]);
    // A second one is refused, and the transport's end is the socket's.
    let socket = port.socket(tuple);
    assert!(answer_request(&mut supervisor, 1, tuple, socket).is_err());
    let transport = TransportId(1);
    assert_eq!(
        supervisor.request(Method::CloseTransport { transport }),
        Ok(Reply::Done)
    );
    assert_eq!(port.connected_to(), []);
    let socket = port.socket(tuple);
    assert_eq!(
        answer_request(&mut supervisor, 1, tuple, socket),
        Err(WorkerError::UnknownTransport(transport))
    );
}

#[test]
fn strangers_and_forgers_are_counted_and_get_nowhere() {
    let mut supervisor = room();
    let port = SharedPort::open(&mut supervisor, false);
    let mut client = port.client(&mut supervisor, 1);
    // Nobody's packets, of all kinds, and checks for nobody.
    let stranger = Peer::new();
    let (rtp_packet, dtls, junk) = (rtp(0xaaaa, 1, b"hello"), [22; 100], [7; 20]);
    for packet in [&rtp_packet[..], &dtls, &junk, b""] {
        stranger.send_to(port.udp, packet);
    }
    await_unrouted_of_worker(&mut supervisor, 4);
    let nobodys = IceCredentials {
        username_fragment: "nobodys".to_owned(),
        ..ice_credentials(1, 0)
    };
    Client::new(port.udp, &nobodys, true).step();
    let end = clock::monotonic() + Duration::from_secs(30);
    while supervisor.stats().unrouted < 5 {
        assert!(clock::monotonic() < end);
    }
    let unrouted = supervisor.stats().unrouted;
    assert_eq!(stranger.try_receive(), None, "nobody answers a stranger");
    // The right name, and another password.
    let forged = IceCredentials {
        username_fragment: ice_credentials(1, 0).username_fragment,
        ..ice_credentials(2, 0)
    };
    let mut forger = Client::new(port.udp, &forged, true);
    forger.run_until(|_| {
        let stats = stats(&mut supervisor, 1);
        stats
            .unrouted
            .iter()
            .any(|(reason, _)| *reason == UnroutedReason::BadCheck)
    });
    assert_eq!(webrtc_stats(&mut supervisor, 1).ice_selected_tuple, None);
    forger.send(&rtp_packet);
    await_unrouted_of_worker(&mut supervisor, unrouted + 1);
    // And the true one gets through, whose packets nobody else can send.
    client = connect(&mut supervisor, 1, client);
    supervisor.create_producer(1, 1, 0xaaaa);
    let protected = client.protect(&rtp_packet);
    stranger.send_to(port.udp, &protected);
    await_unrouted_of_worker(&mut supervisor, unrouted + 2);
    assert_eq!(stats(&mut supervisor, 1).packets_received, 0);
    client.send(&protected);
    while stats(&mut supervisor, 1).packets_received == 0 {}
    client.send(&protected);
    await_unrouted(&mut supervisor, 1, UnroutedReason::Replayed, 1);
}

#[test]
fn an_address_is_whose_check_came_from_there_last() {
    for connected in [false, true] {
        let mut supervisor = room();
        let port = SharedPort::open(&mut supervisor, connected);
        let Client { wire, .. } = port.connected_client(&mut supervisor, 1);
        let address = wire.address();
        if connected {
            assert_eq!(port.give_socket(&mut supervisor, 1), address);
        }
        // A page is loaded anew: the same socket, as far as one can see, and another session.
        create_webrtc(&mut supervisor, 2, &[], &[]).unwrap();
        let client = Client::over(wire, port.udp, &ice_credentials(2, 0), true);
        let parameters = client.parameters(weir_channel::message::DtlsRole::Auto);
        crate::room::set_dtls_parameters(&mut supervisor, 2, parameters).unwrap();
        let mut client = client;
        client.run_until(|client| client.is_connected());
        await_ice(&mut supervisor, 1, IceState::Disconnected);
        await_dtls(&mut supervisor, 2, DtlsState::Connected);
        if connected {
            assert_eq!(port.give_socket(&mut supervisor, 2), address);
            assert_eq!(port.connected_to(), [address]);
        }
        supervisor.create_producer(2, 2, 0xaaaa);
        client.send_rtp(&rtp(0xaaaa, 1, b"hello"));
        while stats(&mut supervisor, 2).packets_received == 0 {}
        // What is left of the first is closed, and takes nothing with it.
        let transport = TransportId(1);
        supervisor.request(Method::CloseTransport { transport }).unwrap();
        client.send_rtp(&rtp(0xaaaa, 2, b"hello"));
        while stats(&mut supervisor, 2).packets_received == 1 {}
    }
}

/// Who takes part, knows another client's address, and can forge it: the client would be silent until its next check.
#[test]
fn a_forged_check_takes_no_address_from_a_client_that_is_there() {
    for connected in [false, true] {
        let mut supervisor = room();
        let port = SharedPort::open(&mut supervisor, connected);
        let mut client = port.connected_client(&mut supervisor, 1);
        if connected {
            port.give_socket(&mut supervisor, 1);
        }
        create_webrtc(&mut supervisor, 2, &[], &[]).unwrap();
        supervisor.create_producer(1, 1, 0xaaaa);
        for seq in 1..20_u16 {
            client.send(&crate::pairs::check(&ice_credentials(2, 0), seq.into()));
            client.send_rtp(&rtp(0xaaaa, seq, b"still here"));
        }
        while stats(&mut supervisor, 1).packets_received < 19 {}
        assert_eq!(webrtc_stats(&mut supervisor, 1).ice_state, IceState::Completed);
        assert_eq!(webrtc_stats(&mut supervisor, 2).ice_state, IceState::New);
        assert_eq!(supervisor.stats().unrouted, 19);
    }
}

#[test]
fn names_are_one_transports_and_old_ones_are_forgotten() {
    let mut supervisor = room();
    let port = SharedPort::open(&mut supervisor, false);
    let mut client = port.connected_client(&mut supervisor, 1);
    assert!(matches!(
        create_webrtc(&mut supervisor, 1, &[], &[]),
        Err(WorkerError::InvalidParameters(_))
    ));
    create_webrtc(&mut supervisor, 2, &[], &[]).unwrap();
    let transport = TransportId(1);
    let restart =
        |supervisor: &mut Supervisor, ice: IceCredentials| supervisor.request(Method::RestartIce { transport, ice });
    assert!(matches!(
        restart(&mut supervisor, ice_credentials(2, 0)),
        Err(WorkerError::InvalidParameters(_))
    ));
    // A restart that the client follows, from a new port, and one that it does not.
    for round in 1..4 {
        assert_eq!(restart(&mut supervisor, ice_credentials(1, round)), Ok(Reply::Done));
        client.move_to(Wire::udp(), port.udp, &ice_credentials(1, round));
        client.run_until(|client| client.nominated);
    }
    assert_eq!(supervisor.stats().unrouted, 0);
    Client::new(port.udp, &ice_credentials(1, 1), true).step();
    let end = clock::monotonic() + Duration::from_secs(30);
    while supervisor.stats().unrouted == 0 {
        assert!(clock::monotonic() < end);
    }
    // When it is closed, its names are free, and its client is a stranger.
    supervisor.request(Method::CloseTransport { transport }).unwrap();
    create_webrtc(&mut supervisor, 1, &[], &[]).unwrap();
    let unrouted = supervisor.stats().unrouted;
    client.send(&rtp(0xaaaa, 1, b"hello"));
    while supervisor.stats().unrouted == unrouted {}
}

#[test]
fn shared_ports_are_opened_once_and_must_be_what_they_are_said_to_be() {
    let mut supervisor = room();
    let no_door = create_webrtc(&mut supervisor, 1, &[], &[]);
    assert!(matches!(no_door, Err(WorkerError::InvalidParameters(_))), "{no_door:?}");
    let open = |supervisor: &mut Supervisor, shared_ports: &[IceProtocol], descriptors: &[OwnedFd]| {
        let protocols = shared_ports.to_vec();
        let method = Method::OpenSharedPorts(OpenSharedPorts {
            protocols,
            connected: true,
        });
        supervisor.request_with(method, descriptors)
    };
    let (udp_only, tcp_only) = ([IceProtocol::Udp], [IceProtocol::Tcp]);
    let unconnected = udp("127.0.0.1:0");
    let twins = [udp_at(address_of(&unconnected)), udp_at(address_of(&unconnected))];
    let connected = udp("127.0.0.1:0");
    connect_to(&connected, address_of(&unconnected));
    let listener: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
    assert_eq!(
        open(&mut supervisor, &udp_only, &[]),
        Err(WorkerError::Descriptors {
            expected: 1,
            received: 0
        })
    );
    for (shared_ports, descriptors) in [
        (&[][..], &[][..]),
        (&udp_only, std::slice::from_ref(&connected)),
        (&udp_only, std::slice::from_ref(&listener)),
        (&tcp_only, std::slice::from_ref(&unconnected)),
        (&[IceProtocol::Udp; 2], &twins),
    ] {
        let refused = open(&mut supervisor, shared_ports, descriptors);
        assert!(matches!(refused, Err(WorkerError::InvalidParameters(_))), "{refused:?}");
    }
    let port = SharedPort::open(&mut supervisor, false);
    let again = open(&mut supervisor, &udp_only, &[udp("127.0.0.1:0")]);
    assert!(matches!(again, Err(WorkerError::InvalidParameters(_))), "{again:?}");
    port.connected_client(&mut supervisor, 1);
    // Transports with sockets of their own are there as before.
    crate::room::connected_client(&mut supervisor, 2);
}

#[test]
fn connections_say_whose_they_are_first() {
    let mut supervisor = room();
    let port = SharedPort::open(&mut supervisor, true);
    let mut from = port.connected_over_tcp(&mut supervisor, 1);
    supervisor.create_producer(1, 1, 0xaaaa);
    let mut to: Vec<(Client, u32)> = (2..5_u64)
        .map(|transport| {
            let client = match transport {
                2 => port.connected_client(&mut supervisor, transport),
                _ => port.connected_over_tcp(&mut supervisor, transport),
            };
            let ssrc = 0xb000 + transport as u32;
            supervisor.create_consumer(transport, 1, transport, ssrc);
            (client, ssrc)
        })
        .collect();
    for seq in 0..50 {
        assert_heard(&mut from, 0xaaaa, seq, &mut to);
    }
    assert_eq!(supervisor.stats().unrouted, 0);

    // Connections that send something else, or too much, are closed; also those that send it slowly.
    let closed = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let read = stream.read(&mut [0; 100]);
        assert!(matches!(&read, Ok(0)) || read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    };
    let mut rtp_frame = vec![0, 17];
    rtp_frame.extend(rtp(0xaaaa, 1, b"hello"));
    for said in [&[5, 221][..], &[0, 0], &rtp_frame] {
        let mut stream = TcpStream::connect(port.tcp).unwrap();
        stream.set_nodelay(true).unwrap();
        let (first, rest) = said.split_at(1);
        stream.write_all(first).unwrap();
        stream.write_all(rest).unwrap();
        closed(&mut stream);
    }
    await_unrouted_of_worker(&mut supervisor, 3);
    // However many come and say nothing, there is a place for one who is expected.
    let silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(port.tcp).unwrap()).collect();
    let mut late = port.connected_over_tcp(&mut supervisor, 6);
    supervisor.create_consumer(6, 1, 6, 0xb006);
    from.send_rtp(&rtp(0xaaaa, 50, b"hello"));
    assert_eq!(ssrc_of(&late.receive_rtp()), 0xb006);
    assert!(supervisor.stats().unrouted > 3);
    drop(silent);
}

/// A worker that adopts a room, and the port at which clients of the room will be.
fn adopting() -> (Supervisor, SharedPort) {
    let mut supervisor = Supervisor::with_worker();
    let port = SharedPort::open(&mut supervisor, false);
    // Its worker has died before it had begun anything.
    let page = Page::create().unwrap();
    let adopt = Method::Adopt { room: ROOM, pages: 1 };
    assert_eq!(supervisor.request_with(adopt, &[page.into()]), Ok(Reply::Done));
    assert_eq!(supervisor.request(Method::CreateRouter { room: ROOM }), Ok(Reply::Done));
    (supervisor, port)
}

fn end_adoption(supervisor: &mut Supervisor) {
    let ended = Method::AdoptionEnded { room: ROOM };
    assert_eq!(supervisor.request(ended), Ok(Reply::Done));
}

#[test]
fn what_comes_while_a_room_is_adopted_waits_for_those_who_are_not_there_yet() {
    let (mut supervisor, port) = adopting();
    let mut clients = [
        Client::new(port.udp, &ice_credentials(1, 0), true),
        Client::over(Wire::tcp(port.tcp), port.tcp, &ice_credentials(2, 0), true),
    ];
    clients.iter_mut().for_each(Client::step);
    for transport in 1..3 {
        // Each answer is a turn, in which sockets are read.
        for _ in 0..20 {
            assert_eq!(supervisor.stats().unrouted, 0);
        }
        create_webrtc(&mut supervisor, transport, &[], &[]).unwrap();
    }
    end_adoption(&mut supervisor);
    for (transport, client) in (1..).zip(clients) {
        connect(&mut supervisor, transport, client);
    }
    assert_eq!(supervisor.stats().unrouted, 0);
}

#[test]
fn what_has_waited_too_long_for_those_who_are_adopted_is_dropped_and_counted() {
    let (mut supervisor, port) = adopting();
    create_webrtc(&mut supervisor, 1, &[], &[]).unwrap();
    let stale = |supervisor: &mut Supervisor| supervisor.stats().unrouted_reasons.of(UnroutedReason::Stale);
    let drop_waiting = Method::DropWaiting { room: ROOM };
    assert_eq!(supervisor.request(drop_waiting), Ok(Reply::Done));
    let mut client = Client::new(port.udp, &ice_credentials(1, 0), true);
    client.step();
    assert_eq!(stale(&mut supervisor), 0);
    end_adoption(&mut supervisor);
    while stale(&mut supervisor) == 0 {}
    connect(&mut supervisor, 1, client);
    assert_eq!(supervisor.stats().unrouted, 1);
}
