//! What a parser of RTCP that panics takes with it: the packet, and nothing else.

use std::net::SocketAddr;

use weir_channel::id::{ProducerId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, ComediaPolicy, Counts, CreatePlainTransport, CreateProducer, Encoding, MediaKind, Method,
    Profile, Remote, Reply, Scope,
};

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

/// What may be a stream is held until it has shown itself. When the application says where the remote is, it cannot any more.
#[test]
fn what_was_held_of_newcomers_is_dropped_when_the_remote_is_set() {
    let (room, transport) = (RoomId(1), TransportId(2));
    let source: SocketAddr = "192.0.2.7:4000".parse().unwrap();
    let now = Time::from_millis(1_000);
    let mut relay = Relay::new(Limits::default(), 1);
    let create = CreatePlainTransport {
        room,
        transport,
        remote: None,
        comedia: true,
        rtcp_mux: true,
        comedia_policy: ComediaPolicy::default(),
        comedia_from: None,
    };
    let produce = CreateProducer {
        room,
        transport,
        producer: ProducerId(3),
        kind: MediaKind::Audio,
        mid: None,
        codecs: vec![Codec {
            payload_type: 96,
            name: CodecName::Opus,
            clock_rate: 48_000,
            pli: false,
            fir: false,
            nack: false,
            remb: false,
            rtx: None,
        }],
        encodings: vec![Encoding {
            ssrc: None,
            rid: None,
            profile: Profile::Default,
            rtx_ssrc: None,
        }],
        header_extensions: vec![],
        preferred_profile: Profile::Default,
        paused: false,
        reduced_size: true,
    };
    for method in [
        Method::CreateRouter { room },
        Method::CreatePlainTransport(create),
        Method::CreateProducer(produce),
    ] {
        relay.handle_command(now, &method).unwrap();
    }
    let index = relay.transport_index(transport).unwrap();
    for seq in 1..=3 {
        let mut packet = [0x80, 96, 0, seq, 0, 0, 0, 0, 0, 0, 0, 7, 1, 2, 3, 4];
        let datagram = Datagram {
            start: 0,
            len: 16,
            segment: 16,
            source,
        };
        relay.handle_datagrams(now, index, Port::Rtp, &mut packet, &[datagram], &mut Nowhere);
    }
    let key = relay.find_transport(transport).unwrap();
    assert!(relay.transports[key].newcomers.is_some());
    let remote = Remote {
        rtp: source,
        rtcp: None,
    };
    relay
        .handle_command(now, &Method::SetRemote { transport, remote })
        .unwrap();
    assert!(relay.transports[key].newcomers.is_none());
    let counted = relay.transports[key].counters.unrouted[UnroutedReason::Unproven as usize];
    assert_eq!(counted, 3);
}
