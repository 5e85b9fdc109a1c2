//! Protecting on the way out: every packet arrives protected once, whatever train it came in, and no index goes out with two contents.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod loopback;

use weir_channel::message::DropReason;
use weir_worker::net::egress::Egress;
use weir_worker::relay::sink::{Sink, TransportIx};
use weir_worker::webrtc::srtp::{Inbound, WINDOW};

use loopback::{OWNER, Peer, attach_protected, receiver_context};

const T: TransportIx = TransportIx(0);

fn rtp(ssrc: u32, seq: u16, len: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(seq.to_be_bytes());
    packet.extend(u32::from(seq).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.resize(len, seq as u8);
    packet
}

fn train(ssrc: u32, first: u16, lengths: &[usize]) -> Vec<u8> {
    lengths
        .iter()
        .zip(0..)
        .flat_map(|(len, at)| rtp(ssrc, first.wrapping_add(at), *len))
        .collect()
}

/// The next packets, unprotected; and no more come.
fn unprotected(inbound: &mut Inbound, peer: &Peer, count: usize) -> Vec<Vec<u8>> {
    let unprotect = |mut packet: Vec<u8>| {
        let len = inbound.unprotect_rtp(&mut packet).unwrap().len;
        packet.truncate(len);
        packet
    };
    let packets = (0..count).map(|_| peer.receive()).map(unprotect).collect();
    assert_eq!(peer.try_receive(), None);
    packets
}

fn protected() -> (Egress, Peer, Inbound) {
    let (mut egress, peer) = (Egress::new(), Peer::new());
    attach_protected(&mut egress, 0, peer.address);
    (egress, peer, receiver_context())
}

#[test]
fn trains_of_any_length_arrive_as_they_were() {
    let (mut egress, peer, mut inbound) = protected();
    let mut seq = 65_000_u16;
    for (lengths, segment) in [
        (vec![200], 200),
        (vec![1_200; 8], 1_200),
        (vec![1_200, 1_200, 300], 1_200),
        // More than one message can carry, by number and by bytes: 54 × 1,200 fit, and do not once they are protected.
        (vec![100; 150], 100),
        (vec![1_200; 54], 1_200),
        (vec![12; 64], 12),
        (vec![65_000], 65_000),
    ] {
        for waits in [false, true] {
            let bytes = train(1, seq, &lengths);
            seq = seq.wrapping_add(lengths.len() as u16);
            let sent = if waits {
                // Two, so that they are worth waiting for.
                egress.gather(T, OWNER, &train(2, seq, &[50]), 50);
                egress.gather(T, OWNER, &bytes, segment)
            } else {
                egress.send(T, OWNER, &bytes, segment)
            };
            assert_eq!(sent.accepted, lengths.len());
            egress.flush_gathered();
            let mut arrived = unprotected(&mut inbound, &peer, lengths.len() + usize::from(waits));
            if waits {
                assert_eq!(arrived.remove(0), train(2, seq, &[50]));
            }
            assert_eq!(arrived.concat(), bytes, "{lengths:?}");
        }
    }
    assert_eq!(egress.protect_failures(T), 0);
    assert_eq!(egress.poll_lost(), None);
}

#[test]
fn an_index_goes_out_with_one_content() {
    let (mut egress, peer, mut inbound) = protected();
    assert_eq!(egress.send(T, OWNER, &train(1, 100, &[300; 3]), 300).accepted, 3);
    let first: Vec<_> = (0..3).map(|_| peer.receive()).collect();
    // The same once more is the same on the wire; who listens learns nothing.
    assert!(egress.resend(T, &rtp(1, 101, 300)));
    assert_eq!(peer.receive(), first[1]);
    let mut other = rtp(1, 101, 300);
    other[200] ^= 1;
    assert!(!egress.resend(T, &other));
    assert_eq!((egress.protect_failures(T), peer.try_receive()), (1, None));

    // In a train the rest goes on.
    let mut mixed = train(1, 102, &[300; 4]);
    mixed[30] ^= 1;
    for (at, send) in [Egress::send, Egress::gather].into_iter().enumerate() {
        let mut bytes = mixed.clone();
        for (packet, seq) in bytes.chunks_mut(300).skip(1).zip(103 + 3 * at as u16..) {
            packet[2..4].copy_from_slice(&seq.to_be_bytes());
        }
        assert_eq!(send(&mut egress, T, OWNER, &bytes, 300).accepted, 4);
        egress.flush_gathered();
        let lost = egress.poll_lost().unwrap();
        assert_eq!(
            (lost.owner, lost.reason, lost.packets),
            (OWNER, DropReason::SendFailed, 1)
        );
        assert_eq!(unprotected(&mut inbound, &peer, 3).concat(), bytes[300..]);
    }
    // All of it is refused: nothing was accepted.
    let sent = egress.send(T, OWNER, &mixed[..300], 300);
    assert_eq!((sent.accepted, sent.reason), (0, DropReason::SendFailed));
    // Too old to know, malformed.
    assert_eq!(egress.send(T, OWNER, &rtp(1, 100 + WINDOW as u16, 40), 40).accepted, 1);
    assert_eq!(egress.send(T, OWNER, &rtp(1, 90, 40), 40).accepted, 0);
    assert_eq!(egress.send(T, OWNER, &[0; 40], 40).accepted, 0);
    assert_eq!(egress.send(T, OWNER, &[0x80; 3], 40).accepted, 0);
    assert_eq!(egress.protect_failures(T), 7);
}

#[test]
fn nothing_leaves_without_a_path_or_a_key() {
    let (mut egress, peer, _) = protected();
    let packet = rtp(1, 1, 100);
    let nobody = |egress: &mut Egress| {
        for send in [Egress::send, Egress::gather] {
            let sent = send(egress, T, OWNER, &packet, 100);
            assert_eq!((sent.accepted, sent.reason), (0, DropReason::NoRemote));
        }
        assert!(!egress.resend(T, &packet));
        egress.send_rtcp(T, &[0x80, 201, 0, 1, 1, 2, 3, 4]);
        egress.flush_gathered();
    };
    egress.sockets.open(T, false);
    nobody(&mut egress);
    egress.sockets.open(T, true);
    egress.stop_protecting(T);
    nobody(&mut egress);
    egress.select(T, None).unwrap();
    egress.sockets.open(T, true);
    nobody(&mut egress);
    egress.detach(T);
    nobody(&mut egress);
    assert_eq!(peer.try_receive(), None);
    assert_eq!(egress.protect_failures(T), 0);
}

#[test]
fn streams_that_were_silent_make_room_and_come_back() {
    let (mut egress, peer, mut inbound) = protected();
    for round in 0..2_u16 {
        for ssrc in 0..2_100 {
            assert_eq!(egress.send(T, OWNER, &rtp(ssrc, 7 + round, 40), 40).accepted, 1);
            assert_eq!(unprotected(&mut inbound, &peer, 1), [rtp(ssrc, 7 + round, 40)]);
        }
    }
    assert_eq!(egress.protect_failures(T), 0);
    // Who was away does not know any more what went out, so nothing goes out again.
    assert!(!egress.resend(T, &rtp(0, 7, 40)));
}
