//! Sockets that are connected to a client and outlive their worker: a copy of each is kept for as long as it is of use, and no
//! longer. A copy that is kept too long keeps a connection open, or takes what comes to a port.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd, OwnedFd};

use weir_channel::message::{CONNECTED_MAX, IceProtocol, IceTuple};

use super::*;
use crate::server::fake::PATIENCE;
use crate::server::workers::shared::Shared;
use crate::server::workers::sockets::WebRtcSockets;

/// A server with a WebRTC transport, whose worker has what it was given with it.
struct Clients {
    server: Server,
    fake: Fake,
    transport: WebRtcTransport,
    listener: Option<TcpListener>,
}

impl Clients {
    async fn new(settings: Settings) -> Self {
        let (server, mut fake) = server(settings).await;
        let room = accepted(&mut fake, server.create_room(RoomOptions::default()))
            .await
            .unwrap();
        let answer = async {
            let (request, descriptors) = fake.request().await.unwrap();
            let reply = fake.oblige(&request.method);
            fake.answer(&request, Ok(reply)).await;
            descriptors
        };
        let create = room.create_webrtc_transport(WebRtcTransportOptions::default());
        let (transport, mut descriptors) = soon(async { tokio::join!(create, answer) }).await;
        let listener = descriptors.pop().map(|listener| {
            let listener = TcpListener::from(listener);
            listener.set_nonblocking(false).unwrap();
            listener
        });
        Self {
            transport: transport.unwrap(),
            server,
            fake,
            listener,
        }
    }

    /// A client that has connected: its end, the worker's, and what they are between.
    fn connection(&self) -> (TcpStream, TcpStream, IceTuple) {
        let listener = self.listener.as_ref().unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (accepted, remote) = listener.accept().unwrap();
        let tuple = IceTuple {
            protocol: IceProtocol::Tcp,
            local: listener.local_addr().unwrap(),
            remote,
        };
        (client, accepted, tuple)
    }

    async fn hand_over(&mut self, tuple: IceTuple, socket: impl Into<OwnedFd>) {
        let transport = self.transport.id();
        let proven = Notification::ConnectionProven { transport, tuple };
        self.fake.notify_with(proven, socket.into()).await;
        self.heard().await;
    }

    async fn close_socket(&mut self, tuple: IceTuple) {
        let transport = self.transport.id();
        self.fake.notify(Notification::SocketClosed { transport, tuple }).await;
        self.heard().await;
    }

    /// What the worker has said is heard when an answer that it has given later is.
    async fn heard(&mut self) {
        let limit = self.transport.set_max_bitrate(Some(1_000_000));
        // The worker may be gone by now.
        let _ = soon(async {
            tokio::select! {
                answer = async { tokio::join!(limit, self.fake.accept()).0 } => answer.is_ok(),
                () = gone(&self.server) => false,
            }
        })
        .await;
    }

    async fn end(&self) -> DeathCause {
        soon(gone(&self.server)).await;
        self.server.workers()[0].last_exit.clone().unwrap()
    }
}

/// Returns when the worker is not listened to any more.
async fn gone(server: &Server) {
    while server.workers()[0].last_exit.is_none() {
        tokio::task::yield_now().await;
    }
}

/// How many descriptors this process has of a socket.
fn copies(socket: &impl AsRawFd) -> usize {
    let name = |number: &str| fs::read_link(format!("/proc/self/fd/{number}")).ok();
    let own = name(&socket.as_raw_fd().to_string());
    let all = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    all.filter(|entry| name(&entry.file_name().to_string_lossy()) == own)
        .count()
}

/// Whether the other end of a connection is closed.
fn ends(client: &mut TcpStream) -> bool {
    matches!(client.read(&mut [0]), Ok(0))
}

#[tokio::test]
async fn a_connection_is_kept_until_its_worker_says_that_it_has_ended() {
    let mut clients = Clients::new(settings()).await;
    let (mut client, accepted, tuple) = clients.connection();
    clients.hand_over(tuple, accepted.try_clone().unwrap()).await;
    assert_eq!(copies(&accepted), 2);
    // Said twice, it is kept once.
    clients.hand_over(tuple, accepted.try_clone().unwrap()).await;
    assert_eq!(copies(&accepted), 2);
    let other = IceTuple {
        remote: ([127, 0, 0, 1], 9).into(),
        ..tuple
    };
    clients.close_socket(other).await;
    assert_eq!(copies(&accepted), 2, "that was another one");
    clients.close_socket(tuple).await;
    assert_eq!(copies(&accepted), 1);
    drop(accepted);
    assert!(ends(&mut client));
}

#[tokio::test]
async fn what_is_kept_ends_with_its_transport() {
    let mut clients = Clients::new(settings()).await;
    let (mut client, accepted, tuple) = clients.connection();
    clients.hand_over(tuple, accepted.try_clone().unwrap()).await;
    accepted_close(&mut clients).await;
    assert_eq!(copies(&accepted), 1);
    drop(accepted);
    assert!(ends(&mut client));
    // What comes too late is closed.
    let (mut client, accepted, tuple) = clients.connection();
    let transport = clients.transport.id();
    let proven = Notification::ConnectionProven { transport, tuple };
    clients.fake.notify_with(proven, accepted.into()).await;
    assert!(tokio::task::spawn_blocking(move || ends(&mut client)).await.unwrap());
}

