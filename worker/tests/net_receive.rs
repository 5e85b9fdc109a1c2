//! Receiving in batches from real sockets.

mod loopback;

use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use weir_worker::net::receive::{DATAGRAM_BYTES_MAX, ReceiveBatch};
use weir_worker::net::send::{Destination, KernelSend, Message, SendBackend};
use weir_worker::net::sockets::{self, drop_count, prepare};

use loopback::{Peer, address_of, connect_to, link, packet, packets_at, train, udp};

#[test]
fn trains_of_unequal_sizes_come_back_packet_by_packet() {
    let (sender, receiver) = link();
    let mut send = KernelSend::new();
    let mut batch = ReceiveBatch::new(16, DATAGRAM_BYTES_MAX);
    let trains: &[&[usize]] = &[
        &[1200],
        &[1200, 1200, 1200, 300],
        &[64, 64],
        &[1],
        &[],
        &[1000; 64],
        &[9000, 9000, 1],
        &[65_507],
        &[0],
    ];
    let mut expected = Vec::new();
    for lengths in trains {
        let packets: Vec<_> = lengths.iter().map(|&len| packet(expected.len() + len, len)).collect();
        match packets.as_slice() {
            [] => continue,
            [one] => send.send_packet(sender.as_fd(), one).unwrap(),
            many => send.send_train(sender.as_fd(), &train(many), many[0].len()).unwrap(),
        }
        expected.extend(packets);
    }
    let received = batch.receive(receiver.as_fd(), 64).unwrap();
    assert!(received.datagrams.len() < expected.len(), "trains are received whole");
    assert!(
        received
            .datagrams
            .iter()
            .all(|datagram| datagram.source == address_of(&sender))
    );
    assert!(received.datagrams.iter().all(|datagram| datagram.segment > 0));
    let mut packets = Vec::new();
    for datagram in received.datagrams {
        let bytes = &received.bytes[datagram.range()];
        let split: Vec<_> = bytes.chunks(datagram.segment as usize).map(<[u8]>::to_vec).collect();
        assert_eq!(split.len().max(1) as u64, datagram.packets());
        packets.extend(if split.is_empty() { vec![Vec::new()] } else { split });
    }
    assert!(packets == expected);
}

/// A slot whose last datagram had no control message must still get the train boundaries of its next one; with nix's
/// recvmmsg, and with any code that does not restore the header's control length, it does not.
#[test]
fn a_slot_that_held_a_single_packet_still_sees_the_boundaries_of_a_train() {
    let (sender, receiver) = link();
    let mut send = KernelSend::new();
    let mut batch = ReceiveBatch::new(4, DATAGRAM_BYTES_MAX);
    for round in 0..10 {
        let single = packet(round, 700);
        let pair = [packet(round + 100, 500), packet(round + 200, 500)];
        // First all slots without control messages, then all with, then one of each.
        for _ in 0..4 {
            send.send_packet(sender.as_fd(), &single).unwrap();
        }
        assert_eq!(packets_at(&mut batch, &receiver), vec![single.clone(); 4]);
        for _ in 0..4 {
            send.send_train(sender.as_fd(), &train(&pair), 500).unwrap();
        }
        assert_eq!(packets_at(&mut batch, &receiver), vec![pair.to_vec(); 4].concat());
        send.send_packet(sender.as_fd(), &single).unwrap();
        send.send_train(sender.as_fd(), &train(&pair), 500).unwrap();
        let mixed = [vec![single], pair.to_vec()].concat();
        assert_eq!(packets_at(&mut batch, &receiver), mixed);
    }
}

