//! Every socket of the media plane is made here and handed to a worker; this process keeps its own descriptors of
//! them until the transport closes, so that a worker that dies loses no port.
//!
//! A port is two sockets bound to the same address. The *path* is connected to the remote by the worker and carries the
//! media. The *unconnected socket* has no remote: the kernel gives a packet to the path if its source matches, and to the
//! unconnected socket otherwise. So packets from elsewhere are seen (and counted, or learned from) without a check on the
//! media path.
//!
//! The unconnected socket is bound first and exclusively, so that a port somebody else has is found out. SO_REUSEPORT is
//! then on for just as long as the path needs to join it. Until the worker connects it, the path is connected to its own
//! address, from which nothing ever comes: otherwise the kernel would let either of the two unconnected sockets have a
//! packet, and what somebody else sent before the connect would be left in the path's queue, looking like media.

mod connected;
mod listening;
mod local_addresses;
mod probe;
mod shared_ports;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use weir_channel::message::Zoned;
use weir_worker::net::optional::Optional;

use crate::server::model::error::Error;
use crate::server::model::ids::random;
use crate::server::model::settings::{Family, Settings};
use crate::server::model::shortage::{Lack, Shortage};
use crate::server::workers::descriptors::leave_reserve;
use crate::server::workers::ports::{PortCount, PortLease, Ports};

pub(crate) use self::listening::{WebRtcSockets, need_of as need_of_endpoints};
pub(crate) use self::local_addresses::LocalAddresses;
pub(crate) use self::shared_ports::SharedPorts;

/// The unconnected socket receives only packets from elsewhere and, with `comedia`, the first packets of the remote; it
/// needs no more than this.
const UNCONNECTED_BUFFER_MAX: u32 = 512 << 10;

/// Descriptors that a socket that only sends takes while it is made: itself, and the worker's.
pub(crate) const SENDER_NEED: usize = 2;

/// As above, of a plain transport: an unconnected socket and a path for each port.
pub(crate) fn need_of_ports(count: PortCount) -> usize {
    match count {
        PortCount::One => 4,
        PortCount::Pair => 8,
    }
}

/// What a transport's sockets are bound with.
#[derive(Debug)]
pub(crate) struct SocketMaker {
    ports: Arc<Ports>,
    /// TCP has the same numbers for other ports.
    tcp_ports: Arc<Ports>,
    /// The server's own IPv6 address, with its zone if it is a link-local one.
    ipv6: Option<Zoned<Ipv6Addr>>,
    receive_buffer: u32,
    send_buffer: u32,
    warned: AtomicBool,
    lack: Lack,
}

/// The sockets of one transport. Dropping them closes this process's descriptors, then gives the ports back.
#[derive(Debug)]
pub(crate) struct TransportSockets {
    rtp: PortSockets,
    rtcp: Option<PortSockets>,
    // Last, because fields are dropped in order: a port is free only when its sockets are closed.
    _lease: PortLease,
}

#[derive(Debug)]
struct PortSockets {
    unconnected: OwnedFd,
    path: OwnedFd,
    address: SocketAddr,
}

impl TransportSockets {
    /// Where RTP (and RTCP, if muxed) is received.
    pub(crate) fn rtp_address(&self) -> SocketAddr {
        self.rtp.address
    }

    /// Where RTCP is received, if on its own port.
    pub(crate) fn rtcp_address(&self) -> Option<SocketAddr> {
        self.rtcp.as_ref().map(|port| port.address)
    }

    /// The descriptors in the order in which `CreatePlainTransport` wants them: RTP's unconnected socket and path, then
    /// RTCP's.
    pub(crate) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let ports = [Some(&self.rtp), self.rtcp.as_ref()];
        ports
            .into_iter()
            .flatten()
            .flat_map(|port| [port.unconnected.as_fd(), port.path.as_fd()])
            .map(|fd: BorrowedFd<'_>| fd.try_clone_to_owned())
            .collect()
    }

    /// A descriptor of the path that carries RTP.
    pub(crate) fn rtp_path(&self) -> io::Result<OwnedFd> {
        self.rtp.path.try_clone()
    }
}

/// A socket that only sends, to one address. Dropping it closes this process's descriptor, then gives the port back.
#[derive(Debug)]
pub(crate) struct SenderSocket {
    socket: OwnedFd,
    address: SocketAddr,
    // Last, as in `TransportSockets`. None: the port is not of the range.
    _lease: Option<PortLease>,
}

