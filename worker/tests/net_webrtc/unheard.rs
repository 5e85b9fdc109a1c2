//! A peer that is not there for a while, and what it makes of what it is sent when it is back: the receiver of SRTP guesses 32
//! bits of each packet's index from what came before, and guesses wrong when 2¹⁵ packets in a row were lost (RFC 3711
//! §3.3.1). The client's SRTP is another project's.

use std::net::SocketAddr;

use weir_channel::id::ConsumerId;
use weir_channel::message::{ConsumerStats, DropReason, Method, Reply, Scope};
use weir_worker::net::egress::UNHEARD_MAX;

use crate::client::{Arrived, Client};
use crate::loopback::Peer;
use crate::room::{connected_client, plain_transport, room, stats, webrtc_stats};
use crate::supervisor::{Supervisor, rtp, ssrc_of};

const MEDIA: u32 = 0xdddd;

/// More than a receiver finds its way over.
const TOO_MANY: u16 = 40_000;

struct Call {
    supervisor: Supervisor,
    plain: Peer,
    address: SocketAddr,
    client: Client,
    sent: u64,
}

impl Call {
    fn new() -> Self {
        let mut supervisor = room();
        let plain = Peer::new();
        let address = plain_transport(&mut supervisor, 1, &plain);
        let client = connected_client(&mut supervisor, 2);
        supervisor.create_producer(1, 1, 0xcccc);
        supervisor.create_consumer(1, 1, 2, MEDIA);
        Self {
            supervisor,
            plain,
            address,
            client,
            sent: 0,
        }
    }

    fn send(&mut self) {
        let payload = self.sent.to_be_bytes();
        self.plain
            .send_to(self.address, &rtp(0xcccc, self.sent as u16, &payload));
        self.sent += 1;
    }

    /// Sends so many, none of which is lost on the way to the worker.
    fn send_all(&mut self, packets: u16) {
        for packet in 1..=packets {
            self.send();
            if packet % 200 == 0 || packet == packets {
                while stats(&mut self.supervisor, 1).packets_received < self.sent {}
            }
        }
    }

    /// What comes to the client is lost.
    fn lose_all(&mut self) {
        self.client.wire.discard();
    }

    /// The client says something that only it can.
    fn say(&mut self) {
        let report = [&[0x80, 201, 0, 1][..], &7_u32.to_be_bytes()].concat();
        let protected = self.client.protect_rtcp(&report);
        let before = stats(&mut self.supervisor, 2).rtcp_received;
        self.client.send(&protected);
        while stats(&mut self.supervisor, 2).rtcp_received == before {}
    }

    /// A packet comes through, as it was sent.
    fn hear(&mut self) {
        let payload = self.sent.to_be_bytes();
        self.send();
        let heard = self.client.receive(|arrived| match arrived {
            Arrived::Rtp(packet) if ssrc_of(packet) == MEDIA && packet[12..] == payload => Some(packet.len()),
            _ => None,
        });
        assert_eq!(heard, 20);
    }

    fn consumer(&mut self) -> ConsumerStats {
        let consumer = ConsumerId(1);
        match self.supervisor.request(Method::Stats(Scope::Consumer(consumer))) {
            Ok(Reply::Stats(mut page)) => page.consumers.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn held(&mut self) -> u64 {
        let dropped = self.consumer().dropped;
        let held = dropped.iter().find(|(reason, _)| *reason == DropReason::NoRemote);
        held.map_or(0, |(_, count)| *count)
    }
}

#[test]
fn a_peer_that_was_not_heard_for_long_opens_what_comes_then() {
    let mut call = Call::new();
    call.say();
    call.hear();
    for round in 1..=3 {
        let before = call.consumer().packets_forwarded;
        call.send_all(TOO_MANY);
        let numbered = call.consumer().packets_forwarded - before;
        assert!(
            // One has come through since it was heard last; and what is found out, is found out after a turn.
            (UNHEARD_MAX - 1..UNHEARD_MAX + 4_096).contains(&numbered),
            "round {round}: {numbered} are numbered"
        );
        call.lose_all();
        call.say();
        call.hear();
        assert_eq!(call.client.unprotect_failures, 0, "round {round}");
    }
    assert!(call.held() > 0);
    assert_eq!(webrtc_stats(&mut call.supervisor, 2).protect_failures, 0);
}

/// The check that a client makes of our consent to be sent to (RFC 7675 §5.1) is a sign of life like any other.
#[test]
fn a_check_is_enough_to_be_heard() {
    let mut call = Call::new();
    call.hear();
    call.send_all(TOO_MANY);
    assert!(call.held() > 0);
    call.lose_all();
    let checks = webrtc_stats(&mut call.supervisor, 2).checks;
    let supervisor = &mut call.supervisor;
    call.client.run_until(|_| webrtc_stats(supervisor, 2).checks > checks);
    call.hear();
    assert_eq!(call.client.unprotect_failures, 0);
}

#[test]
fn a_peer_that_says_something_now_and_then_is_sent_everything() {
    let mut call = Call::new();
    for _ in 0..5 {
        call.say();
        call.hear();
        call.send_all((UNHEARD_MAX / 2) as u16);
        call.lose_all();
    }
    assert_eq!((call.held(), call.client.unprotect_failures), (0, 0));
    let consumer = call.consumer();
    assert_eq!(consumer.packets_forwarded, call.sent);
}
