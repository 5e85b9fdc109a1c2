//! Shared ports: one port, UDP's and TCP's, for all WebRTC transports of a worker.
//!
//! They are bound when the server starts and kept until it ends, so that a worker's successor has the same. A peer that has
//! proven who it is gets a connected socket of its own, bound to the shared port too. From then on the kernel gives that
//! socket what comes from this peer, and the shared socket everything else.
//!
//! Between its bind and its connect such a socket would be given some of everybody's packets. A filter at the group of
//! sockets of the port keeps that from happening: it chooses the shared socket, whoever else there is. (The kernel finds
//! connected sockets before it asks a filter.)

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockRef, Socket};
use weir_channel::id::WorkerId;
use weir_channel::message::{IceProtocol, IceTuple, OpenSharedPorts};
use weir_worker::net::optional::Optional;

use super::listening::tcp_listener;
use super::{LocalAddresses, SocketMaker, WebRtcSockets};
use crate::server::model::address::ListenAddress;
use crate::server::model::error::{Error, StartError};
use crate::server::model::lock;
use crate::server::model::settings::{ConnectedSockets, Settings};

/// The first kernel that finds connected UDP sockets of one port by a hash of both addresses. One before it would compare a
/// packet with each of them.
const CONNECTED_SINCE: (u32, u32) = (6, 13);

/// The shared ports of all workers.
#[derive(Debug)]
pub(crate) struct SharedPorts {
    /// By worker, in the order of their descriptors.
    workers: Vec<Vec<SharedPort>>,
    maker: Arc<SocketMaker>,
    connected: bool,
    /// Held while a socket joins the others on its port.
    joining: Mutex<()>,
    warned: AtomicBool,
}

#[derive(Debug)]
struct SharedPort {
    address: ListenAddress,
    socket: OwnedFd,
}

impl SharedPorts {
    /// Binds the shared ports of all workers; `None` if the settings want none.
    ///
    /// # Errors
    /// When there are not as many ports, or one of them is taken.
    pub(crate) fn open(
        settings: &Settings,
        addresses: LocalAddresses,
        maker: &Arc<SocketMaker>,
        workers: usize,
    ) -> Result<Option<Self>, StartError> {
        let Some(first) = settings.webrtc_port else {
            return Ok(None);
        };
        let protocols = [
            (IceProtocol::Udp, settings.rtc_udp),
            (IceProtocol::Tcp, settings.rtc_tcp),
        ];
        let mut filtered = true;
        let mut shared_ports = Vec::with_capacity(workers);
        for worker in 0..workers {
            let port = usize::from(first.get()) + worker;
            let Ok(port) = u16::try_from(port) else {
                return Err(StartError::Settings(format!(
                    "webrtc_port = {first} leaves no port for worker {}; choose a lower one, or fewer workers",
                    worker + 1
                )));
            };
            let mut ports_of_worker = Vec::new();
            for (protocol, _) in protocols.into_iter().filter(|(_, wanted)| *wanted) {
                for ip in addresses.ips() {
                    let address = maker.address(ip, port);
                    let bound = match protocol {
                        IceProtocol::Udp => maker.bind_shared(address, &mut filtered),
                        IceProtocol::Tcp => tcp_listener(address),
                    };
                    let socket = bound.map_err(|error| refused(protocol, address, worker + 1, error))?;
                    ports_of_worker.push(SharedPort {
                        address: ListenAddress { protocol, address },
                        socket,
                    });
                }
            }
            shared_ports.push(ports_of_worker);
        }
        let kernel = kernel_version();
        let connected = match settings.webrtc_connected {
            ConnectedSockets::Auto => filtered && kernel.is_some_and(|kernel| kernel >= CONNECTED_SINCE),
            ConnectedSockets::Never => false,
        };
        tracing::debug!(
            ?kernel,
            filtered,
            connected,
            "WebRTC transports share a port per worker"
        );
        Ok(Some(Self {
            workers: shared_ports,
            maker: Arc::clone(maker),
            connected,
            joining: Mutex::new(()),
            warned: AtomicBool::new(false),
        }))
    }

