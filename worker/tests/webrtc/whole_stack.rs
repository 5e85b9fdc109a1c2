//! A whole stack of others, str0m, over a network that loses a fifth of everything: a hundred handshakes of a hundred, in both
//! roles.

use std::net::SocketAddr;
use std::time::Duration;

use str0m::config::Fingerprint as Theirs;
use str0m::ice::IceCreds;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use weir_worker::time::Time;
use weir_worker::webrtc::budget::Budgets;
use weir_worker::webrtc::dtls::{
    Clock, DtlsRole, Fingerprint, FingerprintAlgorithm, RemoteParameters, Settings, State,
};
use weir_worker::webrtc::entropy::SystemEntropy;
use weir_worker::webrtc::ice::Credentials;
use weir_worker::webrtc::transport::WebRtcTransport;

use crate::network::{Flight, Network, Quality};
use crate::world::{CLIENT, Outbox, SERVER, clock, context, tuple};

/// A fifth is lost, some comes twice, and much overtakes the rest.
const QUALITY: Quality = Quality {
    lost: 20,
    doubled: 5,
    delay_ms: (5, 60),
};

const HANDSHAKES: u64 = 100;

/// What a handshake may take: Weir's limit, and the checks before it.
const LIMIT: Duration = Duration::from_secs(40);

struct Meeting {
    clock: Clock,
    now: Time,
    network: Network,
    ours: WebRtcTransport,
    worker: Budgets,
    theirs: Rtc,
    connected: bool,
    wakes: Time,
}

fn address(of: &str) -> SocketAddr {
    of.parse().unwrap()
}

impl Meeting {
    fn new(seed: u64, is: DtlsRole) -> Self {
        let clock = clock();
        let credentials = Credentials::generate(&mut SystemEntropy::new());
        let mut ours = WebRtcTransport::new(credentials, context(clock, Settings::default()));
        let mut theirs = Rtc::builder().set_rtp_mode(true).build(clock.instant(Time(0)));
        theirs.add_local_candidate(Candidate::host(address(CLIENT), "udp").unwrap());
        theirs.add_remote_candidate(Candidate::host(address(SERVER), "udp").unwrap());
        let mut direct = theirs.direct_api();
        direct.set_ice_controlling(true);
        direct.set_remote_ice_credentials(IceCreds {
            ufrag: ours.credentials().username_fragment().to_owned(),
            pass: ours.credentials().password().to_owned(),
        });
        direct.set_remote_fingerprint(Theirs {
            hash_func: "sha-256".to_owned(),
            bytes: pairs(&Fingerprint::of(FingerprintAlgorithm::Sha256, ours.certificate().der())),
        });
        let digits = direct
            .local_dtls_fingerprint()
            .bytes
            .iter()
            .map(|byte| format!("{byte:02x}"));
        let fingerprint = digits.collect::<Vec<_>>().join(":");
        direct.start_dtls(is == DtlsRole::Client).unwrap();
        let parameters = RemoteParameters {
            role: is,
            fingerprints: vec![Fingerprint::parse(FingerprintAlgorithm::Sha256, &fingerprint).unwrap()],
        };
        // Nothing is sent before there is somebody to send it to.
        ours.set_remote_dtls(Time(0), &parameters, &mut Outbox::default())
            .unwrap();
        Self {
            clock,
            now: Time(0),
            network: Network::new(seed, QUALITY),
            ours,
            worker: Budgets::of_a_worker(),
            theirs,
            connected: false,
            wakes: Time(0),
        }
    }

    fn is_done(&self) -> bool {
        self.connected && self.ours.dtls_state() == State::Connected
    }

    /// Whether both became connected in time.
    fn run(&mut self) -> bool {
        while !self.is_done() {
            let next = [self.network.poll_timeout(), self.ours.poll_timeout(), Some(self.wakes)];
            let next = next.into_iter().flatten().min().unwrap();
            // Who is behind catches up, one step of time at a time.
            self.now = self.now.max(next) + Duration::from_micros(1);
            if self.now > Time(0) + LIMIT || self.ours.dtls_state() == State::Failed {
                return false;
            }
            self.turn();
        }
        true
    }

    fn turn(&mut self) {
        let mut outbox = Outbox::default();
        while let Some(flight) = self.network.receive(self.now) {
            if flight.to == address(SERVER) {
                let (now, from) = (self.now, tuple(flight.from));
                self.ours
                    .handle_datagram(now, from, &flight.bytes, &mut self.worker, &mut outbox);
            } else {
                let receive = Receive::new(Protocol::Udp, flight.from, flight.to, &flight.bytes).unwrap();
                let input = Input::Receive(self.clock.instant(self.now), receive);
                self.theirs.handle_input(input).unwrap();
                self.drain();
            }
        }
        self.ours.handle_timeout(self.now, &mut outbox);
        for (tuple, bytes) in outbox.sent {
            let (from, to) = (tuple.local, tuple.remote);
            self.network.send(self.now, Flight { from, to, bytes });
        }
        self.theirs
            .handle_input(Input::Timeout(self.clock.instant(self.now)))
            .unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.theirs.poll_output().unwrap() {
                Output::Transmit(transmit) => {
                    let flight = Flight {
                        from: transmit.source,
                        to: transmit.destination,
                        bytes: transmit.contents.to_vec(),
                    };
                    self.network.send(self.now, flight);
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(_) => {}
                Output::Timeout(at) => {
                    self.wakes = self.clock.time(at);
                    return;
                }
            }
        }
    }
}

fn pairs(fingerprint: &Fingerprint) -> Vec<u8> {
    let text = fingerprint.to_string();
    text.split(':')
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

/// RFC 6347 §4.2.4: what is lost is sent again, by whoever waits.
#[test]
fn str0m_shakes_hands_a_hundred_times_of_a_hundred_where_a_fifth_is_lost() {
    for is in [DtlsRole::Client, DtlsRole::Server] {
        let failed: Vec<u64> = (0..HANDSHAKES).filter(|seed| !Meeting::new(*seed, is).run()).collect();
        assert!(failed.is_empty(), "str0m as the {is:?}: these failed: {failed:?}");
    }
}
