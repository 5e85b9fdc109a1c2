//! What a parser that panics takes with it: the packet or the session, and nothing else.

use std::time::Duration;

use super::*;
use crate::boundary::{self, Parser, poison};
use crate::webrtc::dtls::failure::Failure;
use crate::webrtc::dtls::session::Event as DtlsEvent;
use crate::webrtc::dtls::{Certificate, Clock, Context, Settings};
use crate::webrtc::entropy::SeededEntropy;
use crate::webrtc::ice::Protocol;
use crate::webrtc::stun::{BINDING, Class, Writer, attribute};

#[derive(Default)]
struct Outbox {
    sent: Vec<Vec<u8>>,
    events: Vec<Event>,
}

impl TransportOutput for Outbox {
    fn send(&mut self, _: &Tuple, datagram: &[u8]) {
        self.sent.push(datagram.to_vec());
    }

    fn on_event(&mut self, event: Event) {
        self.events.push(event);
    }
}

fn transport() -> WebRtcTransport {
    let now = Duration::from_secs(1_795_000_000);
    let certificate = Certificate::generate(&mut SeededEntropy(1), now).unwrap();
    let context = Context::new(certificate, Clock::virtual_time(), Settings::default());
    WebRtcTransport::new(Credentials::generate(&mut SeededEntropy(2)), Arc::new(context))
}

fn check(transport: &WebRtcTransport) -> Vec<u8> {
    let mut check = Vec::new();
    let name = format!("{}:theirs", transport.credentials().username_fragment());
    Writer::new(&mut check, Class::Request, BINDING, [7; 12])
        .attribute(attribute::USERNAME, name.as_bytes())
        .attribute(attribute::PRIORITY, &[0, 0, 0, 1])
        .attribute(attribute::USE_CANDIDATE, &[])
        .integrity(transport.credentials().key())
        .fingerprint();
    check
}

#[test]
fn parsers_that_panic_cost_a_packet_or_a_session() {
    let tuple = Tuple {
        protocol: Protocol::Udp,
        local: ([192, 0, 2, 1], 5_000).into(),
        remote: ([198, 51, 100, 7], 4_000).into(),
    };
    let mut transport = transport();
    let mut worker = Budgets::of_a_worker();
    let mut outbox = Outbox::default();
    let check = check(&transport);
    let poisoned = poison(Parser::Stun);
    let received = transport.handle_datagram(Time(0), tuple, &check, &mut worker, &mut outbox);
    drop(poisoned);
    assert_eq!(received, Received::Dropped(Dropped::Stun));
    assert!(outbox.sent.is_empty() && outbox.events.is_empty());
    // The next one is answered as if nothing had been.
    let received = transport.handle_datagram(Time(0), tuple, &check, &mut worker, &mut outbox);
    assert_eq!(received, Received::Control);
    assert_eq!((outbox.sent.len(), transport.selected_tuple()), (1, Some(&tuple)));

    let record = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let poisoned = poison(Parser::Dtls);
    transport.handle_datagram(Time(0), tuple, &record, &mut worker, &mut outbox);
    drop(poisoned);
    assert_eq!(
        outbox.events.last(),
        Some(&Event::Dtls(DtlsEvent::Failed(Failure::Internal)))
    );
    assert_eq!(transport.dtls_state(), dtls::State::Failed);
    assert_eq!(transport.ice_state(), ice::State::Completed);
    // The engine once, and once more when it is thrown away.
    assert_eq!((boundary::panics(Parser::Stun), boundary::panics(Parser::Dtls)), (1, 2));
}

/// RFC 8445 §7.3: what is refused is counted by its reason.
#[test]
fn refusals_are_counted_by_their_reason() {
    let mut transport = transport();
    let good = check(&transport);
    let mut outbox = Outbox::default();
    let mut worker = Budgets::of_a_worker();
    let tuple = Tuple {
        protocol: Protocol::Udp,
        local: ([192, 0, 2, 1], 5_000).into(),
        remote: ([198, 51, 100, 7], 4_000).into(),
    };
    let mut stranger = Vec::new();
    Writer::new(&mut stranger, Class::Request, BINDING, [7; 12])
        .attribute(attribute::USERNAME, b"nobody:theirs")
        .attribute(attribute::PRIORITY, &[0, 0, 0, 1])
        .integrity(transport.credentials().key())
        .fingerprint();
    let mut bare = Vec::new();
    Writer::new(&mut bare, Class::Request, BINDING, [7; 12]).fingerprint();
    for datagram in [&good, &stranger, &stranger, &bare] {
        transport.handle_datagram(Time(0), tuple, datagram, &mut worker, &mut outbox);
    }
    let refused = Refusal::ALL.map(|refusal| transport.counters().refused(refusal));
    assert_eq!(refused, [1, 2, 0, 0]);
    assert_eq!(transport.counters().refusals, 3);
}
