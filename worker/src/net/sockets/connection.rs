//! TCP connections of WebRTC transports: who has come by a listening socket, what is still missing of a frame, and what the
//! connection has not taken yet.
//!
//! A connection is a stream, so a packet is written wholly or not at all: what the kernel does not take of the last one waits
//! here, and packets that find too much waiting are dropped. What has come of an incomplete frame waits in the kernel. Memory of one
//! connection: [`WAITING_BYTES_MAX`].

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, Shutdown, SockFlag, SockaddrStorage, accept4, getpeername, recv, send, setsockopt, shutdown, sockopt,
};
use weir_channel::message::{IceProtocol, IceTuple, WorkerError};

use super::Sockets;
use super::check::{address_of, check_connection, os};
use super::stream::{bytes_written, cookie_of, is_finished, wait_for_bytes};
use crate::net::optional::Optional;
use crate::net::poll::{Interest, Source};
use crate::net::send::Message;
use crate::page::layout::connection::{StreamOut, WRITTEN};
use crate::page::{Kept, Slot};
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::framing::outgoing::{Outgoing, Position};
use crate::webrtc::framing::{Cut, Oversize, PREFIX_BYTES, each_whole};

/// Connections that one listener should have at a time. A browser opens one for each pair of candidates and network.
pub const CONNECTIONS_MAX: usize = 10;

/// What may wait for a connection, in bytes: as much as waits for a full socket of UDP.
pub const WAITING_BYTES_MAX: usize = 256 << 10;

