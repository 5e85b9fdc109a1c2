//! Sending through the kernel-facing sink, on real sockets.

mod loopback;

use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use weir_channel::message::{DropReason, Remote, WorkerError};
use weir_worker::net::egress::Egress;
use weir_worker::net::gather::GATHER_BYTES;
use weir_worker::net::poll::Source;
use weir_worker::net::receive::{DATAGRAM_BYTES_MAX, ReceiveBatch};
use weir_worker::net::sockets::{Side, Sockets, TransportSockets, prepare};
use weir_worker::relay::sink::{ConsumerIx, Port, Sent, Sink, TransportIx};

use loopback::{OWNER, Peer, address_of, attach, connect_to, packet, packets_at, port, remote, train, udp, udp_at};

const T: TransportIx = TransportIx(0);

#[test]
fn packets_and_trains_arrive_and_are_counted() {
    let peer = Peer::new();
    let mut egress = Egress::new();
    attach(&mut egress, 0, peer.address);
    let packets: Vec<_> = [900, 900, 400]
        .iter()
        .enumerate()
        .map(|(n, &len)| packet(n, len))
        .collect();
    assert_eq!(egress.send(T, OWNER, &train(&packets), 900).accepted, 3);
    assert_eq!(
        egress.send(T, OWNER, &packets[2], 900).accepted,
        1,
        "a single packet may be shorter than the segment"
    );
    assert_eq!(egress.send(T, OWNER, &packets[0], 900).accepted, 1);
    assert_eq!(egress.send(T, OWNER, &[], 900).accepted, 1);
    let expected = [&packets[..], &[packets[2].clone(), packets[0].clone(), vec![]]].concat();
    assert!(peer.drain() == expected);
    let stats = egress.stats();
    assert_eq!(
        (stats.packets_sent, stats.bytes_sent, stats.send_calls),
        (6, 2200 + 400 + 900, 4)
    );
    let stats = egress.sockets.stats(T).unwrap();
    assert_eq!(
        (stats.packets_sent, stats.bytes_sent, stats.backlog_packets),
        (6, 3500, 0)
    );
}

#[test]
fn what_is_sent_again_leaves_at_once_or_not_at_all() {
    let peer = Peer::new();
    let mut egress = Egress::new();
    assert!(!egress.resend(T, b"nowhere"));
    attach(&mut egress, 0, peer.address);
    assert!(egress.resend(T, b"again"));
    assert_eq!(peer.drain(), [b"again".to_vec()]);
    assert_eq!(egress.sockets.stats(T).unwrap().packets_sent, 1);
    // Longer than any datagram: the kernel refuses it, and nobody's ledger hears of it.
    assert!(!egress.resend(T, &[0; 70_000]));
    assert_eq!((egress.poll_lost(), egress.poll_blocked()), (None, None));
    assert!(peer.drain().is_empty());
}

#[test]
fn a_train_beyond_what_one_message_can_carry_is_split() {
    let peer = Peer::new();
    let mut egress = Egress::new();
    attach(&mut egress, 0, peer.address);
    for (count, len) in [(65, 100), (128, 10), (200, 1400), (3, 40_000), (5000, 1)] {
        let packets: Vec<_> = (0..count).map(|number| packet(number, len)).collect();
        assert_eq!(egress.send(T, OWNER, &train(&packets), len), Sent::all(count));
        assert!(peer.drain() == packets, "{count} packets of {len} bytes");
        assert_eq!(egress.gather(T, OWNER, &train(&packets), len).accepted, count);
        egress.flush_gathered();
        assert!(peer.drain() == packets, "{count} gathered packets of {len} bytes");
    }
    assert_eq!(egress.stats().gso_refusals, 0);
    assert_eq!(egress.poll_lost(), None);
}

