//! A WebRTC client on a real socket: the ICE agent, the DTLS endpoint and the SRTP are those of three other projects.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use dimpl::{Dtls, DtlsCertificate, Output, SrtpProfile};
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockaddrStorage, recv, recvfrom};
use rcgen::{CertificateParams, KeyPair};
use rtc_srtp::context::Context;
use rtc_srtp::crypto::RTCCryptoProvider;
use rtc_srtp::crypto::providers::AwsLcRsProvider;
use rtc_srtp::protection_profile::ProtectionProfile;
use weir_channel::message::{DtlsParameters, DtlsRole, Fingerprint, FingerprintAlgorithm, IceCredentials};
use weir_worker::net::clock;
use weir_worker::net::receive::DATAGRAM_BYTES_MAX;
use weir_worker::time::Time;
use weir_worker::webrtc::dtls::{self, Clock};
use weir_worker::webrtc::framing::{each_whole, prefix};
use weir_worker::webrtc::stun::{Class, Message, Writer};

use crate::loopback::Peer;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What arrived, unprotected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Arrived {
    Rtp(Vec<u8>),
    Rtcp(Vec<u8>),
}

/// What connects a client to the worker.
pub(crate) enum Wire {
    Udp(Peer),
    /// With what has come of a frame that is not whole.
    Tcp(TcpStream, Vec<u8>),
}

impl Wire {
    pub(crate) fn udp() -> Self {
        Self::Udp(Peer::new())
    }

