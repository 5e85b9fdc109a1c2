//! The other end, as others built it: an ICE agent and a DTLS endpoint that know nothing of ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dimpl::{Dtls, DtlsCertificate, Output, SrtpProfile};
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
use rcgen::{CertificateParams, KeyPair};
use weir_worker::time::Time;
use weir_worker::webrtc::dtls::{Clock, Fingerprint, FingerprintAlgorithm, Role};
use weir_worker::webrtc::ice::Credentials;
use weir_worker::webrtc::stun::{Class, Message, Writer};

use crate::network::{Flight, Network};

/// A certificate of the peer's own making, with so many names.
pub(crate) fn certificate(names: usize) -> DtlsCertificate {
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = (0..names)
        .map(|at| format!("{at:08}.a-name-that-is-quite-long.example"))
        .collect();
    DtlsCertificate {
        certificate: CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .der()
            .to_vec(),
        private_key: key.serialize_der(),
    }
}

/// A DTLS endpoint.
pub(crate) struct DtlsPeer {
    engine: Dtls,
    clock: Clock,
    pub(crate) certificate: Vec<u8>,
    pub(crate) connected: bool,
    pub(crate) remote_certificate: Option<Vec<u8>>,
    pub(crate) keys: Option<(SrtpProfile, Vec<u8>)>,
    pub(crate) goodbye: bool,
    pub(crate) error: Option<dimpl::Error>,
    timeout: Option<Time>,
}

impl DtlsPeer {
    pub(crate) fn new(clock: Clock, now: Time, role: Role, auto: bool) -> Self {
        Self::showing(certificate(0), clock, now, role, auto)
    }

    pub(crate) fn showing(ours: DtlsCertificate, clock: Clock, now: Time, role: Role, auto: bool) -> Self {
        let config = dimpl::Config::builder()
            .max_queue_tx(100)
            .flight_start_rto(Duration::from_millis(100))
            .flight_retries(24)
            .handshake_timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let certificate = ours.certificate.clone();
        let (config, at) = (Arc::new(config), clock.instant(now));
        let mut engine = if auto {
            Dtls::new_auto(config, ours, at)
        } else {
            Dtls::new_12(config, ours, at)
        };
        engine.set_active(role == Role::Client);
        Self {
            engine,
            clock,
            certificate,
            connected: false,
            remote_certificate: None,
            keys: None,
            goodbye: false,
            error: None,
            timeout: None,
        }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(FingerprintAlgorithm::Sha256, &self.certificate)
    }

    /// One datagram, or just time that has passed; and what is sent because of it.
    pub(crate) fn drive(&mut self, now: Time, datagram: Option<&[u8]>) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        if self.error.is_some() {
            return sent;
        }
        let mut done = self.engine.handle_timeout(self.clock.instant(now));
        if let (Ok(()), Some(datagram)) = (&done, datagram) {
            done = self.engine.handle_packet(datagram);
        }
        if let Err(error) = done {
            self.error = Some(error);
            self.timeout = None;
            return sent;
        }
        self.drain(&mut sent);
        sent
    }

    fn drain(&mut self, sent: &mut Vec<Vec<u8>>) {
        let mut buffer = vec![0; 4_000];
        loop {
            match self.engine.poll_output(&mut buffer) {
                Output::Packet(datagram) => sent.push(datagram.to_vec()),
                Output::PeerCert(der) => self.remote_certificate = Some(der.to_vec()),
                Output::Connected => self.connected = true,
                Output::KeyingMaterial(material, profile) => self.keys = Some((profile, material.to_vec())),
                Output::CloseNotify => self.goodbye = true,
                Output::Timeout(at) => {
                    self.timeout = Some(self.clock.time(at));
                    return;
                }
                _ => {}
            }
        }
    }

    pub(crate) fn close(&mut self) -> Vec<Vec<u8>> {
        self.engine.close().unwrap();
        let mut sent = Vec::new();
        self.drain(&mut sent);
        sent
    }

    /// Sends something that is not media.
    pub(crate) fn send_application_data(&mut self, now: Time, data: &[u8]) -> Vec<Vec<u8>> {
        self.engine.send_application_data(data).unwrap();
        self.drive(now, None)
    }
}

