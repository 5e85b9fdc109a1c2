//! Sources whose packets a worker is not to look at.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The most sources that are in quarantine at a worker. Each packet is compared with all of them.
pub const QUARANTINED_MAX: usize = 32;

/// A source in quarantine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct QuarantinedSource {
    /// Its address.
    pub ip: IpAddr,
    /// Its port. `None`: whatever the port, but only where anybody is heard, because others may be behind the same address.
    pub port: Option<u16>,
}

impl QuarantinedSource {
    /// Whether a packet is to be dropped. `is_open`: it came to where anybody is heard.
    #[inline]
    pub fn covers(&self, source: SocketAddr, is_open: bool) -> bool {
        // A socket for both protocols writes IPv4 addresses as IPv6 ones.
        source.ip().to_canonical() == self.ip.to_canonical() && self.port.map_or(is_open, |port| port == source.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_an_address_is_spared_where_only_its_own_peer_is_heard() {
        let ip = IpAddr::from([192, 0, 2, 1]);
        let exactly = QuarantinedSource { ip, port: Some(7) };
        let anybody = QuarantinedSource { ip, port: None };
        let [source, neighbour]: [SocketAddr; 2] = [(ip, 7).into(), (ip, 8).into()];
        assert!(exactly.covers(source, true) && exactly.covers(source, false));
        assert!(!exactly.covers(neighbour, true));
        assert!(anybody.covers(source, true) && anybody.covers(neighbour, true));
        assert!(!anybody.covers(source, false));
        assert!(exactly.covers("[::ffff:192.0.2.1]:7".parse().unwrap(), false));
        assert!(!exactly.covers("192.0.2.2:7".parse().unwrap(), true));
    }
}
