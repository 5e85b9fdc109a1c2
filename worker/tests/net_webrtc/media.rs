//! Media through WebRTC transports: byte for byte, both ways, and none of it for those who have not proven who they are.

use weir_channel::id::TransportId;
use weir_channel::message::{DtlsRole, DtlsState, IceState, Method, Reply, UnroutedReason};

use crate::client::{Arrived, Wire};
use crate::loopback::Peer;
use crate::room::{
    await_dtls, await_unrouted, connected_client, has_moved, ice_credentials, plain_transport, room,
    set_dtls_parameters, stats, transport_for_client, webrtc_stats,
};
use crate::supervisor::{rtp, ssrc_of};

#[test]
fn a_client_sends_to_a_plain_peer_and_receives_from_one() {
    let mut supervisor = room();
    let plain = Peer::new();
    let address = plain_transport(&mut supervisor, 1, &plain);
    let mut client = connected_client(&mut supervisor, 2);
    supervisor.create_producer(1, 2, 0xaaaa);
    supervisor.create_consumer(1, 1, 1, 0xbbbb);
    supervisor.create_producer(2, 1, 0xcccc);
    supervisor.create_consumer(2, 2, 2, 0xdddd);
    let mut last = None;
    for seq in 0..100_u16 {
        let payload = vec![seq as u8; usize::from(20 + seq * 11)];
        client.send_rtp(&rtp(0xaaaa, 65_500_u16.wrapping_add(seq), &payload));
        let packet = plain.receive_rtp();
        assert_eq!((ssrc_of(&packet), packet[1], &packet[12..]), (0xbbbb, 96, &payload[..]));
        let numbered = u16::from_be_bytes([packet[2], packet[3]]);
        assert!(last.is_none_or(|last: u16| last.wrapping_add(1) == numbered));
        last = Some(numbered);
    }
    for seq in 0..100_u16 {
        let payload = vec![seq as u8 ^ 0x5a; usize::from(20 + seq * 11)];
        plain.send_to(address, &rtp(0xcccc, 65_450_u16.wrapping_add(seq), &payload));
        let packet = client.receive_rtp();
        assert_eq!((ssrc_of(&packet), packet[1], &packet[12..]), (0xdddd, 96, &payload[..]));
    }
    assert_eq!(client.unprotect_failures, 0);
    let stats = stats(&mut supervisor, 2);
    assert_eq!(stats.unrouted, []);
    assert_eq!(
        (stats.packets_received, stats.packets_sent - stats.rtcp_sent),
        (100, 100)
    );
    let webrtc = stats.webrtc.unwrap();
    assert_eq!(
        (webrtc.ice_state, webrtc.dtls_state),
        (IceState::Completed, DtlsState::Connected)
    );
    assert_eq!(webrtc.srtp_profile.as_deref(), Some("AEAD_AES_256_GCM"));
    assert_eq!(webrtc.ice_selected_tuple.unwrap().remote, client.wire.address());
    assert!(webrtc.checks > 0 && webrtc.dtls_datagrams > 0);
    assert_eq!((webrtc.checks_refused, webrtc.protect_failures), (0, 0));
}

#[test]
fn two_clients_hear_each_other() {
    let mut supervisor = room();
    let mut one = connected_client(&mut supervisor, 1);
    let mut other = connected_client(&mut supervisor, 2);
    supervisor.create_producer(1, 1, 0xaaaa);
    supervisor.create_consumer(1, 1, 2, 0xbbbb);
    supervisor.create_producer(2, 2, 0xaaaa);
    supervisor.create_consumer(2, 2, 1, 0xcccc);
    for seq in 0..200 {
        one.send_rtp(&rtp(0xaaaa, seq, &[1; 160]));
        other.send_rtp(&rtp(0xaaaa, seq, &[2; 160]));
        let packet = other.receive_rtp();
        assert_eq!((ssrc_of(&packet), &packet[12..]), (0xbbbb, &[1; 160][..]));
        let packet = one.receive_rtp();
        assert_eq!((ssrc_of(&packet), &packet[12..]), (0xcccc, &[2; 160][..]));
    }
    assert_eq!((one.unprotect_failures, other.unprotect_failures), (0, 0));
}

