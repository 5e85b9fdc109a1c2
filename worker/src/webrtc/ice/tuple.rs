//! The two ends of a path.

use std::fmt;
use std::net::SocketAddr;

/// The transport protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// One packet per datagram.
    Udp,
    /// Packets framed in a stream that the peer opened (RFC 6544).
    Tcp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

/// A path: what identifies a connected socket, or a TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tuple {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Our end, as the socket is bound.
    pub local: SocketAddr,
    /// The peer's end, as we see it.
    pub remote: SocketAddr,
}

impl fmt::Display for Tuple {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} <-> {}", self.protocol, self.local, self.remote)
    }
}