    /// A connection. To an ICE agent it looks like any other path.
    pub(crate) fn tcp(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::Tcp(stream, Vec::new())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Udp(peer) => peer.address,
            Self::Tcp(stream, _) => stream.local_addr().unwrap(),
        }
    }

    fn send(&mut self, to: SocketAddr, packet: &[u8]) {
        match self {
            Self::Udp(peer) => peer.send_to(to, packet),
            Self::Tcp(stream, _) => {
                let mut frame = prefix(packet.len()).unwrap().to_vec();
                frame.extend_from_slice(packet);
                // The other end may have closed it.
                let _ = stream.write_all(&frame);
            }
        }
    }

    fn poll(&self, timeout: PollTimeout) -> bool {
        let socket = match self {
            Self::Udp(peer) => peer.socket.as_fd(),
            Self::Tcp(stream, _) => stream.as_fd(),
        };
        let mut wanted = [PollFd::new(socket, PollFlags::POLLIN)];
        match poll(&mut wanted, timeout) {
            Ok(ready) => ready > 0,
            Err(Errno::EINTR) => false,
            Err(errno) => panic!("poll: {errno}"),
        }
    }

    /// What is there comes to nothing.
    pub(crate) fn discard(&mut self) {
        self.receive();
    }

    /// What is there, with where it came from.
    fn receive(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
        let mut packets = Vec::new();
        while self.poll(PollTimeout::ZERO) {
            match self {
                Self::Udp(peer) => {
                    let (len, source) = recvfrom::<SockaddrStorage>(peer.socket.as_raw_fd(), &mut bytes).unwrap();
                    let source = source.unwrap();
                    let source = match (source.as_sockaddr_in(), source.as_sockaddr_in6()) {
                        (Some(v4), _) => SocketAddr::from(*v4),
                        (_, Some(v6)) => SocketAddr::from(*v6),
                        _ => panic!("not an IP address"),
                    };
                    packets.push((source, bytes[..len].to_vec()));
                }
                Self::Tcp(stream, arrived) => {
                    let source = stream.peer_addr();
                    match (recv(stream.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT), source) {
                        (Ok(len), Ok(source)) if len > 0 => {
                            arrived.extend_from_slice(&bytes[..len]);
                            let cut = each_whole(arrived, |packet| packets.push((source, packet.to_vec()))).unwrap();
                            arrived.drain(..cut.whole);
                        }
                        _ => break,
                    }
                }
            }
        }
        packets
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

pub(crate) struct Client {
    pub(crate) wire: Wire,
    ice: IceAgent,
    dtls: Dtls,
    clock: Clock,
    certificate: Vec<u8>,
    /// Where the worker listens.
    server: SocketAddr,
    /// The agent has a pair.
    pub(crate) nominated: bool,
    keys: Option<Keys>,
    pub(crate) profile: Option<SrtpProfile>,
    pub(crate) goodbye: bool,
    pub(crate) failed: bool,
    /// What arrived and was not taken yet.
    pub(crate) arrived: Vec<Arrived>,
    /// Packets that came and could not be unprotected.
    pub(crate) unprotect_failures: u64,
}

struct Keys {
    outbound: Context,
    inbound: Context,
}

impl Client {
    /// Somebody who knows where the worker listens and what its credentials are, and begins DTLS or waits for it.
    pub(crate) fn new(server: SocketAddr, theirs: &IceCredentials, is_active: bool) -> Self {
        Self::over(Wire::udp(), server, theirs, is_active)
    }

    pub(crate) fn over(wire: Wire, server: SocketAddr, theirs: &IceCredentials, is_active: bool) -> Self {
        let (instant, now) = clock::instant();
        let clock = Clock::new(instant, now);
        let mut ice = IceAgent::new(IceCreds::new());
        ice.set_controlling(true);
        ice.add_local_candidate(Candidate::host(wire.address(), Protocol::Udp).unwrap());
        ice.set_remote_credentials(credentials(theirs));
        ice.add_remote_candidate(Candidate::host(server, Protocol::Udp).unwrap());
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
        let ours = DtlsCertificate {
            certificate: certificate.clone(),
            private_key: key.serialize_der(),
        };
        let config = dimpl::Config::builder()
            .flight_start_rto(Duration::from_millis(100))
            .build()
            .unwrap();
        let mut dtls = Dtls::new_12(Arc::new(config), ours, instant);
        dtls.set_active(is_active);
        Self {
            wire,
            ice,
            dtls,
            clock,
            certificate,
            server,
            nominated: false,
            keys: None,
            profile: None,
            goodbye: false,
            failed: false,
            arrived: Vec::new(),
            unprotect_failures: 0,
        }
    }

    /// What the signalling says of this client.
    pub(crate) fn parameters(&self, role: DtlsRole) -> DtlsParameters {
        let fingerprint = dtls::Fingerprint::of(FingerprintAlgorithm::Sha256, &self.certificate);
        DtlsParameters {
            role,
            fingerprints: vec![Fingerprint {
                algorithm: FingerprintAlgorithm::Sha256,
                value: fingerprint.to_string(),
            }],
        }
    }

    /// Begins ICE anew on another socket, to another address or the same, with new credentials on both sides.
    pub(crate) fn move_to(&mut self, wire: Wire, server: SocketAddr, theirs: &IceCredentials) {
        self.wire = wire;
        self.server = server;
        self.ice.ice_restart(IceCreds::new(), false);
        self.ice
            .add_local_candidate(Candidate::host(self.wire.address(), Protocol::Udp).unwrap());
        self.ice.set_remote_credentials(credentials(theirs));
        self.ice
            .add_remote_candidate(Candidate::host(self.server, Protocol::Udp).unwrap());
        self.nominated = false;
    }

    /// Where the worker listens.
    pub(crate) fn server(&self) -> SocketAddr {
        self.server
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.keys.is_some()
    }

    /// Lets things happen until something is so.
    pub(crate) fn run_until(&mut self, mut condition: impl FnMut(&mut Self) -> bool) {
        let end = clock::monotonic() + PATIENCE;
        loop {
            self.step();
            if condition(self) {
                return;
            }
            assert!(clock::monotonic() < end, "it did not happen");
            self.wire.poll(PollTimeout::from(10_u8));
        }
    }

    /// Takes what is there, says what is to be said.
    pub(crate) fn step(&mut self) {
        self.tick();
        for (source, packet) in self.wire.receive() {
            self.handle(source, &packet);
            self.tick();
        }
    }

    fn handle(&mut self, source: SocketAddr, datagram: &[u8]) {
        match datagram.first() {
            Some(0..=3) => {
                if let Some(answer) = answer_to_check(datagram) {
                    return self.wire.send(source, &answer);
                }
                let packet = StunPacket {
                    proto: Protocol::Udp,
                    source,
                    destination: self.wire.address(),
                    message: StunMessage::parse(datagram).unwrap(),
                };
                self.ice.handle_packet(self.clock.instant(clock::monotonic()), packet);
            }
            Some(20..=63) => self.failed |= self.dtls.handle_packet(datagram).is_err(),
            Some(128..=191) => self.unprotect(datagram),
            _ => {}
        }
    }

    fn unprotect(&mut self, packet: &[u8]) {
        let is_rtcp = (192..=223).contains(&packet[1]);
        let unprotected = match &mut self.keys {
            Some(keys) if is_rtcp => keys
                .inbound
                .decrypt_rtcp(packet)
                .map(|clear| Arrived::Rtcp(clear.to_vec())),
            Some(keys) => keys
                .inbound
                .decrypt_rtp(packet)
                .map(|clear| Arrived::Rtp(clear.to_vec())),
            None => {
                self.unprotect_failures += 1;
                return;
            }
        };
        match unprotected {
            Ok(arrived) => self.arrived.push(arrived),
            Err(_) => self.unprotect_failures += 1,
        }
    }

    fn tick(&mut self) {
        let now: Time = clock::monotonic();
        let instant = self.clock.instant(now);
        self.ice.handle_timeout(instant);
        while let Some(transmit) = self.ice.poll_transmit() {
            self.wire.send(transmit.destination, &transmit.contents);
        }
        while let Some(event) = self.ice.poll_event() {
            if let IceAgentEvent::NominatedSend { .. } = event {
                self.nominated = true;
            }
        }
        if !self.nominated && self.keys.is_none() || self.failed {
            return;
        }
        if self.dtls.handle_timeout(instant).is_err() {
            self.failed = true;
            return;
        }
        let mut buffer = vec![0; 4_000];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => self.wire.send(self.server, datagram),
                Output::KeyingMaterial(material, profile) => {
                    self.keys = Some(keys(profile, &material, self.dtls.is_active()));
                    self.profile = Some(profile);
                }
                Output::CloseNotify => self.goodbye = true,
                Output::Timeout(_) => return,
                _ => {}
            }
        }
    }

    pub(crate) fn close(&mut self) {
        self.dtls.close().unwrap();
        self.tick();
    }

    /// A packet as it goes over the wire.
    pub(crate) fn protect(&mut self, packet: &[u8]) -> Vec<u8> {
        let keys = self.keys.as_mut().unwrap();
        keys.outbound.encrypt_rtp(packet).unwrap().to_vec()
    }

    pub(crate) fn protect_rtcp(&mut self, packet: &[u8]) -> Vec<u8> {
        let keys = self.keys.as_mut().unwrap();
        keys.outbound.encrypt_rtcp(packet).unwrap().to_vec()
    }

    pub(crate) fn send(&mut self, datagram: &[u8]) {
        self.wire.send(self.server, datagram);
    }

    pub(crate) fn send_rtp(&mut self, packet: &[u8]) {
        let protected = self.protect(packet);
        self.send(&protected);
    }

    /// The next RTP packet, waiting for it.
    pub(crate) fn receive_rtp(&mut self) -> Vec<u8> {
        self.receive(|arrived| match arrived {
            Arrived::Rtp(packet) => Some(packet.clone()),
            Arrived::Rtcp(_) => None,
        })
    }

    /// The first thing that is looked for, waiting for it. What came before it is forgotten.
    pub(crate) fn receive<T>(&mut self, find: impl Fn(&Arrived) -> Option<T>) -> T {
        let mut found = None;
        self.run_until(|client| {
            while found.is_none() && !client.arrived.is_empty() {
                found = find(&client.arrived.remove(0));
            }
            found.is_some()
        });
        found.unwrap()
    }
}

fn keys(profile: SrtpProfile, material: &[u8], is_active: bool) -> Keys {
    let (profile, key_len, salt_len) = match profile {
        SrtpProfile::AEAD_AES_128_GCM => (ProtectionProfile::AeadAes128Gcm, 16, 12),
        SrtpProfile::AEAD_AES_256_GCM => (ProtectionProfile::AeadAes256Gcm, 32, 12),
        _ => (ProtectionProfile::Aes128CmHmacSha1_80, 16, 14),
    };
    let provider = AwsLcRsProvider::new();
    let context = |server: usize| {
        let key = &material[server * key_len..][..key_len];
        let salt = &material[2 * key_len + server * salt_len..][..salt_len];
        Context::new(key, salt, profile, None, None, provider.crypto()).unwrap()
    };
    let (client, server) = (context(0), context(1));
    if is_active {
        Keys {
            outbound: client,
            inbound: server,
        }
    } else {
        Keys {
            outbound: server,
            inbound: client,
        }
    }
}

fn credentials(ours: &IceCredentials) -> IceCreds {
    IceCreds {
        ufrag: ours.username_fragment.clone(),
        pass: ours.password.clone(),
    }
}
