//! Places for connections: those of callers who have shown that they may command the server, and those of strangers.
//!
//! A stranger's place is taken away when others need one: whoever opens hundreds of connections and says nothing on them
//! displaces itself. Callers who have sent the right token, and processes on the control socket, keep theirs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::listen::{Caller, Limits};
use crate::server::lock;

/// Where connections come from, as far as one host can choose: an IPv4 address, or the first 64 bits of an IPv6 address
/// (RFC 4291 §2.5.4: a host has all addresses of such a network).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Network(IpAddr);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
            v4 => v4,
        })
    }
}

/// The places of one listener.
pub(super) struct Places {
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    table: Arc<Mutex<Table>>,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            known: Arc::new(Semaphore::new(limits.connections)),
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            table: Arc::new(Mutex::new(Table {
                all_max: limits.strangers,
                network_max: limits.strangers_per_network,
                ..Table::default()
            })),
        }
    }

    /// A place for a new connection. Processes of this machine wait for one; for a stranger another one gives way.
    pub(super) async fn take(&self, caller: Caller) -> Option<Arc<Place>> {
        let evicted = Arc::new(Notify::new());
        let (holding, permits) = match caller {
            Caller::Process(_) => (None, &self.known),
            Caller::Remote(address) => {
                let number = lock(&self.table).add(Network::of(address.ip()), Arc::clone(&evicted));
                (Some(number), &self.strangers)
            }
        };
        let place = Place {
            known: Arc::clone(&self.known),
            table: Arc::clone(&self.table),
            stranger: holding,
            permit: Mutex::new(None),
            evicted,
        };
        // The semaphore is never closed, so there always is a permit in the end.
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        *lock(&place.permit) = Some(permit);
        Some(Arc::new(place))
    }
}

/// A connection's place; free again when it is dropped.
pub(super) struct Place {
    known: Arc<Semaphore>,
    table: Arc<Mutex<Table>>,
    /// The number in the table, for one that came as a stranger.
    stranger: Option<u64>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    evicted: Arc<Notify>,
}

impl Place {
    /// The caller has shown that it may command the server: the connection is a stranger's no more, if there is a place for
    /// it among the others. Otherwise it goes on as it is.
    pub(super) fn prove(&self) {
        let Some(number) = self.stranger else {
            return;
        };
        if !lock(&self.table).contains(number) {
            return;
        }
        if let Ok(permit) = Arc::clone(&self.known).try_acquire_owned()
            && lock(&self.table).remove(number)
        {
            *lock(&self.permit) = Some(permit);
        }
    }

    /// Ends when another connection needs the place.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = self.stranger {
            lock(&self.table).remove(number);
        }
    }
}

/// The strangers' connections, numbered by age.
#[derive(Default)]
struct Table {
    all_max: usize,
    network_max: usize,
    last: u64,
    connections: BTreeMap<u64, (Network, Arc<Notify>)>,
    by_network: HashMap<Network, BTreeSet<u64>>,
}

impl Table {
    /// Takes up a connection, after it has made room for it.
    fn add(&mut self, network: Network, evicted: Arc<Notify>) -> u64 {
        if self.of(network) >= self.network_max {
            self.evict_oldest_of(network);
        } else if self.connections.len() >= self.all_max {
            let most = self.by_network.iter().max_by_key(|(_, numbers)| numbers.len());
            if let Some((&network, _)) = most {
                self.evict_oldest_of(network);
            }
        }
        self.last += 1;
        self.connections.insert(self.last, (network, evicted));
        self.by_network.entry(network).or_default().insert(self.last);
        self.last
    }

    fn of(&self, network: Network) -> usize {
        self.by_network.get(&network).map_or(0, BTreeSet::len)
    }

    fn contains(&self, number: u64) -> bool {
        self.connections.contains_key(&number)
    }

    fn evict_oldest_of(&mut self, network: Network) {
        let oldest = self.by_network.get(&network).and_then(BTreeSet::first).copied();
        let Some(oldest) = oldest else { return };
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
        if let Some(numbers) = self.by_network.get_mut(&network) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_network.remove(&network);
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
    }

    /// A table, and what was said to each connection.
    struct Scene(Table, Vec<Arc<Notify>>);

    impl Scene {
        fn new(all_max: usize, network_max: usize) -> Self {
            let table = Table {
                all_max,
                network_max,
                ..Table::default()
            };
            Self(table, Vec::new())
        }

        fn add(&mut self, address: &str) {
            self.1.push(Arc::default());
            self.0.add(network(address), Arc::clone(self.1.last().unwrap()));
        }

        /// Which connections have been told to go since the last call, counted from 0.
        fn evicted(&self) -> Vec<usize> {
            let evicted = self.1.iter().enumerate();
            let evicted = evicted.filter(|(_, evicted)| evicted.notified().now_or_never().is_some());
            evicted.map(|(index, _)| index).collect()
        }
    }

    #[test]
    fn whoever_has_most_connections_loses_its_oldest() {
        let mut scene = Scene::new(5, 4);
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.2", "192.0.2.1"] {
            scene.add(address);
        }
        assert_eq!(scene.evicted(), [0_usize; 0]);
        scene.add("192.0.2.3");
        assert_eq!(scene.evicted(), [1]);
        assert_eq!(scene.0.connections.len(), 5);
    }

    #[test]
    fn one_host_displaces_only_itself() {
        let mut scene = Scene::new(100, 3);
        scene.add("192.0.2.1");
        for _ in 0..50 {
            scene.add("2001:db8::1");
            scene.add("2001:db8::2");
        }
        let evicted = scene.evicted();
        assert!(evicted.len() == 97 && !evicted.contains(&0), "{evicted:?}");
    }

    #[test]
    fn nothing_is_left_of_those_who_are_gone() {
        let mut scene = Scene::new(5, 4);
        scene.add("192.0.2.1");
        assert!(scene.0.remove(1) && !scene.0.remove(1));
        assert!(scene.0.connections.is_empty() && scene.0.by_network.is_empty());
    }

    fn limits(connections: usize, strangers: usize) -> Limits {
        Limits {
            connections,
            strangers,
            strangers_per_network: strangers,
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn whoever_has_proved_it_is_displaced_by_nobody() {
        let places = Places::new(&limits(1, 2));
        let remote = Caller::Remote("192.0.2.1:5".parse().unwrap());
        let operator = places.take(remote).await.unwrap();
        operator.prove();
        operator.prove();
        let second = places.take(remote).await.unwrap();
        // There is no place for another one, so it stays a stranger.
        second.prove();
        let mut strangers = vec![second];
        for _ in 0..10 {
            let taken = places.take(remote);
            let mut taken = std::pin::pin!(taken);
            let Some(place) = taken.as_mut().now_or_never() else {
                // As a connection does that has to go.
                strangers[0].evicted().await;
                strangers.remove(0);
                strangers.push(taken.await.unwrap());
                continue;
            };
            strangers.push(place.unwrap());
        }
        assert_eq!(strangers.len(), 2);
        assert!(operator.evicted().now_or_never().is_none());
        drop(operator);
        strangers[1].prove();
        assert_eq!(places.known.available_permits(), 0);
        assert_eq!(lock(&places.table).connections.len(), 1);
    }
}
