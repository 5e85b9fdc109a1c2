//! TCP connections of WebRTC transports in the table of all sockets: accepted, found, read, written and closed.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recvmsg};

use super::Sockets;
use super::connection::{Accepted, Connection, Ended, accept_at};
use crate::net::send::Message;
use crate::relay::sink::TransportIx;
use crate::time::Time;

impl Sockets {
    /// Accepts the next connection of a listener, also beyond [`CONNECTIONS_MAX`](super::CONNECTIONS_MAX): the caller decides which one to close then.
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

    fn connection_mut(&mut self, transport: TransportIx, number: u8) -> Option<&mut Connection> {
        let ice = self.ice.get_mut(transport.0 as usize)?.as_deref_mut()?;
        ice.connection_mut(number)
    }

    /// Closes a connection.
    pub fn close_connection(&mut self, transport: TransportIx, number: u8) {
        if let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize)
            && ice.remove(number)
            && let Some(path) = self.paths.get_mut(transport.0 as usize)
        {
            path.is_connected = false;
        }
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
        let socket = connection.socket.as_raw_fd();
        let len = loop {
            let mut parts = [IoSliceMut::new(room)];
            match recvmsg::<()>(socket, &mut parts, None, MsgFlags::MSG_DONTWAIT) {
                Ok(message) if message.bytes == 0 => return Err(Ended::Closed),
                Ok(message) => break message.bytes,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(0),
                Err(errno) => return Err(Ended::Failed(errno)),
            }
        };
        connection.deframer.feed(&room[..len], take).map_err(Ended::Oversize)?;
        Ok(len)
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
        let whole = Message {
            start: 0,
            len: packets.len(),
            segment: segment.max(1),
        };
        let taken = whole
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
