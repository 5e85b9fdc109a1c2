//! What is dropped before anybody looks at it: packets of sources that are in quarantine, and what has waited in a socket for seconds
//! while there was no process to read it.
//!
//! The kernel does not say how long a packet has waited, unless all packets are stamped always. But it keeps the oldest and
//! drops the newest when a socket is full. So what waits goes as a whole, up to the moment at which the socket is empty.

use std::net::SocketAddr;
use std::time::Duration;

use weir_channel::message::{QUARANTINED_MAX, QuarantinedSource, Reply, UnroutedReason, WorkerError};

use crate::net::receive::Received;
use crate::net::shell::Shell;
use crate::net::sockets::Connection;
use crate::net::source::Source;
use crate::relay::Relay;
use crate::relay::sink::TransportIx;
use crate::time::Time;

use super::event_loop::EventLoop;
use super::webrtc::WebRtc;

/// Which packets are dropped.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    quarantined: Vec<QuarantinedSource>,
    /// The sockets in which there is still what has waited too long.
    stale: Vec<Source>,
    /// Until when. In a socket that has not become readable by then nothing has waited.
    stale_until: Time,
}

/// So long after an adoption what has waited is looked for. Emptying a full socket (4 MiB) takes about two milliseconds.
const STALE_TIME: Duration = Duration::from_millis(500);

/// Packets that were dropped.
#[derive(Debug, Default)]
#[must_use = "every packet is counted"]
pub(super) struct Dropped {
    quarantined: u64,
    stale: u64,
}

impl Sieve {
    /// These sources are in quarantine from now on, and no others.
    pub(super) fn set_quarantine(&mut self, sources: &[QuarantinedSource]) -> Result<Reply, WorkerError> {
        if sources.len() > QUARANTINED_MAX {
            return Err(WorkerError::invalid(format!(
                "{} sources in quarantine, and there may be {QUARANTINED_MAX}",
                sources.len()
            )));
        }
        self.quarantined = sources.to_vec();
        Ok(Reply::Done)
    }

    /// Whether nothing is dropped.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.quarantined.is_empty() && self.stale.is_empty()
    }

    /// Whether a source is in quarantine.
    pub(super) fn refuses(&self, remote: SocketAddr, source: Source) -> bool {
        let is_open = source.is_open();
        self.quarantined.iter().any(|one| one.covers(remote, is_open))
    }

    /// What waits at a socket now is to be dropped.
    pub(super) fn drop_waiting(&mut self, now: Time, source: Source) {
        self.stale.push(source);
        self.stale_until = now + STALE_TIME;
    }

    /// A transport's sockets are closed. Another transport may get its index.
    pub(super) fn forget(&mut self, transport: TransportIx) {
        self.stale.retain(|source| match source {
            Source::Socket { transport: whose, .. } | Source::Listener { transport: whose, .. } => *whose != transport,
            _ => false,
        });
    }

    /// Leaves out of a batch what is to be dropped.
    pub(super) fn sift(&mut self, now: Time, received: &mut Received<'_>, source: Source) -> Dropped {
        if now > self.stale_until {
            self.stale.clear();
        }
        let mut dropped = Dropped::default();
        let stale = self.stale.iter().position(|stale| *stale == source);
        if let Some(index) = stale
            && !received.is_full
        {
            self.stale.swap_remove(index);
        }
        received.retain(|datagram, _| {
            let count = match stale {
                Some(_) => &mut dropped.stale,
                None if self.refuses(datagram.source, source) => &mut dropped.quarantined,
                None => return true,
            };
            *count += datagram.packets();
            false
        });
        dropped
    }
}

impl Dropped {
    /// Counts them for the transport whose socket they came to, if it was one's.
    pub(super) fn count(self, owner: Option<TransportIx>, relay: &mut Relay, webrtc: &mut WebRtc) {
        let Self { quarantined, stale } = self;
        for (reason, packets) in [
            (UnroutedReason::Quarantined, quarantined),
            (UnroutedReason::Stale, stale),
        ] {
            match owner {
                _ if packets == 0 => {}
                Some(transport) => relay.count_unrouted(transport, reason, packets),
                None => webrtc.count_unrouted(reason, packets),
            }
        }
    }
}