impl SenderSocket {
    /// Where it sends from.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A descriptor of it for a worker.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl SocketMaker {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            ports: Ports::new(settings.rtc_ports),
            tcp_ports: Ports::new(settings.rtc_ports),
            ipv6: match settings.rtc_ipv6 {
                Family::Address(ipv6) => Some(ipv6),
                Family::Auto | Family::Off => None,
            },
            receive_buffer: settings.socket_receive_buffer,
            send_buffer: settings.socket_send_buffer,
            warned: AtomicBool::new(false),
            lack: Lack::default(),
        }
    }

    /// How many UDP ports are taken of each local address of which any are.
    #[cfg(feature = "http")]
    pub(crate) fn udp_ports_taken(&self) -> Vec<u64> {
        self.ports.taken_of_each()
    }

    /// The same of TCP.
    #[cfg(feature = "http")]
    pub(crate) fn tcp_ports_taken(&self) -> Vec<u64> {
        self.tcp_ports.taken_of_each()
    }

    /// What could not be made for the lack of, as long as that lacks.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
        self.lack.look(|need| {
            let sockets: io::Result<Vec<Socket>> = (0..need).map(|_| self.socket(ip, 1)).collect();
            sockets.map(drop)
        })
    }

    /// The error when something that needs so many descriptors cannot be made; notes what is lacking.
    pub(crate) fn failed(&self, need: usize, doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        move |source| {
            if let Some(shortage) = Shortage::of(&source) {
                self.lack.note(shortage, need);
            }
            Error::io(doing)(source)
        }
    }

    /// What the last step of making something that needs so many descriptors came to.
    pub(crate) fn made<T>(&self, need: usize, doing: &str, made: io::Result<T>) -> Result<T, Error> {
        let made = made.map_err(self.failed(need, doing))?;
        self.lack.made(need);
        Ok(made)
    }

    /// Binds a free port of the range, or with [`PortCount::Pair`] two.
    pub(crate) fn make(&self, at: impl Into<Zoned>, count: PortCount) -> Result<TransportSockets, Error> {
        let at = at.into();
        let leases = self.ports.search(at.ip, count, random());
        self.bind(at, count, leases, self.ports.exhausted(at.ip))
    }

    /// Binds this port of the range, and with [`PortCount::Pair`] the one above it.
    pub(crate) fn make_at(&self, at: impl Into<Zoned>, port: u16, count: PortCount) -> Result<TransportSockets, Error> {
        let at = at.into();
        let lease = self.ports.lease(at.ip, port, count).map_err(Error::InvalidParameters)?;
        self.bind(at, count, lease, Error::PortTaken { ip: at.ip, port })
    }

    fn bind(
        &self,
        at: Zoned,
        count: PortCount,
        leases: impl IntoIterator<Item = PortLease>,
        none: Error,
    ) -> Result<TransportSockets, Error> {
        let failed = self.failed(
            need_of_ports(count),
            format!("making the sockets of a transport on {at}"),
        );
        bind_first(leases, none, failed, |lease| {
            let rtp = self.bind_port(at, lease.first())?;
            let rtcp = match count {
                PortCount::One => None,
                PortCount::Pair => Some(self.bind_port(at, lease.first() + 1)?),
            };
            Ok(TransportSockets {
                rtp,
                rtcp,
                _lease: lease,
            })
        })
    }

    /// A socket on a free port of the range, connected to `remote`.
    pub(crate) fn sender(&self, at: Zoned, remote: SocketAddr) -> Result<SenderSocket, Error> {
        let leases = self.ports.search(at.ip, PortCount::One, random());
        let none = self.ports.exhausted(at.ip);
        bind_first(leases, none, self.sender_failed(at.ip, remote), |lease| {
            self.connect_sender(self.address(at, lease.first()), remote, Some(lease))
        })
    }

    /// A socket on a port that the system chooses, connected to `remote`.
    pub(crate) fn sender_on_any_port(&self, at: Zoned, remote: SocketAddr) -> Result<SenderSocket, Error> {
        let made = self.connect_sender(self.address(at, 0), remote, None);
        made.map_err(self.sender_failed(at.ip, remote))
    }

    fn sender_failed(&self, ip: IpAddr, remote: SocketAddr) -> impl FnOnce(io::Error) -> Error {
        self.failed(SENDER_NEED, format!("making a socket on {ip} that sends to {remote}"))
    }

    fn connect_sender(
        &self,
        address: SocketAddr,
        remote: SocketAddr,
        lease: Option<PortLease>,
    ) -> io::Result<SenderSocket> {
        // Nobody reads what comes back; the kernel need not keep much of it (it rounds up to what it allows).
        let socket = self.socket(address.ip(), 1)?;
        socket.bind(&address.into())?;
        socket.connect(&remote.into())?;
        let local = socket.local_addr()?.as_socket();
        Ok(SenderSocket {
            address: local.ok_or_else(|| io::Error::other("its address is of no IP family"))?,
            socket: socket.into(),
            _lease: lease,
        })
    }

    #[cfg(test)]
    pub(crate) fn lacks(&self) -> bool {
        self.lack.look(|_| Err(nix::errno::Errno::EACCES.into())).is_some()
    }

    #[cfg(test)]
    pub(crate) fn ports_taken(&self) -> u32 {
        self.ports.taken_count() + self.tcp_ports.taken_count()
    }

    /// A port of a local address. The server's own is in the zone that the settings say, where none is said with it.
    fn address(&self, at: impl Into<Zoned>, port: u16) -> SocketAddr {
        let at = at.into();
        let own = self.ipv6.map(Zoned::<IpAddr>::from);
        own.filter(|own| own.ip == at.ip && at.zone == 0).unwrap_or(at).at(port)
    }

    fn bind_port(&self, at: impl Into<Zoned>, port: u16) -> io::Result<PortSockets> {
        let address = self.address(at, port);
        let ip = address.ip();
        let unconnected = self.socket(ip, self.receive_buffer.min(UNCONNECTED_BUFFER_MAX))?;
        unconnected.bind(&address.into())?;
        let path = self.socket(ip, self.receive_buffer)?;
        share_port(&unconnected, true)?;
        share_port(&path, true)?;
        path.bind(&address.into())?;
        share_port(&unconnected, false)?;
        share_port(&path, false)?;
        path.connect(&address.into())?;
        Ok(PortSockets {
            unconnected: unconnected.into(),
            path: path.into(),
            address,
        })
    }

    fn socket(&self, ip: IpAddr, receive_buffer: u32) -> io::Result<Socket> {
        let socket = new_socket(ip, Type::DGRAM, Protocol::UDP)?;
        self.size_buffers(&socket, receive_buffer);
        Ok(socket)
    }

    /// Sizes the buffers, beyond the system's limit if this process may, and looks at what the kernel gave.
    fn size_buffers(&self, socket: &Socket, receive_buffer: u32) {
        let (receive, send) = (receive_buffer as usize, self.send_buffer as usize);
        if setsockopt(socket, sockopt::RcvBufForce, &receive).is_err() {
            Optional::ReceiveBuffer.or_without(setsockopt(socket, sockopt::RcvBuf, &receive));
        }
        if setsockopt(socket, sockopt::SndBufForce, &send).is_err() {
            Optional::SendBuffer.or_without(setsockopt(socket, sockopt::SndBuf, &send));
        }
        // The kernel books, and reports, twice of what it was asked for (socket(7)); if it does.
        let receive_given = getsockopt(socket, sockopt::RcvBuf).map_or(receive, |bytes| bytes / 2);
        let send_given = getsockopt(socket, sockopt::SndBuf).map_or(send, |bytes| bytes / 2);
        if (receive_given < receive || send_given < send) && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                receive_given,
                receive_wanted = receive,
                send_given,
                send_wanted = send,
                "the kernel gives media sockets smaller buffers than set, so bursts may be lost: raise \
                 net.core.rmem_max and net.core.wmem_max, or lower socket_receive_buffer and socket_send_buffer"
            );
        }
    }
}

