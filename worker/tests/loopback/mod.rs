//! Real sockets on the loopback interface, made as the supervisor makes them.

#![allow(dead_code, reason = "each test binary uses its part of this module")]
#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, getsockname, recv, send, setsockopt,
    socket, sockopt,
};
use weir_channel::message::{IceProtocol, IceTuple, Remote};
use weir_worker::net::egress::Egress;
use weir_worker::net::receive::{DATAGRAM_BYTES_MAX, ReceiveBatch};
use weir_worker::net::send::{Destination, KernelSend, Message, Route, SendBackend};
use weir_worker::net::sockets::{self, IceSockets, TransportSockets};
use weir_worker::relay::sink::{ConsumerIx, TransportIx};
use weir_worker::webrtc::srtp::{Inbound, MasterKey, Outbound, Profile};

/// The kernel, after a word of the test's own.
pub(crate) struct Gated<F> {
    kernel: KernelSend,
    gate: F,
}

impl<F: FnMut(BorrowedFd<'_>) -> Result<(), Errno>> Gated<F> {
    /// `gate` says what becomes of a call of the kernel on a socket.
    pub(crate) fn new(gate: F) -> Self {
        Self {
            kernel: KernelSend::new(),
            gate,
        }
    }
}

impl<F: FnMut(BorrowedFd<'_>) -> Result<(), Errno>> SendBackend for Gated<F> {
    fn send_packet<'a>(&mut self, route: impl Into<Route<'a>>, packet: &[u8]) -> Result<(), Errno> {
        let route = route.into();
        (self.gate)(route.socket)?;
        self.kernel.send_packet(route, packet)
    }

    fn send_train<'a>(&mut self, route: impl Into<Route<'a>>, train: &[u8], segment: usize) -> Result<(), Errno> {
        let route = route.into();
        (self.gate)(route.socket)?;
        self.kernel.send_train(route, train, segment)
    }

    fn send_batch<'a>(
        &mut self,
        route: impl Into<Route<'a>>,
        bytes: &[u8],
        messages: &[Message],
    ) -> Result<usize, Errno> {
        let route = route.into();
        (self.gate)(route.socket)?;
        self.kernel.send_batch(route, bytes, messages)
    }

    fn send_scattered(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        messages: &[(Message, Destination)],
    ) -> Result<usize, Errno> {
        (self.gate)(socket)?;
        self.kernel.send_scattered(socket, bytes, messages)
    }
}

pub(crate) const OWNER: ConsumerIx = ConsumerIx { slot: 3, generation: 1 };

/// A UDP socket that shares its port with others of this user.
pub(crate) fn udp(local: &str) -> OwnedFd {
    udp_at(local.parse().unwrap())
}

pub(crate) fn udp_at(local: SocketAddr) -> OwnedFd {
    let family = if local.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
    // A port that the system chooses must be nobody's: it would choose one that others are ready to share, too.
    let joins = local.port() != 0;
    setsockopt(&socket, sockopt::ReusePort, &joins).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(local)).unwrap();
    setsockopt(&socket, sockopt::ReusePort, &true).unwrap();
    socket
}

pub(crate) fn address_of(socket: &OwnedFd) -> SocketAddr {
    let storage: SockaddrStorage = getsockname(socket.as_raw_fd()).unwrap();
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::from((v4.ip(), v4.port())),
        (_, Some(v6)) => SocketAddr::from((v6.ip(), v6.port())),
        _ => panic!("not an IP socket"),
    }
}

pub(crate) fn connect_to(socket: &OwnedFd, remote: SocketAddr) {
    connect(socket.as_raw_fd(), &SockaddrStorage::from(remote)).unwrap();
}

pub(crate) fn remote(rtp: SocketAddr) -> Remote {
    Remote { rtp, rtcp: None }
}

/// The two sockets of one port, and its address.
pub(crate) fn port() -> (OwnedFd, OwnedFd, SocketAddr) {
    let unconnected = udp("127.0.0.1:0");
    let address = address_of(&unconnected);
    (unconnected, udp_at(address), address)
}

/// A muxed transport in `egress`, connected to `to`; its local address.
pub(crate) fn attach<B: SendBackend>(egress: &mut Egress<B>, transport: u32, to: SocketAddr) -> SocketAddr {
    let (unconnected, connected, address) = port();
    let sockets = TransportSockets::adopt(vec![unconnected, connected], true).unwrap();
    egress.sockets.attach(TransportIx(transport), sockets);
    egress.sockets.connect(TransportIx(transport), remote(to)).unwrap();
    address
}

/// A WebRTC transport in `egress` that sends to `to`, protected with a key that [`receiver_context`] has too.
pub(crate) fn attach_protected<B: SendBackend>(egress: &mut Egress<B>, transport: u32, to: SocketAddr) -> SocketAddr {
    let (unconnected, connected, local) = port();
    let sockets = IceSockets::adopt(vec![unconnected, connected], &[IceProtocol::Udp]).unwrap();
    let transport = TransportIx(transport);
    egress.sockets.attach_ice(transport, sockets);
    let tuple = IceTuple {
        protocol: IceProtocol::Udp,
        local,
        remote: to,
    };
    egress.select(transport, Some(tuple)).unwrap();
    protect(egress, transport);
    egress.sockets.open(transport, true);
    local
}

