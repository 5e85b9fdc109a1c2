//! DTLS by the `dimpl` crate.

use std::sync::Arc;

use dimpl::{Dtls, Error, SecurityError};

use crate::time::Time;
use crate::webrtc::dtls::Role;
use crate::webrtc::dtls::certificate::Certificate;
use crate::webrtc::dtls::clock::Clock;
use crate::webrtc::dtls::keys::{SrtpKeys, SrtpProfile};
use crate::webrtc::dtls::session::{
    DATAGRAMS_HELD_MAX, Failure, HANDSHAKE_TIME_MAX, MTU_BYTES, RETRANSMISSION_TIME, RETRANSMISSIONS_MAX, Settings,
    Versions,
};

use super::{Engine, Output};

pub(in crate::webrtc::dtls) struct Shared {
    config: Arc<dimpl::Config>,
    certificate: dimpl::DtlsCertificate,
    clock: Clock,
    versions: Versions,
}

impl Shared {
    pub(super) fn new(certificate: &Certificate, clock: Clock, settings: Settings) -> Self {
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
            .handshake_timeout(HANDSHAKE_TIME_MAX)
            .build()
            .expect("the configuration is one that the library knows");
        Self {
            config: Arc::new(config),
            certificate: certificate.to_library(),
            clock,
            versions: settings.versions,
        }
    }

    pub(super) fn engine(&self, now: Time, role: Role) -> Box<dyn Engine> {
        let now = self.clock.instant(now);
        let (config, certificate) = (Arc::clone(&self.config), self.certificate.clone());
        let mut engine = match self.versions {
            Versions::Dtls12 => Dtls::new_12(config, certificate, now),
            Versions::Dtls12And13 => Dtls::new_auto(config, certificate, now),
        };
        engine.set_active(role == Role::Client);
        Box::new(Dimpl {
            engine,
            clock: self.clock,
        })
    }
}

/// The library, and its time.
#[derive(Debug)]
struct Dimpl {
    engine: Dtls,
    clock: Clock,
}

impl Engine for Dimpl {
    fn handle_datagram(&mut self, datagram: &[u8]) -> Result<(), Failure> {
        self.engine.handle_packet(datagram).map_err(failure)
    }

    fn handle_time(&mut self, now: Time) -> Result<(), Failure> {
        self.engine.handle_timeout(self.clock.instant(now)).map_err(failure)
    }

    fn poll<'a>(&mut self, buffer: &'a mut [u8]) -> Output<'a> {
        match self.engine.poll_output(buffer) {
            dimpl::Output::Packet(datagram) => Output::Datagram(datagram),
            dimpl::Output::BufferTooSmall { needed } => Output::NeedsRoom(needed),
            dimpl::Output::PeerCert(der) => Output::Certificate(der),
            dimpl::Output::Connected => Output::Finished,
            dimpl::Output::KeyingMaterial(material, profile) => {
                let local = if self.engine.is_active() {
                    Role::Client
                } else {
                    Role::Server
                };
                Output::Keys(profile_of(profile).and_then(|profile| SrtpKeys::from_exported(profile, &material, local)))
            }
            dimpl::Output::CloseNotify => Output::Goodbye,
            dimpl::Output::Timeout(at) => Output::Idle(Some(self.clock.time(at))),
            // Data channels are not for us.
            _ => Output::Nothing,
        }
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
        _ => Failure::Protocol,
    }
}

/// Our name of a profile; `None` for one that the library may learn some day.
fn profile_of(profile: dimpl::SrtpProfile) -> Option<SrtpProfile> {
    match profile {
        dimpl::SrtpProfile::AEAD_AES_256_GCM => Some(SrtpProfile::AeadAes256Gcm),
        dimpl::SrtpProfile::AEAD_AES_128_GCM => Some(SrtpProfile::AeadAes128Gcm),
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => Some(SrtpProfile::Aes128CmSha1_80),
        _ => None,
    }
}