    fn of(&self, worker: WorkerId) -> &[SharedPort] {
        let index = (worker.0 as usize).checked_sub(1);
        let shared_ports = index.and_then(|index| self.workers.get(index));
        shared_ports.map_or(&[], Vec::as_slice)
    }

    /// The request that gives a worker its shared ports.
    pub(crate) fn request(&self, worker: WorkerId) -> OpenSharedPorts {
        OpenSharedPorts {
            protocols: self.of(worker).iter().map(|shared| shared.address.protocol).collect(),
            connected: self.connected,
        }
    }

    /// The descriptors for that.
    pub(crate) fn descriptors(&self, worker: WorkerId) -> io::Result<Vec<OwnedFd>> {
        let shared_ports = self.of(worker).iter();
        shared_ports
            .map(|shared| shared.socket.as_fd().try_clone_to_owned())
            .collect()
    }

    /// Where a transport of a worker is reached, of the wanted endpoints.
    pub(crate) fn sockets(&self, worker: WorkerId, wanted: &[(IceProtocol, IpAddr)]) -> Result<WebRtcSockets, Error> {
        let addresses = self.of(worker).iter().map(|shared| shared.address);
        let is_wanted = |address: &ListenAddress| wanted.contains(&(address.protocol, address.address.ip()));
        WebRtcSockets::shared(addresses.filter(is_wanted).collect()).ok_or_else(|| {
            Error::InvalidParameters(
                "the worker has no port for the protocols and addresses that are left to reach the transport"
                    .to_owned(),
            )
        })
    }

    /// A socket of a shared port that is connected to a peer; `None` if there is none to be had. What a worker asks for is
    /// checked: its own ports, and an address that somebody can have.
    pub(crate) fn connect(&self, worker: WorkerId, tuple: IceTuple) -> Option<OwnedFd> {
        let IceTuple {
            protocol,
            local,
            remote,
        } = tuple;
        let address = ListenAddress {
            protocol,
            address: local,
        };
        let shared = self.of(worker).iter().find(|shared| shared.address == address)?;
        let is_udp = protocol == IceProtocol::Udp;
        let is_somebody = remote.port() != 0 && !remote.ip().is_unspecified() && !remote.ip().is_multicast();
        if !(self.connected && is_udp && is_somebody && local.is_ipv4() == remote.is_ipv4()) {
            return None;
        }
        let _one_at_a_time = lock(&self.joining);
        match self.maker.connect_beside(&shared.socket, local, remote) {
            Ok(socket) => Some(socket),
            Err(error) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        %local, %remote, %error,
                        "a WebRTC transport goes on without a socket and a receive buffer of its own; said once"
                    );
                }
                None
            }
        }
    }
}

fn refused(protocol: IceProtocol, address: SocketAddr, worker: usize, error: io::Error) -> StartError {
    let protocol = match protocol {
        IceProtocol::Udp => "UDP",
        IceProtocol::Tcp => "TCP",
    };
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it: choose another webrtc_port",
        io::ErrorKind::PermissionDenied => "ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        _ => "choose another webrtc_port",
    };
    StartError::Settings(format!(
        "webrtc_port: {protocol} {address}, for worker {worker}, cannot be bound ({error}); {advice}"
    ))
}

impl SocketMaker {
    /// A socket that others can join later. `filtered` becomes false if the kernel would share packets out among them.
    fn bind_shared(&self, address: SocketAddr, filtered: &mut bool) -> io::Result<OwnedFd> {
        // Exclusively at first, so that a port another program has is found out.
        let shared = self.socket(address.ip(), self.receive_buffer)?;
        shared.bind(&address.into())?;
        shared.set_reuse_port(true)?;
        // A group comes into being with its second member, and stays when that has gone; the shared socket is its first.
        let second = self.socket(address.ip(), 1)?;
        second.set_reuse_port(true)?;
        second.bind(&address.into())?;
        // Otherwise the kernel would share packets out.
        *filtered &= Optional::ReuseportFilter.or_without(choose_first(&shared)).is_some();
        Ok(shared.into())
    }

    /// A socket on a shared port, connected to `remote`.
    fn connect_beside(&self, shared: &OwnedFd, local: SocketAddr, remote: SocketAddr) -> io::Result<OwnedFd> {
        let socket = self.join(shared, local)?;
        socket.connect(&remote.into())?;
        // It has left the group by that, and would be the first of another one for the next socket that comes.
        socket.set_reuse_port(false)?;
        Ok(socket.into())
    }