#[test]
fn reports_come_protected_and_are_read() {
    let mut supervisor = room();
    let mut client = connected_client(&mut supervisor, 1);
    supervisor.create_producer(1, 1, 0xaaaa);
    for seq in 0..50 {
        client.send_rtp(&rtp(0xaaaa, seq, &[1; 160]));
    }
    let report = client.receive(|arrived| match arrived {
        Arrived::Rtcp(packet) => Some(packet.clone()),
        Arrived::Rtp(_) => None,
    });
    // A receiver report with one block, about what was sent.
    assert_eq!((report[0], report[1]), (0x81, 201));
    assert_eq!(report[8..12], 0xaaaa_u32.to_be_bytes());
    let before = stats(&mut supervisor, 1);
    assert!(before.rtcp_sent > 0);
    // The client answers with one of its own.
    let mut empty = vec![0x80, 201, 0, 1];
    empty.extend(7_u32.to_be_bytes());
    let protected = client.protect_rtcp(&empty);
    client.send(&protected);
    while stats(&mut supervisor, 1).rtcp_received == before.rtcp_received {}
    client.send(&protected);
    await_unrouted(&mut supervisor, 1, UnroutedReason::Replayed, 1);
}

#[test]
fn media_before_dtls_forgeries_and_replays_are_counted_and_not_relayed() {
    let mut supervisor = room();
    let plain = Peer::new();
    plain_transport(&mut supervisor, 1, &plain);
    let mut client = transport_for_client(&mut supervisor, 2, true);
    supervisor.create_producer(1, 2, 0xaaaa);
    supervisor.create_consumer(1, 1, 1, 0xbbbb);
    client.send(&rtp(0xaaaa, 1, b"from nowhere"));
    await_unrouted(&mut supervisor, 2, UnroutedReason::ForeignSource, 1);
    // ICE alone is not enough. Without the client's parameters the handshake may end, but nobody is connected.
    client.run_until(|client| client.is_connected());
    client.send_rtp(&rtp(0xaaaa, 2, b"too early"));
    client.send(&rtp(0xaaaa, 2, b"not even protected"));
    await_unrouted(&mut supervisor, 2, UnroutedReason::NotConnected, 2);
    let parameters = client.parameters(DtlsRole::Auto);
    set_dtls_parameters(&mut supervisor, 2, parameters).unwrap();
    await_dtls(&mut supervisor, 2, DtlsState::Connected);

    let protected = client.protect(&rtp(0xaaaa, 3, b"heard"));
    client.send(&protected);
    assert_eq!(&plain.receive_rtp()[12..], b"heard");
    client.send(&protected);
    await_unrouted(&mut supervisor, 2, UnroutedReason::Replayed, 1);
    let mut forged = client.protect(&rtp(0xaaaa, 4, b"forged"));
    forged[14] ^= 1;
    client.send(&forged);
    client.send(&rtp(0xaaaa, 5, b"in the clear, and long enough for a tag"));
    await_unrouted(&mut supervisor, 2, UnroutedReason::NotAuthentic, 2);
    Peer::new().send_to(
        webrtc_stats(&mut supervisor, 2).ice_selected_tuple.unwrap().local,
        &protected,
    );
    await_unrouted(&mut supervisor, 2, UnroutedReason::ForeignSource, 2);
    client.send(b"\xff neither of all that");
    await_unrouted(&mut supervisor, 2, UnroutedReason::Malformed, 1);
    assert_eq!(plain.try_receive(), None);
    client.send_rtp(&rtp(0xaaaa, 6, b"heard too"));
    assert_eq!(&plain.receive_rtp()[12..], b"heard too");
}