impl<S: Shell> EventLoop<S> {
    /// Reads from a connection, or closes it before that, if its other end is in quarantine.
    pub(super) fn read_connection(&mut self, now: Time, source: Source, transport: TransportIx, number: u8) {
        let connection = self.egress.sockets.connection(transport, number);
        let Some(remote) = connection.map(Connection::remote) else {
            return;
        };
        self.relay.note_suspect(Some(transport), remote);
        let is_refused = self.sieve.refuses(remote, source);
        let (webrtc, mut io) = self.webrtc_and_io();
        if is_refused {
            return webrtc.refuse_connection(now, &mut io, transport, number);
        }
        let brought = webrtc.read_connection(now, &mut io, transport, number);
        self.note_brought(brought);
    }

    /// Closes a connection of which nobody knows for whom it is, if its other end is in quarantine. Else that is noted to be who comes next.
    pub(super) fn refuse_unassigned(&mut self, source: Source, number: u16) -> bool {
        let Some(remote) = self.webrtc.remote_of_unassigned(number) else {
            return false;
        };
        self.relay.note_suspect(None, remote);
        let is_refused = self.sieve.refuses(remote, source);
        if is_refused {
            self.webrtc.refuse_unassigned(number);
        }
        is_refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::receive::ReceiveBatch;
    use crate::net::source::Side;
    use crate::relay::sink::Port;

    const SOURCE: Source = Source::Socket {
        transport: TransportIx(3),
        port: Port::Rtp,
        side: Side::Connected,
    };

    /// A socket with so many packets in it, all from one address.
    #[expect(clippy::disallowed_methods, reason = "sockets of the test's own")]
    fn socket_with(packets: usize) -> (std::net::UdpSocket, SocketAddr) {
        let bind = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (socket, sender) = (bind(), bind());
        for number in 0..packets {
            sender.send_to(&[number as u8], socket.local_addr().unwrap()).unwrap();
        }
        (socket, sender.local_addr().unwrap())
    }

    fn read(sieve: &mut Sieve, now: u64, socket: &std::net::UdpSocket) -> (usize, u64, u64) {
        use std::os::fd::AsFd;

        let mut batch = ReceiveBatch::new(4, 2_000);
        let mut received = batch.receive(socket.as_fd(), 4).unwrap();
        let dropped = sieve.sift(Time(now), &mut received, SOURCE);
        (received.datagrams.len(), dropped.quarantined, dropped.stale)
    }

    #[test]
    fn what_has_waited_goes_until_the_socket_is_empty_and_nothing_after_that() {
        let mut sieve = Sieve::default();
        let (socket, _) = socket_with(6);
        sieve.drop_waiting(Time(1_000), SOURCE);
        assert!(!sieve.is_open());
        assert_eq!(read(&mut sieve, 1_001, &socket), (0, 0, 4));
        assert_eq!(read(&mut sieve, 1_002, &socket), (0, 0, 2));
        assert!(sieve.is_open(), "from now on nothing is looked at twice");
        let (socket, _) = socket_with(1);
        sieve.drop_waiting(Time(1_000), SOURCE);
        sieve.forget(TransportIx(4));
        let later = 1_001 + STALE_TIME.as_nanos() as u64;
        assert_eq!(read(&mut sieve, later, &socket), (1, 0, 0), "it has come since");
        sieve.drop_waiting(Time(1_000), SOURCE);
        sieve.forget(TransportIx(3));
        assert!(sieve.is_open());
    }

    #[test]
    fn only_who_is_in_quarantine_is_dropped() {
        let mut sieve = Sieve::default();
        let (socket, source) = socket_with(3);
        let exactly = |port| QuarantinedSource {
            ip: source.ip(),
            port: Some(port),
        };
        sieve.set_quarantine(&[exactly(source.port())]).unwrap();
        assert_eq!(read(&mut sieve, 1, &socket), (0, 3, 0));
        let (socket, other) = socket_with(3);
        assert_ne!(other, source);
        assert_eq!(read(&mut sieve, 1, &socket), (3, 0, 0));
        let too_many = vec![exactly(1); QUARANTINED_MAX + 1];
        assert!(sieve.set_quarantine(&too_many).is_err());
        assert_eq!(sieve.quarantined.len(), 1, "a refused command changed nothing");
        sieve.set_quarantine(&[]).unwrap();
        assert!(sieve.is_open());
    }
}
