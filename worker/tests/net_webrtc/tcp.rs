//! WebRTC transports over TCP: the same media in frames, and bounds on what connections may cost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{
    Counts, DropReason, IceProtocol, IceState, Method, Notification, Reply, Scope, StatsPage, WorkerError,
};
use weir_worker::net::sockets::CONNECTIONS_MAX;

use crate::client::{Client, Wire};
use crate::loopback::{Peer, port, udp};
use crate::room::{connect, create_webrtc, has_moved, ice_credentials, plain_transport, room, stats, webrtc_stats};
use crate::supervisor::{Supervisor, rtp, ssrc_of};

fn listener() -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener.into(), address)
}

/// A WebRTC transport that listens for TCP alone; where.
pub(crate) fn tcp_transport(supervisor: &mut Supervisor, transport: u64) -> SocketAddr {
    let (listener, address) = listener();
    create_webrtc(supervisor, transport, &[IceProtocol::Tcp], &[listener]).unwrap();
    address
}

fn connected_over_tcp(supervisor: &mut Supervisor, transport: u64) -> Client {
    let address = tcp_transport(supervisor, transport);
    let client = Client::over(Wire::tcp(address), address, &ice_credentials(transport, 0), true);
    connect(supervisor, transport, client)
}

/// That the other end has closed a connection, which may take a while.
pub(crate) fn assert_closed(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let read = stream.read(&mut [0; 100]);
    let is_reset = read
        .as_ref()
        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
    assert!(is_reset || read.as_ref().is_ok_and(|len| *len == 0), "{read:?}");
}

#[test]
fn media_goes_both_ways_in_frames() {
    let mut supervisor = room();
    let plain = Peer::new();
    let address = plain_transport(&mut supervisor, 1, &plain);
    let mut client = connected_over_tcp(&mut supervisor, 2);
    supervisor.create_producer(1, 2, 0xaaaa);
    supervisor.create_consumer(1, 1, 1, 0xbbbb);
    supervisor.create_producer(2, 1, 0xcccc);
    supervisor.create_consumer(2, 2, 2, 0xdddd);
    for seq in 0..100_u16 {
        let payload = vec![seq as u8; usize::from(20 + seq * 11)];
        client.send_rtp(&rtp(0xaaaa, seq, &payload));
        let packet = plain.receive_rtp();
        assert_eq!((ssrc_of(&packet), &packet[12..]), (0xbbbb, &payload[..]));
        plain.send_to(address, &rtp(0xcccc, seq, &payload));
        let packet = client.receive_rtp();
        assert_eq!((ssrc_of(&packet), &packet[12..]), (0xdddd, &payload[..]));
    }
    assert_eq!(client.unprotect_failures, 0);
    let counted = stats(&mut supervisor, 2);
    assert_eq!(
        (counted.packets_received, counted.packets_sent - counted.rtcp_sent),
        (100, 100)
    );
    let tuple = counted.webrtc.unwrap().ice_selected_tuple.unwrap();
    assert_eq!(
        (tuple.protocol, tuple.remote),
        (IceProtocol::Tcp, client.wire.address())
    );

    // The connection is all there is.
    drop(client);
    loop {
        if let Notification::IceStateChanged { state, .. } = supervisor.notification()
            && state == IceState::Disconnected
        {
            break;
        }
    }
    plain.send_to(address, &rtp(0xcccc, 100, b"to nobody"));
    let dropped = |supervisor: &mut Supervisor| -> Counts<DropReason> { consumer_drops(supervisor, 2) };
    while dropped(&mut supervisor) != [(DropReason::NoRemote, 1)] {}
}

