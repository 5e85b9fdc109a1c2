//! Chooses the engine for each session of a worker.

use std::sync::Arc;

use crate::time::Time;
use crate::webrtc::dtls::Role;
use crate::webrtc::dtls::certificate::Certificate;
use crate::webrtc::dtls::clock::Clock;
use crate::webrtc::dtls::failure::Failure;
use crate::webrtc::dtls::settings::{Settings, Versions};

use super::{Engine, dimpl, dtls12};

/// What the engines of a worker share.
pub(in crate::webrtc::dtls) struct Factory {
    dtls12: Arc<dtls12::Shared>,
    /// `None` if DTLS 1.3 is not spoken: it is not asked for, or our key is one that the library has no use for.
    dimpl: Option<dimpl::Shared>,
}

impl Factory {
    pub(in crate::webrtc::dtls) fn new(certificate: &Certificate, clock: Clock, settings: Settings) -> Self {
        let dimpl = match settings.versions {
            Versions::Dtls12 => None,
            Versions::Dtls12And13 => dimpl::Shared::new(certificate, clock, settings),
        };
        Self {
            dtls12: Arc::new(dtls12::Shared::new(certificate, settings, dimpl.is_some())),
            dimpl,
        }
    }

    /// An engine for one session. A client that may speak DTLS 1.3 says so before it knows what its server speaks.
    pub(in crate::webrtc::dtls) fn engine(&self, now: Time, role: Role) -> Result<Box<dyn Engine>, Failure> {
        match (&self.dimpl, role) {
            (Some(dimpl), Role::Client) => Ok(dimpl.client(now)),
            _ => Ok(self.dtls12.engine(now, role)),
        }
    }

    /// An engine for a client whose hello was [`Output::Newer`].
    pub(in crate::webrtc::dtls) fn newer(&self, now: Time) -> Result<Box<dyn Engine>, Failure> {
        Ok(self.dimpl.as_ref().ok_or(Failure::Internal)?.server(now))
    }
}
