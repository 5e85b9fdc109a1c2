//! Host candidates: the addresses that a peer may send to, and in which order it should try them.

use std::net::IpAddr;

use super::Protocol;

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
    /// The same for candidates of one base, that is of one address and protocol (RFC 8445 §5.1.1.3). A number: there are clients
    /// that look for the protocol in the whole line of an SDP, and find it in a foundation that names one.
    pub foundation: u32,
    /// Higher is tried first. No other candidate has the same (RFC 8445 §5.1.2.1).
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
    let base = |listener: &Listener| (listener.ip.to_canonical(), listener.protocol);
    let mut bases = Vec::new();
    listeners
        .iter()
        .enumerate()
        .map(|(at, listener)| {
            let known = bases.iter().position(|known| *known == base(listener));
            let foundation = known.unwrap_or_else(|| {
                bases.push(base(listener));
                bases.len() - 1
            });
            Candidate {
                foundation: foundation as u32 + 1,
                priority: priority(listener, preferences, place(listeners, at)),
                ip: listener.announced_ip.unwrap_or(listener.ip),
                port: listener.port,
                protocol: listener.protocol,
            }
        })
        .collect()
}

/// How many others go first among those that are wanted alike: UDP before TCP (RFC 6544 §4.2), then as they are listed.
fn place(listeners: &[Listener], at: usize) -> u32 {
    let key = |at: usize| (listeners[at].protocol, at);
    (0..listeners.len()).filter(|other| key(*other) < key(at)).count() as u32
}

/// RFC 8445 §5.1.2.1, with a local preference made of what the application would rather have, and of the candidate's place
/// among those that are alike in that. There are a handful of them, and [`LOCAL_PREFERENCE_PROTOCOL`] is more.
fn priority(listener: &Listener, preferences: Preferences, place: u32) -> u32 {
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
        + if protocol { LOCAL_PREFERENCE_PROTOCOL } else { 0 }
        - place.min(LOCAL_PREFERENCE_PROTOCOL - 1);
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

    fn all() -> [Listener; 4] {
        [
            listener(Protocol::Udp, "127.0.0.1", None),
            listener(Protocol::Tcp, "127.0.0.1", None),
            listener(Protocol::Udp, "::1", None),
            listener(Protocol::Tcp, "::1", None),
        ]
    }

    /// What the application can prefer.
    fn any_preferences() -> impl Iterator<Item = Preferences> {
        (0..16_u8).map(|bits| Preferences {
            ipv4: bits & 1 != 0,
            ipv6: bits & 2 != 0,
            udp: bits & 4 != 0,
            tcp: bits & 8 != 0,
        })
    }

    #[test]
    fn priorities_are_those_that_clients_know() {
        let none = Preferences::default();
        // Without a preference this is what a deployed server of this API announces, for its first candidate.
        assert_eq!(host_candidates(&all(), none)[0].priority, 1_078_862_079);
        let rows = [
            (none, [20_000, 20_000 - 2, 20_000 - 1, 20_000 - 3]),
            (
                Preferences { ipv4: true, ..none },
                [30_000, 30_000 - 2, 20_000 - 1, 20_000 - 3],
            ),
            (
                Preferences { ipv6: true, ..none },
                [20_000, 20_000 - 2, 30_000 - 1, 30_000 - 3],
            ),
            (
                Preferences { udp: true, ..none },
                [25_000, 20_000 - 2, 25_000 - 1, 20_000 - 3],
            ),
            (
                Preferences {
                    ipv6: true,
                    tcp: true,
                    ..none
                },
                [20_000, 25_000 - 2, 30_000 - 1, 35_000 - 3],
            ),
        ];
        for (preferences, local) in rows {
            let priorities = host_candidates(&all(), preferences);
            for (candidate, local) in priorities.iter().zip(local) {
                assert_eq!(candidate.priority, (64 << 24) + (local << 8) + 255, "{preferences:?}");
            }
        }
    }

    /// RFC 8445 §5.1.2.1: the candidates of a component have priorities of their own; without a preference UDP goes before TCP.
    #[test]
    fn every_candidate_has_a_priority_of_its_own_and_preferences_decide() {
        for preferences in any_preferences() {
            let candidates = host_candidates(&all(), preferences);
            let mut priorities: Vec<u32> = candidates.iter().map(|candidate| candidate.priority).collect();
            priorities.sort_unstable();
            priorities.dedup();
            assert_eq!(priorities.len(), 4, "{preferences:?}");
            let first = candidates.iter().max_by_key(|candidate| candidate.priority).unwrap();
            let tcp_first = preferences.tcp && !preferences.udp;
            assert_eq!(first.protocol == Protocol::Tcp, tcp_first, "{preferences:?}");
            assert_eq!(
                first.ip.is_ipv6(),
                preferences.ipv6 && !preferences.ipv4,
                "{preferences:?}"
            );
        }
    }

    /// RFC 8445 §5.1.1.3: as many foundations as there are bases, address and protocol; §15.1 has their letters.
    #[test]
    fn every_base_has_a_foundation_of_its_own_and_names_no_protocol() {
        let mut listeners = all().to_vec();
        // The same base once more, on another port; and another address that is announced as the first one is.
        listeners.push(Listener {
            port: 40_433,
            ..listeners[2]
        });
        listeners.push(listener(Protocol::Udp, "10.0.0.7", Some("127.0.0.1")));
        let candidates = host_candidates(&listeners, Preferences::default());
        let foundations: Vec<u32> = candidates.iter().map(|candidate| candidate.foundation).collect();
        assert_eq!(foundations, [1, 2, 3, 4, 3, 5]);
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
                foundation: 1,
                priority: 1_078_862_079,
                ip: "203.0.113.9".parse().unwrap(),
                port: 40_432,
                protocol: Protocol::Udp,
            }
        );
        assert_eq!(
            (candidates[1].foundation, candidates[1].ip),
            (2, "fd00::7".parse().unwrap())
        );
    }
}
