//! Sockets of a WebRTC transport that are connected to its peer, and that its worker does not get when the transport is made: TCP
//! connections, which the worker has accepted, and on a shared port the UDP socket that it has asked for.
//!
//! A copy of each is kept here, so that they outlive the worker; its successor gets them with the transport. Nobody reads a
//! copy. So it is closed as soon as the worker says that it has closed its own: else a connection would never end, and what comes
//! to a UDP socket would come to nobody.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use socket2::{Protocol, SockRef};
use weir_channel::message::{CONNECTED_MAX, IceProtocol, IceTuple};

use crate::server::model::address::ListenAddress;
use crate::server::workers::descriptors::leave_reserve;

/// Those of one transport.
#[derive(Debug, Default)]
pub(super) struct ConnectedSockets(Vec<(IceTuple, OwnedFd)>);

impl ConnectedSockets {
    /// Keeps a copy in place of one between the same addresses, which is closed; in place of any other one of UDP, too: the worker
    /// has no use for a second one.
    ///
    /// # Errors
    /// A transport has not so many.
    pub(super) fn keep(&mut self, tuple: IceTuple, socket: OwnedFd) -> Result<(), String> {
        let is_udp = |tuple: &IceTuple| tuple.protocol == IceProtocol::Udp;
        self.0
            .retain(|(other, _)| *other != tuple && !(is_udp(other) && is_udp(&tuple)));
        if self.0.len() >= CONNECTED_MAX {
            return Err(format!("more than {CONNECTED_MAX} connections of one transport"));
        }
        // Who is short of descriptors needs them for other things.
        if leave_reserve(&socket).is_ok() {
            self.0.push((tuple, socket));
        }
        Ok(())
    }

    /// The worker has closed its own.
    pub(super) fn close(&mut self, tuple: IceTuple) {
        self.0.retain(|(other, _)| *other != tuple);
    }

    /// What they are between, in the order of their descriptors.
    pub(super) fn tuples(&self) -> Vec<IceTuple> {
        self.0.iter().map(|(tuple, _)| *tuple).collect()
    }

    /// Descriptors of them for a worker.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = io::Result<OwnedFd>> + '_ {
        self.0.iter().map(|(_, socket)| socket.try_clone())
    }
}

/// Whether a descriptor that a worker has sent is what the worker says: a TCP connection that has come by a listener of the
/// transport. `None`: it is broken already.
///
/// # Errors
/// It is something else.
pub(super) fn check_connection(
    tuple: &IceTuple,
    socket: OwnedFd,
    mut listeners: impl Iterator<Item = ListenAddress>,
) -> Result<Option<OwnedFd>, String> {
    let listener = ListenAddress {
        protocol: IceProtocol::Tcp,
        address: tuple.local,
    };
    if tuple.protocol != IceProtocol::Tcp || !listeners.any(|known| known == listener) {
        return Err(format!(
            "a connection at {}, where its transport has no listener",
            tuple.local
        ));
    }
    let end = SockRef::from(&socket);
    let is_connection = getsockopt(&socket, sockopt::SockType) == Ok(SockType::Stream)
        && end.protocol().ok().flatten() == Some(Protocol::TCP)
        && getsockopt(&socket, sockopt::AcceptConn) == Ok(false);
    let local = end.local_addr().ok().and_then(|local| local.as_socket());
    let Some(local) = local.filter(|_| is_connection) else {
        return Err("something as a connection that is none".to_owned());
    };
    let remote = match end.peer_addr() {
        Ok(remote) => remote.as_socket(),
        Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => return Ok(None),
        Err(_) => None,
    };
    let same = |one: std::net::SocketAddr, other: std::net::SocketAddr| {
        (one.ip().to_canonical(), one.port()) == (other.ip().to_canonical(), other.port())
    };
    let is_between = remote.is_some_and(|remote| same(remote, tuple.remote))
        && (same(local, tuple.local) || tuple.local.ip().is_unspecified() && local.port() == tuple.local.port());
    match is_between {
        true => Ok(Some(socket)),
        false => Err("a connection that is one between other addresses".to_owned()),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "this is the sockets module")]
mod tests {
    use std::io::Read;
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

    use super::*;

    /// A listener, and both ends of a connection to it: the accepted one first.
    fn connection() -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        (listener, accepted, client)
    }

    fn tuple_of(listener: &TcpListener, client: &TcpStream) -> IceTuple {
        IceTuple {
            protocol: IceProtocol::Tcp,
            local: listener.local_addr().unwrap(),
            remote: client.local_addr().unwrap(),
        }
    }

    fn check(tuple: IceTuple, socket: impl Into<OwnedFd>, listener: SocketAddr) -> Result<Option<OwnedFd>, String> {
        let listener = ListenAddress {
            protocol: IceProtocol::Tcp,
            address: listener,
        };
        check_connection(&tuple, socket.into(), [listener].into_iter())
    }

    #[test]
    fn a_connection_is_taken_for_one() {
        let (listener, accepted, client) = connection();
        let tuple = tuple_of(&listener, &client);
        let local = listener.local_addr().unwrap();
        assert!(matches!(
            check(tuple, accepted.try_clone().unwrap(), local),
            Ok(Some(_))
        ));
        // A listener that is bound to no address.
        let any = SocketAddr::from(([0, 0, 0, 0], local.port()));
        let wild = IceTuple { local: any, ..tuple };
        assert!(matches!(check(wild, accepted, any), Ok(Some(_))));
    }

    #[test]
    fn a_connection_that_is_broken_is_not_kept_and_nobody_is_to_blame() {
        let (listener, accepted, client) = connection();
        let tuple = tuple_of(&listener, &client);
        SockRef::from(&client)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(client);
        // The reset has come when reading says so.
        let mut byte = [0];
        assert!(Read::read(&mut &accepted, &mut byte).is_err());
        assert!(matches!(
            check(tuple, accepted, listener.local_addr().unwrap()),
            Ok(None)
        ));
    }

    #[test]
    fn what_is_no_connection_of_the_transport_is_refused() {
        let (listener, accepted, client) = connection();
        let (other, of_other, _other_client) = connection();
        let tuple = tuple_of(&listener, &client);
        let local = listener.local_addr().unwrap();
        let (pipe, _end) = io::pipe().unwrap();
        let unix = std::os::unix::net::UnixStream::pair().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect(client.local_addr().unwrap()).unwrap();
        let wrong: [(&str, OwnedFd); 7] = [
            ("a pipe", pipe.into()),
            ("a Unix socket", unix.0.into()),
            ("a UDP socket", udp.into()),
            ("a file", std::fs::File::open("/dev/null").unwrap().into()),
            ("a listener", listener.try_clone().unwrap().into()),
            ("the client's end", client.try_clone().unwrap().into()),
            ("another connection", of_other.into()),
        ];
        for (what, socket) in wrong {
            assert!(check(tuple, socket, local).is_err(), "{what}");
        }
        let elsewhere = other.local_addr().unwrap();
        assert!(
            check(tuple, accepted.try_clone().unwrap(), elsewhere).is_err(),
            "of no listener"
        );
        let udp = IceTuple {
            protocol: IceProtocol::Udp,
            ..tuple
        };
        assert!(check(udp, accepted, local).is_err(), "not TCP");
    }
}
