//! Once set up, receiving and sending allocate nothing: not per packet, not per call, not when a socket is full.

#[path = "../../tests/allocator/mod.rs"]
mod allocator;
mod loopback;

use std::os::fd::AsFd;

use nix::errno::Errno;
use weir_channel::message::DropReason;
use weir_worker::net::egress::Egress;
use weir_worker::net::receive::{DATAGRAM_BYTES_MAX, ReceiveBatch};
use weir_worker::net::send::{KernelSend, SendBackend};
use weir_worker::net::sockets::{Side, prepare};
use weir_worker::relay::sink::{Port, Sink, TransportIx};

use allocator::ALLOCATIONS;
use loopback::{Gated, OWNER, address_of, attach, attach_protected, connect_to, udp, wait_readable};

#[test]
fn relaying_packets_allocates_nothing() {
    const CONSUMERS: u32 = 20;
    let mut egress = Egress::new();
    let receivers: Vec<_> = (0..CONSUMERS)
        .map(|transport| {
            let receiver = udp("127.0.0.1:0");
            prepare(receiver.as_fd()).unwrap();
            attach(&mut egress, transport, address_of(&receiver));
            receiver
        })
        .collect();
    let source = udp("127.0.0.1:0");
    let inlet = attach(&mut egress, CONSUMERS, address_of(&source));
    connect_to(&source, inlet);
    let inlet = TransportIx(CONSUMERS);
    let mut generator = KernelSend::new();
    let mut batch = ReceiveBatch::new(32, DATAGRAM_BYTES_MAX);
    let mut sink = ReceiveBatch::new(64, DATAGRAM_BYTES_MAX);
    let train = vec![7; 8 * 1200];
    let mut relayed = 0;
    let mut round = |egress: &mut Egress, round: u32| {
        // A train, single packets, and one that is shorter at its end.
        generator.send_train(source.as_fd(), &train, 1200).unwrap();
        generator.send_packet(source.as_fd(), &train[..100]).unwrap();
        generator.send_train(source.as_fd(), &train[..3000], 1200).unwrap();
        let path = egress.sockets.get(inlet, Port::Rtp, Side::Connected).unwrap();
        let received = batch.receive(path, 32).unwrap();
        assert_eq!(received.datagrams.len(), 3);
        egress.begin_batch(&received);
        for datagram in received.datagrams {
            let train = &mut received.bytes[datagram.range()];
            for transport in (0..CONSUMERS).map(TransportIx) {
                train[0] = transport.0 as u8;
                let sent = if (transport.0 + round).is_multiple_of(2) {
                    egress.send(transport, OWNER, train, datagram.segment as usize)
                } else {
                    egress.gather(transport, OWNER, train, datagram.segment as usize)
                };
                assert_eq!(sent.accepted as u64, datagram.packets());
                relayed += datagram.packets();
            }
        }
        egress.end_batch();
        egress.flush_gathered();
        for receiver in &receivers {
            wait_readable(receiver.as_fd());
            assert!(!sink.receive(receiver.as_fd(), 64).unwrap().datagrams.is_empty());
        }
    };
    round(&mut egress, 0);
    egress.sockets.stamp_arrivals(true).unwrap();
    egress.measure_residence(true);
    let before = ALLOCATIONS.get();
    for number in 0..500 {
        round(&mut egress, number);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(relayed, 501 * 12 * u64::from(CONSUMERS));
    let histogram = egress.residence().unwrap().histogram();
    assert_eq!(histogram.total(), relayed - 12 * u64::from(CONSUMERS));
    assert!(ALLOCATIONS.get() > before, "the counter counts");
}

#[test]
fn protecting_packets_allocates_nothing() {
    const CONSUMERS: u32 = 8;
    const SEGMENT: usize = 1_000;
    let mut egress = Egress::new();
    let receivers: Vec<_> = (0..CONSUMERS)
        .map(|transport| {
            let receiver = udp("127.0.0.1:0");
            prepare(receiver.as_fd()).unwrap();
            attach_protected(&mut egress, transport, address_of(&receiver));
            receiver
        })
        .collect();
    let mut sink = ReceiveBatch::new(64, DATAGRAM_BYTES_MAX);
    let mut train = vec![0x80; 8 * SEGMENT - 100];
    let mut report = vec![0x80, 201, 0, 1, 1, 2, 3, 4];
    report.resize(8, 0);
    let (mut next, mut arrived) = (0_u32, 0);
    let mut round = |egress: &mut Egress, round: u32| {
        for (packet, seq) in train.chunks_mut(SEGMENT).zip(next..) {
            packet[2..4].copy_from_slice(&(seq as u16).to_be_bytes());
        }
        next += 8;
        for transport in (0..CONSUMERS).map(TransportIx) {
            // Three consumers, of which two may wait; one packet goes out again.
            for ssrc in 0..3_u32 {
                for packet in train.chunks_mut(SEGMENT) {
                    packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
                }
                let sent = if ssrc == 0 && round.is_multiple_of(2) {
                    egress.send(transport, OWNER, &train, SEGMENT)
                } else {
                    egress.gather(transport, OWNER, &train, SEGMENT)
                };
                assert_eq!(sent.accepted, 8);
            }
            assert!(egress.resend(transport, &train[..SEGMENT]));
            egress.send_rtcp(transport, &report);
        }
        egress.flush_gathered();
        for receiver in &receivers {
            let received = sink.receive(receiver.as_fd(), 64).unwrap();
            arrived += received
                .datagrams
                .iter()
                .map(|datagram| datagram.packets())
                .sum::<u64>();
        }
    };
    round(&mut egress, 0);
    let before = ALLOCATIONS.get();
    for number in 0..500 {
        round(&mut egress, number);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    let expected = 501 * u64::from(CONSUMERS) * (3 * 8 + 2);
    for receiver in &receivers {
        while arrived < expected
            && let Ok(received) = sink.receive(receiver.as_fd(), 64)
        {
            if received.datagrams.is_empty() {
                break;
            }
            arrived += received
                .datagrams
                .iter()
                .map(|datagram| datagram.packets())
                .sum::<u64>();
        }
    }
    assert_eq!(arrived, expected);
    for transport in (0..CONSUMERS).map(TransportIx) {
        assert_eq!(egress.protect_failures(transport), 0);
    }
}

#[test]
fn a_full_socket_allocates_nothing_either() {
    let receiver = udp("127.0.0.1:0");
    prepare(receiver.as_fd()).unwrap();
    // The socket is full two times of three.
    let mut calls = 0_u32;
    let mut egress = Egress::with_backend(Gated::new(|_| {
        calls += 1;
        match calls.is_multiple_of(3) {
            true => Ok(()),
            false => Err(Errno::EAGAIN),
        }
    }));
    attach(&mut egress, 0, address_of(&receiver));
    let transport = TransportIx(0);
    let mut sink = ReceiveBatch::new(64, DATAGRAM_BYTES_MAX);
    let train = vec![7; 5 * 1200];
    let (mut accepted, mut lost, mut received) = (0, 0, 0);
    let before = ALLOCATIONS.get();
    for number in 0..2_000_u32 {
        for _ in 0..number % 50 {
            let sent = egress.send(transport, OWNER, &train, 1200);
            assert!(sent.accepted == 5 || sent.reason == DropReason::BacklogFull);
            accepted += sent.accepted as u64;
        }
        accepted += egress.gather(transport, OWNER, &train, 1200).accepted as u64;
        egress.flush_gathered();
        while egress.poll_blocked().is_some() {}
        egress.handle_writable(transport);
        while let Some(one) = egress.poll_lost() {
            lost += u64::from(one.packets);
        }
        let arrived = sink.receive(receiver.as_fd(), 64).unwrap();
        received += arrived.datagrams.iter().map(|datagram| datagram.packets()).sum::<u64>();
    }
    while egress.handle_writable(transport) {}
    let arrived = sink.receive(receiver.as_fd(), 64).unwrap();
    received += arrived.datagrams.iter().map(|datagram| datagram.packets()).sum::<u64>();
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(accepted - lost, received);
    assert!(received > 10_000, "{received}");
}
