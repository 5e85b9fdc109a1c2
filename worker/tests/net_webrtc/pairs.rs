//! A client with two sockets, both of which it has nominated: media goes where the client's own comes from (RFC 8445 §12).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use weir_channel::message::{IceCredentials, IceProtocol};
use weir_worker::webrtc::framing::prefix;
use weir_worker::webrtc::stun::{BINDING, Class, Key, Writer, attribute};

use crate::client::{Client, answer_to_check};
use crate::loopback::{Peer, port};
use crate::room::{connect, create_webrtc, ice_credentials, plain_transport, room, stats, webrtc_stats};
use crate::shared_port::SharedPort;
use crate::supervisor::{Supervisor, rtp};

/// Sends a nominating check, and waits for the answer.
fn nominate(from: &Peer, server: SocketAddr, ice: &IceCredentials, number: u32) {
    from.send_to(server, &check(ice, number));
    while from.receive()[..2] != [1, 1] {}
}

pub(crate) fn check(ice: &IceCredentials, number: u32) -> Vec<u8> {
    let mut transaction = [9; 12];
    transaction[..4].copy_from_slice(&number.to_be_bytes());
    let username = format!("{}:theirs", ice.username_fragment);
    let mut check = Vec::new();
    Writer::new(&mut check, Class::Request, BINDING, transaction)
        .attribute(attribute::USERNAME, username.as_bytes())
        .attribute(attribute::PRIORITY, &[1; 4])
        .attribute(attribute::ICE_CONTROLLING, &[2; 8])
        .attribute(attribute::USE_CANDIDATE, &[])
        .integrity(&Key::new(&ice.password))
        .fingerprint();
    check
}

/// A connected client that has nominated another socket before.
fn client_with_two_sockets(supervisor: &mut Supervisor, shared: bool) -> (Client, Peer) {
    let ice = ice_credentials(2, 0);
    let server = if shared {
        let server = SharedPort::open(supervisor, false).udp;
        create_webrtc(supervisor, 2, &[], &[]).unwrap();
        server
    } else {
        let (unconnected, connected, server) = port();
        create_webrtc(supervisor, 2, &[IceProtocol::Udp], &[unconnected, connected]).unwrap();
        server
    };
    let other = Peer::new();
    nominate(&other, server, &ice, 0);
    let client = connect(supervisor, 2, Client::new(server, &ice, true));
    (client, other)
}

#[test]
fn a_late_nominating_check_by_another_socket_takes_no_media() {
    for shared in [false, true] {
        let mut supervisor = room();
        let plain = Peer::new();
        let address = plain_transport(&mut supervisor, 1, &plain);
        let (mut client, other) = client_with_two_sockets(&mut supervisor, shared);
        supervisor.create_producer(1, 1, 0xaaaa);
        supervisor.create_consumer(1, 1, 2, 0xbbbb);
        let ours = client.wire.address();
        assert_eq!(
            webrtc_stats(&mut supervisor, 2).ice_selected_tuple.unwrap().remote,
            ours
        );
        for seq in 1..=3 {
            nominate(&other, client.server(), &ice_credentials(2, 0), seq);
            assert_eq!(
                webrtc_stats(&mut supervisor, 2).ice_selected_tuple.unwrap().remote,
                ours
            );
            plain.send_to(address, &rtp(0xaaaa, seq as u16, b"to where it was"));
            assert_eq!(&client.receive_rtp()[12..], b"to where it was");
        }
        // A check of ours may come there, and nothing else.
        while let Some(packet) = other.try_receive() {
            assert_eq!(packet[..2], [0, 1]);
        }
    }
}

