//! A client of WebRTC, on the far side of the network: it makes the checks of ICE, shakes hands, and then protects what it sends and
//! unprotects what it is sent. Bytes of keys differ in every play, and nothing that follows from them may.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output, SrtpProfile};
use rcgen::{CertificateParams, KeyPair};
use weir_channel::message::{DtlsParameters, DtlsRole, Fingerprint, FingerprintAlgorithm};
use weir_worker::net::clock;
use weir_worker::webrtc::demux::{Kind, classify};
use weir_worker::webrtc::dtls;
use weir_worker::webrtc::srtp::{Inbound, KeyingMaterial, Outbound, Profile, Repeats, Role, StreamKey, nearest};
use weir_worker::webrtc::stun::{self, Class, Message, Writer, attribute};

use super::sim::ms;
use crate::server::WebRtcTransport;

/// Between two checks until it is connected, and then.
const HASTE: Duration = ms(200);
const CONSENT: Duration = ms(2_000);

/// It gives up when so many checks have not led to keys.
const ATTEMPTS_MAX: u32 = 30;

/// The clock of its DTLS goes in leaps: whatever its timers are, each is over at the next leap.
const LEAP: Duration = Duration::from_secs(30);

/// SSRCs that it is sent.
const STREAMS_MAX: usize = 1_000;

/// What all clients show.
struct Identity {
    config: Arc<Config>,
    certificate: DtlsCertificate,
    began: Instant,
}

fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let config = Config::builder()
            .flight_retries(ATTEMPTS_MAX as usize + 1)
            .handshake_timeout(LEAP * (ATTEMPTS_MAX + 2))
            .build()
            .unwrap();
        Identity {
            config: Arc::new(config),
            certificate: DtlsCertificate {
                certificate: certificate.der().to_vec(),
                private_key: key.serialize_der(),
            },
            began: clock::instant().0,
        }
    })
}

/// What the signalling says of clients.
pub(super) fn parameters() -> DtlsParameters {
    let fingerprint = dtls::Fingerprint::of(FingerprintAlgorithm::Sha256, &identity().certificate.certificate);
    DtlsParameters {
        role: DtlsRole::Client,
        fingerprints: vec![Fingerprint {
            algorithm: FingerprintAlgorithm::Sha256,
            value: fingerprint.to_string(),
        }],
    }
}

/// What has come to a client.
pub(super) enum Came {
    /// Of ICE and DTLS, or nothing that it knows.
    Nothing,
    /// It is connected.
    Connected,
    Rtp(Vec<u8>),
    Rtcp(Vec<u8>),
}

struct Srtp {
    inbound: Inbound,
    outbound: Outbound,
    streams: Vec<(u32, StreamKey)>,
}

/// See the [module](self).
pub(super) struct Client {
    pub(super) transport: WebRtcTransport,
    /// Where it sends to.
    pub(super) to: SocketAddr,
    username: String,
    key: stun::Key,
    checks: u64,
    attempts: u32,
    is_answered: bool,
    engine: Option<Box<Dtls>>,
    leaps: u32,
    srtp: Option<Srtp>,
}

impl Client {
    pub(super) fn new(transport: WebRtcTransport) -> Self {
        let theirs = transport.ice_parameters();
        Self {
            to: super::media::local_of(&transport),
            username: format!("{}:client", theirs.username_fragment),
            key: stun::Key::new(&theirs.password),
            transport,
            checks: 0,
            attempts: 0,
            is_answered: false,
            engine: None,
            leaps: 0,
            srtp: None,
        }
    }

    /// Lets time pass: what it sends, and when it wants to be called again, if it does.
    pub(super) fn on_time(&mut self, out: &mut Vec<Vec<u8>>) -> Option<Duration> {
        if self.transport.closed() {
            return None;
        }
        if self.srtp.is_none() {
            self.attempts += 1;
            if self.attempts > ATTEMPTS_MAX {
                return None;
            }
        }
        self.check(out);
        if self.srtp.is_some() {
            return Some(CONSENT);
        }
        self.leaps += 1;
        let now = identity().began + LEAP * self.leaps;
        if self.is_answered && self.engine.is_none() {
            let mut engine = Dtls::new_12(Arc::clone(&identity().config), identity().certificate.clone(), now);
            engine.set_active(true);
            self.engine = Some(Box::new(engine));
        }
        if let Some(engine) = &mut self.engine {
            if engine.handle_timeout(now).is_err() {
                return None;
            }
            self.drive(out);
        }
        Some(HASTE)
    }

