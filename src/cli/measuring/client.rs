//! The client's side of a WebRTC transport: it checks and nominates as an ICE agent, begins DTLS, and has the keys then.
//!
//! Every transport of the test gets its keys this way, as from a browser; there is no other way into a worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use dimpl::{Config, Dtls, DtlsCertificate, Output, SrtpProfile};
use rcgen::{CertificateParams, KeyPair};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use weir::{DtlsRole, IceParameters, WebRtcTransport};
use weir_channel::message::{DtlsParameters, Fingerprint, FingerprintAlgorithm, IceProtocol};
use weir_worker::net::clock;
use weir_worker::webrtc::demux::{Kind, classify};
use weir_worker::webrtc::dtls;
use weir_worker::webrtc::srtp::{KeyingMaterial, Profile, Role};
use weir_worker::webrtc::stun::{self, Class, Message, Writer, attribute};

use super::offer;
use super::wire::{Line, Wire};

/// Longer than that nothing takes that will ever come about.
const PATIENCE: Duration = Duration::from_secs(20);

/// A check that is not answered is made again after this. While a thousand handshakes go on, answers wait.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A flight of the handshake that is not answered is sent again after this.
const RETRANSMISSION_TIME: Duration = Duration::from_millis(500);

/// The longest datagram of a handshake.
const DATAGRAM_BYTES_MAX: usize = 4_096;

/// PRIORITY of a peer-reflexive candidate (RFC 8445 §5.1.2), which the server does not look at.
const PRIORITY: u32 = 110 << 24 | 0xffff << 8 | 0xff;

/// How media is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Protection {
    /// AEAD_AES_256_GCM, the one that Weir prefers
    Gcm,
    /// AES128_CM_HMAC_SHA1_80
    Cm,
}

impl Protection {
    pub(in crate::cli) fn profile(self) -> Profile {
        match self {
            Self::Gcm => Profile::AeadAes256Gcm,
            Self::Cm => Profile::Aes128CmSha1_80,
        }
    }
}

/// What all clients have in common: how they protect media, and the certificate that they show.
pub(in crate::cli) struct Identity {
    protection: Protection,
    config: Arc<Config>,
    certificate: DtlsCertificate,
}

/// What a client has when it is connected.
pub(in crate::cli) struct Session {
    pub keys: KeyingMaterial,
    pub checks: Checks,
}

/// The connectivity checks of one client: the first ones, and those that keep consent (RFC 7675).
pub(in crate::cli) struct Checks {
    username: String,
    key: stun::Key,
    made: u64,
}

impl Checks {
    fn new(theirs: &IceParameters) -> Self {
        Self {
            username: format!("{}:load", theirs.username_fragment),
            key: stun::Key::new(&theirs.password),
            made: 0,
        }
    }

    /// Writes the next check, which nominates.
    pub(in crate::cli) fn next<'a>(&mut self, bytes: &'a mut Vec<u8>) -> &'a [u8] {
        self.made += 1;
        let mut transaction = *b"weirload0000";
        transaction[4..].copy_from_slice(&self.made.to_be_bytes());
        Writer::new(bytes, Class::Request, stun::BINDING, transaction)
            .attribute(attribute::USERNAME, self.username.as_bytes())
            .attribute(attribute::PRIORITY, &PRIORITY.to_be_bytes())
            .attribute(attribute::ICE_CONTROLLING, &1_u64.to_be_bytes())
            .attribute(attribute::USE_CANDIDATE, &[])
            .integrity(&self.key)
            .fingerprint()
    }

    /// Whether a datagram says that a check has succeeded.
    fn is_success(&self, datagram: &[u8]) -> anyhow::Result<bool> {
        let Ok(answer) = Message::parse(datagram) else {
            return Ok(false);
        };
        ensure!(answer.class != Class::Error, "the server refuses a connectivity check");
        Ok(answer.class == Class::Success && answer.is_authentic(&self.key))
    }
}

impl Identity {
    pub(in crate::cli) fn new(protection: Protection) -> anyhow::Result<Self> {
        let key = KeyPair::generate().context("making a key")?;
        let certificate = CertificateParams::default()
            .self_signed(&key)
            .context("making a certificate")?;
        let mut config = Config::builder().flight_start_rto(RETRANSMISSION_TIME);
        if protection == Protection::Cm {
            config = config.with_crypto_provider(offer::provider());
        }
        Ok(Self {
            protection,
            config: Arc::new(config.build().context("configuring DTLS")?),
            certificate: DtlsCertificate {
                certificate: certificate.der().to_vec(),
                private_key: key.serialize_der(),
            },
        })
    }

