//! Which ports are taken (pure).
//!
//! A port is looked for from a random start, so that a port just freed is not the next one given away: late packets of
//! its former user would reach somebody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::settings::PortRange;

/// The ports of each local address that transports of this server have.
#[derive(Debug)]
pub(crate) struct Ports {
    range: PortRange,
    taken: Mutex<HashMap<IpAddr, TakenPorts>>,
}

/// How many ports in a row a transport needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PortCount {
    /// RTP and RTCP on one.
    One,
    /// RTP on an even port, RTCP on the one above it (RFC 3550 §11).
    Pair,
}

/// The right to use a port, and the one above it if it is a pair. Dropping it gives them back; drop the sockets first.
#[derive(Debug)]
pub(crate) struct PortLease {
    ports: Arc<Ports>,
    ip: IpAddr,
    first: u16,
    count: PortCount,
}

impl Ports {
    pub(crate) fn new(range: PortRange) -> Arc<Self> {
        Arc::new(Self {
            range,
            taken: Mutex::default(),
        })
    }

    /// The error when an address has no free port left.
    pub(crate) fn exhausted(&self, ip: IpAddr) -> Error {
        let range = self.range;
        Error::PortsExhausted { ip, range }
    }

    /// Leases, one after the other, every free port (or pair) once, from a random start. Each is taken while the caller
    /// tries it and free again when dropped.
    pub(crate) fn search(
        self: &Arc<Self>,
        ip: IpAddr,
        count: PortCount,
        random: u64,
    ) -> impl Iterator<Item = PortLease> {
        candidates(self.range, count, random)
            .filter(move |first| lock(&self.taken).entry(ip).or_default().take(*first, count))
            .map(move |first| PortLease {
                ports: Arc::clone(self),
                ip,
                first,
                count,
            })
    }

    /// Leases a port (or pair) that was asked for; `None`: it is taken.
    ///
    /// # Errors
    /// Why there can be no such port.
    pub(crate) fn lease(
        self: &Arc<Self>,
        ip: IpAddr,
        first: u16,
        count: PortCount,
    ) -> Result<Option<PortLease>, String> {
        let (range, is_pair) = (self.range, count == PortCount::Pair);
        let last = u32::from(first) + u32::from(is_pair);
        if first < range.min() || last > u32::from(range.max()) {
            let what = if is_pair {
                "port, with the one above it for RTCP,"
            } else {
                "port"
            };
            return Err(format!("the {what} must be one of rtc_ports, {range}; {first} is not"));
        }
        if is_pair && first % 2 == 1 {
            return Err(format!(
                "port {first} is odd: with RTCP on a port of its own, RTP has an even one and RTCP the one above"
            ));
        }
        let is_free = lock(&self.taken).entry(ip).or_default().take(first, count);
        Ok(is_free.then(|| PortLease {
            ports: Arc::clone(self),
            ip,
            first,
            count,
        }))
    }

    /// How many are taken of each address of which any are.
    #[cfg(feature = "http")]
    pub(crate) fn taken_of_each(&self) -> Vec<u64> {
        let taken = lock(&self.taken);
        taken.values().map(|ports| u64::from(ports.count())).collect()
    }

    #[cfg(test)]
    pub(crate) fn taken_count(&self) -> u32 {
        lock(&self.taken).values().map(TakenPorts::count).sum()
    }
}

impl PortLease {
    /// The port for RTP.
    pub(crate) fn first(&self) -> u16 {
        self.first
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        let mut taken = lock(&self.ports.taken);
        if let Some(ports) = taken.get_mut(&self.ip) {
            ports.free(self.first, self.count);
            // Callers may name any address, also one that this machine does not have.
            if ports.leases == 0 {
                taken.remove(&self.ip);
            }
        }
    }
}

/// Every port at which a lease can start, from a random one up, wrapping around.
fn candidates(range: PortRange, count: PortCount, random: u64) -> impl Iterator<Item = u16> {
    let (min, max) = (u32::from(range.min()), u32::from(range.max()));
    let (start, step, len) = match count {
        PortCount::One => (min, 1, max - min + 1),
        PortCount::Pair => {
            let start = min + min % 2;
            (start, 2, (max + 1 - start) / 2)
        }
    };
    // `PortRange` holds at least one pair, so `len` is at least 1; every sum stays at or below `max`.
    let offset = (random % u64::from(len)) as u32;
    (0..len).map(move |index| (start + (offset + index) % len * step) as u16)
}

/// One bit per port.
#[derive(Debug)]
struct TakenPorts {
    bits: Box<[u64; 1024]>,
    leases: u32,
}

impl Default for TakenPorts {
    fn default() -> Self {
        Self {
            bits: Box::new([0; 1024]),
            leases: 0,
        }
    }
}