/// What the kernel keeps of what was written, beside it. Media that is older than that is of no use.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// One of a transport's connections.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    listener: u8,
    /// Where the listener is bound to.
    local: SocketAddr,
    remote: SocketAddr,
    accepted_at: Time,
    /// A valid check has come by it.
    is_proven: bool,
    /// What of the stream is waited for: reading is not worth the while before there is so much (SO_RCVLOWAT).
    wanted: usize,
    waiting: Outgoing,
    /// Where a successor finds how far the stream was written.
    kept: Kept,
    /// Writing has failed; reading will tell why.
    is_broken: bool,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, listener: u8, local: SocketAddr, remote: SocketAddr, accepted_at: Time) -> Self {
        Self {
            socket,
            listener,
            local,
            remote,
            accepted_at,
            is_proven: false,
            wanted: 1,
            waiting: Outgoing::new(),
            kept: Kept::default(),
            is_broken: false,
        }
    }

    /// One that another worker has accepted and proven, which is dead; `left` is what it has left of the stream. What has come is read
    /// from where it stopped: what it had not read wholly is still in the socket. What it had not written wholly is made whole.
    ///
    /// # Errors
    /// It is no connection between the two ends, or the stream does not stand where it was left.
    pub fn resume(
        socket: OwnedFd,
        (listener, tuple): (u8, IceTuple),
        left: &StreamOut,
        now: Time,
    ) -> Result<Self, WorkerError> {
        check_connection(&socket, tuple.remote)?;
        let written = bytes_written(socket.as_fd()).map_err(|errno| os("getsockopt", errno))?;
        let waiting = Outgoing::resume(&Position::from(*left), written);
        wait_for_bytes(socket.as_fd(), 1).map_err(|errno| os("setsockopt", errno))?;
        let mut connection = Self::new(socket, listener, tuple.local, tuple.remote, now);
        connection.waiting = waiting.map_err(|astray| WorkerError::invalid(astray.to_string()))?;
        connection.is_proven = true;
        Ok(connection)
    }

    /// What tells a connection from every other one, also in another process.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn cookie_of(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
        cookie_of(socket)
    }

    /// From now on, how far the stream is written is kept there.
    pub fn keep(&mut self, kept: Kept) {
        self.kept = kept;
        self.note_position();
    }

    /// Where it is kept.
    pub fn slot(&self) -> Slot {
        self.kept.slot()
    }

    /// What to wait for.
    pub fn interest(&self) -> Interest {
        match self.waiting.is_empty() {
            true => Interest::Read,
            false => Interest::ReadWrite,
        }
    }

    fn note_position(&self) {
        if !self.kept.slot().is_none() {
            let position = StreamOut::from(self.waiting.position());
            self.kept.store_twin(WRITTEN, &position);
        }
    }

    /// How much room reading needs at least.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// The number of the listener, or of the shared port, that it came by.
    pub fn listener(&self) -> u8 {
        self.listener
    }

    /// Where that is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The address of the other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The time at which it was accepted.
    pub fn accepted_at(&self) -> Time {
        self.accepted_at
    }

    /// What it is between.
    pub fn tuple(&self) -> IceTuple {
        IceTuple {
            protocol: IceProtocol::Tcp,
            local: self.local,
            remote: self.remote,
        }
    }

    /// What it is watched as, if it has this number.
    pub fn source(&self, transport: TransportIx, number: u8) -> Source {
        Source::Connection {
            transport,
            number,
            is_proven: self.is_proven,
        }
    }

    /// Its descriptor, to be watched.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Appends a packet to what waits; `false` if too much waits, or nobody reads it.
    fn push(&mut self, packet: &[u8]) -> bool {
        !self.is_broken && self.waiting.push(packet, WAITING_BYTES_MAX)
    }

    /// Writes what waits, as far as it goes; whether something still waits.
    fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() && !self.is_broken {
            self.note_position();
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), self.waiting.next(), flags) {
                Ok(written) => self.waiting.wrote(written),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => break,
                Err(_) => self.is_broken = true,
            }
        }
        if self.is_broken {
            self.waiting.clear();
        }
        !self.waiting.is_empty()
    }

    /// Reads the frames that are whole, as far as they fit into `room`, and calls `take` with the packet in each. The rest stays in the
    /// socket: so whoever reads after this worker reads on at a frame's beginning. Says how many bytes were read.
    fn read(&mut self, room: &mut [u8], mut take: impl FnMut(&[u8])) -> Result<usize, Ended> {
        let arrived = match receive(&self.socket, room, MsgFlags::MSG_PEEK)? {
            Some(0) => return Err(Ended::Closed),
            Some(arrived) => arrived,
            None => return Ok(0),
        };
        let cut = each_whole(&room[..arrived], |_| {});
        if let Ok(Cut { whole, .. }) = cut
            && whole > 0
        {
            // Thrown away, since they are here already; before anybody sees them, so that what kills this worker does not kill the next.
            match receive(&self.socket, &mut room[..whole], MsgFlags::MSG_TRUNC)? {
                Some(read) if read == whole => {}
                _ => return Err(Ended::Failed(Errno::EIO)),
            }
        }
        let cut = match cut.and_then(|_| each_whole(&room[..arrived], &mut take)) {
            Ok(cut) => cut,
            Err(oversize) => {
                // The packets before that, which nobody has got yet.
                let _ = each_whole(&room[..arrived], take);
                return Err(Ended::Oversize(oversize));
            }
        };
        let rest = arrived - cut.whole;
        if cut.whole == 0 && arrived < self.wanted && is_finished(self.socket.as_fd()) {
            return Err(Ended::Closed);
        }
        let wanted = match rest {
            // There is no need to ask for less than a prefix, nor for more than one byte.
            0 => self.wanted.min(PREFIX_BYTES),
            _ => cut.wanted,
        };
        if wanted != self.wanted {
            wait_for_bytes(self.socket.as_fd(), wanted).map_err(Ended::Failed)?;
            self.wanted = wanted;
        }
        Ok(cut.whole)
    }
}

