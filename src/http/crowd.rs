//! Connections that have to give way to others, and which of them does: an old one of whoever has most.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::server::lock;

/// Bits of an IPv6 address that name a site: the longest prefix that a site is usually given (RFC 6177 §2).
const SITE_BITS: u32 = 48;

/// Bits of an IPv6 address that name a network: a host has all addresses of such a one (RFC 4291 §2.5.4).
const NETWORK_BITS: u32 = 64;

/// Where connections come from, as far as one host can choose: an IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Network(IpAddr);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(first_bits(address, NETWORK_BITS))
    }

    /// Where it is, as far as one subscriber can choose: an IPv4 address, or the first 48 bits of an IPv6 address.
    fn site(self) -> Self {
        Self(first_bits(self.0, SITE_BITS))
    }
}

fn first_bits(address: IpAddr, bits: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> bits)).into(),
        v4 => v4,
    }
}

/// Connections of which only so many may be, in all and of each network.
#[derive(Debug)]
pub(super) struct Crowd {
    all_max: usize,
    network_max: usize,
    table: Mutex<Table>,
}

impl Crowd {
    pub(super) fn new(all_max: usize, network_max: usize) -> Arc<Self> {
        Arc::new(Self {
            all_max,
            network_max,
            table: Mutex::default(),
        })
    }

    /// Takes up a connection, after another one has been told to give way to it if it has to.
    pub(super) fn enter(self: &Arc<Self>, network: Network) -> Standing {
        let evicted = Arc::new(Notify::new());
        let mut table = self.table();
        if table.count(network) >= self.network_max {
            table.evict_oldest_of(network);
        } else if table.connections.len() >= self.all_max {
            table.evict_one();
        }
        Standing {
            crowd: Arc::clone(self),
            number: table.add(network, Arc::clone(&evicted)),
            evicted,
        }
    }

    /// Tells one to go; whether there was one.
    pub(super) fn evict_one(&self) -> bool {
        self.table().evict_one()
    }

    /// Its number.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table().connections.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

/// A connection's part in a crowd, until it is dropped.
#[derive(Debug)]
pub(super) struct Standing {
    crowd: Arc<Crowd>,
    number: u64,
    evicted: Arc<Notify>,
}

impl Standing {
    /// Ends when the connection has to give way.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Whether it is still part of the crowd: not told to give way.
    pub(super) fn stands(&self) -> bool {
        self.crowd.table().connections.contains_key(&self.number)
    }

