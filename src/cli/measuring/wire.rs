//! What a client sends and receives by: a UDP socket, or a TCP connection with a length before each packet (RFC 4571).

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use tokio::io::Interest;
use weir_channel::message::IceProtocol;
use weir_worker::webrtc::framing::outgoing::Outgoing;
use weir_worker::webrtc::framing::{FRAME_BYTES_MAX, PREFIX_BYTES};

use super::socket::RECEIVER_BUFFER;

/// So much of a connection is read at a time.
const ROOM: usize = 64 << 10;

/// So much waits for a connection at most. What comes then is lost, as it is where a socket of UDP is full.
const WAITING_MAX: usize = 64 << 10;

/// A way to the server. It never blocks.
#[derive(Debug)]
pub(in crate::cli) enum Wire {
    Udp(UdpSocket),
    Tcp(Stream),
}

impl Wire {
    pub(in crate::cli) fn protocol(&self) -> IceProtocol {
        match self {
            Self::Udp(_) => IceProtocol::Udp,
            Self::Tcp(_) => IceProtocol::Tcp,
        }
    }

    /// Sends a packet. Whether the kernel takes it.
    pub(in crate::cli) fn send(&mut self, packet: &[u8]) -> bool {
        match self {
            Self::Udp(socket) => socket.send(packet).is_ok(),
            Self::Tcp(stream) => stream.send(packet),
        }
    }