#[test]
fn a_batch_of_packets_and_trains_goes_out_in_one_call_and_in_order() {
    let (sender, receiver) = link();
    let mut send = KernelSend::new();
    let packets: Vec<_> = [1200, 1200, 800, 90, 1100, 1100, 1100]
        .iter()
        .enumerate()
        .map(|(n, &len)| packet(n, len))
        .collect();
    let message = |start, len, segment| Message { start, len, segment };
    let messages = [message(0, 3200, 1200), message(3200, 90, 90), message(3290, 3300, 1100)];
    assert_eq!(send.send_batch(sender.as_fd(), &train(&packets), &messages), Ok(3));
    // A second batch with the opposite kinds in the same headers: nothing of the first may shine through.
    let messages = [
        message(0, 1200, 1200),
        message(1200, 2000, 1200),
        message(3200, 90, 2000),
    ];
    assert_eq!(send.send_batch(sender.as_fd(), &train(&packets), &messages), Ok(3));
    let mut batch = ReceiveBatch::new(8, DATAGRAM_BYTES_MAX);
    let expected = [&packets[..], &packets[..4]].concat();
    assert_eq!(packets_at(&mut batch, &receiver), expected);
}

#[test]
fn one_unconnected_socket_sends_to_many_in_one_call() {
    let sender = udp("127.0.0.1:0");
    let receivers = [udp("127.0.0.1:0"), udp("127.0.0.1:0"), udp("127.0.0.1:0")];
    for receiver in &receivers {
        prepare(receiver.as_fd()).unwrap();
    }
    let packets: Vec<_> = [700, 700, 90].iter().map(|&len| packet(len, len)).collect();
    let message = |start, len, segment| Message { start, len, segment };
    let messages: Vec<_> = [message(0, 1490, 700), message(0, 700, 700), message(1400, 90, 90)]
        .into_iter()
        .zip(
            receivers
                .iter()
                .map(|receiver| Destination::new(address_of(receiver), false)),
        )
        .collect();
    let mut send = KernelSend::new();
    let sent = send.send_scattered(sender.as_fd(), &train(&packets), &messages);
    assert_eq!(sent, Ok(3));
    let mut batch = ReceiveBatch::new(8, DATAGRAM_BYTES_MAX);
    let [first, second, third] = &receivers;
    assert_eq!(packets_at(&mut batch, first), packets);
    assert_eq!(packets_at(&mut batch, second), packets[..1]);
    assert_eq!(packets_at(&mut batch, third), packets[2..]);
}

#[test]
fn what_the_kernel_drops_is_counted() {
    let (sender, receiver) = link();
    setsockopt(&receiver, sockopt::RcvBuf, &1).unwrap();
    let mut batch = ReceiveBatch::new(64, 2048);
    let mut send = KernelSend::new();
    let before = drop_count(receiver.as_fd());
    for number in 0..100 {
        send.send_packet(sender.as_fd(), &packet(number, 1000)).unwrap();
    }
    let arrived = packets_at(&mut batch, &receiver).len();
    assert!((1..100).contains(&arrived), "{arrived} of 100 fitted");
    let dropped = 100 - arrived as u32;
    assert_eq!(drop_count(receiver.as_fd()) - before, dropped, "asked for");
    // Reported with the next packet, too.
    send.send_packet(sender.as_fd(), &packet(100, 1000)).unwrap();
    let received = batch.receive(receiver.as_fd(), 64).unwrap();
    assert_eq!(received.datagrams.len(), 1);
    assert_eq!(received.drop_count, Some(before + dropped));
}

#[test]
fn a_datagram_that_does_not_fit_is_dropped_and_told() {
    let (sender, receiver) = link();
    let mut send = KernelSend::new();
    let mut batch = ReceiveBatch::new(8, 1500);
    send.send_packet(sender.as_fd(), &packet(1, 1500)).unwrap();
    send.send_packet(sender.as_fd(), &packet(2, 1501)).unwrap();
    send.send_packet(sender.as_fd(), &packet(3, 20)).unwrap();
    let received = batch.receive(receiver.as_fd(), 64).unwrap();
    assert_eq!(received.truncated, 1);
    let contents: Vec<_> = received
        .datagrams
        .iter()
        .map(|datagram| received.bytes[datagram.range()].to_vec())
        .collect();
    assert_eq!(contents, [packet(1, 1500), packet(3, 20)]);
}

