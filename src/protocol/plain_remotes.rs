//! To which addresses a client may have plain RTP sent, and where its address is learned.

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
    /// To its own address alone, and nobody knows which that is. So nothing is sent, and no address is learned.
    Unknown,
}

impl PlainRemotes {
    pub(super) fn check(self, ip: IpAddr) -> Result<(), ProtocolError> {
        match self {
            Self::Any => Ok(()),
            Self::Only(own) if own.to_canonical() == ip.to_canonical() => Ok(()),
            Self::Only(own) => Err(ProtocolError::type_error(format!(
                "plainRtpParameters.ip must be {own}, where this client is, or be left out"
            ))),
            Self::None | Self::Unknown => Err(ProtocolError::type_error(
                "plainRtpParameters must have no ip and port: clients of this server cannot say where media is sent to",
            )),
        }
    }

    /// The only IP at which the address of its transports may be learned; `None`: anywhere. Who may have media sent to itself alone
    /// must not have somebody else's packet lead it elsewhere.
    pub(super) fn learned_from(self) -> Result<Option<IpAddr>, ProtocolError> {
        match self {
            Self::Any | Self::None => Ok(None),
            Self::Only(own) => Ok(Some(own.to_canonical())),
            Self::Unknown => Err(ProtocolError::type_error(
                "there can be no transport for plain RTP: where this client is, is not known",
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
        check(PlainRemotes::Unknown, "192.0.2.1", false);
    }

    #[test]
    fn who_may_be_sent_to_at_one_address_is_learned_there_only() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mapped = PlainRemotes::Only(ip("::ffff:192.0.2.1"));
        assert_eq!(mapped.learned_from().unwrap(), Some(ip("192.0.2.1")));
        assert_eq!(PlainRemotes::Any.learned_from().unwrap(), None);
        assert_eq!(PlainRemotes::None.learned_from().unwrap(), None);
        assert!(PlainRemotes::Unknown.learned_from().is_err());
    }
}