#[test]
fn without_a_remote_or_a_transport_nothing_is_sent() {
    let (unconnected, connected, _) = port();
    let mut egress = Egress::new();
    let sockets = TransportSockets::adopt(vec![unconnected, connected], true).unwrap();
    egress.sockets.attach(T, sockets);
    let refused = Sent {
        accepted: 0,
        reason: DropReason::NoRemote,
    };
    for transport in [0, 1, 1_000_000].map(TransportIx) {
        assert_eq!(egress.send(transport, OWNER, b"packet", 6), refused);
        assert_eq!(egress.gather(transport, OWNER, b"packet", 6), refused);
        egress.send_rtcp(transport, b"report");
    }
    egress.flush_gathered();
    assert_eq!(egress.stats(), Default::default());
}

/// Both sockets of a port could take any packet. While the connected one is parked, all of them reach the unconnected one.
#[test]
fn while_there_is_no_remote_everybody_knocks_at_the_door() {
    for bound_to in ["127.0.0.1:0", "0.0.0.0:0"] {
        let unconnected = udp(bound_to);
        let connected = udp_at(address_of(&unconnected));
        let address = ([127, 0, 0, 1], address_of(&unconnected).port()).into();
        let peer = Peer::new();
        // As a worker that has died may have left it.
        connect_to(&connected, peer.address);
        let mut sockets = Sockets::new();
        sockets.attach(T, TransportSockets::adopt(vec![unconnected, connected], true).unwrap());
        let mut batch = ReceiveBatch::new(64, 2048);
        for round in 0..2 {
            for _ in 0..20 {
                Peer::new().send_to(address, b"hello");
            }
            peer.send_to(address, b"hello");
            let mut count = |side| {
                batch
                    .receive(sockets.get(T, Port::Rtp, side).unwrap(), 64)
                    .unwrap()
                    .datagrams
                    .len()
            };
            assert_eq!(
                (count(Side::Unconnected), count(Side::Connected)),
                (21, 0),
                "{bound_to}, round {round}"
            );
            // And the same after a remote has come and gone.
            sockets.connect(T, remote(peer.address)).unwrap();
            sockets.restore(T, None).unwrap();
        }
    }
}

/// The remote's packets arrive at the connected socket, everybody else's at the unconnected one.
#[test]
fn a_stranger_knocks_at_the_door_and_the_remote_takes_the_path() {
    let (friend, stranger, next_friend) = (Peer::new(), Peer::new(), Peer::new());
    let mut egress = Egress::new();
    let address = attach(&mut egress, 0, friend.address);
    let mut batch = ReceiveBatch::new(8, 2048);
    let mut arrived = |egress: &Egress, side| {
        let socket = egress.sockets.get(T, Port::Rtp, side).unwrap();
        let received = batch.receive(socket, 64).unwrap();
        received
            .datagrams
            .iter()
            .map(|datagram| datagram.source)
            .collect::<Vec<_>>()
    };
    for _ in 0..3 {
        friend.send_to(address, b"media");
        stranger.send_to(address, b"nonsense");
    }
    assert_eq!(arrived(&egress, Side::Connected), [friend.address; 3]);
    assert_eq!(arrived(&egress, Side::Unconnected), [stranger.address; 3]);
    // Connected to another remote, the old one is a stranger.
    egress.sockets.connect(T, remote(next_friend.address)).unwrap();
    friend.send_to(address, b"media");
    next_friend.send_to(address, b"media");
    assert_eq!(arrived(&egress, Side::Connected), [next_friend.address]);
    assert_eq!(arrived(&egress, Side::Unconnected), [friend.address]);
    assert_eq!(egress.send(T, OWNER, b"answer", 6).accepted, 1);
    assert_eq!(next_friend.drain(), [b"answer".to_vec()]);
    assert!(friend.drain().is_empty());
}

#[test]
fn a_remote_that_cannot_be_reached_leaves_the_old_one_working() {
    let peer = Peer::new();
    let mut egress = Egress::new();
    let address = attach(&mut egress, 0, peer.address);
    // Broadcast, which the socket is not allowed.
    let refused = egress.sockets.connect(T, remote("255.255.255.255:9".parse().unwrap()));
    assert!(
        matches!(refused, Err(WorkerError::Os { ref call, .. }) if call == "connect"),
        "{refused:?}"
    );
    // Another protocol than the socket's.
    assert!(egress.sockets.connect(T, remote("[::1]:9".parse().unwrap())).is_err());
    assert_eq!(egress.sockets.remote(T), Some(remote(peer.address)));
    assert_eq!(egress.send(T, OWNER, b"still here", 10).accepted, 1);
    assert_eq!(peer.receive(), b"still here");
    peer.send_to(address, b"me too");
    let connected = egress.sockets.get(T, Port::Rtp, Side::Connected).unwrap();
    let mut batch = ReceiveBatch::new(8, 2048);
    assert_eq!(batch.receive(connected, 64).unwrap().datagrams.len(), 1);
}

