//! Which of the connections that have proven nothing is closed when there is no room for another one.
//!
//! Whoever fills the room has more connections than the others. So the oldest connection of the site that has most of them is
//! closed, and, within a site, of the network that has most. Who comes with one connection gets in while another one comes with thousands.

use std::net::IpAddr;

use crate::time::Time;

/// What somebody has to himself: a site, and one of its networks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    /// An IPv4 address, or the /48 of an IPv6 address, which is what one customer may have (RFC 6177 §2).
    site: (bool, u128),
    /// The same, or the /64 of one link.
    network: u128,
}

impl Origin {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self {
                site: (false, u128::from(v4.to_bits())),
                network: 0,
            },
            IpAddr::V6(v6) => Self {
                site: (true, v6.to_bits() >> 80),
                network: v6.to_bits() >> 64,
            },
        }
    }
}

/// The longest of the groups of connections; of those that are as long as each other, the one that was there first.
fn fullest<'a, K>(groups: impl Iterator<Item = &'a [(Origin, Time, K)]>) -> Option<&'a [(Origin, Time, K)]> {
    groups.min_by_key(|group| {
        let oldest = group.iter().map(|(_, accepted_at, _)| *accepted_at).min();
        (std::cmp::Reverse(group.len()), oldest)
    })
}

/// The connection to be closed, of connections with the IP of their other end and the time at which they were accepted; `None` if
/// there are none.
pub(super) fn to_evict<K: Copy>(unproven: impl Iterator<Item = (K, IpAddr, Time)>) -> Option<K> {
    let mut all: Vec<_> = unproven
        .map(|(key, ip, accepted_at)| (Origin::of(ip), accepted_at, key))
        .collect();
    all.sort_by_key(|(origin, accepted_at, _)| (*origin, *accepted_at));
    let site = fullest(all.chunk_by(|(one, ..), (other, ..)| one.site == other.site))?;
    let network = fullest(site.chunk_by(|(one, ..), (other, ..)| one == other))?;
    network.first().map(|(.., key)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evicted(connections: &[(&str, u64)]) -> Option<usize> {
        let numbered = connections.iter().enumerate();
        to_evict(numbered.map(|(number, (ip, ms))| (number, ip.parse().unwrap(), Time::from_millis(*ms))))
    }

    #[test]
    fn the_oldest_of_the_network_that_has_most_makes_room() {
        type Row<'a> = (&'a [(&'a str, u64)], Option<usize>);
        let rows: [Row<'_>; 8] = [
            (&[], None),
            (&[("192.0.2.1", 5)], Some(0)),
            // An honest one that has waited for longer.
            (&[("192.0.2.1", 1), ("192.0.2.9", 3), ("192.0.2.9", 2)], Some(2)),
            // One of each: the oldest.
            (&[("192.0.2.1", 3), ("192.0.2.2", 1), ("192.0.2.3", 2)], Some(1)),
            // Addresses are cheap where there are many.
            (
                &[("2001:db8:1::1", 1), ("2001:db8:2::1", 2), ("2001:db8:2::2", 3)],
                Some(1),
            ),
            // So are networks, where there is a site full of them: against one connection of another site's, and two.
            (
                &[
                    ("2001:db8:9::1", 1),
                    ("2001:db8:1:1::1", 4),
                    ("2001:db8:1:2::1", 3),
                    ("2001:db8:1:3::1", 5),
                ],
                Some(2),
            ),
            (
                &[
                    ("2001:db8:9::1", 1),
                    ("2001:db8:9::2", 2),
                    ("2001:db8:1:1::1", 4),
                    ("2001:db8:1:2::1", 6),
                    ("2001:db8:1:2::2", 5),
                ],
                Some(4),
            ),
            (&[("192.0.2.1", 1), ("::ffff:192.0.2.9", 2), ("192.0.2.9", 3)], Some(1)),
        ];
        for (connections, expected) in rows {
            assert_eq!(evicted(connections), expected, "{connections:?}");
        }
    }

    /// 463 connections a second kept everybody else out of ten places.
    #[test]
    fn an_honest_one_stays_while_another_host_goes_on_connecting() {
        let mut places: Vec<(IpAddr, Time, bool)> = vec![("192.0.2.1".parse().unwrap(), Time::from_millis(0), true)];
        for ms in 0..5_000 {
            places.push(("198.51.100.66".parse().unwrap(), Time::from_millis(ms), false));
            if places.len() > 10 {
                let all = places.iter().enumerate();
                let number = to_evict(all.map(|(number, (ip, at, _))| (number, *ip, *at))).unwrap();
                assert!(!places.remove(number).2);
            }
        }
    }
}