    /// It has to give way to nobody any more. Returns whether it had not been told to already.
    pub(super) fn leave(&self) -> bool {
        self.crowd.table().remove(self.number)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The connections, numbered by age.
#[derive(Debug, Default)]
struct Table {
    last: u64,
    connections: BTreeMap<u64, (Network, Arc<Notify>)>,
    by_site: HashMap<Network, Site>,
}

/// Those of one site.
#[derive(Debug, Default)]
struct Site {
    count: usize,
    by_network: HashMap<Network, BTreeSet<u64>>,
}

impl Table {
    fn add(&mut self, network: Network, evicted: Arc<Notify>) -> u64 {
        self.last += 1;
        self.connections.insert(self.last, (network, evicted));
        let site = self.by_site.entry(network.site()).or_default();
        site.count += 1;
        site.by_network.entry(network).or_default().insert(self.last);
        self.last
    }

    fn of(&self, network: Network) -> Option<&BTreeSet<u64>> {
        self.by_site.get(&network.site())?.by_network.get(&network)
    }

    fn count(&self, network: Network) -> usize {
        self.of(network).map_or(0, BTreeSet::len)
    }

    /// Tells the oldest one to go of the fullest network of the fullest site. A site has 65,536 networks to choose from, so the fullest
    /// network alone could be anybody's.
    fn evict_one(&mut self) -> bool {
        let site = self.by_site.values().max_by_key(|site| site.count);
        let networks = site.and_then(|site| site.by_network.iter().max_by_key(|(_, numbers)| numbers.len()));
        let Some((&network, _)) = networks else {
            return false;
        };
        self.evict_oldest_of(network);
        true
    }

    fn evict_oldest_of(&mut self, network: Network) {
        let Some(oldest) = self.of(network).and_then(BTreeSet::first).copied() else {
            return;
        };
        if let Some((_, evicted)) = self.connections.get(&oldest) {
            // Kept for a connection that does not wait for it yet.
            evicted.notify_one();
        }
        self.remove(oldest);
    }

    /// Whether it was there.
    fn remove(&mut self, number: u64) -> bool {
        let Some((network, _)) = self.connections.remove(&number) else {
            return false;
        };
        if let Some(site) = self.by_site.get_mut(&network.site()) {
            site.count -= 1;
            if let Some(numbers) = site.by_network.get_mut(&network) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    site.by_network.remove(&network);
                }
            }
            if site.count == 0 {
                self.by_site.remove(&network.site());
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn network(address: &str) -> Network {
        Network::of(address.parse().unwrap())
    }

    #[test]
    fn a_host_with_many_addresses_is_one() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8::1").site(), network("2001:db8:0:1::1").site());
        assert_ne!(network("2001:db8::1").site(), network("2001:db8:1::1").site());
        assert_ne!(network("192.0.2.1").site(), network("192.0.2.2").site());
    }

    /// A crowd, and those that have entered it.
    struct Scene(Arc<Crowd>, Vec<Standing>);

    impl Scene {
        fn new(all_max: usize, network_max: usize) -> Self {
            Self(Crowd::new(all_max, network_max), Vec::new())
        }

        fn enter(&mut self, address: &str) {
            self.1.push(self.0.enter(network(address)));
        }

        /// Which have been told to go since the last call, counted from 0.
        fn evicted(&self) -> Vec<usize> {
            let evicted = self.1.iter().enumerate();
            let evicted = evicted.filter(|(_, standing)| standing.evicted().now_or_never().is_some());
            evicted.map(|(index, _)| index).collect()
        }
    }

    #[test]
    fn whoever_has_most_connections_loses_its_oldest() {
        let mut scene = Scene::new(5, 4);
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.2", "192.0.2.1"] {
            scene.enter(address);
        }
        assert_eq!(scene.evicted(), [0_usize; 0]);
        scene.enter("192.0.2.3");
        assert_eq!(scene.evicted(), [1]);
        assert_eq!(scene.0.table().connections.len(), 5);
        assert!(scene.0.evict_one());
        assert_eq!(scene.0.count(), 4);
    }

    #[test]
    fn a_site_with_many_networks_displaces_itself_too() {
        let mut scene = Scene::new(10, 5);
        for address in ["192.0.2.1", "192.0.2.1", "192.0.2.1"] {
            scene.enter(address);
        }
        // One connection from each network, and two from one of them.
        scene.enter("2001:db8:5:ffff::1");
        for number in 0..200 {
            scene.enter(&format!("2001:db8:5:{number:x}::1"));
            scene.enter("2001:db8:6::1");
            drop(scene.1.pop());
        }
        let evicted = scene.evicted();
        assert!(evicted.iter().all(|index| *index > 2), "{evicted:?}");
        assert_eq!(scene.0.table().connections.len(), 9);
    }

    #[test]
    fn one_host_displaces_only_itself() {
        let mut scene = Scene::new(100, 3);
        scene.enter("192.0.2.1");
        for _ in 0..50 {
            scene.enter("2001:db8::1");
            scene.enter("2001:db8::2");
        }
        let evicted = scene.evicted();
        assert!(evicted.len() == 97 && !evicted.contains(&0), "{evicted:?}");
    }

    #[test]
    fn nothing_is_left_of_those_who_are_gone() {
        let crowd = Crowd::new(5, 4);
        let standing = crowd.enter(network("192.0.2.1"));
        let other = crowd.enter(network("192.0.2.1"));
        assert!(standing.stands() && standing.leave() && !standing.leave() && !standing.stands());
        drop((standing, other));
        assert!(!crowd.evict_one());
        let table = crowd.table();
        assert!(table.connections.is_empty() && table.by_site.is_empty());
    }
}
