//! Sockets that the supervisor has a copy of: TCP connections, of which the worker gives it one, and connected sockets of a shared
//! port, of which it keeps one. A copy keeps a socket open, so the worker has to end it for everybody.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, getpeername, recv, sendto};
use weir_channel::id::TransportId;
use weir_channel::message::{IceProtocol, IceTuple, Method, Notification, Reply, UnroutedReason};

use crate::client::{Client, Wire};
use crate::loopback::udp_at;
use crate::room::{await_unrouted, connect, has_moved, ice_credentials, room, webrtc_stats};
use crate::shared_port::{SharedPort, answer_request, await_request};
use crate::supervisor::Supervisor;
use crate::tcp::{assert_closed, tcp_transport};

/// Waits for a connection that the worker hands over.
fn await_connection(supervisor: &mut Supervisor, id: u64) -> (IceTuple, OwnedFd) {
    loop {
        if let Notification::ConnectionProven { transport, tuple } = supervisor.notification() {
            assert_eq!(transport, TransportId(id));
            return (tuple, supervisor.descriptors.pop_front().unwrap());
        }
    }
}

/// Waits until the worker says that it has closed a socket; which.
fn await_closed(supervisor: &mut Supervisor, id: u64) -> IceTuple {
    loop {
        if let Notification::SocketClosed { transport, tuple } = supervisor.notification() {
            assert_eq!(transport, TransportId(id));
            return tuple;
        }
    }
}

/// A worker to which nothing happens does nothing but answer.
fn assert_idle(supervisor: &mut Supervisor) {
    let before = supervisor.stats().turns;
    for _ in 0..50 {
        supervisor.stats();
    }
    let turns = supervisor.stats().turns - before;
    assert!(turns <= 200, "{turns} turns for 51 questions");
}

/// A client that is connected, and the copy of its connection.
fn over_tcp(supervisor: &mut Supervisor, transport: u64, server: SocketAddr) -> (Client, IceTuple, OwnedFd) {
    let mut client = Client::over(Wire::tcp(server), server, &ice_credentials(transport, 0), true);
    client.run_until(|client| client.nominated);
    let (tuple, copy) = await_connection(supervisor, transport);
    (connect(supervisor, transport, client), tuple, copy)
}

#[test]
fn a_connection_is_handed_over_when_a_check_has_come_by_it() {
    for shared in [false, true] {
        let mut supervisor = room();
        let server = match shared {
            true => {
                let port = SharedPort::open(&mut supervisor, true);
                crate::room::create_webrtc(&mut supervisor, 1, &[], &[]).unwrap();
                port.tcp
            }
            false => tcp_transport(&mut supervisor, 1),
        };
        // Nobody knows who that is.
        let _silent = TcpStream::connect(server).unwrap();
        let (client, tuple, copy) = over_tcp(&mut supervisor, 1, server);
        let expected = IceTuple {
            protocol: IceProtocol::Tcp,
            local: server,
            remote: client.wire.address(),
        };
        assert_eq!(tuple, expected);
        let peer: SockaddrStorage = getpeername(copy.as_raw_fd()).unwrap();
        assert_eq!(peer, SockaddrStorage::from(tuple.remote));
        assert!(supervisor.descriptors.is_empty(), "once");

        // The client goes.
        drop(client);
        assert_eq!(await_closed(&mut supervisor, 1), tuple);
        assert_idle(&mut supervisor);
        drop(copy);
    }
}

#[test]
fn a_connection_ends_for_its_client_whoever_has_a_copy() {
    let mut supervisor = room();
    let server = tcp_transport(&mut supervisor, 1);
    let (client, _, _copy) = over_tcp(&mut supervisor, 1, server);
    let Wire::Tcp(mut stream, _) = client.wire else {
        unreachable!()
    };
    let transport = TransportId(1);
    assert_eq!(
        supervisor.request(Method::CloseTransport { transport }),
        Ok(Reply::Done)
    );
    // What was on its way comes first: a goodbye.
    let mut bytes = [0; 4_096];
    while matches!(std::io::Read::read(&mut stream, &mut bytes), Ok(len) if len > 0) {}
    assert_closed(&mut stream);
    assert_idle(&mut supervisor);
}

#[test]
fn what_comes_to_a_port_comes_to_no_copy_of_a_socket_that_is_given_up() {
    let mut supervisor = room();
    let port = SharedPort::open(&mut supervisor, true);
    let mut client = port.connected_client(&mut supervisor, 1);
    let tuple = await_request(&mut supervisor, 1);
    let socket = port.socket(tuple);
    let copy = socket.try_clone().unwrap();
    assert_eq!(answer_request(&mut supervisor, 1, tuple, socket), Ok(Reply::Done));
    let before = client.wire.address();
    client.move_to(Wire::udp(), port.udp, &ice_credentials(1, 0));
    client.run_until(|client| client.nominated && has_moved(&mut supervisor, 1, client));
    let now = client.wire.address();
    while webrtc_stats(&mut supervisor, 1).ice_selected_tuple.unwrap().remote != now {}
    assert_eq!(await_closed(&mut supervisor, 1), tuple);

    // One that the transport does not want any more when it comes.
    let late = port.socket(tuple);
    let late_copy = late.try_clone().unwrap();
    assert_eq!(answer_request(&mut supervisor, 1, tuple, late), Ok(Reply::Done));
    assert_eq!(await_closed(&mut supervisor, 1), tuple);

    // Whoever has the address now is heard: it says nothing that anybody understands.
    let old = udp_at(before);
    let to = SockaddrStorage::from(port.udp);
    sendto(old.as_raw_fd(), &[7; 20], &to, MsgFlags::empty()).unwrap();
    await_unrouted(&mut supervisor, 1, UnroutedReason::Malformed, 1);
    for copy in [copy, late_copy] {
        let received = recv(copy.as_raw_fd(), &mut [0; 100], MsgFlags::MSG_DONTWAIT);
        assert_eq!(received, Err(Errno::EAGAIN));
    }
    assert_idle(&mut supervisor);
}