/// Receives without waiting; `None` if there is nothing.
fn receive(socket: &OwnedFd, room: &mut [u8], flags: MsgFlags) -> Result<Option<usize>, Ended> {
    loop {
        match recv(socket.as_raw_fd(), room, flags | MsgFlags::MSG_DONTWAIT) {
            Ok(received) => return Ok(Some(received)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(Ended::Failed(errno)),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The supervisor may have a copy for a little longer.
        if self.is_proven {
            // Fails only when it has ended already.
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        }
    }
}

impl Sockets {
    /// Accepts the next connection of a listener, also beyond [`CONNECTIONS_MAX`]: the caller decides which one to close then.
    ///
    /// # Errors
    /// What the kernel says if it cannot take any more connections (EMFILE, ENOBUFS …).
    pub fn accept(&mut self, now: Time, transport: TransportIx, listener: u8) -> Result<Accepted<u8>, Errno> {
        let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize) else {
            return Ok(Accepted::None);
        };
        let Some((socket, local)) = ice.tcp(listener) else {
            return Ok(Accepted::None);
        };
        let accepted = accept_at(socket)?;
        Ok(accepted.and_then(|(socket, remote)| ice.insert(Connection::new(socket, listener, local, remote, now))))
    }

    /// Keeps a connection that was accepted at a shared port, and returns its number; `None` if there are too many.
    pub fn adopt_connection(&mut self, transport: TransportIx, connection: Connection) -> Option<u8> {
        let ice = self.ice.get_mut(transport.0 as usize)?.as_deref_mut()?;
        ice.insert(connection)
    }

    /// A transport's connections, with their numbers.
    pub fn connections(&self, transport: TransportIx) -> impl Iterator<Item = (u8, &Connection)> {
        self.ice(transport).into_iter().flat_map(|ice| ice.connections())
    }

    /// Those that came by one listener.
    pub fn connections_of(&self, transport: TransportIx, listener: u8) -> impl Iterator<Item = (u8, &Connection)> {
        self.connections(transport)
            .filter(move |(_, one)| one.listener == listener)
    }

    /// One of them.
    pub fn connection(&self, transport: TransportIx, number: u8) -> Option<&Connection> {
        self.ice(transport)?.connection(number)
    }

    /// A valid check has come by a connection; whether that is news. Then it is to be watched as another
    /// [source](Connection::source), for this.
    pub fn prove_connection(&mut self, transport: TransportIx, number: u8) -> Option<Interest> {
        let connection = self.connection_mut(transport, number).filter(|one| !one.is_proven)?;
        connection.is_proven = true;
        Some(connection.interest())
    }

    /// As [`Sockets::connection`].
    pub fn connection_mut(&mut self, transport: TransportIx, number: u8) -> Option<&mut Connection> {
        let ice = self.ice.get_mut(transport.0 as usize)?.as_deref_mut()?;
        ice.connection_mut(number)
    }

    /// Closes a connection.
    pub fn close_connection(&mut self, transport: TransportIx, number: u8) {
        let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize) else {
            return;
        };
        if let Some(connection) = ice.connection(number).filter(|one| one.is_proven) {
            self.closed.push((transport, connection.tuple()));
        }
        if ice.remove(number)
            && let Some(path) = self.paths.get_mut(transport.0 as usize)
        {
            path.is_connected = false;
        }
    }

    /// A socket that was connected to a peer could not be taken over, and is closed.
    pub fn note_closed(&mut self, transport: TransportIx, tuple: IceTuple) {
        self.closed.push((transport, tuple));
    }

    /// A socket that is connected to a peer, which the supervisor may have a copy of, has been closed, and its transport has not.
    pub fn poll_closed(&mut self) -> Option<(TransportIx, IceTuple)> {
        self.closed.pop()
    }

    /// Reads what has come, at most `room`, and calls `take` with every packet that is complete. Says how many bytes came.
    ///
    /// # Errors
    /// Why the connection must be closed, after the packets before that.
    pub fn read_connection(
        &mut self,
        transport: TransportIx,
        number: u8,
        room: &mut [u8],
        take: impl FnMut(&[u8]),
    ) -> Result<usize, Ended> {
        let Some(connection) = self.connection_mut(transport, number) else {
            return Ok(0);
        };
        connection.read(room, take)
    }

    /// Sends packets of `segment` bytes laid end to end over a connection, one frame each, and says how many were taken,
    /// counted from the first.
    pub(in crate::net) fn send_frames(
        &mut self,
        transport: TransportIx,
        number: u8,
        packets: &[u8],
        segment: usize,
    ) -> usize {
        let Some(connection) = self.connection_mut(transport, number) else {
            return 0;
        };
        let was_empty = connection.waiting.is_empty();
        let taken = Message::whole(packets.len(), segment.max(1))
            .singles()
            .take_while(|one| connection.push(&packets[one.start..one.start + one.len]))
            .count();
        if connection.flush() && was_empty {
            self.blocked.push((transport, number));
        }
        taken
    }

    /// Writes what waits for a connection that has room again; whether more waits.
    pub fn flush_connection(&mut self, transport: TransportIx, number: u8) -> bool {
        self.connection_mut(transport, number).is_some_and(Connection::flush)
    }

    /// A connection that has filled up: watch it for room to write, then call [`Sockets::flush_connection`].
    pub fn poll_blocked_connection(&mut self) -> Option<(TransportIx, u8)> {
        self.blocked.pop()
    }
}