/// Lets other sockets join this one on its port, or no more. There are no transports without that.
fn share_port(socket: &Socket, on: bool) -> io::Result<()> {
    let shared = socket.set_reuse_port(on);
    shared.map_err(|error| io::Error::new(error.kind(), format!("setsockopt(SO_REUSEPORT): {error}")))
}

/// Binds at the first of some leases whose port no other program has; `none` is the error if there is none.
fn bind_first<T>(
    leases: impl IntoIterator<Item = PortLease>,
    none: Error,
    failed: impl FnOnce(io::Error) -> Error,
    bind: impl Fn(PortLease) -> io::Result<T>,
) -> Result<T, Error> {
    for lease in leases {
        match bind(lease) {
            Ok(bound) => return Ok(bound),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(none)
}

/// A socket that does not block, unless its descriptor is one of those that are kept.
fn new_socket(ip: IpAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let domain = if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    leave_reserve(&socket)?;
    if ip.is_ipv6() {
        // One that is bound to an address that is not the wildcard, as all are, hears no IPv4 anyway.
        Optional::Ipv6Only.or_without(setsockopt(&socket, sockopt::Ipv6V6Only, &true));
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::num::NonZeroU32;

    use super::*;
    use crate::server::model::settings::PortRange;

    const IPS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    fn maker(min: u16, max: u16) -> SocketMaker {
        SocketMaker::new(&Settings {
            workers: NonZeroU32::new(1),
            rtc_ports: PortRange::new(min, max).unwrap(),
            ..Settings::default()
        })
    }

    /// Ports for these tests alone, so that no other test of this process or machine takes them.
    fn free_pair(ip: IpAddr) -> u16 {
        loop {
            let first = bind(ip, 0).unwrap();
            let port = first.local_addr().unwrap().port() & !1;
            drop(first);
            // Outside of the range that tests and demos draw from.
            if (32_768..60_000).contains(&port) && bind(ip, port).is_ok() && bind(ip, port + 1).is_ok() {
                return port;
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the other program in these tests")]
    fn bind(ip: IpAddr, port: u16) -> io::Result<UdpSocket> {
        UdpSocket::bind((ip, port))
    }

    /// The senders of all packets that wait in a socket.
    fn senders(socket: &OwnedFd) -> Vec<SocketAddr> {
        let socket = UdpSocket::from(socket.try_clone().unwrap());
        let mut senders = Vec::new();
        let mut buffer = [0; 64];
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((_, sender)) => senders.push(sender),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return senders;
                }
            }
        }
    }

    #[test]
    fn the_remotes_packets_reach_the_path_and_everybody_elses_the_unconnected_socket() {
        for ip in IPS {
            let sockets = maker(10_000, 59_999).make(ip, PortCount::One).unwrap();
            let address = sockets.rtp_address();
            let peers: Vec<UdpSocket> = (0..20).map(|_| bind(ip, 0).unwrap()).collect();
            let addresses: Vec<SocketAddr> = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
            let send = |peers: &[UdpSocket]| {
                peers
                    .iter()
                    .for_each(|peer| assert!(peer.send_to(b"x", address).is_ok()))
            };

            // Loopback delivers before the send returns.
            send(&peers);
            assert_eq!(senders(&sockets.rtp.unconnected), addresses, "nobody is the remote yet");
            assert_eq!(senders(&sockets.rtp.path), []);

            // What the worker does, through its own descriptor; and does again when the remote changes.
            let path = UdpSocket::from(sockets.descriptors().unwrap().remove(1));
            for remote in [3, 11] {
                path.connect(addresses[remote]).unwrap();
                send(&peers);
                assert_eq!(senders(&sockets.rtp.path), [addresses[remote]]);
                let others: Vec<SocketAddr> = (0..20)
                    .filter(|peer| *peer != remote)
                    .map(|peer| addresses[peer])
                    .collect();
                assert_eq!(senders(&sockets.rtp.unconnected), others);
            }
            path.send(b"x").unwrap();
            assert_eq!(
                peers[11].recv_from(&mut [0; 4]).unwrap().1,
                address,
                "both have one address"
            );
        }
    }

    #[test]
    fn nobody_else_can_bind_a_transports_port_while_it_is_open() {
        for ip in IPS {
            let port = free_pair(ip);
            let maker = maker(port, port + 1);
            let sockets = maker.make(ip, PortCount::Pair).unwrap();
            assert_eq!(sockets.rtp_address().port(), port);
            assert_eq!(sockets.rtcp_address().unwrap().port(), port + 1);
            let wildcard: IpAddr = match ip {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            for (at, port) in [(ip, port), (ip, port + 1), (wildcard, port), (wildcard, port + 1)] {
                for reuse in [false, true] {
                    let domain = if at.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
                    let other = Socket::new(domain, Type::DGRAM, None).unwrap();
                    other.set_reuse_port(reuse).unwrap();
                    other.set_reuse_address(reuse).unwrap();
                    let bound = other.bind(&SocketAddr::new(at, port).into());
                    assert_eq!(
                        bound.unwrap_err().kind(),
                        io::ErrorKind::AddrInUse,
                        "{at} reuse {reuse}"
                    );
                }
            }
            // The worker's descriptors keep the port, whatever happens to ours: it dies, we let go, it lives on.
            let workers = sockets.descriptors().unwrap();
            drop(sockets);
            assert_eq!(maker.ports_taken(), 0);
            assert!(matches!(
                maker.make(ip, PortCount::One),
                Err(Error::PortsExhausted { .. })
            ));
            drop(workers);
            assert!(maker.make(ip, PortCount::Pair).is_ok());
        }
    }

    #[test]
    fn a_port_that_is_asked_for_is_bound_or_its_owner_told_of() {
        let ip = IPS[0];
        let port = free_pair(ip);
        let maker = maker(port, port + 1);
        let sockets = maker.make_at(ip, port, PortCount::Pair).unwrap();
        assert_eq!(
            (sockets.rtp_address().port(), sockets.rtcp_address().unwrap().port()),
            (port, port + 1)
        );
        let taken = |count| maker.make_at(ip, port, count).unwrap_err();
        assert_eq!(taken(PortCount::One).code(), "conflict");
        drop(sockets);
        // Another program's, here that of RTCP.
        let other = bind(ip, port + 1).unwrap();
        let error = taken(PortCount::Pair);
        assert_eq!(error.code(), "conflict");
        assert!(error.to_string().contains("choose another one"), "{error}");
        assert_eq!(maker.ports_taken(), 0);
        drop(other);
        assert!(maker.make_at(ip, port, PortCount::Pair).is_ok());
    }

    #[test]
    fn rfc4007_6_the_servers_own_link_local_address_is_bound_in_its_zone() {
        let settings = Settings {
            rtc_ipv6: Family::Address("fe80::1%7".parse().unwrap()),
            ..Settings::default()
        };
        settings.check().unwrap();
        let maker = SocketMaker::new(&settings);
        let address = |text: &str| maker.address(text.parse::<Zoned>().unwrap(), 9).to_string();
        assert_eq!(
            address("fe80::1"),
            "[fe80::1%7]:9",
            "as a transport has it that was told no address"
        );
        assert_eq!(address("fe80::1%3"), "[fe80::1%3]:9");
        assert_eq!(address("2001:db8::1"), "[2001:db8::1]:9");
        let homeless = Settings {
            rtc_ipv6: Family::Address("fe80::1".parse().unwrap()),
            ..Settings::default()
        };
        let error = homeless.check().unwrap_err();
        assert!(error.contains("rtc_ipv6") && error.contains("fe80::1%eth0"), "{error}");
    }

    #[test]
    fn a_port_of_somebody_else_is_passed_over_and_an_exhausted_range_is_told() {
        let ip = IPS[0];
        let port = free_pair(ip);
        let maker = maker(port, port + 1);
        let other = bind(ip, port).unwrap();
        let error = maker.make(ip, PortCount::Pair).unwrap_err();
        assert_eq!(error.code(), "portsExhausted");
        assert!(error.to_string().contains(&format!("{port}-{}", port + 1)), "{error}");
        let sockets = maker.make(ip, PortCount::One).unwrap();
        assert_eq!(sockets.rtp_address().port(), port + 1);
        drop(other);
        let other = maker.make(ip, PortCount::One).unwrap();
        assert_eq!(other.rtp_address().port(), port);
        assert!(maker.make(ip, PortCount::One).is_err());
    }

    #[test]
    fn sockets_are_sized_do_not_block_and_are_not_inherited() {
        use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
        let sockets = maker(10_000, 59_999).make(IPS[0], PortCount::One).unwrap();
        for descriptor in sockets
            .descriptors()
            .unwrap()
            .iter()
            .chain([&sockets.rtp.unconnected, &sockets.rtp.path])
        {
            let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL).unwrap());
            assert!(flags.contains(OFlag::O_NONBLOCK));
            let flags = FdFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
        }
        let size = |socket| getsockopt(socket, sockopt::RcvBuf).unwrap();
        assert!(size(&sockets.rtp.path) > size(&sockets.rtp.unconnected));
    }

    #[test]
    fn an_address_of_nobody_leaves_no_trace() {
        let maker = maker(10_000, 59_999);
        let error = maker.make(Ipv4Addr::new(192, 0, 2, 1), PortCount::One).unwrap_err();
        assert_eq!(error.code(), "io");
        assert_eq!(maker.ports_taken(), 0);
    }
}
