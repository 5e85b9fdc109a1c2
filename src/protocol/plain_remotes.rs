//! To which addresses a client may have plain RTP sent.

use std::net::IpAddr;

use super::ProtocolError;
use crate::Peer;
use crate::server::lock;

/// To which addresses a client may have plain RTP sent, when it says where it receives. Without a limit whoever may join a
/// room can aim what is sent in it at anybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PlainRemotes {
    /// To any: the application has looked at what its clients say, or trusts them.
    #[default]
    Any,
    /// To this address, whatever the port.
    Only(IpAddr),
    /// To none; a transport learns its remote from what comes in.
    None,
}

impl PlainRemotes {
    pub(super) fn check(self, ip: IpAddr) -> Result<(), ProtocolError> {
        match self {
            Self::Any => Ok(()),
            Self::Only(own) if own.to_canonical() == ip.to_canonical() => Ok(()),
            Self::Only(own) => Err(ProtocolError::type_error(format!(
                "plainRtpParameters.ip must be {own}, where this client is, or be left out"
            ))),
            Self::None => Err(ProtocolError::type_error(
                "plainRtpParameters must have no ip and port: clients of this server cannot say where media is sent to",
            )),
        }
    }
}

impl Peer {
    /// Says to which addresses its client may have plain RTP sent from now on: at first to [any](PlainRemotes::Any). What the
    /// application itself sends somewhere is not limited.
    pub fn set_plain_remotes(&self, remotes: PlainRemotes) {
        *lock(&self.client_state().plain_remotes) = remotes;
    }

    pub(super) fn plain_remotes(&self) -> PlainRemotes {
        *lock(&self.client_state().plain_remotes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_in_both_families() {
        let check = |remotes: PlainRemotes, ip: &str, permitted: bool| {
            let result = remotes.check(ip.parse().unwrap());
            assert_eq!(result.is_ok(), permitted, "{remotes:?} {ip}: {result:?}");
        };
        let own = |ip: &str| PlainRemotes::Only(ip.parse().unwrap());
        check(PlainRemotes::Any, "192.0.2.1", true);
        check(PlainRemotes::None, "192.0.2.1", false);
        check(own("192.0.2.1"), "192.0.2.1", true);
        check(own("192.0.2.1"), "::ffff:192.0.2.1", true);
        check(own("::ffff:192.0.2.1"), "192.0.2.1", true);
        check(own("192.0.2.1"), "192.0.2.2", false);
        check(own("2001:db8::1"), "2001:db8::2", false);
    }
}