#[test]
fn ice_restarts_and_moves_and_media_goes_on() {
    let mut supervisor = room();
    let plain = Peer::new();
    let address = plain_transport(&mut supervisor, 1, &plain);
    let mut client = connected_client(&mut supervisor, 2);
    supervisor.create_producer(1, 2, 0xaaaa);
    supervisor.create_consumer(1, 1, 1, 0xbbbb);
    supervisor.create_producer(2, 1, 0xcccc);
    supervisor.create_consumer(2, 2, 2, 0xdddd);
    for round in 1..=3_u16 {
        let ice = ice_credentials(2, round.into());
        let restart = Method::RestartIce {
            transport: TransportId(2),
            ice: ice.clone(),
        };
        assert_eq!(supervisor.request(restart), Ok(Reply::Done));
        let old = client.wire.address();
        client.move_to(Wire::udp(), client.server(), &ice);
        client.run_until(|client| client.nominated && has_moved(&mut supervisor, 2, client));
        // The worker selects the new tuple in the turn in which it answers the check that nominates.
        while webrtc_stats(&mut supervisor, 2).ice_selected_tuple.unwrap().remote != client.wire.address() {}
        assert_ne!(old, client.wire.address());
        client.send_rtp(&rtp(0xaaaa, round, b"from elsewhere"));
        assert_eq!(&plain.receive_rtp()[12..], b"from elsewhere");
        plain.send_to(address, &rtp(0xcccc, round, b"to elsewhere"));
        assert_eq!(&client.receive_rtp()[12..], b"to elsewhere");
    }
    assert_eq!(stats(&mut supervisor, 2).unrouted, []);
}

#[test]
fn each_side_says_goodbye() {
    let mut supervisor = room();
    let mut one = connected_client(&mut supervisor, 1);
    let mut other = connected_client(&mut supervisor, 2);
    supervisor.create_producer(1, 1, 0xaaaa);
    supervisor.create_consumer(1, 1, 2, 0xbbbb);
    let transport = TransportId(1);
    assert_eq!(
        supervisor.request(Method::CloseTransport { transport }),
        Ok(Reply::Done)
    );
    one.run_until(|client| client.goodbye);
    other.close();
    await_dtls(&mut supervisor, 2, DtlsState::Closed);
    assert_eq!(webrtc_stats(&mut supervisor, 2).dtls_state, DtlsState::Closed);
    other.send_rtp(&rtp(0xaaaa, 1, b"after the end"));
    await_unrouted(&mut supervisor, 2, UnroutedReason::NotConnected, 1);
    // When the worker leaves, so do all its transports.
    let mut third = connected_client(&mut supervisor, 3);
    assert_eq!(supervisor.request(Method::Shutdown), Ok(Reply::Done));
    third.run_until(|client| client.goodbye);
}

#[test]
fn another_certificate_than_the_announced_one_fails_and_relays_nothing() {
    let mut supervisor = room();
    let plain = Peer::new();
    let address = plain_transport(&mut supervisor, 1, &plain);
    let mut client = transport_for_client(&mut supervisor, 2, true);
    supervisor.create_producer(1, 2, 0xaaaa);
    supervisor.create_consumer(1, 1, 1, 0xbbbb);
    supervisor.create_producer(2, 1, 0xcccc);
    supervisor.create_consumer(2, 2, 2, 0xdddd);
    let mut parameters = client.parameters(DtlsRole::Client);
    let digit = parameters.fingerprints[0].value.pop().unwrap();
    parameters.fingerprints[0]
        .value
        .push(if digit == '0' { '1' } else { '0' });
    let role = set_dtls_parameters(&mut supervisor, 2, parameters);
    assert_eq!(role, Ok(Reply::DtlsRole(DtlsRole::Server)));
    client.run_until(|client| client.failed || client.goodbye);
    await_dtls(&mut supervisor, 2, DtlsState::Failed);
    client.send(&rtp(0xaaaa, 1, b"never"));
    await_unrouted(&mut supervisor, 2, UnroutedReason::NotConnected, 1);
    plain.send_to(address, &rtp(0xcccc, 1, b"never"));
    while stats(&mut supervisor, 1).packets_received == 0 {}
    assert_eq!(plain.try_receive(), None);
    assert_eq!(stats(&mut supervisor, 2).packets_sent, 0);
    assert_eq!(webrtc_stats(&mut supervisor, 2).dtls_state, DtlsState::Failed);
}
