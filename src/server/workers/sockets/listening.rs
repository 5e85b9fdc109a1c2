//! The sockets of a WebRTC transport: for each of its endpoints, UDP or TCP over IPv4 or IPv6, a port of the range.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Protocol, Type};
use weir_channel::message::{IceProtocol, IceTuple};
use weir_worker::net::optional::Optional;

use super::connected::{ConnectedSockets, check_connection};
use super::{PortSockets, SocketMaker, bind_first, new_socket};
use crate::server::model::address::ListenAddress;
use crate::server::model::error::Error;
use crate::server::model::ids::random;
use crate::server::workers::ports::{PortCount, PortLease, Ports};

/// TCP connections that wait to be accepted. A transport has one peer, so this is for its retries, and for others.
const BACKLOG: i32 = 128;

/// The sockets of one WebRTC transport. Dropping them closes this process's descriptors, then gives the ports back.
#[derive(Debug)]
pub(crate) struct WebRtcSockets {
    first: ListenAddress,
    /// Its own; none if it shares its worker's.
    listeners: Vec<Listener>,
    shared: Vec<ListenAddress>,
    connected: ConnectedSockets,
}

#[derive(Debug)]
struct Listener {
    address: ListenAddress,
    socket: ListenSocket,
    // Last, as in `TransportSockets`.
    _lease: PortLease,
}

#[derive(Debug)]
enum ListenSocket {
    Udp(PortSockets),
    Tcp(OwnedFd),
}

impl WebRtcSockets {
    /// Where the first of them listens.
    pub(crate) fn first_address(&self) -> SocketAddr {
        self.first.address
    }

    /// Where they listen, in the order of their descriptors.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = ListenAddress> + '_ {
        let own = self.listeners.iter().map(|listener| listener.address);
        own.chain(self.shared.iter().copied())
    }

    /// What its own are, in the order of their descriptors.
    pub(crate) fn own_protocols(&self) -> Vec<IceProtocol> {
        let own = self.listeners.iter();
        own.map(|listener| listener.address.protocol).collect()
    }

    /// None: it is reached where all of its worker's are. `None` if that is nowhere.
    pub(crate) fn shared(addresses: Vec<ListenAddress>) -> Option<Self> {
        Some(Self {
            first: *addresses.first()?,
            listeners: Vec::new(),
            shared: addresses,
            connected: ConnectedSockets::default(),
        })
    }

    /// The descriptors in the order in which `CreateWebRtcTransport` wants them: for UDP the unconnected
    /// socket and the path, for TCP one; then those that are [connected](Self::connected).
    pub(crate) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let mut descriptors = self.own_descriptors()?;
        descriptors.extend(self.connected_descriptors()?);
        Ok(descriptors)
    }

    /// As [`WebRtcSockets::descriptors`], of those only that are its own.
    pub(crate) fn own_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let mut descriptors = Vec::with_capacity(2 * self.listeners.len());
        for listener in &self.listeners {
            match &listener.socket {
                ListenSocket::Udp(port) => {
                    descriptors.push(port.unconnected.as_fd().try_clone_to_owned()?);
                    descriptors.push(port.path.as_fd().try_clone_to_owned()?);
                }
                ListenSocket::Tcp(socket) => descriptors.push(socket.try_clone()?),
            }
        }
        Ok(descriptors)
    }

    /// As [`WebRtcSockets::descriptors`], of those only that are connected.
    pub(crate) fn connected_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.connected.descriptors().collect()
    }

    /// What the sockets are between that its last worker has left connected to its peer, in the order of their descriptors.
    pub(crate) fn connected(&self) -> Vec<IceTuple> {
        self.connected.tuples()
    }

    /// Keeps a copy of a socket that was made for a worker, so that it outlives the worker.
    pub(crate) fn keep(&mut self, tuple: IceTuple, socket: &OwnedFd) {
        // Without the copy it does not.
        if let Ok(copy) = socket.try_clone() {
            let _ = self.connected.keep(tuple, copy);
        }
    }

    /// Keeps a copy of a connection that a worker has sent, if it can be what the worker says.
    ///
    /// # Errors
    /// It cannot, or there are too many.
    pub(crate) fn keep_connection(&mut self, tuple: IceTuple, socket: OwnedFd) -> Result<(), String> {
        match check_connection(&tuple, socket, self.addresses())? {
            Some(connection) => self.connected.keep(tuple, connection),
            None => Ok(()),
        }
    }

    /// Closes the copy of a socket that the worker has closed.
    pub(crate) fn close(&mut self, tuple: IceTuple) {
        self.connected.close(tuple);
    }

    /// A descriptor of the path of the first that is UDP.
    pub(crate) fn rtp_path(&self) -> Option<io::Result<OwnedFd>> {
        self.listeners.iter().find_map(|listener| match &listener.socket {
            ListenSocket::Udp(port) => Some(port.path.try_clone()),
            ListenSocket::Tcp(_) => None,
        })
    }
}

impl SocketMaker {
    /// Listens at each of these endpoints, on a free port of the range. One that cannot be had is logged and left out, unless that is
    /// for the lack of something: then there is no transport rather than half of one.
    ///
    /// # Errors
    /// Why the last was not to be had, if none was; of what there is a lack.
    pub(crate) fn listen(&self, wanted: &[(IceProtocol, IpAddr)]) -> Result<WebRtcSockets, Error> {
        let mut listeners = Vec::with_capacity(wanted.len());
        let mut failure = None;
        for &(protocol, ip) in wanted {
            match self.listen_on_free_port(protocol, ip, need_of(wanted)) {
                Ok(listener) => listeners.push(listener),
                Err(error @ Error::Exhausted { .. }) => return Err(error),
                Err(error) => {
                    tracing::warn!(?protocol, %ip, %error, "a WebRTC transport does without one of its sockets");
                    failure = Some(error);
                }
            }
        }
        match listeners.first().map(|listener| listener.address) {
            Some(first) => Ok(WebRtcSockets {
                first,
                listeners,
                shared: Vec::new(),
                connected: ConnectedSockets::default(),
            }),
            None => Err(failure
                .unwrap_or_else(|| Error::InvalidParameters("a transport must have one endpoint at least".to_owned()))),
        }
    }

