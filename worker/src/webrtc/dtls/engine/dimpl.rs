//! DTLS 1.3 by the `dimpl` crate, and 1.2 with servers that answer our offer of both so.

use std::sync::Arc;

use dimpl::{CertificateError, Dtls, Error, SecurityError};

use crate::time::Time;
use crate::webrtc::dtls::Role;
use crate::webrtc::dtls::certificate::Certificate;
use crate::webrtc::dtls::clock::Clock;
use crate::webrtc::dtls::failure::Failure;
use crate::webrtc::dtls::settings::{HANDSHAKE_SILENCE_MAX, MTU_BYTES, RETRANSMISSION_TIME, Settings};
use crate::webrtc::srtp::{KeyingMaterial, Profile};

use super::{Engine, Output};

/// Enough for [`HANDSHAKE_SILENCE_MAX`] to be what ends a handshake, even if duplicates of the peer ask for more.
const RETRANSMISSIONS_MAX: usize = 24;

/// The longest datagram that is taken: the library keeps copies. A peer sends no longer ones than its own MTU; certificates that
/// need more come in fragments.
pub(super) const DATAGRAM_BYTES_MAX: usize = 4_096;

/// Datagrams that are kept until those before them arrive: what 30 × 4,096 bytes bound.
const DATAGRAMS_HELD_MAX: usize = 30;

/// The longest certificate that the library can put together: 50 fragments, of a datagram each.
const CERTIFICATE_ROOM: usize = 50 * DATAGRAM_BYTES_MAX;

/// Timers that lie further ahead are the library's way to say that there is none.
const TIMER_MAX: std::time::Duration = std::time::Duration::from_secs(3_600);

pub(in crate::webrtc::dtls) struct Shared {
    config: Arc<dimpl::Config>,
    certificate: dimpl::DtlsCertificate,
    clock: Clock,
}

impl Shared {
    /// `None` if the library does not sign with our key, which is RSA then.
    pub(in crate::webrtc::dtls) fn new(certificate: &Certificate, clock: Clock, settings: Settings) -> Option<Self> {
        let provider = dimpl::crypto::aws_lc_rs::default_provider();
        provider.key_provider.load_private_key(certificate.private_key()).ok()?;
        #[expect(
            clippy::expect_used,
            reason = "constants that the library accepts, as the tests show"
        )]
        let config = dimpl::Config::builder()
            .mtu(MTU_BYTES)
            .max_queue_rx(DATAGRAMS_HELD_MAX)
            .use_server_cookie(settings.cookies)
            .flight_start_rto(RETRANSMISSION_TIME)
            .flight_retries(RETRANSMISSIONS_MAX)
            .handshake_timeout(HANDSHAKE_SILENCE_MAX)
            .build()
            .expect("the configuration is one that the library knows");
        Some(Self {
            config: Arc::new(config),
            certificate: dimpl::DtlsCertificate {
                certificate: certificate.der().to_vec(),
                private_key: certificate.private_key().to_vec(),
            },
            clock,
        })
    }

    /// A client that offers both versions.
    pub(in crate::webrtc::dtls) fn client(&self, now: Time) -> Box<dyn Engine> {
        let now = self.clock.instant(now);
        let mut engine = Dtls::new_auto(Arc::clone(&self.config), self.certificate.clone(), now);
        engine.set_active(true);
        self.engine(engine)
    }

    /// A server of the newer one.
    pub(in crate::webrtc::dtls) fn server(&self, now: Time) -> Box<dyn Engine> {
        let now = self.clock.instant(now);
        let mut engine = Dtls::new_13(Arc::clone(&self.config), self.certificate.clone(), now);
        engine.set_active(false);
        self.engine(engine)
    }

    fn engine(&self, engine: Dtls) -> Box<dyn Engine> {
        Box::new(Dimpl {
            engine,
            clock: self.clock,
            now: Time(0),
            buffer: Vec::new(),
        })
    }
}

/// The library, and its time.
#[derive(Debug)]
struct Dimpl {
    engine: Dtls,
    clock: Clock,
    now: Time,
    /// Where the library writes. It panics if a certificate does not fit, so there is room for any.
    buffer: Vec<u8>,
}

impl Engine for Dimpl {
    fn handle_datagram(&mut self, datagram: &[u8]) -> Result<(), Failure> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Ok(());
        }
        self.engine.handle_packet(datagram).map_err(failure)
    }

    fn handle_time(&mut self, now: Time) -> Result<(), Failure> {
        self.now = now;
        self.engine.handle_timeout(self.clock.instant(now)).map_err(failure)
    }

    fn poll(&mut self) -> Output {
        self.buffer.resize(CERTIFICATE_ROOM, 0);
        let output = match self.engine.poll_output(&mut self.buffer) {
            dimpl::Output::Packet(datagram) => Output::Datagram(datagram.to_vec()),
            dimpl::Output::BufferTooSmall { .. } => Output::Failed(Failure::CertificateTooLong),
            dimpl::Output::PeerCert(der) => Output::Certificate(der.to_vec()),
            dimpl::Output::Connected => Output::Finished,
            dimpl::Output::KeyingMaterial(material, profile) => {
                let local = if self.engine.is_active() {
                    Role::Client
                } else {
                    Role::Server
                };
                Output::Keys(profile_of(profile).and_then(|profile| KeyingMaterial::split(profile, &material, local)))
            }
            dimpl::Output::CloseNotify => Output::Goodbye,
            dimpl::Output::Timeout(at) => {
                Output::Idle(Some(self.clock.time(at)).filter(|at| *at < self.now + TIMER_MAX))
            }
            // Data channels are not for us.
            _ => Output::Nothing,
        };
        if matches!(output, Output::Idle(_)) {
            // Sessions live long, and the next datagram is rare.
            self.buffer = Vec::new();
        }
        output
    }

    fn abort(&mut self, _: u8) -> bool {
        // It says nothing but goodbye, and that to those who are connected alone.
        self.engine.close().is_ok() && self.engine.is_closing()
    }

    fn close(&mut self) -> Result<(), Failure> {
        self.engine.close().map_err(failure)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err gives")]
fn failure(error: Error) -> Failure {
    match error {
        Error::SecurityError(SecurityError::FatalAlert { description }) => Failure::Alert(description),
        Error::Timeout(_) => Failure::Timeout,
        Error::CertificateError(
            CertificateError::NoClientCertificateReceived | CertificateError::NoServerCertificateReceived,
        ) => Failure::NoCertificate,
        Error::CertificateError(_) => Failure::UnsupportedCertificate,
        _ => Failure::Protocol,
    }
}

/// Our name of a profile; `None` for one that the library may learn some day.
fn profile_of(profile: dimpl::SrtpProfile) -> Option<Profile> {
    match profile {
        dimpl::SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
        dimpl::SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::Aes128CmSha1_80),
        _ => None,
    }
}