/// A socket bound to all addresses takes the local address of its first route; it must not keep it for the next.
#[test]
fn a_socket_bound_to_all_addresses_follows_its_remote_to_another_route() {
    let unconnected = udp("0.0.0.0:0");
    let connected = udp_at(address_of(&unconnected));
    let mut egress = Egress::new();
    egress
        .sockets
        .attach(T, TransportSockets::adopt(vec![unconnected, connected], true).unwrap());
    for local in ["127.0.0.1:0", "127.8.8.8:0", "127.0.0.1:0"] {
        let peer = Peer::at(local.parse().unwrap());
        egress.sockets.connect(T, remote(peer.address)).unwrap();
        assert_eq!(egress.send(T, OWNER, b"hello", 5).accepted, 1);
        assert_eq!(peer.receive(), b"hello");
    }
}

#[test]
fn an_error_of_an_earlier_packet_costs_no_packet() {
    // An address of its own, so that no other test takes the port while it is free.
    let peer = Peer::at("127.77.0.1:0".parse().unwrap());
    let mut egress = Egress::new();
    attach(&mut egress, 0, peer.address);
    let address = peer.address;
    let mut peer = Some(peer);
    let pair = [packet(1, 500), packet(2, 500)];
    for round in 1..=5 {
        drop(peer.take());
        // Nobody is there; the kernel has the answer ("port unreachable") before the call returns, and tells the next.
        assert_eq!(egress.send(T, OWNER, b"lost on the way", 15).accepted, 1);
        let back = Peer::at(address);
        match round % 3 {
            0 => assert_eq!(egress.send(T, OWNER, &train(&pair), 500).accepted, 2),
            1 => assert_eq!(egress.send(T, OWNER, &pair[0], 500).accepted, 1),
            _ => {
                assert_eq!(egress.gather(T, OWNER, &train(&pair), 500).accepted, 2);
                egress.flush_gathered();
            }
        }
        let expected = if round % 3 == 1 { &pair[..1] } else { &pair[..] };
        assert_eq!(back.drain(), expected, "round {round}");
        assert_eq!(egress.stats().pending_errors, round);
        peer = Some(back);
    }
    assert_eq!(egress.stats().send_failures, 0);
    assert_eq!(egress.poll_lost(), None);
}