    /// The next check, which nominates.
    fn check(&mut self, out: &mut Vec<Vec<u8>>) {
        self.checks += 1;
        let mut transaction = *b"simulate0000";
        transaction[4..].copy_from_slice(&self.checks.to_be_bytes());
        let mut bytes = Vec::new();
        let check = Writer::new(&mut bytes, Class::Request, stun::BINDING, transaction)
            .attribute(attribute::USERNAME, self.username.as_bytes())
            .attribute(attribute::PRIORITY, &1_u32.to_be_bytes())
            .attribute(attribute::ICE_CONTROLLING, &1_u64.to_be_bytes())
            .attribute(attribute::USE_CANDIDATE, &[])
            .integrity(&self.key)
            .fingerprint();
        out.push(check.to_vec());
    }

    /// Takes in a datagram; what it answers.
    #[track_caller]
    pub(super) fn on_datagram(&mut self, datagram: &[u8], out: &mut Vec<Vec<u8>>) -> Came {
        match classify(datagram) {
            Kind::Stun => {
                if let Ok(answer) = Message::parse(datagram)
                    && answer.class == Class::Success
                    && answer.is_authentic(&self.key)
                {
                    self.is_answered = true;
                }
            }
            Kind::Dtls => {
                if let Some(engine) = &mut self.engine
                    && engine.handle_packet(datagram).is_ok()
                    && self.drive(out)
                {
                    return Came::Connected;
                }
            }
            kind @ (Kind::Rtp | Kind::Rtcp) => {
                let srtp = self.srtp.as_mut().expect("media comes when there are keys");
                let mut bytes = datagram.to_vec();
                let unprotected = match kind {
                    Kind::Rtp => srtp.inbound.unprotect_rtp(&mut bytes),
                    _ => srtp.inbound.unprotect_rtcp(&mut bytes),
                };
                // An index that was used before is an error, too.
                let unprotected = unprotected.unwrap_or_else(|error| {
                    panic!("{} was sent {datagram:02x?}, which is {error:?}", self.transport.id())
                });
                bytes.truncate(unprotected.len);
                return match kind {
                    Kind::Rtp => Came::Rtp(bytes),
                    _ => Came::Rtcp(bytes),
                };
            }
            _ => {}
        }
        Came::Nothing
    }

    /// Takes from the engine what it has. Whether there are keys now.
    fn drive(&mut self, out: &mut Vec<Vec<u8>>) -> bool {
        let Some(engine) = &mut self.engine else { return false };
        let mut buffer = vec![0; 4_000];
        let mut keys = None;
        loop {
            match engine.poll_output(&mut buffer) {
                Output::Packet(packet) => out.push(packet.to_vec()),
                Output::KeyingMaterial(material, profile) => {
                    assert_eq!(profile, SrtpProfile::AEAD_AES_256_GCM);
                    keys = KeyingMaterial::split(Profile::AeadAes256Gcm, &material, Role::Client);
                }
                Output::Timeout(_) => break,
                _ => {}
            }
        }
        let Some(keys) = keys else { return false };
        self.srtp = Some(Srtp {
            inbound: Inbound::new(&keys.inbound, STREAMS_MAX),
            outbound: Outbound::new(&keys.outbound),
            streams: Vec::new(),
        });
        true
    }

    /// Protects an RTP packet.
    pub(super) fn protect(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let srtp = self.srtp.as_mut()?;
        let ssrc = super::sim::ssrc_of(packet);
        let known = srtp.streams.iter().find(|(known, _)| *known == ssrc);
        let key = match known {
            Some((_, key)) => *key,
            None => {
                let key = srtp.outbound.add_stream(ssrc, Repeats::Refused).unwrap();
                srtp.streams.push((ssrc, key));
                key
            }
        };
        let seq = u16::from_be_bytes([packet[2], packet[3]]);
        let index = nearest(srtp.outbound.next_index(key), seq)?;
        let mut bytes = vec![0; packet.len() + Profile::RTP_OVERHEAD_MAX];
        let protected = srtp
            .outbound
            .protect_train(key, index, packet, packet.len(), &mut bytes);
        bytes.truncate(protected.bytes);
        (protected.packets == 1).then_some(bytes)
    }
}
