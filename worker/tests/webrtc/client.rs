//! A whole WebRTC client that others built, from its first check to its media.

use std::time::Duration;

use str0m::config::Fingerprint as TheirFingerprint;
use str0m::format::Codec;
use str0m::ice::IceCreds;
use str0m::media::{MediaKind, Mid};
use str0m::net::{Protocol as TheirProtocol, Receive};
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Candidate, Event as TheirEvent, Input, Output, Rtc};
use weir_worker::time::Time;
use weir_worker::webrtc::budget::Budgets;
use weir_worker::webrtc::dtls::{
    Clock, DtlsRole, Fingerprint, FingerprintAlgorithm, RemoteParameters, Role, Settings, State,
};
use weir_worker::webrtc::entropy::SystemEntropy;
use weir_worker::webrtc::ice::{self, Credentials};
use weir_worker::webrtc::transport::{Received, WebRtcTransport};

use crate::world::{CLIENT, Outbox, SERVER, clock, context, tuple};

const ONE_WAY: Duration = Duration::from_millis(10);

struct Session {
    now: Time,
    clock: Clock,
    client: Rtc,
    server: WebRtcTransport,
    worker: Budgets,
    outbox: Outbox,
    media: Vec<Received>,
    connected: bool,
}

impl Session {
    fn new(client_is_active: bool) -> Self {
        let clock = clock();
        let credentials = Credentials::generate(&mut SystemEntropy::new());
        let mut server = WebRtcTransport::new(credentials, context(clock, Settings::default()));
        let mut client = Rtc::builder().set_rtp_mode(true).build(clock.instant(Time(0)));
        client.add_local_candidate(Candidate::host(CLIENT.parse().unwrap(), "udp").unwrap());
        client.add_remote_candidate(Candidate::host(SERVER.parse().unwrap(), "udp").unwrap());
        let mut direct = client.direct_api();
        direct.set_ice_controlling(true);
        direct.set_remote_ice_credentials(IceCreds {
            ufrag: server.credentials().username_fragment().to_owned(),
            pass: server.credentials().password().to_owned(),
        });
        direct.set_remote_fingerprint(TheirFingerprint {
            hash_func: "sha-256".to_owned(),
            bytes: unhex(&server.certificate().fingerprints()[2].to_string()),
        });
        let theirs = direct.local_dtls_fingerprint();
        assert_eq!(theirs.hash_func, "sha-256");
        let digits: Vec<String> = theirs.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let fingerprint = Fingerprint::parse(FingerprintAlgorithm::Sha256, &digits.join(":")).unwrap();
        direct.start_dtls(client_is_active).unwrap();
        let mut outbox = Outbox::default();
        let parameters = RemoteParameters {
            role: if client_is_active {
                DtlsRole::Client
            } else {
                DtlsRole::Server
            },
            fingerprints: vec![fingerprint],
        };
        let role = server.set_remote_dtls(Time(0), &parameters, &mut outbox).unwrap();
        assert_eq!(role == Role::Server, client_is_active);
        Self {
            now: Time(0),
            clock,
            client,
            server,
            worker: Budgets::of_a_worker(),
            outbox,
            media: Vec::new(),
            connected: false,
        }
    }

    /// A round trip: what each has to say reaches the other.
    fn round(&mut self) {
        self.now = self.now + ONE_WAY;
        let instant = self.clock.instant(self.now);
        self.client.handle_input(Input::Timeout(instant)).unwrap();
        loop {
            match self.client.poll_output().unwrap() {
                Output::Transmit(transmit) => {
                    assert_eq!(transmit.destination, SERVER.parse().unwrap());
                    let received = self.server.handle_datagram(
                        self.now,
                        tuple(transmit.source),
                        &transmit.contents,
                        &mut self.worker,
                        &mut self.outbox,
                    );
                    if received != Received::Control {
                        self.media.push(received);
                    }
                }
                Output::Event(TheirEvent::Connected) => self.connected = true,
                Output::Event(_) => {}
                Output::Timeout(_) => break,
            }
        }
        self.server.handle_timeout(self.now, &mut self.outbox);
        self.now = self.now + ONE_WAY;
        let instant = self.clock.instant(self.now);
        for (_, datagram) in std::mem::take(&mut self.outbox.sent) {
            let (source, destination) = (SERVER.parse().unwrap(), CLIENT.parse().unwrap());
            let receive = Receive::new(TheirProtocol::Udp, source, destination, &datagram).unwrap();
            self.client.handle_input(Input::Receive(instant, receive)).unwrap();
            while !matches!(self.client.poll_output().map(|output| self.keep(output)), Ok(true)) {}
        }
    }

    /// Keeps what the client says while it takes a datagram; whether that was all.
    fn keep(&mut self, output: Output) -> bool {
        match output {
            Output::Timeout(_) => true,
            Output::Event(TheirEvent::Connected) => {
                self.connected = true;
                false
            }
            Output::Transmit(transmit) => {
                let from = tuple(transmit.source);
                self.server
                    .handle_datagram(self.now, from, &transmit.contents, &mut self.worker, &mut self.outbox);
                false
            }
            Output::Event(_) => false,
        }
    }

    fn connect(&mut self) {
        for _ in 0..500 {
            if self.connected && self.server.dtls_state() == State::Connected {
                return;
            }
            self.round();
        }
        panic!("not connected: {:?}", self.outbox.events);
    }
}

fn unhex(value: &str) -> Vec<u8> {
    value
        .split(':')
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

#[test]
fn a_client_connects_in_either_role_and_its_media_gets_through() {
    for client_is_active in [true, false] {
        let mut session = Session::new(client_is_active);
        session.connect();
        let mid: Mid = "0".into();
        let ssrc: Ssrc = 1_234.into();
        let mut direct = session.client.direct_api();
        direct.declare_media(mid, MediaKind::Audio);
        direct.declare_stream_tx(ssrc, None, mid, None);
        let opus = session
            .client
            .codec_config()
            .find(|parameters| parameters.spec().codec == Codec::Opus)
            .unwrap()
            .pt();
        for number in 0..50_u32 {
            let at = session.clock.instant(session.now);
            let payload: &[u8] = &[number as u8; 60];
            let write = RtpWrite::new(opus, u64::from(number).into(), number * 960, at, payload);
            let mut direct = session.client.direct_api();
            direct.stream_tx(&ssrc).unwrap().write_rtp(write);
            session.round();
        }
        let rtp = session
            .media
            .iter()
            .filter(|received| **received == Received::Rtp)
            .count();
        assert!(rtp >= 49, "{:?}", session.media);
        assert!(
            session
                .media
                .iter()
                .all(|received| matches!(received, Received::Rtp | Received::Rtcp))
        );

        // It goes on checking, so it stays.
        for _ in 0..3_000 {
            session.round();
        }
        assert_eq!(session.server.ice_state(), ice::State::Completed);
        assert_eq!(session.server.media_tuple(), Some(&tuple(CLIENT.parse().unwrap())));
        assert!(session.client.is_alive());
    }
}