#[test]
fn media_that_comes_by_another_socket_takes_the_media_along_and_none_is_lost() {
    for shared in [false, true] {
        let mut supervisor = room();
        let plain = Peer::new();
        let address = plain_transport(&mut supervisor, 1, &plain);
        let (mut client, other) = client_with_two_sockets(&mut supervisor, shared);
        supervisor.create_producer(1, 2, 0xaaaa);
        supervisor.create_consumer(1, 1, 1, 0xbbbb);
        supervisor.create_producer(2, 1, 0xcccc);
        supervisor.create_consumer(2, 2, 2, 0xdddd);
        client.send_rtp(&rtp(0xaaaa, 1, b"media"));
        assert_eq!(&plain.receive_rtp()[12..], b"media");
        other.send_to(client.server(), &check(&ice_credentials(2, 0), 1));
        for seq in 2..20 {
            let protected = client.protect(&rtp(0xaaaa, seq, b"media"));
            other.send_to(client.server(), &protected);
        }
        for _ in 2..20 {
            assert_eq!(&plain.receive_rtp()[12..], b"media");
        }
        // By a check the worker finds out whether what it sends arrives. The first ones may be too old to be answered.
        while webrtc_stats(&mut supervisor, 2).ice_selected_tuple.unwrap().remote != other.address {
            if let Some(answer) = other.try_receive().and_then(|packet| answer_to_check(&packet)) {
                other.send_to(client.server(), &answer);
            }
        }
        plain.send_to(address, &rtp(0xcccc, 1, b"to elsewhere"));
        while !matches!(other.receive()[..], [128..=191, 96..=127, ..]) {}
        assert_eq!(stats(&mut supervisor, 2).unrouted, []);
    }
}

/// What is opened together is relayed together, also if the peer's address changes in the middle of it.
#[test]
fn of_what_is_read_at_once_before_and_after_a_move_none_is_lost() {
    let mut supervisor = room();
    let plain = Peer::new();
    plain_transport(&mut supervisor, 1, &plain);
    let ice = ice_credentials(2, 0);
    let ((unconnected, connected, server), listener) = (port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let listeners = [IceProtocol::Udp, IceProtocol::Tcp];
    create_webrtc(
        &mut supervisor,
        2,
        &listeners,
        &[unconnected, connected, listener.into()],
    )
    .unwrap();
    let frame = |packet: &[u8]| [&prefix(packet.len()).unwrap(), packet].concat();
    other.write_all(&frame(&check(&ice, 0))).unwrap();
    other.read_exact(&mut [0]).unwrap();
    let mut client = connect(&mut supervisor, 2, Client::new(server, &ice, true));
    supervisor.create_producer(1, 2, 0xaaaa);
    supervisor.create_consumer(1, 1, 1, 0xbbbb);
    let mut stream = Vec::new();
    for seq in 1..20 {
        if seq == 10 {
            stream.extend(frame(&check(&ice, 1)));
        }
        stream.extend(frame(&client.protect(&rtp(0xaaaa, seq, b"media"))));
    }
    other.write_all(&stream).unwrap();
    for _ in 1..20 {
        assert_eq!(&plain.receive_rtp()[12..], b"media");
    }
    let selected = webrtc_stats(&mut supervisor, 2).ice_selected_tuple.unwrap();
    assert_eq!(selected.remote, other.local_addr().unwrap());
    assert_eq!(stats(&mut supervisor, 2).unrouted, []);
}

/// What is not the newest of its stream was on its way for longer, and says nothing of where the client is (RFC 9000 §9.3).
#[test]
fn what_comes_late_by_a_socket_that_is_no_longer_used_moves_nothing() {
    let mut supervisor = room();
    let plain = Peer::new();
    plain_transport(&mut supervisor, 1, &plain);
    let (mut client, other) = client_with_two_sockets(&mut supervisor, false);
    supervisor.create_producer(1, 2, 0xaaaa);
    supervisor.create_consumer(1, 1, 1, 0xbbbb);
    let late: Vec<_> = (1..20).map(|seq| client.protect(&rtp(0xaaaa, seq, b"late"))).collect();
    client.send_rtp(&rtp(0xaaaa, 20, b"newest"));
    plain.receive();
    nominate(&other, client.server(), &ice_credentials(2, 0), 1);
    for packet in late {
        other.send_to(client.server(), &packet);
    }
    while stats(&mut supervisor, 2).packets_received < 20 {}
    let selected = webrtc_stats(&mut supervisor, 2).ice_selected_tuple.unwrap();
    assert_eq!(selected.remote, client.wire.address());
}