/// What browsers answer to a binding request without credentials (RFC 8489 §9.1.3). The agent here answers it with nothing.
pub(crate) fn answer_to_check(datagram: &[u8]) -> Option<Vec<u8>> {
    let message = Message::parse(datagram).ok()?;
    let is_unauthenticated = message.class == Class::Request && message.username.is_none();
    is_unauthenticated.then(|| {
        let mut answer = Vec::new();
        Writer::new(&mut answer, Class::Error, message.method, message.transaction)
            .error_code(400, "Bad Request")
            .fingerprint();
        answer
    })
}

/// A client: what a browser is below its media.
pub(crate) struct Peer {
    pub(crate) ice: IceAgent,
    pub(crate) dtls: DtlsPeer,
    clock: Clock,
    address: SocketAddr,
    server: SocketAddr,
    /// From where to where the peer's agent says that everything goes.
    pub(crate) path: Option<(SocketAddr, SocketAddr)>,
}

impl Peer {
    pub(crate) fn new(
        clock: Clock,
        dtls: DtlsPeer,
        address: SocketAddr,
        server: SocketAddr,
        theirs: &Credentials,
    ) -> Self {
        let mut ice = IceAgent::new(IceCreds::new());
        ice.set_controlling(true);
        ice.add_local_candidate(Candidate::host(address, Protocol::Udp).unwrap());
        ice.set_remote_credentials(credentials(theirs));
        ice.add_remote_candidate(Candidate::host(server, Protocol::Udp).unwrap());
        Self {
            ice,
            dtls,
            clock,
            address,
            server,
            path: None,
        }
    }

    /// Begins anew, with the other's new credentials and from another address.
    pub(crate) fn restart(&mut self, theirs: &Credentials, address: SocketAddr) {
        self.ice.ice_restart(IceCreds::new(), false);
        self.ice
            .add_local_candidate(Candidate::host(address, Protocol::Udp).unwrap());
        self.ice.set_remote_credentials(credentials(theirs));
        self.ice
            .add_remote_candidate(Candidate::host(self.server, Protocol::Udp).unwrap());
        self.address = address;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn handle(&mut self, now: Time, flight: Flight, network: &mut Network) {
        match flight.bytes.first() {
            Some(0..=3) => {
                if let Some(bytes) = answer_to_check(&flight.bytes) {
                    let (from, to) = (flight.to, flight.from);
                    network.send(now, Flight { from, to, bytes });
                    return self.tick(now, network);
                }
                let message = StunMessage::parse(&flight.bytes).unwrap();
                self.ice.handle_packet(
                    self.clock.instant(now),
                    StunPacket {
                        proto: Protocol::Udp,
                        source: flight.from,
                        destination: flight.to,
                        message,
                    },
                );
            }
            Some(20..=63) => {
                let sent = self.dtls.drive(now, Some(&flight.bytes));
                self.send(now, sent, network);
            }
            _ => {}
        }
        self.tick(now, network);
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Time, network: &mut Network) {
        self.ice.handle_timeout(self.clock.instant(now));
        while let Some(transmit) = self.ice.poll_transmit() {
            let flight = Flight {
                from: transmit.source,
                to: transmit.destination,
                bytes: transmit.contents.to_vec(),
            };
            network.send(now, flight);
        }
        while let Some(event) = self.ice.poll_event() {
            if let IceAgentEvent::NominatedSend {
                source, destination, ..
            } = event
            {
                self.path = Some((source, destination));
            }
        }
        if self.path.is_some() {
            let sent = self.dtls.drive(now, None);
            self.send(now, sent, network);
        }
    }

    pub(crate) fn send(&mut self, now: Time, datagrams: Vec<Vec<u8>>, network: &mut Network) {
        let Some((from, to)) = self.path else {
            return;
        };
        for bytes in datagrams {
            network.send(now, Flight { from, to, bytes });
        }
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Time> {
        let ice = self.ice.poll_timeout().map(|at| self.clock.time(at));
        let dtls = self.dtls.timeout.filter(|_| self.path.is_some());
        [ice, dtls].into_iter().flatten().min()
    }
}

fn credentials(ours: &Credentials) -> IceCreds {
    IceCreds {
        ufrag: ours.username_fragment().to_owned(),
        pass: ours.password().to_owned(),
    }
}
