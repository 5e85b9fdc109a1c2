//! What a parser of RTCP that panics takes with it: the packet, and nothing else.

use std::net::SocketAddr;

use weir_channel::id::{RoomId, TransportId};
use weir_channel::message::{ComediaPolicy, Counts, CreatePlainTransport, Method, Remote, Reply, Scope};

use super::*;
use crate::boundary::poison;
use crate::relay::limits::Limits;
use crate::relay::sink::{ConsumerIx, Sent};

/// Nobody sends anything.
struct Nowhere;

impl Sink for Nowhere {
    fn send(&mut self, _: TransportIx, _: ConsumerIx, _: &[u8], _: usize) -> Sent {
        panic!("nothing to send");
    }

    fn gather(&mut self, _: TransportIx, _: ConsumerIx, _: &[u8], _: usize) -> Sent {
        panic!("nothing to send");
    }

    fn send_rtcp(&mut self, _: TransportIx, _: &[u8]) {}

    fn resend(&mut self, _: TransportIx, _: &[u8]) -> bool {
        false
    }
}

#[test]
fn a_parser_of_rtcp_that_panics_costs_one_packet() {
    let (room, transport) = (RoomId(1), TransportId(2));
    let remote: SocketAddr = "192.0.2.7:4000".parse().unwrap();
    let now = Time::from_millis(1_000);
    let mut relay = Relay::new(Limits::default(), 1);
    relay.handle_command(now, &Method::CreateRouter { room }).unwrap();
    let request = CreatePlainTransport {
        room,
        transport,
        remote: Some(Remote {
            rtp: remote,
            rtcp: None,
        }),
        comedia: false,
        rtcp_mux: true,
        comedia_policy: ComediaPolicy::default(),
        comedia_from: None,
    };
    relay
        .handle_command(now, &Method::CreatePlainTransport(request))
        .unwrap();
    let index = relay.transport_index(transport).unwrap();
    // A receiver report without blocks.
    let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    let receive = |relay: &mut Relay| {
        let mut bytes = report;
        let datagram = Datagram {
            start: 0,
            len: 8,
            segment: 8,
            source: remote,
        };
        relay.handle_datagrams(now, index, Port::Rtp, &mut bytes, &[datagram], &mut Nowhere);
        let Ok(Reply::Stats(page)) = relay.handle_command(now, &Method::Stats(Scope::Transport(transport))) else {
            panic!("no stats");
        };
        let stats = &page.transports[0];
        (stats.rtcp_received, stats.unrouted.clone())
    };
    assert_eq!(receive(&mut relay), (1, Counts::default()));
    let poisoned = poison(Parser::Rtcp);
    assert_eq!(receive(&mut relay), (1, Counts::from([(UnroutedReason::Malformed, 1)])));
    drop(poisoned);
    assert_eq!(boundary::panics(Parser::Rtcp), 1);
    assert_eq!(receive(&mut relay), (2, Counts::from([(UnroutedReason::Malformed, 1)])));
}