/// The kernel does not segment for a socket that has checksums switched off: a refusal without any special device.
#[test]
fn refused_trains_go_out_as_packets_and_after_some_no_more_are_tried() {
    let (peer, other) = (Peer::new(), Peer::new());
    let mut egress = Egress::new();
    attach(&mut egress, 0, peer.address);
    attach(&mut egress, 1, other.address);
    let set_no_check = |egress: &Egress, value: libc::c_int| {
        let connected = egress.sockets.get(T, Port::Rtp, Side::Connected).unwrap().as_raw_fd();
        // SAFETY: the kernel reads an int.
        #[expect(unsafe_code, reason = "nix has no SO_NO_CHECK")]
        let result = unsafe {
            libc::setsockopt(
                connected,
                libc::SOL_SOCKET,
                libc::SO_NO_CHECK,
                std::ptr::from_ref(&value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0);
    };
    set_no_check(&egress, 1);
    let packets: Vec<_> = (0..8).map(|number| packet(number, 1000)).collect();
    let calls_before = egress.stats().send_calls;
    for round in 0..10 {
        if round % 2 == 0 {
            assert_eq!(egress.send(T, OWNER, &train(&packets), 1000).accepted, 8);
        } else {
            assert_eq!(egress.gather(T, OWNER, &train(&packets), 1000).accepted, 8);
            egress.flush_gathered();
        }
        assert!(peer.drain() == packets, "round {round}");
    }
    assert_eq!(egress.stats().gso_refusals, 4);
    assert_eq!(egress.stats().packets_sent, 80);
    // Four refused trains (two of them tried twice) and their packets, then packets only, in one call for each train.
    assert_eq!(egress.stats().send_calls - calls_before, 6 + 10);
    // The other transport is not concerned.
    assert_eq!(egress.send(TransportIx(1), OWNER, &train(&packets), 1000).accepted, 8);
    assert_eq!(egress.stats().send_calls - calls_before, 17);
    assert!(other.drain() == packets);
    // Connected anew it is tried anew.
    set_no_check(&egress, 0);
    egress.sockets.connect(T, remote(peer.address)).unwrap();
    assert_eq!(egress.send(T, OWNER, &train(&packets), 1000).accepted, 8);
    assert_eq!(egress.stats().send_calls - calls_before, 18);
    assert_eq!(egress.stats().gso_refusals, 4);
    assert!(peer.drain() == packets);
}

#[test]
fn what_is_gathered_leaves_in_order_and_in_few_calls() {
    let peers = [Peer::new(), Peer::new(), Peer::new()];
    let mut egress = Egress::new();
    for (peer, transport) in peers.iter().zip(0..) {
        attach(&mut egress, transport, peer.address);
    }
    let mut expected = [vec![], vec![], vec![]];
    // Trains of many shapes, dealt out in turn, so that no transport's trains lie side by side.
    let shapes: &[&[usize]] = &[
        &[1200; 8],
        &[1200],
        &[1200, 1200, 700],
        &[700],
        &[90],
        &[1300, 1300],
        &[1],
        &[1200; 30],
    ];
    let mut number = 0;
    for _ in 0..4 {
        for shape in shapes {
            for (transport, expected) in (0..).zip(&mut expected) {
                let packets: Vec<_> = shape.iter().map(|&len| packet(number + len, len)).collect();
                number += 1;
                let sent = egress.gather(TransportIx(transport), OWNER, &train(&packets), shape[0]);
                assert_eq!(sent.accepted, packets.len());
                expected.extend(packets);
            }
        }
    }
    assert!(
        peers.iter().all(|peer| peer.try_receive().is_none()),
        "nothing leaves before the end of the turn"
    );
    assert_eq!(egress.stats().send_calls, 0);
    egress.flush_gathered();
    for (peer, expected) in peers.iter().zip(&expected) {
        assert!(peer.drain() == *expected);
    }
    assert_eq!(egress.stats().send_calls, 3, "one for each transport");
    egress.flush_gathered();
    assert_eq!(egress.stats().send_calls, 3, "nothing is left");
}

/// What is gathered is copied, which is for nothing if nothing follows.
#[test]
fn a_transport_that_gets_one_train_a_turn_stops_waiting_for_a_second_until_one_comes() {
    let peer = Peer::new();
    let mut egress = Egress::new();
    attach(&mut egress, 0, peer.address);
    let turn = |egress: &mut Egress, trains: usize| {
        for number in 0..trains {
            assert_eq!(egress.gather(T, OWNER, &packet(number, 100), 100).accepted, 1);
        }
        let at_once = peer.drain();
        egress.flush_gathered();
        let later = peer.drain();
        let expected: Vec<_> = (0..trains).map(|number| packet(number, 100)).collect();
        assert!([&at_once[..], &later].concat() == expected);
        (at_once.len(), later.len())
    };
    for _ in 0..3 {
        for _ in 0..8 {
            assert_eq!(turn(&mut egress, 1), (0, 1));
        }
        for _ in 0..20 {
            assert_eq!(turn(&mut egress, 1), (1, 0));
            assert_eq!(turn(&mut egress, 0), (0, 0));
        }
        assert_eq!(turn(&mut egress, 4), (1, 3), "the second one shows that waiting pays");
        assert_eq!(turn(&mut egress, 4), (0, 4));
    }
}

/// Neighbours become one train, of which only the last packet is shorter.
#[test]
fn gathered_neighbours_of_equal_size_leave_as_one_train() {
    let receiver = udp("127.0.0.1:0");
    prepare(receiver.as_fd()).unwrap();
    let mut egress = Egress::new();
    attach(&mut egress, 0, address_of(&receiver));
    attach(&mut egress, 1, Peer::new().address);
    let mut batch = ReceiveBatch::new(16, DATAGRAM_BYTES_MAX);
    let mut expected = Vec::new();
    for (number, len) in [1000, 1000, 1000, 400, 1000, 1000, 1001, 1001, 50]
        .into_iter()
        .enumerate()
    {
        let packet = packet(number, len);
        egress.gather(T, OWNER, &packet, len);
        egress.gather(TransportIx(1), OWNER, b"in between", 10);
        expected.push(packet);
    }
    egress.flush_gathered();
    let received = batch.receive(receiver.as_fd(), 64).unwrap();
    let shapes: Vec<_> = received
        .datagrams
        .iter()
        .map(|datagram| (datagram.packets(), datagram.segment))
        .collect();
    assert_eq!(shapes, [(4, 1000), (2, 1000), (3, 1001)]);
    let bytes: Vec<u8> = received
        .datagrams
        .iter()
        .flat_map(|datagram| &received.bytes[datagram.range()])
        .copied()
        .collect();
    assert!(bytes == train(&expected));
}

#[test]
fn a_full_gather_buffer_is_sent_early_and_nothing_is_lost_or_reordered() {
    let peers = [Peer::new(), Peer::new()];
    let mut egress = Egress::new();
    for (peer, transport) in peers.iter().zip(0..) {
        attach(&mut egress, transport, peer.address);
    }
    let total = 3 * GATHER_BYTES;
    let mut expected = [vec![], vec![]];
    let mut sent = 0;
    while sent < total {
        for (transport, expected) in (0..).zip(&mut expected) {
            let packets: Vec<_> = (0..5).map(|number| packet(sent + number, 1200)).collect();
            assert_eq!(
                egress
                    .gather(TransportIx(transport), OWNER, &train(&packets), 1200)
                    .accepted,
                5
            );
            sent += 6000;
            expected.extend(packets);
        }
        // Small receive buffers of a test machine must not decide.
        if egress.stats().send_calls > 0 {
            for (peer, expected) in peers.iter().zip(&mut expected) {
                let arrived = peer.drain();
                assert!(expected[..arrived.len()] == arrived);
                expected.drain(..arrived.len());
            }
        }
    }
    egress.flush_gathered();
    for (peer, expected) in peers.iter().zip(&expected) {
        assert!(peer.drain() == *expected);
    }
    assert_eq!(egress.poll_lost(), None);
}

/// A transport whose second consumer comes in the middle of a turn changes from gathering to sending or back.
#[test]
fn sending_does_not_overtake_what_is_gathered() {
    let peer = Peer::new();
    let mut egress = Egress::new();
    attach(&mut egress, 0, peer.address);
    egress.gather(T, OWNER, b"first", 5);
    egress.send(T, OWNER, b"second", 6);
    egress.flush_gathered();
    egress.send(T, OWNER, b"third", 5);
    egress.gather(T, OWNER, b"fourth", 6);
    egress.detach(T);
    assert_eq!(peer.drain(), [&b"first"[..], b"second", b"third", b"fourth"]);
}

#[test]
fn rtcp_has_its_own_port_or_shares_the_first() {
    let ([media, above], reports) = (Peer::pair(), Peer::new());
    let mut egress = Egress::new();
    attach(&mut egress, 0, media.address);
    egress.send_rtcp(T, b"muxed report");
    assert_eq!(media.drain(), [b"muxed report".to_vec()]);

    let (unconnected, connected, _) = port();
    let (rtcp_unconnected, rtcp_connected, rtcp_address) = port();
    let sockets =
        TransportSockets::adopt(vec![unconnected, connected, rtcp_unconnected, rtcp_connected], false).unwrap();
    egress.sockets.attach(TransportIx(1), sockets);
    egress.sockets.connect(TransportIx(1), remote(media.address)).unwrap();
    // RFC 3550 §11: to the port above, as long as no other is known.
    egress.send_rtcp(TransportIx(1), b"supposed");
    assert_eq!(above.drain(), [b"supposed".to_vec()]);
    let both = Remote {
        rtp: media.address,
        rtcp: Some(reports.address),
    };
    egress.sockets.connect(TransportIx(1), both).unwrap();
    egress.send_rtcp(TransportIx(1), b"a report");
    assert_eq!(reports.drain(), [b"a report".to_vec()]);
    assert!(media.drain().is_empty());
    reports.send_to(rtcp_address, b"an answer");
    let connected = egress.sockets.get(TransportIx(1), Port::Rtcp, Side::Connected).unwrap();
    assert_eq!(
        ReceiveBatch::new(2, 2048)
            .receive(connected, 64)
            .unwrap()
            .datagrams
            .len(),
        1
    );
    let stats = egress.sockets.stats(TransportIx(1)).unwrap();
    assert_eq!((stats.rtcp_sent, stats.packets_sent, stats.bytes_sent), (2, 2, 16));
    assert_eq!(egress.stats().packets_sent, 3);
}

#[test]
fn a_failed_connection_of_the_second_port_takes_the_first_back() {
    let (old, new) = (Peer::new(), Peer::new());
    let (unconnected, connected, _) = port();
    let (rtcp_unconnected, rtcp_connected, _) = port();
    let mut sockets = Sockets::new();
    let adopted =
        TransportSockets::adopt(vec![unconnected, connected, rtcp_unconnected, rtcp_connected], false).unwrap();
    sockets.attach(T, adopted);
    sockets.connect(T, remote(old.address)).unwrap();
    let half = Remote {
        rtp: new.address,
        rtcp: Some("255.255.255.255:9".parse().unwrap()),
    };
    assert!(sockets.connect(T, half).is_err());
    let mut egress = Egress::new();
    egress.sockets = sockets;
    egress.send(T, OWNER, b"to the old one", 14);
    assert_eq!(old.drain(), [b"to the old one".to_vec()]);
    assert!(new.drain().is_empty());
}

#[test]
fn descriptors_are_checked() {
    let adopt = |descriptors, mux| TransportSockets::adopt(descriptors, mux).map(drop);
    let (unconnected, connected, _) = port();
    let expected = |expected, received| Err(WorkerError::Descriptors { expected, received });
    assert_eq!(adopt(vec![], true), expected(2, 0));
    assert_eq!(adopt(vec![unconnected, connected], false), expected(4, 2));
    let is_invalid = |result: Result<(), WorkerError>| matches!(result, Err(WorkerError::InvalidParameters(_)));
    let (unconnected, _, _) = port();
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(is_invalid(adopt(vec![unconnected, file.into()], true)));
    let (unconnected, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let (_, connected, _) = port();
    assert!(is_invalid(adopt(vec![unconnected.into(), connected], true)));
    let (_, connected, _) = port();
    let stream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(is_invalid(adopt(vec![stream.into(), connected], true)));
    let ((unconnected, _, _), (_, connected, _)) = (port(), port());
    assert!(is_invalid(adopt(vec![unconnected, connected], true)), "two ports");
    let (unconnected, connected, address) = port();
    connect_to(&unconnected, address);
    assert!(
        is_invalid(adopt(vec![unconnected, connected], true)),
        "the first socket must be unconnected"
    );
    // A path that the worker before has connected.
    let (unconnected, connected, _) = port();
    connect_to(&connected, address);
    assert_eq!(adopt(vec![unconnected, connected], true), Ok(()));
}

/// A socket's count lives as long as the socket; a transport counts what was dropped in its own time.
#[test]
fn kernel_drops_are_counted_from_the_beginning_of_the_transport() {
    let (unconnected, connected, address) = port();
    let (unconnected_again, connected_again) = (unconnected.try_clone().unwrap(), connected.try_clone().unwrap());
    for socket in [&unconnected, &connected] {
        setsockopt(socket, sockopt::RcvBuf, &1).unwrap();
    }
    let peer = Peer::new();
    let mut sockets = Sockets::new();
    let mut batch = ReceiveBatch::new(64, 2048);
    for (round, (unconnected, connected)) in [(unconnected, connected), (unconnected_again, connected_again)]
        .into_iter()
        .enumerate()
    {
        let transport = TransportIx(round as u32);
        sockets.attach(
            transport,
            TransportSockets::adopt(vec![unconnected, connected], true).unwrap(),
        );
        sockets.begin_drop_counts(transport);
        sockets.connect(transport, remote(peer.address)).unwrap();
        assert_eq!(sockets.stats(transport).unwrap().kernel_drops, 0);
        for number in 0..50 {
            peer.send_to(address, &packet(number, 1000));
        }
        let connected = sockets.get(transport, Port::Rtp, Side::Connected).unwrap();
        let arrived = batch.receive(connected, 64).unwrap().datagrams.len() as u64;
        peer.send_to(address, b"one more");
        let drop_count = batch.receive(connected, 64).unwrap().drop_count.unwrap();
        let (port, side) = (Port::Rtp, Side::Connected);
        sockets.note_drop_count(Source::Socket { transport, port, side }, drop_count);
        assert_eq!(sockets.stats(transport).unwrap().kernel_drops, 50 - arrived);
        sockets.detach(transport);
    }
    assert!(sockets.kernel_drops() > 50);
}

#[test]
fn residence_is_measured_for_every_packet_when_asked_for() {
    let (peer, source) = (Peer::new(), Peer::new());
    let mut egress = Egress::new();
    let address = attach(&mut egress, 0, peer.address);
    let mut batch = ReceiveBatch::new(8, 2048);
    let relay = |egress: &mut Egress, batch: &mut ReceiveBatch| {
        source.send_to(address, b"a packet");
        source.send_to(address, b"another");
        let unconnected = egress
            .sockets
            .get(T, Port::Rtp, Side::Unconnected)
            .unwrap()
            .try_clone_to_owned()
            .unwrap();
        let received = batch.receive(unconnected.as_fd(), 64).unwrap();
        egress.begin_batch(&received);
        for datagram in received.datagrams {
            let packet = &received.bytes[datagram.range()];
            egress.send(T, OWNER, packet, packet.len());
            egress.gather(T, OWNER, packet, packet.len());
            let copy = packet.to_vec();
            egress.send(T, OWNER, &copy, copy.len());
        }
        egress.end_batch();
        egress.flush_gathered();
    };
    relay(&mut egress, &mut batch);
    assert!(egress.residence().is_none());
    egress.sockets.stamp_arrivals(true).unwrap();
    egress.measure_residence(true);
    relay(&mut egress, &mut batch);
    assert_eq!(egress.residence().unwrap().histogram().total(), 6);
    assert_eq!(peer.drain().len(), 12);
    // What did not come with a batch has no arrival.
    egress.send(T, OWNER, b"made here", 9);
    assert_eq!(egress.residence().unwrap().histogram().total(), 6);
}

#[test]
fn packets_at_a_closed_transport_are_nobodys() {
    let (peer, mut egress) = (Peer::new(), Egress::new());
    attach(&mut egress, 0, peer.address);
    let owner = ConsumerIx { slot: 9, generation: 0 };
    egress.gather(T, owner, b"on its way", 10);
    egress.detach(T);
    assert_eq!(egress.send(T, owner, b"late", 4).accepted, 0);
    egress.flush_gathered();
    assert!(!egress.handle_writable(T));
    assert_eq!(peer.drain(), [b"on its way".to_vec()]);
    assert!(!egress.sockets.contains(T));
    // The index is free for the next one.
    attach(&mut egress, 0, peer.address);
    assert_eq!(egress.sockets.stats(T).unwrap(), Default::default());
    let mut batch = ReceiveBatch::new(2, 64);
    let socket = egress
        .sockets
        .get(T, Port::Rtp, Side::Connected)
        .unwrap()
        .try_clone_to_owned()
        .unwrap();
    assert!(packets_at(&mut batch, &socket).is_empty());
}