    /// What the signalling says of a client.
    pub(in crate::cli) fn parameters(&self) -> DtlsParameters {
        let fingerprint = dtls::Fingerprint::of(FingerprintAlgorithm::Sha256, &self.certificate.certificate);
        DtlsParameters {
            role: DtlsRole::Client,
            fingerprints: vec![Fingerprint {
                algorithm: FingerprintAlgorithm::Sha256,
                value: fingerprint.to_string(),
            }],
        }
    }

    /// Connects to a transport that knows [`Identity::parameters`], by a wire that leads to [its address](address_of).
    pub(in crate::cli) async fn connect(
        &self,
        wire: &mut Wire,
        transport: &WebRtcTransport,
    ) -> anyhow::Result<Session> {
        let mut line = Line::new(wire)?;
        let mut checks = Checks::new(&transport.ice_parameters());
        nominate(&mut line, &mut checks).await?;
        let expected: Vec<dtls::Fingerprint> = transport
            .dtls_local_parameters()
            .fingerprints
            .iter()
            .filter(|fingerprint| fingerprint.algorithm == FingerprintAlgorithm::Sha256)
            .filter_map(|fingerprint| dtls::Fingerprint::parse(FingerprintAlgorithm::Sha256, &fingerprint.value).ok())
            .collect();
        let keys = self.shake_hands(&mut line, &expected).await?;
        Ok(Session { keys, checks })
    }

    async fn shake_hands(&self, line: &mut Line<'_>, expected: &[dtls::Fingerprint]) -> anyhow::Result<KeyingMaterial> {
        let (mut now, _) = clock::instant();
        let end = Instant::from_std(now + PATIENCE);
        let mut engine = Dtls::new_12(Arc::clone(&self.config), self.certificate.clone(), now);
        engine.set_active(true);
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        let mut is_known = false;
        let mut is_connected = false;
        let mut keys = None;
        loop {
            engine.handle_timeout(now).context("DTLS")?;
            let due = loop {
                match engine.poll_output(&mut buffer) {
                    Output::Packet(packet) => match self.protection {
                        Protection::Gcm => line.send(packet)?,
                        Protection::Cm => line.send(&offer::of_counter_mode(packet))?,
                    },
                    Output::PeerCert(der) => is_known = expected.iter().any(|expected| expected.matches(der)),
                    Output::Connected => is_connected = true,
                    Output::KeyingMaterial(material, profile) => keys = Some(self.keys(&material, profile)?),
                    Output::CloseNotify => bail!("the server says goodbye"),
                    Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
                    Output::Timeout(due) => break due,
                    _ => {}
                }
            };
            if is_connected && let Some(keys) = keys.take() {
                ensure!(is_known, "the server's certificate is not the announced one");
                return Ok(keys);
            }
            match timeout_at(end.min(Instant::from_std(due)), line.recv(&mut datagram)).await {
                Ok(len) => {
                    let datagram = &datagram[..len?];
                    if classify(datagram) == Kind::Dtls {
                        engine.handle_packet(datagram).context("DTLS")?;
                    }
                }
                Err(_) if Instant::now() >= end => bail!("a DTLS handshake took longer than {PATIENCE:?}"),
                Err(_) => {}
            }
            now = clock::instant().0;
        }
    }

    fn keys(&self, material: &[u8], profile: SrtpProfile) -> anyhow::Result<KeyingMaterial> {
        let agreed = match profile {
            SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
            SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
            _ => Profile::Aes128CmSha1_80,
        };
        ensure!(
            agreed == self.protection.profile(),
            "the server chose {agreed:?} where {:?} was to be measured",
            self.protection.profile()
        );
        KeyingMaterial::split(agreed, material, Role::Client).context("cutting keying material")
    }
}

/// Makes checks until one is answered.
async fn nominate(line: &mut Line<'_>, checks: &mut Checks) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    while Instant::now() < end {
        line.send(checks.next(&mut bytes))?;
        let again = Instant::now() + CHECK_INTERVAL;
        while let Ok(len) = timeout_at(again, line.recv(&mut answer)).await {
            if checks.is_success(&answer[..len?])? {
                return Ok(());
            }
        }
    }
    bail!("a connectivity check was not answered for {PATIENCE:?}")
}

/// Where a transport takes UDP, or TCP.
pub(in crate::cli) fn address_of(transport: &WebRtcTransport, protocol: IceProtocol) -> anyhow::Result<SocketAddr> {
    let mut candidates = transport.ice_candidates().iter();
    let candidate = candidates.find(|candidate| candidate.protocol == protocol);
    let candidate = candidate.with_context(|| format!("a transport without {protocol:?}"))?;
    Ok(SocketAddr::new(candidate.ip, candidate.port))
}