    /// Takes the next packet; `None` if there is none yet.
    ///
    /// # Errors
    /// What the kernel says; and `UnexpectedEof` when the server has closed a connection.
    pub(in crate::cli) fn receive(&mut self, packet: &mut [u8]) -> io::Result<Option<usize>> {
        let received = match self {
            Self::Udp(socket) => socket.recv(packet).map(Some),
            Self::Tcp(stream) => match stream.take(packet) {
                None => stream.read().map(|()| stream.take(packet)),
                taken => Ok(taken),
            },
        };
        match received {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            received => received,
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp(stream) => stream.socket.as_fd(),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(in crate::cli) struct Stream {
    socket: TcpStream,
    /// What has come and was not taken, from `taken` on.
    arrived: Vec<u8>,
    taken: usize,
    waiting: Outgoing,
}

impl Stream {
    /// Connects.
    ///
    /// # Errors
    /// What the kernel says.
    pub(in crate::cli) fn connect(server: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(server), socket2::Type::STREAM, None)?;
        // Before it connects, so that the window is as large.
        socket.set_recv_buffer_size(RECEIVER_BUFFER)?;
        socket.connect(&server.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: socket.into(),
            arrived: Vec::new(),
            taken: 0,
            waiting: Outgoing::new(),
        })
    }

    /// Sends a packet, behind those that the kernel has not taken yet. Whether it is on its way.
    fn send(&mut self, packet: &[u8]) -> bool {
        self.flush();
        let is_taken = self.waiting.push(packet, WAITING_MAX);
        self.flush();
        is_taken
    }

    fn flush(&mut self) {
        while !self.waiting.is_empty() {
            match self.socket.write(self.waiting.next()) {
                Ok(written) => self.waiting.wrote(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Of a connection that has ended, whoever reads it hears.
                Err(_) => return,
            }
        }
    }

    /// Reads what has come, at most [`ROOM`].
    ///
    /// # Errors
    /// As [`Wire::receive`], and `WouldBlock`.
    pub(in crate::cli) fn read(&mut self) -> io::Result<()> {
        self.arrived.drain(..self.taken);
        self.taken = 0;
        let before = self.arrived.len();
        self.arrived.resize(before + ROOM, 0);
        let read = self.socket.read(&mut self.arrived[before..]);
        self.arrived.truncate(before + read.as_ref().map_or(0, |read| *read));
        match read? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next of the packets that were read whole.
    pub(in crate::cli) fn take(&mut self, packet: &mut [u8]) -> Option<usize> {
        let (prefix, rest) = self.arrived[self.taken..].split_first_chunk::<PREFIX_BYTES>()?;
        let len = usize::from(u16::from_be_bytes(*prefix));
        let frame = rest.get(..len)?;
        // The server sends none that is longer, and nobody has room for it.
        let taken = len.min(packet.len()).min(FRAME_BYTES_MAX);
        packet[..taken].copy_from_slice(&frame[..taken]);
        self.taken += PREFIX_BYTES + len;
        Some(taken)
    }
}

/// A wire that is waited for.
pub(in crate::cli) struct Line<'a> {
    wire: &'a mut Wire,
    /// The same socket, as the runtime watches it.
    watched: Watched,
}

enum Watched {
    Udp(tokio::net::UdpSocket),
    Tcp(tokio::net::TcpStream),
}

impl<'a> Line<'a> {
    /// # Errors
    /// What the kernel says.
    pub(in crate::cli) fn new(wire: &'a mut Wire) -> io::Result<Self> {
        let watched = match wire {
            Wire::Udp(socket) => Watched::Udp(tokio::net::UdpSocket::from_std(socket.try_clone()?)?),
            Wire::Tcp(stream) => Watched::Tcp(tokio::net::TcpStream::from_std(stream.socket.try_clone()?)?),
        };
        Ok(Self { wire, watched })
    }

    /// As [`Wire::send`].
    ///
    /// # Errors
    /// It is not taken.
    pub(in crate::cli) fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        match self.wire.send(packet) {
            true => Ok(()),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits for the next packet. Nothing is lost if that is not awaited to the end.
    ///
    /// # Errors
    /// As [`Wire::receive`].
    pub(in crate::cli) async fn recv(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        // What the runtime knows of a socket is not so any more, if there was nothing to be read.
        let nothing = || Err::<(), _>(ErrorKind::WouldBlock.into());
        loop {
            if let Some(len) = self.wire.receive(packet)? {
                return Ok(len);
            }
            match &self.watched {
                Watched::Udp(socket) => {
                    socket.readable().await?;
                    let _ = socket.try_io(Interest::READABLE, nothing);
                }
                Watched::Tcp(stream) => {
                    stream.readable().await?;
                    let _ = stream.try_io(Interest::READABLE, nothing);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Stream::connect(listener.local_addr().unwrap()).unwrap();
        (stream, listener.accept().unwrap().0)
    }

    /// Waits for what the kernel is about to deliver.
    fn packets(wire: &mut Wire, count: usize) -> Vec<Vec<u8>> {
        let (mut packets, mut packet) = (Vec::new(), [0; 2_000]);
        while packets.len() < count {
            match wire.receive(&mut packet).unwrap() {
                Some(len) => packets.push(packet[..len].to_vec()),
                None => std::thread::yield_now(),
            }
        }
        packets
    }

    #[test]
    fn packets_come_out_of_a_connection_as_they_were_sent_wherever_it_is_cut() {
        let (stream, mut server) = pair();
        let mut wire = Wire::Tcp(stream);
        assert!(wire.send(b"there") && wire.send(b"again"));
        let mut sent = [0; 14];
        server.read_exact(&mut sent).unwrap();
        assert_eq!(&sent, b"\0\x05there\0\x05again");
        for byte in b"\0\x03one\0\x03tw" {
            server.write_all(&[*byte]).unwrap();
        }
        assert_eq!(packets(&mut wire, 1), [b"one"]);
        assert_eq!(wire.receive(&mut [0; 9]).unwrap(), None);
        server.write_all(b"o\0\x05three").unwrap();
        assert_eq!(packets(&mut wire, 2), [b"two".to_vec(), b"three".to_vec()]);
    }

    #[test]
    fn the_end_of_a_connection_is_told() {
        let (stream, server) = pair();
        let mut wire = Wire::Tcp(stream);
        drop(server);
        let error = loop {
            match wire.receive(&mut [0; 9]) {
                Ok(None) => std::thread::yield_now(),
                Ok(Some(_)) => panic!("nothing was sent"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_a_connection_does_not_take_is_not_kept_without_end() {
        let (stream, _server) = pair();
        let mut wire = Wire::Tcp(stream);
        let packet = [7; 1_200];
        let sent = (0..1_000_000).take_while(|_| wire.send(&packet)).count();
        assert!(sent < 1_000_000);
    }
}
