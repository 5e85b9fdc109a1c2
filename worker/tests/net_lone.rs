//! Packets that leave alone for many transports of one shared port: together, each to its receiver, from the same address, in
//! order, and by the transport's own socket if anything goes wrong.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod loopback;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use weir_channel::message::{IceProtocol, IceTuple};
use weir_worker::net::egress::Egress;
use weir_worker::net::send::{Destination, KernelSend, Message, Route, SendBackend};
use weir_worker::net::sockets::IceSockets;
use weir_worker::relay::sink::{Sink, TransportIx};
use weir_worker::webrtc::srtp::Inbound;

use loopback::{OWNER, Peer, address_of, connect_to, protect, receiver_context, udp, udp_at};

/// How packets left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// So many in one call, through the shared socket.
    Together(usize),
    /// One, or a train, through a connected socket.
    Connected,
    /// The same through the shared socket.
    Shared,
}

/// The kernel, with answers that it would rarely give.
#[derive(Default)]
struct Kernel {
    real: KernelSend,
    ways: Vec<Way>,
    /// What the next calls for several transports are answered: how many packets are taken, or why none.
    together: VecDeque<Result<usize, Errno>>,
    /// No socket takes anything.
    is_full: bool,
}

impl Kernel {
    fn note(&mut self, route: &Route<'_>) -> Result<(), Errno> {
        if self.is_full {
            return Err(Errno::EAGAIN);
        }
        self.ways.push(match route.destination {
            None => Way::Connected,
            Some(_) => Way::Shared,
        });
        Ok(())
    }
}

/// What a test looks at while the egress has the back end.
type Shared = std::rc::Rc<std::cell::RefCell<Kernel>>;

struct Handle(Shared);

impl SendBackend for Handle {
    fn send_packet<'a>(&mut self, route: impl Into<Route<'a>>, packet: &[u8]) -> Result<(), Errno> {
        let (route, mut kernel) = (route.into(), self.0.borrow_mut());
        kernel.note(&route)?;
        kernel.real.send_packet(route, packet)
    }

    fn send_train<'a>(&mut self, route: impl Into<Route<'a>>, train: &[u8], segment: usize) -> Result<(), Errno> {
        let (route, mut kernel) = (route.into(), self.0.borrow_mut());
        kernel.note(&route)?;
        kernel.real.send_train(route, train, segment)
    }

    fn send_batch<'a>(
        &mut self,
        route: impl Into<Route<'a>>,
        bytes: &[u8],
        messages: &[Message],
    ) -> Result<usize, Errno> {
        let (route, mut kernel) = (route.into(), self.0.borrow_mut());
        kernel.note(&route)?;
        kernel.real.send_batch(route, bytes, messages)
    }

    fn send_scattered(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        messages: &[(Message, Destination)],
    ) -> Result<usize, Errno> {
        let mut kernel = self.0.borrow_mut();
        if kernel.is_full {
            return Err(Errno::EAGAIN);
        }
        let count = kernel.together.pop_front().unwrap_or(Ok(messages.len()))?;
        let sent = kernel.real.send_scattered(socket, bytes, &messages[..count])?;
        kernel.ways.push(Way::Together(sent));
        Ok(sent)
    }
}

/// A shared port, and peers on transports of it.
struct Port {
    egress: Egress<Handle>,
    kernel: Shared,
    local: SocketAddr,
    peers: Vec<(Peer, Inbound)>,
    seq: u16,
}

impl Port {
    /// Peers on transports with connected sockets, or without.
    fn new(local: &str, peers: u32, connected: bool) -> Self {
        let kernel = Shared::default();
        let mut egress = Egress::with_backend(Handle(kernel.clone()));
        let shared = udp(local);
        let local = address_of(&shared);
        egress
            .sockets
            .open_shared_ports(&[IceProtocol::Udp], vec![shared])
            .unwrap();
        let mut port = Self {
            egress,
            kernel,
            local,
            peers: Vec::new(),
            seq: 0,
        };
        for transport in 0..peers {
            port.attach(transport, connected);
        }
        port
    }