    /// A socket that has joined the group of a shared port, whose filter chooses the shared socket. All sockets on the port
    /// must permit that: the connected ones always do, and nobody can join by them. The shared socket does so for this
    /// moment only, because the kernel does not ask then whose program it is.
    fn join(&self, shared: &OwnedFd, local: SocketAddr) -> io::Result<Socket> {
        let socket = self.socket(local.ip(), self.receive_buffer)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        let shared = SockRef::from(shared);
        shared.set_reuse_address(true)?;
        let bound = socket.bind(&local.into());
        shared.set_reuse_address(false)?;
        bound.map(|()| socket)
    }
}

/// Has the kernel give what is for none of a group's connected sockets to its first one (SO_ATTACH_REUSEPORT_CBPF).
fn choose_first(shared: &impl AsFd) -> nix::Result<()> {
    let mut program = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    let program = libc::sock_fprog {
        len: 1,
        filter: program.as_mut_ptr(),
    };
    setsockopt(shared, sockopt::AttachReusePortCbpf, &program)
}

/// As `uname -r` begins, e.g. (6, 18).
fn kernel_version() -> Option<(u32, u32)> {
    parse_version(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
    use std::num::NonZeroU16;

    use super::*;

    const WORKER: WorkerId = WorkerId(1);

    const LOOPBACK: LocalAddresses = LocalAddresses {
        ipv4: Some(Ipv4Addr::LOCALHOST),
        ipv6: Some(Ipv6Addr::LOCALHOST),
    };

    fn open(port: u16, workers: usize) -> Result<SharedPorts, StartError> {
        let settings = Settings {
            webrtc_port: NonZeroU16::new(port),
            ..Settings::default()
        };
        let maker = Arc::new(SocketMaker::new(&settings));
        Ok(SharedPorts::open(&settings, LOOPBACK, &maker, workers)?.unwrap())
    }

    #[expect(clippy::disallowed_methods, reason = "a peer in these tests")]
    fn bind(address: impl Into<SocketAddr>) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(address.into())?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Shared ports that the system has just given somebody.
    fn shared_ports(workers: usize) -> (SharedPorts, u16) {
        loop {
            let port = bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if let Ok(shared_ports) = open(port, workers) {
                return (shared_ports, port);
            }
        }
    }

    fn senders(socket: &UdpSocket) -> Vec<SocketAddr> {
        let mut buffer = [0; 64];
        std::iter::from_fn(|| socket.recv_from(&mut buffer).ok())
            .map(|(_, sender)| sender)
            .collect()
    }

    #[test]
    fn every_worker_has_its_port() {
        let (shared_ports, port) = shared_ports(2);
        let of = |worker| {
            let addresses = shared_ports.of(WorkerId(worker)).iter();
            addresses
                .map(|shared| (shared.address.protocol, shared.address.address))
                .collect::<Vec<_>>()
        };
        let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
        let expected = |port| {
            [
                (IceProtocol::Udp, SocketAddr::new(v4, port)),
                (IceProtocol::Udp, SocketAddr::new(v6, port)),
                (IceProtocol::Tcp, SocketAddr::new(v4, port)),
                (IceProtocol::Tcp, SocketAddr::new(v6, port)),
            ]
        };
        assert_eq!((of(1), of(2)), (expected(port).to_vec(), expected(port + 1).to_vec()));
        assert_eq!((of(0), of(3)), (vec![], vec![]));
        let only_tcp = shared_ports.sockets(WORKER, &[(IceProtocol::Tcp, v4)]).unwrap();
        assert_eq!(
            only_tcp.addresses().map(|each| each.address).collect::<Vec<_>>(),
            [SocketAddr::new(v4, port)]
        );
        assert!(only_tcp.descriptors().unwrap().is_empty() && only_tcp.own_protocols().is_empty());
        assert!(shared_ports.sockets(WORKER, &[]).is_err());
    }

    #[test]
    fn a_port_that_is_taken_is_told() {
        let somebody = bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = somebody.local_addr().unwrap().port();
        let error = open(port, 1).unwrap_err().to_string();
        assert!(
            error.contains(&format!("UDP 127.0.0.1:{port}")) && error.contains("another program"),
            "{error}"
        );

        let somebody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = somebody.local_addr().unwrap().port();
        if let Err(error) = open(port, 1) {
            assert!(error.to_string().contains("another program"), "{error}");
        } else {
            panic!("two have one port");
        }
        let error = open(65_535, 2).unwrap_err().to_string();
        assert!(error.contains("leaves no port for worker 2"), "{error}");
    }

    #[test]
    fn a_peers_packets_reach_its_socket_and_all_others_the_shared_one() {
        for (ip, at) in [
            (IpAddr::from(Ipv4Addr::LOCALHOST), 0),
            (IpAddr::from(Ipv6Addr::LOCALHOST), 1),
        ] {
            let (mut shared_ports, port) = shared_ports(1);
            shared_ports.connected = true;
            let local = SocketAddr::new(ip, port);
            let peers: Vec<UdpSocket> = (0..40).map(|_| bind((ip, 0)).unwrap()).collect();
            let addresses: Vec<SocketAddr> = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
            let shared = UdpSocket::from(shared_ports.descriptors(WORKER).unwrap().remove(at));
            let tuple = |remote| IceTuple {
                protocol: IceProtocol::Udp,
                local,
                remote,
            };
            let connected: Vec<UdpSocket> = addresses[..20]
                .iter()
                .map(|remote| UdpSocket::from(shared_ports.connect(WORKER, tuple(*remote)).unwrap()))
                .collect();
            // One that has been bound and not connected yet.
            let between = shared_ports
                .maker
                .join(&shared_ports.of(WORKER)[at].socket, local)
                .unwrap();
            // Nobody else can come between, whatever is allowed.
            let other = shared_ports.maker.socket(ip, 1 << 16).unwrap();
            other.set_reuse_address(true).unwrap();
            assert_eq!(other.bind(&local.into()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            for peer in &peers {
                peer.send_to(b"x", local).unwrap();
            }
            assert_eq!(senders(&between.into()), []);
            assert_eq!(senders(&shared), addresses[20..]);
            for (socket, address) in connected.iter().zip(&addresses) {
                assert_eq!(senders(socket), [*address]);
            }
            drop(connected);
            for peer in &peers {
                peer.send_to(b"x", local).unwrap();
            }
            assert_eq!(senders(&shared), addresses);
        }
    }

    #[test]
    fn a_worker_gets_no_other_socket_than_its_own() {
        let (mut shared_ports, port) = shared_ports(2);
        shared_ports.connected = true;
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let tuple = IceTuple {
            protocol: IceProtocol::Udp,
            local,
            remote: ([127, 0, 0, 1], 9).into(),
        };
        assert!(shared_ports.connect(WORKER, tuple).is_some());
        assert!(
            shared_ports.connect(WorkerId(2), tuple).is_none(),
            "another worker's port"
        );
        for wrong in [
            IceTuple {
                protocol: IceProtocol::Tcp,
                ..tuple
            },
            IceTuple {
                local: ([127, 0, 0, 1], port ^ 0x4000).into(),
                ..tuple
            },
            IceTuple {
                remote: ([0, 0, 0, 0], 9).into(),
                ..tuple
            },
            IceTuple {
                remote: ([127, 0, 0, 1], 0).into(),
                ..tuple
            },
            IceTuple {
                remote: (Ipv6Addr::LOCALHOST, 9).into(),
                ..tuple
            },
        ] {
            assert!(shared_ports.connect(WORKER, wrong).is_none(), "{wrong:?}");
        }
        shared_ports.connected = false;
        assert!(shared_ports.connect(WORKER, tuple).is_none());
    }

    #[test]
    fn kernels_are_told_apart() {
        assert_eq!(parse_version("6.13.0-rc1\n"), Some((6, 13)));
        assert_eq!(parse_version("5.15.0-1048-aws"), Some((5, 15)));
        assert_eq!(parse_version("6.18-next"), Some((6, 18)));
        assert_eq!(parse_version("unknown"), None);
        assert!((6, 9) < CONNECTED_SINCE && (7, 0) > CONNECTED_SINCE);
    }
}
