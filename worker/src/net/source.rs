//! Names of everything that the event loop waits for, as epoll carries them.

use crate::relay::sink::{Port, TransportIx};

/// Which of a port's two sockets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// Receives anybody's packets.
    Unconnected,
    /// Connected to the remote as soon as that is known; receives only its packets.
    Connected,
}

/// What has become ready.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// The channel to the supervisor.
    Channel,
    /// One of a transport's sockets.
    Socket {
        /// The transport.
        transport: TransportIx,
        /// The port.
        port: Port,
        /// Which of the port's two sockets.
        side: Side,
    },
    /// One of a WebRTC transport's sockets that the supervisor has made.
    Listener {
        /// The transport.
        transport: TransportIx,
        /// The listener.
        listener: u8,
        /// Which of the port's two sockets.
        side: Side,
    },
    /// A port that WebRTC transports share.
    SharedPort {
        /// The number of the shared port.
        number: u8,
    },
    /// A TCP connection to a shared port whose transport is not known yet.
    Unassigned {
        /// The number of the connection.
        number: u16,
    },
    /// A TCP connection of a WebRTC transport.
    Connection {
        /// The transport.
        transport: TransportIx,
        /// The number of the connection.
        number: u8,
        /// A valid check has come by it.
        is_proven: bool,
    },
    /// One of those at which anybody is heard ([`Source::is_open`]).
    Open,
}

impl Source {
    /// Whether anybody is heard there, and not only a remote that is known.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Socket { side, .. } | Self::Listener { side, .. } => matches!(side, Side::Unconnected),
            Self::SharedPort { .. } | Self::Unassigned { .. } => true,
            Self::Connection { is_proven, .. } => !is_proven,
            Self::Channel | Self::Open => false,
        }
    }

    /// As the 64 bits that epoll carries: the listener or connection, the transport's index, and below them the kind.
    pub(super) fn to_bits(self) -> u64 {
        match self {
            Self::Channel => 0,
            Self::Socket { transport, port, side } => {
                let port = match port {
                    Port::Rtp => 0,
                    Port::Rtcp => 2,
                };
                let side = match side {
                    Side::Unconnected => 0,
                    Side::Connected => 1,
                };
                u64::from(transport.0) << 8 | 4 | port | side
            }
            Self::Listener {
                transport,
                listener,
                side,
            } => {
                let side = u64::from(side == Side::Connected);
                u64::from(listener) << 40 | u64::from(transport.0) << 8 | 8 | side
            }
            Self::Connection {
                transport,
                number,
                is_proven,
            } => u64::from(number) << 40 | u64::from(transport.0) << 8 | 16 | u64::from(is_proven),
            Self::SharedPort { number } => u64::from(number) << 8 | 32,
            Self::Unassigned { number } => u64::from(number) << 8 | 64,
            Self::Open => 128,
        }
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        if bits & 128 != 0 {
            return Self::Open;
        }
        if bits & 64 != 0 {
            return Self::Unassigned {
                number: (bits >> 8) as u16,
            };
        }
        if bits & 32 != 0 {
            return Self::SharedPort {
                number: (bits >> 8) as u8,
            };
        }
        if bits & 16 != 0 {
            return Self::Connection {
                transport: TransportIx((bits >> 8) as u32),
                number: (bits >> 40) as u8,
                is_proven: bits & 1 != 0,
            };
        }
        if bits & 8 != 0 {
            return Self::Listener {
                transport: TransportIx((bits >> 8) as u32),
                listener: (bits >> 40) as u8,
                side: if bits & 1 == 0 {
                    Side::Unconnected
                } else {
                    Side::Connected
                },
            };
        }
        if bits & 4 == 0 {
            return Self::Channel;
        }
        Self::Socket {
            transport: TransportIx((bits >> 8) as u32),
            port: if bits & 2 == 0 { Port::Rtp } else { Port::Rtcp },
            side: if bits & 1 == 0 {
                Side::Unconnected
            } else {
                Side::Connected
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte each costs a stranger nothing, and a turn of ours something.
    #[test]
    fn a_connection_by_which_no_valid_check_has_come_is_anybodys() {
        let connection = |is_proven| Source::Connection {
            transport: TransportIx(7),
            number: 3,
            is_proven,
        };
        assert!(connection(false).is_open());
        assert!(!connection(true).is_open());
    }

    #[test]
    fn sources_survive_the_way_through_the_kernel() {
        let mut sources = vec![Source::Channel, Source::Open];
        sources.extend([0, 3, u8::MAX].map(|number| Source::SharedPort { number }));
        sources.extend([0, 255, u16::MAX].map(|number| Source::Unassigned { number }));
        for transport in [0, 1, 255, 256, u32::MAX].map(TransportIx) {
            for port in [Port::Rtp, Port::Rtcp] {
                for side in [Side::Unconnected, Side::Connected] {
                    sources.push(Source::Socket { transport, port, side });
                }
            }
            for listener in [0, 3, u8::MAX] {
                for is_proven in [false, true] {
                    sources.push(Source::Connection {
                        transport,
                        number: listener,
                        is_proven,
                    });
                }
                for side in [Side::Unconnected, Side::Connected] {
                    sources.push(Source::Listener {
                        transport,
                        listener,
                        side,
                    });
                }
            }
        }
        for source in sources {
            assert_eq!(Source::from_bits(source.to_bits()), source);
        }
    }
}