fn consumer_drops(supervisor: &mut Supervisor, consumer: u64) -> Counts<DropReason> {
    let method = Method::Stats(Scope::Consumer(ConsumerId(consumer)));
    match supervisor.request(method) {
        Ok(Reply::Stats(StatsPage { mut consumers, .. })) => consumers.remove(0).dropped,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_moves_from_tcp_to_udp_and_back() {
    let mut supervisor = room();
    let plain = Peer::new();
    let address = plain_transport(&mut supervisor, 1, &plain);
    let ((unconnected, connected, by_udp), (listener, by_tcp)) = (port(), listener());
    let listeners = [IceProtocol::Udp, IceProtocol::Tcp];
    create_webrtc(&mut supervisor, 2, &listeners, &[unconnected, connected, listener]).unwrap();
    let client = Client::over(Wire::tcp(by_tcp), by_tcp, &ice_credentials(2, 0), true);
    let mut client = connect(&mut supervisor, 2, client);
    supervisor.create_producer(1, 2, 0xaaaa);
    supervisor.create_consumer(1, 1, 1, 0xbbbb);
    supervisor.create_producer(2, 1, 0xcccc);
    supervisor.create_consumer(2, 2, 2, 0xdddd);
    for round in 1..=4_u16 {
        let ice = ice_credentials(2, round.into());
        let restart = Method::RestartIce {
            transport: TransportId(2),
            ice: ice.clone(),
        };
        assert_eq!(supervisor.request(restart), Ok(Reply::Done));
        if round % 2 == 1 {
            client.move_to(Wire::udp(), by_udp, &ice);
        } else {
            client.move_to(Wire::tcp(by_tcp), by_tcp, &ice);
        }
        client.run_until(|client| client.nominated && has_moved(&mut supervisor, 2, client));
        while webrtc_stats(&mut supervisor, 2).ice_selected_tuple.unwrap().remote != client.wire.address() {}
        client.send_rtp(&rtp(0xaaaa, round, b"from elsewhere"));
        assert_eq!(&plain.receive_rtp()[12..], b"from elsewhere");
        plain.send_to(address, &rtp(0xcccc, round, b"to elsewhere"));
        assert_eq!(&client.receive_rtp()[12..], b"to elsewhere");
    }
}

#[test]
fn who_reads_slowly_loses_whole_packets_and_costs_no_more_than_the_bound() {
    let mut supervisor = room();
    let plain = Peer::new();
    let address = plain_transport(&mut supervisor, 1, &plain);
    let mut client = connected_over_tcp(&mut supervisor, 2);
    supervisor.create_producer(2, 1, 0xcccc);
    supervisor.create_consumer(2, 2, 2, 0xdddd);
    // Until everything on the way is full: what the kernels keep of a connection, and what the worker does.
    let mut seq = 0_u16;
    let full = loop {
        for _ in 0..200 {
            plain.send_to(address, &rtp(0xcccc, seq, &[seq as u8; 1_200]));
            seq = seq.wrapping_add(1);
        }
        let drops = consumer_drops(&mut supervisor, 2);
        if let [(DropReason::BacklogFull, count)] = drops[..] {
            break count;
        }
        assert_eq!(drops, []);
    };
    assert!(full > 0);
    // What was taken comes whole.
    let before = stats(&mut supervisor, 2).packets_sent - stats(&mut supervisor, 2).rtcp_sent;
    let mut received = 0;
    client.run_until(|client| {
        received += client
            .arrived
            .drain(..)
            .filter(|arrived| matches!(arrived, crate::client::Arrived::Rtp(packet) if packet.len() == 1_212))
            .count() as u64;
        received >= before
    });
    assert_eq!(client.unprotect_failures, 0);
    plain.send_to(address, &rtp(0xcccc, seq, b"and it goes on"));
    while client.receive_rtp()[12..] != b"and it goes on"[..] {}
}

#[test]
fn too_many_connections_and_frames_too_long_are_turned_away() {
    let mut supervisor = room();
    let mut client = connected_over_tcp(&mut supervisor, 1);
    let address = client.server();
    let mut silent: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    // With the client's they are one too many; the first of them goes, and the client stays.
    assert_closed(&mut silent.remove(0));
    let mut last = silent.pop().unwrap();
    last.write_all(&[0xff, 0xff, 1, 2, 3]).unwrap();
    assert_closed(&mut last);
    // Who says nothing goes after a while.
    assert_closed(&mut silent.pop().unwrap());
    supervisor.create_producer(1, 1, 0xaaaa);
    client.send_rtp(&rtp(0xaaaa, 1, b"still here"));
    while stats(&mut supervisor, 1).packets_received == 0 {}
}

#[test]
fn descriptors_are_what_the_listeners_say() {
    let mut supervisor = room();
    let refused = |supervisor: &mut Supervisor, listeners: &[IceProtocol], descriptors: &[OwnedFd]| match create_webrtc(
        supervisor,
        1,
        listeners,
        descriptors,
    ) {
        Err(WorkerError::InvalidParameters(text)) => text,
        Err(error) => error.to_string(),
        Ok(_) => panic!("taken"),
    };
    let (udp_once, tcp_once) = ([IceProtocol::Udp], [IceProtocol::Tcp]);
    assert_eq!(
        refused(&mut supervisor, &[], &[]),
        "a WebRTC transport without listeners needs a shared port to be reached through"
    );
    assert!(refused(&mut supervisor, &[IceProtocol::Tcp; 5], &[]).starts_with("5 listeners"));
    let (unconnected, connected, _) = port();
    assert_eq!(
        refused(&mut supervisor, &udp_once, &[unconnected]),
        "the request needs 2 descriptors, but came with 1"
    );
    assert_eq!(
        refused(&mut supervisor, &tcp_once, &[connected]),
        "a descriptor is not a listening TCP socket"
    );
    let (listening, _) = listener();
    let (listening_too, address) = listener();
    assert_eq!(
        refused(&mut supervisor, &udp_once, &[listening, listening_too]),
        "a descriptor is not a UDP socket"
    );
    let (listening, _) = listener();
    drop(listening);
    let unconnected: OwnedFd = TcpStream::connect(address).map_or_else(|_| udp("127.0.0.1:0"), OwnedFd::from);
    assert_eq!(
        refused(&mut supervisor, &tcp_once, &[unconnected]),
        "a descriptor is not a listening TCP socket"
    );
    let (unconnected, connected, _) = port();
    let (again, connected_again) = (unconnected.try_clone().unwrap(), connected.try_clone().unwrap());
    assert_eq!(
        refused(
            &mut supervisor,
            &[IceProtocol::Udp; 2],
            &[unconnected, connected, again, connected_again]
        ),
        "two listeners are bound to the same address"
    );
    // Nothing of all that has left anything.
    tcp_transport(&mut supervisor, 1);
}