    fn attach(&mut self, transport: u32, connected: bool) {
        let any: SocketAddr = match self.local {
            SocketAddr::V4(_) => "127.0.0.1:0".parse().unwrap(),
            SocketAddr::V6(_) => "[::1]:0".parse().unwrap(),
        };
        let peer = Peer::at(any);
        if !self.local.ip().is_unspecified() {
            // It hears nobody else then, so that what it gets has the right source.
            connect_to(&peer.socket, self.local);
        }
        let tuple = IceTuple {
            protocol: IceProtocol::Udp,
            local: self.local,
            remote: peer.address,
        };
        let index = TransportIx(transport);
        self.egress.sockets.attach_ice(index, IceSockets::on_shared_ports());
        self.egress.select(index, Some(tuple)).unwrap();
        if connected {
            let own = udp_at(self.local);
            connect_to(&own, peer.address);
            if self.egress.use_connected(index, tuple, own).is_err() {
                assert!(self.local.ip().is_unspecified());
            }
        }
        protect(&mut self.egress, index);
        self.egress.sockets.open(index, true);
        self.peers.push((peer, receiver_context()));
    }

    /// Sends a packet, or a train of so many, to these transports.
    fn send(&mut self, to: impl IntoIterator<Item = u32>, packets: u16) -> Vec<u8> {
        let train: Vec<u8> = (0..packets).flat_map(|at| rtp(self.seq + at)).collect();
        self.seq += packets;
        for transport in to {
            let sent = self.egress.send(TransportIx(transport), OWNER, &train, LEN);
            assert_eq!(sent.accepted, usize::from(packets));
        }
        train
    }

    fn ways(&mut self) -> Vec<Way> {
        std::mem::take(&mut self.kernel.borrow_mut().ways)
    }

    /// What has come to a peer, unprotected.
    fn got(&mut self, transport: u32) -> Vec<u8> {
        let (peer, inbound) = &mut self.peers[transport as usize];
        peer.drain()
            .into_iter()
            .flat_map(|mut packet| {
                let len = inbound.unprotect_rtp(&mut packet).unwrap().len;
                packet.truncate(len);
                packet
            })
            .collect()
    }
}

const LEN: usize = 300;

fn rtp(seq: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(seq.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 9]);
    packet.resize(LEN, seq as u8);
    packet
}

#[test]
fn lone_packets_leave_together_and_trains_by_the_connected_socket() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let mut port = Port::new(local, 36, true);
        for _ in 0..3 {
            let mut expected = port.send(0..36, 1);
            // The last four wait for the end of the turn.
            assert_eq!(port.ways(), [Way::Together(16); 2]);
            port.egress.flush_gathered();
            assert_eq!(port.ways(), [Way::Together(4)]);
            expected.extend(port.send(0..36, 2));
            port.egress.flush_gathered();
            assert_eq!(port.ways(), [Way::Connected; 36]);
            for transport in 0..36 {
                assert_eq!(port.got(transport), expected);
            }
        }
        assert_eq!(port.egress.stats().packets_sent, 3 * 36 * 3);
        for transport in 0..36 {
            assert_eq!(
                port.egress.sockets.stats(TransportIx(transport)).unwrap().packets_sent,
                9
            );
        }
    }
}

#[test]
fn a_few_leave_by_their_own_sockets() {
    let mut port = Port::new("127.0.0.1:0", 3, true);
    let expected = port.send(0..3, 1);
    port.egress.flush_gathered();
    assert_eq!(port.ways(), [Way::Connected; 3]);
    assert_eq!(port.got(2), expected);
}

#[test]
fn without_connected_sockets_too() {
    let mut port = Port::new("127.0.0.1:0", 6, false);
    let mut expected = port.send(0..6, 1);
    port.egress.flush_gathered();
    expected.extend(port.send(0..6, 3));
    port.egress.flush_gathered();
    assert_eq!(port.ways()[..2], [Way::Together(6), Way::Shared]);
    for transport in 0..6 {
        assert_eq!(port.got(transport), expected);
    }
}