    fn listen_on_free_port(&self, protocol: IceProtocol, ip: IpAddr, need: usize) -> Result<Listener, Error> {
        let ports: &Arc<Ports> = match protocol {
            IceProtocol::Udp => &self.ports,
            IceProtocol::Tcp => &self.tcp_ports,
        };
        let leases = ports.search(ip, PortCount::One, random());
        let failed = self.failed(need, format!("making a socket of a transport on {ip}"));
        bind_first(leases, ports.exhausted(ip), failed, |lease| {
            let address = self.address(ip, lease.first());
            let socket = match protocol {
                IceProtocol::Udp => ListenSocket::Udp(self.bind_port(ip, lease.first())?),
                IceProtocol::Tcp => ListenSocket::Tcp(tcp_listener(address)?),
            };
            Ok(Listener {
                address: ListenAddress { protocol, address },
                socket,
                _lease: lease,
            })
        })
    }
}

/// Descriptors that a transport with these endpoints takes, with those for its worker.
pub(crate) fn need_of(endpoints: &[(IceProtocol, IpAddr)]) -> usize {
    let of_one = |(protocol, _): &(IceProtocol, IpAddr)| match protocol {
        IceProtocol::Udp => 4,
        IceProtocol::Tcp => 2,
    };
    endpoints.iter().map(of_one).sum()
}

pub(super) fn tcp_listener(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new_socket(address.ip(), Type::STREAM, Protocol::TCP)?;
    // Connections of a transport that had the port before may linger (TIME_WAIT); a listener of somebody else still
    // makes this fail.
    Optional::ReuseAddress.or_without(setsockopt(&socket, sockopt::ReuseAddr, &true));
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use socket2::Socket;

    use super::*;
    use crate::server::model::settings::{PortRange, Settings};

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn maker(range: PortRange) -> SocketMaker {
        SocketMaker::new(&Settings {
            rtc_ports: range,
            ..Settings::default()
        })
    }

    #[test]
    fn every_endpoint_has_its_port_and_descriptors_in_order() {
        let maker = maker(PortRange::default());
        let wanted = [
            (IceProtocol::Udp, V4),
            (IceProtocol::Udp, V6),
            (IceProtocol::Tcp, V4),
            (IceProtocol::Tcp, V6),
        ];
        let sockets = maker.listen(&wanted).unwrap();
        let addresses: Vec<ListenAddress> = sockets.addresses().collect();
        let endpoints: Vec<_> = addresses
            .iter()
            .map(|each| (each.protocol, each.address.ip()))
            .collect();
        assert_eq!(endpoints, wanted);
        let descriptors = sockets.descriptors().unwrap();
        let bound: Vec<SocketAddr> = descriptors
            .iter()
            .map(|fd| {
                let socket = Socket::from(fd.try_clone().unwrap());
                assert!(socket.nonblocking().unwrap());
                socket.local_addr().unwrap().as_socket().unwrap()
            })
            .collect();
        let [udp4, udp6, tcp4, tcp6] = [0, 1, 2, 3].map(|index| addresses[index].address);
        assert_eq!(bound, [udp4, udp4, udp6, udp6, tcp4, tcp6]);
        assert_eq!(maker.ports_taken(), 4);

        // The listeners listen, each for its own family.
        for (fd, address) in descriptors[4..].iter().zip([tcp4, tcp6]) {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"x").unwrap();
            let (_, from) = TcpListener::from(fd.try_clone().unwrap()).accept().unwrap();
            assert_eq!(from, client.local_addr().unwrap());
        }
        drop(sockets);
        assert_eq!(maker.ports_taken(), 0);
        assert!(
            TcpListener::bind(tcp4).is_err(),
            "the worker's descriptor keeps the port"
        );
        drop(descriptors);
        assert!(TcpListener::bind(tcp4).is_ok());
    }

    #[test]
    fn one_that_cannot_be_had_is_left_out_and_none_is_an_error() {
        let nobodys: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        let maker = maker(PortRange::default());
        let sockets = maker
            .listen(&[(IceProtocol::Udp, nobodys), (IceProtocol::Tcp, V4)])
            .unwrap();
        assert_eq!(sockets.addresses().count(), 1);
        assert!(sockets.rtp_path().is_none());
        drop(sockets);
        let error = maker
            .listen(&[(IceProtocol::Udp, nobodys), (IceProtocol::Tcp, nobodys)])
            .unwrap_err();
        assert_eq!((error.code(), maker.ports_taken()), ("io", 0));
    }

    #[test]
    fn tcp_and_udp_have_ports_of_their_own_and_exhaustion_is_told() {
        // Two ports, of which somebody may have one.
        let first = TcpListener::bind((V4, 0)).unwrap();
        let port = first.local_addr().unwrap().port() & !1;
        let Ok(range) = PortRange::new(port, port + 1) else {
            panic!("{port} is a port that the system gave");
        };
        let maker = maker(range);
        let mut held = Vec::new();
        let error = loop {
            match maker.listen(&[(IceProtocol::Tcp, V4)]) {
                Ok(sockets) => held.push(sockets),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), "portsExhausted");
        assert!(held.len() <= 1, "the listener that was there has one of the two");
        assert!(maker.listen(&[(IceProtocol::Udp, V4)]).is_ok(), "UDP has its own");
    }
}
