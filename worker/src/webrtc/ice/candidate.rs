//! Host candidates: the addresses that a peer may send to, and in which order it should try them.

use std::net::IpAddr;

use super::tuple::Protocol;

/// A socket that waits for a transport's peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    /// UDP, or TCP that the peer connects to.
    pub protocol: Protocol,
    /// The address it is bound to.
    pub ip: IpAddr,
    /// The port it is bound to.
    pub port: u16,
    /// The address that peers reach it under, where a router in between translates addresses.
    pub announced_ip: Option<IpAddr>,
}

/// What the application would rather have used. Nothing is ruled out by it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Preferences {
    /// IPv4 before IPv6.
    pub ipv4: bool,
    /// IPv6 before IPv4.
    pub ipv6: bool,
    /// UDP before TCP.
    pub udp: bool,
    /// TCP before UDP.
    pub tcp: bool,
}

/// A host candidate of component 1 (RFC 8445 §5.1). Over TCP it is passive (RFC 6544 §4.5): the peer connects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Candidates of the same kind have the same.
    pub foundation: &'static str,
    /// Higher is tried first.
    pub priority: u32,
    /// Where the peer sends.
    pub ip: IpAddr,
    /// Where the peer sends.
    pub port: u16,
    /// How the peer sends.
    pub protocol: Protocol,
}

/// The type preference of RFC 8445 §5.1.2.1. RFC 8445 would give host candidates 126; existing clients of the API know 64,
/// and with nothing but host candidates only the order among them matters.
const TYPE_PREFERENCE: u32 = 64;

/// RTP and RTCP share the component.
const COMPONENT: u32 = 1;

const LOCAL_PREFERENCE: u32 = 20_000;
const LOCAL_PREFERENCE_FAMILY: u32 = 10_000;
const LOCAL_PREFERENCE_PROTOCOL: u32 = 5_000;

/// The candidates for these sockets, in their order.
pub fn host_candidates(listeners: &[Listener], preferences: Preferences) -> Vec<Candidate> {
    listeners
        .iter()
        .map(|listener| Candidate {
            foundation: match listener.protocol {
                Protocol::Udp => "udpcandidate",
                Protocol::Tcp => "tcpcandidate",
            },
            priority: priority(listener, preferences),
            ip: listener.announced_ip.unwrap_or(listener.ip),
            port: listener.port,
            protocol: listener.protocol,
        })
        .collect()
}

/// RFC 8445 §5.1.2.1, with a local preference made of what the application would rather have.
fn priority(listener: &Listener, preferences: Preferences) -> u32 {
    let family = match listener.ip.to_canonical() {
        IpAddr::V4(_) => preferences.ipv4,
        IpAddr::V6(_) => preferences.ipv6,
    };
    let protocol = match listener.protocol {
        Protocol::Udp => preferences.udp,
        Protocol::Tcp => preferences.tcp,
    };
    let local_preference = LOCAL_PREFERENCE
        + if family { LOCAL_PREFERENCE_FAMILY } else { 0 }
        + if protocol { LOCAL_PREFERENCE_PROTOCOL } else { 0 };
    (TYPE_PREFERENCE << 24) + (local_preference << 8) + (256 - COMPONENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(protocol: Protocol, ip: &str, announced: Option<&str>) -> Listener {
        Listener {
            protocol,
            ip: ip.parse().unwrap(),
            port: 40_432,
            announced_ip: announced.map(|ip| ip.parse().unwrap()),
        }
    }

    #[test]
    fn priorities_are_those_that_clients_know() {
        let v4_udp = listener(Protocol::Udp, "127.0.0.1", None);
        let v4_tcp = listener(Protocol::Tcp, "127.0.0.1", None);
        let v6_udp = listener(Protocol::Udp, "::1", None);
        let v6_tcp = listener(Protocol::Tcp, "::1", None);
        let none = Preferences::default();
        // Without a preference this is what a deployed server of this API announces.
        assert_eq!(priority(&v4_udp, none), 1_078_862_079);
        let all = [v4_udp, v4_tcp, v6_udp, v6_tcp];
        let rows = [
            (none, [20_000, 20_000, 20_000, 20_000]),
            (Preferences { ipv4: true, ..none }, [30_000, 30_000, 20_000, 20_000]),
            (Preferences { ipv6: true, ..none }, [20_000, 20_000, 30_000, 30_000]),
            (Preferences { udp: true, ..none }, [25_000, 20_000, 25_000, 20_000]),
            (
                Preferences {
                    ipv6: true,
                    tcp: true,
                    ..none
                },
                [20_000, 25_000, 30_000, 35_000],
            ),
        ];
        for (preferences, local) in rows {
            let priorities = host_candidates(&all, preferences);
            for (candidate, local) in priorities.iter().zip(local) {
                assert_eq!(candidate.priority, (64 << 24) + (local << 8) + 255, "{preferences:?}");
            }
        }
    }

    #[test]
    fn the_announced_address_is_told_instead() {
        let listeners = [
            listener(Protocol::Udp, "10.0.0.7", Some("203.0.113.9")),
            listener(Protocol::Tcp, "fd00::7", None),
        ];
        let candidates = host_candidates(&listeners, Preferences::default());
        assert_eq!(
            candidates[0],
            Candidate {
                foundation: "udpcandidate",
                priority: 1_078_862_079,
                ip: "203.0.113.9".parse().unwrap(),
                port: 40_432,
                protocol: Protocol::Udp,
            }
        );
        assert_eq!(
            (candidates[1].foundation, candidates[1].ip),
            ("tcpcandidate", "fd00::7".parse().unwrap())
        );
    }
}