/// Protects what a transport sends with a key that [`receiver_context`] has too.
pub(crate) fn protect<B: SendBackend>(egress: &mut Egress<B>, transport: TransportIx) {
    egress.start_protecting(transport, Outbound::new(&master_key()));
}

pub(crate) fn receiver_context() -> Inbound {
    Inbound::new(&master_key(), 4_096)
}

fn master_key() -> MasterKey {
    MasterKey::new(Profile::AeadAes128Gcm, &[7; 16], &[9; 12]).unwrap()
}

/// Waits until there is something to read; a failure if that takes half a minute.
pub(crate) fn wait_readable(socket: BorrowedFd<'_>) {
    let mut wanted = [PollFd::new(socket, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(30_000).unwrap();
    loop {
        match poll(&mut wanted, timeout) {
            Ok(0) => panic!("nothing came"),
            Ok(_) => return,
            Err(Errno::EINTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}

/// Somebody outside: sends and receives one packet at a time, without any of the code under test.
pub(crate) struct Peer {
    pub(crate) socket: OwnedFd,
    pub(crate) address: SocketAddr,
}

impl Peer {
    pub(crate) fn new() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn at(local: SocketAddr) -> Self {
        let socket = udp_at(local);
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &(4 << 20)))
            .unwrap();
        Self {
            address: address_of(&socket),
            socket,
        }
    }

    /// Two with adjacent ports: for RTP, and for RTCP on the one above (RFC 3550 §11).
    pub(crate) fn pair() -> [Self; 2] {
        loop {
            let rtp = Self::new();
            let mut above = rtp.address;
            let Some(port) = above.port().checked_add(1) else {
                continue;
            };
            above.set_port(port);
            let family = AddressFamily::Inet;
            let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
            if bind(socket.as_raw_fd(), &SockaddrStorage::from(above)).is_ok() {
                let address = above;
                return [rtp, Self { socket, address }];
            }
        }
    }

    pub(crate) fn send_to(&self, to: SocketAddr, packet: &[u8]) {
        let to = SockaddrStorage::from(to);
        let sent = nix::sys::socket::sendto(self.socket.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
        assert_eq!(sent, packet.len());
    }

    /// The next packet, waiting for it.
    pub(crate) fn receive(&self) -> Vec<u8> {
        wait_readable(self.socket.as_fd());
        self.try_receive().unwrap()
    }

    /// The next packet of media, waiting for it: reports come between, once a second (RFC 5761 §4 tells them apart).
    pub(crate) fn receive_rtp(&self) -> Vec<u8> {
        loop {
            let packet = self.receive();
            if !matches!(packet[..], [_, 192..=223, ..]) {
                return packet;
            }
        }
    }

    /// The next packet, if one comes in so many milliseconds.
    pub(crate) fn receive_within(&self, ms: u16) -> Option<Vec<u8>> {
        let mut wanted = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, ms).ok()?;
        self.try_receive()
    }

    /// The next packet if there is one: on loopback what was sent is there when the sending call returns.
    pub(crate) fn try_receive(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
        let len = recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).ok()?;
        bytes.truncate(len);
        Some(bytes)
    }

    pub(crate) fn drain(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.try_receive()).collect()
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        assert_eq!(
            send(self.socket.as_raw_fd(), packet, MsgFlags::empty()),
            Ok(packet.len())
        );
    }
}

/// A prepared receiver for [`ReceiveBatch`] and a socket connected to it.
pub(crate) fn link() -> (OwnedFd, OwnedFd) {
    let receiver = udp("127.0.0.1:0");
    sockets::prepare(receiver.as_fd()).unwrap();
    let sender = udp("127.0.0.1:0");
    connect_to(&sender, address_of(&receiver));
    (sender, receiver)
}

/// What waits at a socket, packet by packet.
pub(crate) fn packets_at(batch: &mut ReceiveBatch, socket: &OwnedFd) -> Vec<Vec<u8>> {
    let received = batch.receive(socket.as_fd(), 64).unwrap();
    let mut packets = Vec::new();
    for datagram in received.datagrams {
        let bytes = &received.bytes[datagram.range()];
        if bytes.is_empty() {
            packets.push(Vec::new());
        }
        packets.extend(bytes.chunks(datagram.segment as usize).map(<[u8]>::to_vec));
    }
    packets
}

/// A packet of `len` bytes that no other number yields.
pub(crate) fn packet(number: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at * 7 + number * 13) as u8).collect();
    let number = (number as u32).to_be_bytes();
    let head = len.min(4);
    bytes[..head].copy_from_slice(&number[4 - head..]);
    bytes
}

/// Packets laid end to end.
pub(crate) fn train(packets: &[Vec<u8>]) -> Vec<u8> {
    packets.concat()
}