#[test]
fn a_full_batch_says_so_and_the_rest_waits() {
    let (sender, receiver) = link();
    let mut send = KernelSend::new();
    let mut batch = ReceiveBatch::new(4, 2048);
    for number in 0..6 {
        send.send_packet(sender.as_fd(), &packet(number, 100)).unwrap();
    }
    let received = batch.receive(receiver.as_fd(), 64).unwrap();
    assert_eq!((received.datagrams.len(), received.is_full), (4, true));
    let received = batch.receive(receiver.as_fd(), 64).unwrap();
    assert_eq!((received.datagrams.len(), received.is_full), (2, false));
    let received = batch.receive(receiver.as_fd(), 64).unwrap();
    assert_eq!((received.datagrams.len(), received.is_full), (0, false));
    assert_eq!(batch.calls(), 3);
}

#[test]
fn an_error_of_a_packet_sent_earlier_does_not_hide_packets() {
    let near = Peer::new();
    // An address of its own, so that no other test takes the port while it is free.
    let far = Peer::at("127.77.0.2:0".parse().unwrap());
    connect_to(&near.socket, far.address);
    prepare(near.socket.as_fd()).unwrap();
    let mut batch = ReceiveBatch::new(4, 2048);
    let address = far.address;
    drop(far);
    near.send(b"nobody is there"); // and the kernel answers "port unreachable" at once
    let far = Peer::at(address);
    far.send_to(near.address, b"now there is");
    assert_eq!(packets_at(&mut batch, &near.socket), [b"now there is".to_vec()]);
    assert_eq!(batch.pending_errors(), 1);
}

#[test]
fn sources_are_told_for_both_protocols_and_mapped_ones_as_ipv4() {
    let mut batch = ReceiveBatch::new(4, 2048);
    let Ok(any) = std::panic::catch_unwind(|| udp("[::]:0")) else {
        return; // a machine without IPv6
    };
    prepare(any.as_fd()).unwrap();
    let port = address_of(&any).port();
    let v6 = udp("[::1]:0");
    connect_to(&v6, format!("[::1]:{port}").parse().unwrap());
    let v4 = udp("127.0.0.1:0");
    connect_to(&v4, format!("127.0.0.1:{port}").parse().unwrap());
    let mut send = KernelSend::new();
    send.send_packet(v6.as_fd(), b"six").unwrap();
    send.send_packet(v4.as_fd(), b"four").unwrap();
    let received = batch.receive(any.as_fd(), 64).unwrap();
    let sources: Vec<_> = received.datagrams.iter().map(|datagram| datagram.source).collect();
    assert_eq!(sources, [address_of(&v6), address_of(&v4)]);
}

#[test]
fn arrivals_are_stamped_when_asked_for() {
    let (sender, receiver) = link();
    let mut send = KernelSend::new();
    let mut batch = ReceiveBatch::new(4, DATAGRAM_BYTES_MAX);
    let mut arrivals = |on: bool| {
        sockets::stamp_arrivals(receiver.as_fd(), on).unwrap();
        send.send_packet(sender.as_fd(), b"one").unwrap();
        send.send_train(sender.as_fd(), b"twothr", 3).unwrap();
        let received = batch.receive(receiver.as_fd(), 64).unwrap();
        assert_eq!(
            received.datagrams[1].packets(),
            2,
            "a stamp does not displace the boundaries"
        );
        received.arrivals.to_vec()
    };
    assert_eq!(arrivals(false), [0, 0]);
    assert!(arrivals(true).iter().all(|&stamp| stamp > 0));
    assert_eq!(arrivals(false), [0, 0]);
}

#[test]
fn a_descriptor_that_is_no_socket_is_an_error() {
    let mut batch = ReceiveBatch::new(4, 2048);
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(
        batch.receive(file.as_fd(), 64).unwrap_err(),
        nix::errno::Errno::ENOTSOCK
    );
}