/// Why a connection cannot be read any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The peer has closed it.
    Closed,
    /// It says more than a frame may.
    Oversize(Oversize),
    /// Reading has failed.
    Failed(Errno),
}

/// Accepts the next connection of a listening socket: its descriptor, and the address of the other end.
pub(super) fn accept_at(listener: BorrowedFd<'_>) -> Result<Accepted<(OwnedFd, SocketAddr)>, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let accepted = match accept4(listener.as_raw_fd(), flags) {
        // SAFETY: the kernel has just made the descriptor for us, and nobody else knows of it.
        Ok(descriptor) => unsafe { OwnedFd::from_raw_fd(descriptor) },
        Err(Errno::EAGAIN) => return Ok(Accepted::None),
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)) => return Err(errno),
        // The peer, or the network, has given it up meanwhile.
        Err(_) => return Ok(Accepted::Lost),
    };
    let remote = getpeername::<SockaddrStorage>(accepted.as_raw_fd()).ok();
    let Some(remote) = remote.and_then(|remote| address_of(&remote).ok()) else {
        return Ok(Accepted::Lost);
    };
    Optional::NoDelay.or_without(setsockopt(&accepted, sockopt::TcpNoDelay, &true));
    Optional::SendBuffer.or_without(setsockopt(&accepted, sockopt::SndBuf, &SEND_BUFFER_BYTES));
    Ok(Accepted::Connection((accepted, unmapped(remote))))
}

/// What an attempt to accept a connection brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted<T> {
    /// No connection is waiting.
    None,
    /// One was waiting, and is gone already, or could not be kept.
    Lost,
    /// A connection.
    Connection(T),
}

impl<T> Accepted<T> {
    /// Makes something of the connection; it is lost if that fails.
    pub(super) fn and_then<U>(self, keep: impl FnOnce(T) -> Option<U>) -> Accepted<U> {
        match self {
            Self::None => Accepted::None,
            Self::Lost => Accepted::Lost,
            Self::Connection(connection) => keep(connection).map_or(Accepted::Lost, Accepted::Connection),
        }
    }
}