impl TakenPorts {
    /// Takes the port or pair if all of it is free.
    fn take(&mut self, first: u16, count: PortCount) -> bool {
        let (word, mask) = Self::place(first, count);
        let free = self.bits[word] & mask == 0;
        if free {
            self.bits[word] |= mask;
            self.leases += 1;
        }
        free
    }

    fn free(&mut self, first: u16, count: PortCount) {
        let (word, mask) = Self::place(first, count);
        self.bits[word] &= !mask;
        self.leases -= 1;
    }

    /// A pair starts on an even port, so it never crosses from one word into the next.
    fn place(first: u16, count: PortCount) -> (usize, u64) {
        let bits = match count {
            PortCount::One => 0b1,
            PortCount::Pair => 0b11,
        };
        (usize::from(first / 64), bits << (first % 64))
    }

    #[cfg(any(test, feature = "http"))]
    fn count(&self) -> u32 {
        self.bits.iter().map(|word| word.count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn range(min: u16, max: u16) -> PortRange {
        PortRange::new(min, max).unwrap()
    }

    #[test]
    fn pairs_start_on_even_ports_and_stay_inside_the_range() {
        let rows = [
            (1024, 1025, vec![1024]),
            (1025, 1027, vec![1026]),
            (1025, 1030, vec![1026, 1028]),
            (65532, 65535, vec![65532, 65534]),
        ];
        for (min, max, expected) in rows {
            for random in 0..4 {
                let found: BTreeSet<u16> = candidates(range(min, max), PortCount::Pair, random).collect();
                assert_eq!(found, expected.iter().copied().collect(), "{min}-{max} from {random}");
            }
        }
    }

    #[test]
    fn the_search_wraps_around_and_visits_every_port_once() {
        let ports: Vec<u16> = candidates(range(2000, 2004), PortCount::One, 3).collect();
        assert_eq!(ports, [2003, 2004, 2000, 2001, 2002]);
    }

    #[test]
    fn a_taken_port_is_skipped_until_its_lease_is_dropped() {
        let ports = Ports::new(range(2000, 2001));
        let first = ports.search(IP, PortCount::One, 0).next().unwrap();
        assert_eq!(first.first(), 2000);
        assert!(
            ports.search(IP, PortCount::Pair, 0).next().is_none(),
            "half of the pair is taken"
        );
        let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        assert!(
            ports.search(other, PortCount::Pair, 0).next().is_some(),
            "addresses do not share ports"
        );
        drop(first);
        assert_eq!(ports.search(IP, PortCount::Pair, 0).next().unwrap().first(), 2000);
        assert_eq!(ports.taken_count(), 0);
    }

    #[test]
    fn a_port_that_is_asked_for_is_one_of_the_range_and_had_once() {
        let ports = Ports::new(range(2000, 2003));
        let lease = |first, count| ports.lease(IP, first, count);
        let pair = lease(2002, PortCount::Pair).unwrap().unwrap();
        assert_eq!(pair.first(), 2002);
        for taken in [2002, 2003] {
            assert!(lease(taken, PortCount::One).unwrap().is_none(), "{taken}");
        }
        for (first, count, why) in [
            (1999, PortCount::One, "one of rtc_ports, 2000-2003; 1999 is not"),
            (2004, PortCount::One, "one of rtc_ports"),
            (2003, PortCount::Pair, "one of rtc_ports"),
            (u16::MAX, PortCount::Pair, "one of rtc_ports"),
            (2001, PortCount::Pair, "2001 is odd"),
        ] {
            let error = lease(first, count).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        drop(pair);
        assert!(lease(2003, PortCount::One).unwrap().is_some());
        assert_eq!(ports.taken_count(), 0);
    }

    proptest! {
        /// Whatever is leased and dropped, no port is ever leased twice, and all come back.
        #[test]
        fn leases_never_overlap(steps in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<u64>()), 1..200)) {
            let ports = Ports::new(range(3000, 3063));
            let mut held: Vec<PortLease> = Vec::new();
            for (take, pair, random) in steps {
                let count = if pair { PortCount::Pair } else { PortCount::One };
                if take {
                    held.extend(ports.search(IP, count, random).next());
                } else if !held.is_empty() {
                    let index = (random % held.len() as u64) as usize;
                    held.swap_remove(index);
                }
                let all: Vec<u16> = held
                    .iter()
                    .flat_map(|lease| match lease.count {
                        PortCount::One => vec![lease.first],
                        PortCount::Pair => vec![lease.first, lease.first + 1],
                    })
                    .collect();
                prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
                prop_assert_eq!(ports.taken_count() as usize, all.len());
            }
            drop(held);
            prop_assert_eq!(ports.taken_count(), 0);
        }
    }
}