#[test]
fn what_comes_next_for_a_transport_does_not_overtake_its_lone_packet() {
    let mut port = Port::new("127.0.0.1:0", 6, true);
    let mut expected = port.send(0..6, 1);
    let others = expected.clone();
    expected.extend(port.send([1], 3));
    expected.extend(port.send([1], 1));
    port.egress.flush_gathered();
    assert_eq!(port.ways(), [Way::Together(5), Way::Connected]);
    assert_eq!(port.got(1), expected);
    for transport in [0, 2, 3, 4, 5] {
        assert_eq!(port.got(transport), others);
    }
    // The same in a turn in which transports with several consumers gather.
    let mut expected = port.send(0..5, 1);
    let more = rtp(port.seq);
    port.seq += 1;
    for transport in [5, 3] {
        let sent = port.egress.gather(TransportIx(transport), OWNER, &more, LEN);
        assert_eq!(sent.accepted, 1);
    }
    port.egress.flush_gathered();
    assert_eq!(port.ways(), [Way::Together(5), Way::Connected]);
    assert_eq!(port.got(5), more);
    expected.extend(more);
    assert_eq!(port.got(3), expected);
}

/// Each packet arrives once, by the connected socket what the shared one refuses; and nobody else's fault is counted for it.
#[test]
fn what_the_shared_socket_refuses_leaves_by_the_connected_one() {
    for (answers, ways) in [
        (
            vec![Ok(3), Err(Errno::EMSGSIZE)],
            vec![Way::Together(3), Way::Together(6), Way::Connected],
        ),
        (
            vec![Err(Errno::ENETUNREACH), Ok(2), Err(Errno::EPERM)],
            vec![Way::Together(2), Way::Together(6), Way::Connected, Way::Connected],
        ),
        (vec![Err(Errno::EAGAIN)], vec![Way::Connected; 10]),
        (vec![Ok(9), Err(Errno::ENOBUFS)], vec![Way::Together(9), Way::Connected]),
    ] {
        let mut port = Port::new("127.0.0.1:0", 10, true);
        port.kernel.borrow_mut().together = answers.into();
        let mut expected = port.send(0..10, 1);
        port.egress.flush_gathered();
        assert_eq!(port.ways(), ways);
        expected.extend(port.send(0..10, 1));
        port.egress.flush_gathered();
        assert_eq!(port.ways(), [Way::Together(10)]);
        for transport in 0..10 {
            assert_eq!(port.got(transport), expected);
        }
        assert_eq!(port.egress.poll_lost(), None);
        assert_eq!(port.egress.stats().send_failures, 0);
        assert_eq!(port.egress.stats().packets_sent, 20);
    }
}

#[test]
fn what_waits_for_a_full_socket_is_not_overtaken() {
    for connected in [true, false] {
        let mut port = Port::new("127.0.0.1:0", 5, connected);
        port.kernel.borrow_mut().is_full = true;
        let mut expected = port.send(0..5, 1);
        port.egress.flush_gathered();
        port.kernel.borrow_mut().is_full = false;
        // The first has gone out; the others have not been looked at yet.
        assert!(!port.egress.handle_writable(TransportIx(0)));
        port.ways();
        expected.extend(port.send(0..5, 1));
        port.egress.flush_gathered();
        for transport in 1..5 {
            assert!(!port.egress.handle_writable(TransportIx(transport)));
        }
        assert!(!port.ways().iter().any(|way| matches!(way, Way::Together(_))));
        for transport in 0..5 {
            assert_eq!(port.got(transport), expected);
        }
    }
}

#[test]
fn who_leaves_or_moves_in_between_gets_nothing_twice() {
    let mut port = Port::new("127.0.0.1:0", 8, true);
    let expected = port.send(0..8, 1);
    // What waits for a transport is sent before its path changes, and before it is closed.
    port.egress.select(TransportIx(1), None).unwrap();
    port.egress.detach(TransportIx(2));
    assert_eq!(port.ways(), [Way::Connected; 2]);
    // Somebody new has the index within the same turn.
    port.attach(2, true);
    let for_the_new = port.send([2], 1);
    port.egress.flush_gathered();
    assert_eq!(port.ways(), [Way::Together(7)]);
    for transport in 0..8 {
        assert_eq!(port.got(transport), expected);
    }
    assert_eq!(port.got(8), for_the_new);
}

/// A port that is bound to no address may send from another one than the connected socket does.
#[test]
fn a_port_without_an_address_of_its_own_leaves_it_to_the_connected_sockets() {
    let mut port = Port::new("0.0.0.0:0", 5, true);
    let expected = port.send(0..5, 1);
    port.egress.flush_gathered();
    assert!(!port.ways().iter().any(|way| matches!(way, Way::Together(_))));
    assert_eq!(port.got(4), expected);
}