/// IPv4 addresses as such.
pub(super) fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use super::*;
    use crate::page::Page;
    use crate::page::layout::{Capacity, Table};
    use crate::page::memory::{HeapPage, Memory};
    use crate::page::predecessor::Predecessor;
    use crate::webrtc::framing::prefix;

    const CAPACITY: Capacity = Capacity([0, 0, 0, 0, 2]);

    /// A connection whose worker keeps it, a copy of its socket, and its client.
    struct Scene {
        heap: Arc<HeapPage>,
        connection: Connection,
        copy: OwnedFd,
        client: TcpStream,
    }

    fn tuple_of(copy: &OwnedFd) -> IceTuple {
        let stream = TcpStream::from(copy.try_clone().unwrap());
        IceTuple {
            protocol: IceProtocol::Tcp,
            local: stream.local_addr().unwrap(),
            remote: stream.peer_addr().unwrap(),
        }
    }

    fn keep(connection: &mut Connection) -> Arc<HeapPage> {
        let heap = HeapPage::new(CAPACITY.words());
        let mut page = Page::new(Memory::heap(heap.clone()), CAPACITY, 1);
        let slot = page.take(
            Table::Connections,
            7,
            Connection::cookie_of(connection.socket()).unwrap(),
        );
        connection.keep(page.kept(slot));
        heap
    }

    impl Scene {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let Ok(Accepted::Connection((accepted, remote))) = accept_at(listener.as_fd()) else {
                panic!("it waits");
            };
            let copy = accepted.try_clone().unwrap();
            let mut connection = Connection::new(accepted, 0, listener.local_addr().unwrap(), remote, Time(0));
            let heap = keep(&mut connection);
            Self {
                heap,
                connection,
                copy,
                client,
            }
        }

        /// The worker is killed, and another one goes on.
        fn die(&mut self) -> Result<(), WorkerError> {
            self.heap.kill();
            let left = Predecessor::open(self.heap.clone()).unwrap();
            let cookie = Connection::cookie_of(self.copy.as_fd()).unwrap();
            let slot = left.find(Table::Connections, 7, cookie).unwrap();
            let left: StreamOut = left.twin(slot, WRITTEN).unwrap().unwrap();
            let copy = self.copy.try_clone().unwrap();
            let mut successor = Connection::resume(copy, (0, tuple_of(&self.copy)), &left, Time(1))?;
            self.heap = keep(&mut successor);
            // Killed, it shuts nothing down.
            successor.is_proven = false;
            self.connection = successor;
            Ok(())
        }

        /// What the client has got until there is nothing more.
        fn read(&mut self, at_most: usize) -> Vec<u8> {
            self.client.set_nonblocking(true).unwrap();
            let mut bytes = vec![0; at_most];
            let read = self.client.read(&mut bytes).unwrap_or(0);
            bytes.truncate(read);
            bytes
        }
    }

    #[test]
    fn a_stream_goes_on_wherever_in_a_frame_its_worker_has_died() {
        let mut scene = Scene::new();
        let (mut stream, mut broken) = (Vec::new(), 0);
        for round in 0..60_usize {
            // Until neither kernel takes any more.
            let mut number = 0;
            while scene
                .connection
                .push(&vec![round as u8; 1 + (round * 331 + number * 7) % 1_400])
            {
                number += 1;
                if !scene.connection.flush() && number > 400 {
                    break;
                }
            }
            broken += usize::from(!scene.connection.waiting.is_empty());
            scene.die().unwrap();
            stream.extend(scene.read(1_000 * (round * round % 991)));
            scene.connection.flush();
        }
        assert!(broken > 10, "it has died in the middle of frames");
        assert!(scene.connection.push(b"the end"));
        let mut last = Vec::new();
        while last != b"the end" {
            scene.connection.flush();
            stream.extend(scene.read(1 << 20));
            let cut = each_whole(&stream, |packet| last = packet.to_vec()).unwrap();
            stream.drain(..cut.whole);
        }
        assert!(stream.is_empty());
    }

    #[test]
    fn what_has_come_of_a_frame_is_read_by_the_next_worker() {
        let mut scene = Scene::new();
        let packets: Vec<Vec<u8>> = (0..40_u8)
            .map(|number| vec![number; 1 + usize::from(number) * 97])
            .collect();
        let stream: Vec<u8> = packets
            .iter()
            .flat_map(|packet| [&prefix(packet.len()).unwrap()[..], packet].concat())
            .collect();
        let (mut found, mut sent) = (Vec::new(), 0);
        while sent < stream.len() {
            let part = (sent * 7 % 1_301 + 1).min(stream.len() - sent);
            scene.client.write_all(&stream[sent..sent + part]).unwrap();
            sent += part;
            scene
                .connection
                .read(&mut vec![0; 8_192], |packet| found.push(packet.to_vec()))
                .unwrap();
            scene.die().unwrap();
        }
        while found.len() < packets.len() {
            scene
                .connection
                .read(&mut vec![0; 8_192], |packet| found.push(packet.to_vec()))
                .unwrap();
        }
        assert_eq!(found, packets);
    }

    #[test]
    fn an_end_in_the_middle_of_a_frame_is_seen() {
        for part in [&b"\x00"[..], b"\x00\x05ab"] {
            let mut scene = Scene::new();
            scene.client.write_all(part).unwrap();
            drop(scene.client);
            let ended = loop {
                if let Err(ended) = scene.connection.read(&mut [0; 512], |_| panic!("nothing is whole")) {
                    break ended;
                }
            };
            assert_eq!(ended, Ended::Closed);
        }
    }

    #[test]
    fn a_stream_that_stands_elsewhere_than_was_left_ends() {
        let mut scene = Scene::new();
        // Somebody writes who keeps nothing.
        send(scene.copy.as_raw_fd(), b"\x00\x01x", MsgFlags::empty()).unwrap();
        assert!(matches!(scene.die(), Err(WorkerError::InvalidParameters(_))));
    }
}