async fn accepted_close(clients: &mut Clients) {
    accepted(&mut clients.fake, clients.transport.close(Value::Null))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_copies_that_are_kept_of_many_connections_do_not_add_up() {
    let mut clients = Clients::new(settings()).await;
    let own = |clients: &Clients| {
        let id = clients.transport.id();
        let node = lock(&clients.server.shared().state).webrtc_of(WorkerId(1), id).unwrap();
        let state = lock(&node.state);
        let sockets = state.sockets.as_ref().unwrap();
        let sockets = sockets.downcast_ref::<WebRtcSockets>();
        sockets.unwrap().connected().len()
    };
    for _ in 0..3 * CONNECTED_MAX {
        let (_client, accepted, tuple) = clients.connection();
        clients.hand_over(tuple, accepted).await;
        assert_eq!(own(&clients), 1);
        clients.close_socket(tuple).await;
        assert_eq!(own(&clients), 0);
    }
}

#[tokio::test]
async fn a_worker_that_hands_over_more_than_there_can_be_is_replaced() {
    let mut clients = Clients::new(settings()).await;
    let mut ends = Vec::new();
    for number in 0..=CONNECTED_MAX {
        assert!(clients.server.workers()[0].last_exit.is_none(), "{number}");
        let (client, accepted, tuple) = clients.connection();
        clients.hand_over(tuple, accepted).await;
        ends.push(client);
    }
    let reason = "it sent more than 16 connections of one transport".to_owned();
    assert_eq!(clients.end().await, DeathCause::Misbehaved { reason });
    // Its rooms are closed, and with them all that was kept.
    for client in &mut ends {
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_worker_that_hands_over_something_else_is_replaced() {
    let somebody = UdpSocket::from(socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap());
    for descriptor in [fs::File::open("/dev/null").unwrap().into(), OwnedFd::from(somebody)] {
        let mut clients = Clients::new(settings()).await;
        let (_client, _accepted, tuple) = clients.connection();
        clients.hand_over(tuple, descriptor).await;
        let reason = "it sent something as a connection that is none".to_owned();
        assert_eq!(clients.end().await, DeathCause::Misbehaved { reason });
    }
    // With what has none.
    let mut clients = Clients::new(settings()).await;
    let (_client, accepted, tuple) = clients.connection();
    let transport = clients.transport.id();
    let closed = Notification::SocketClosed { transport, tuple };
    clients.fake.notify_with(closed, accepted.into()).await;
    let cause = clients.end().await;
    assert!(
        matches!(&cause, DeathCause::NotStarted { reason } if reason.contains("1 file descriptors")),
        "{cause:?}"
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "a peer's socket, or one that shows whether a port is free"
)]
fn udp(port: u16) -> std::io::Result<UdpSocket> {
    UdpSocket::bind(("127.0.0.1", port))
}

/// A server whose WebRTC transports share a port, with a transport.
async fn on_shared_port() -> (Clients, SocketAddr) {
    for _ in 0..20 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Another test may have the port by now, or have had it.
        if udp(port).is_err() {
            continue;
        }
        let settings = Settings {
            webrtc_port: NonZeroU16::new(port),
            ..settings()
        };
        if Shared::new(settings.clone()).is_ok() {
            return (Clients::new(settings).await, SocketAddr::from(([127, 0, 0, 1], port)));
        }
    }
    panic!("no port is free");
}

#[tokio::test]
async fn a_connected_socket_is_kept_as_long_as_its_worker_has_it() {
    let (mut clients, local) = on_shared_port().await;
    let transport = clients.transport.id();
    let peers: Vec<UdpSocket> = (0..3).map(|_| udp(0).unwrap()).collect();
    let tuple = |peer: &UdpSocket| IceTuple {
        protocol: IceProtocol::Udp,
        local,
        remote: peer.local_addr().unwrap(),
    };
    let mut given = Vec::new();
    for peer in &peers {
        let tuple = tuple(peer);
        clients
            .fake
            .notify(Notification::SocketWanted { transport, tuple })
            .await;
        let (request, mut descriptors) = soon(clients.fake.request()).await.unwrap();
        assert_eq!(request.method, Method::UseConnectedSocket { transport, tuple });
        given.push((request, descriptors.pop().unwrap()));
    }
    // One of a transport is enough: it sends to one tuple.
    let counts: Vec<_> = given.iter().map(|(_, socket)| copies(socket)).collect();
    assert_eq!(counts, [1, 1, 2]);
    for (request, _) in &given[..2] {
        clients.fake.answer(request, Ok(Reply::Done)).await;
        let (_, socket) = &given[2];
        clients.close_socket(tuple(&peers[0])).await;
        assert_eq!(copies(socket), 2, "that was another one");
    }
    // Whoever refuses it does not read from it.
    let (request, socket) = &given[2];
    clients
        .fake
        .answer(request, Err(WorkerError::UnknownTransport(transport)))
        .await;
    clients.heard().await;
    assert_eq!(copies(socket), 1);

    let tuple = tuple(&peers[0]);
    clients
        .fake
        .notify(Notification::SocketWanted { transport, tuple })
        .await;
    let (request, mut descriptors) = soon(clients.fake.request()).await.unwrap();
    clients.fake.answer(&request, Ok(Reply::Done)).await;
    clients.heard().await;
    let socket = descriptors.pop().unwrap();
    assert_eq!(copies(&socket), 2);
    clients.close_socket(tuple).await;
    assert_eq!(copies(&socket), 1);
}
