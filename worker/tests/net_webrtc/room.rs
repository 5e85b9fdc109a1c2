//! A room in a worker, with clients and plain peers in it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use weir_channel::id::TransportId;
use weir_channel::message::{
    CreateWebRtcTransport, DtlsParameters, DtlsRole, DtlsState, Fingerprint, IceCredentials, IceProtocol, Method,
    Notification, Reply, Scope, TransportStats, UnroutedReason, WebRtcStats, WorkerError,
};

use crate::client::Client;
use crate::loopback::{Peer, port, remote};
use crate::supervisor::{ROOM, Supervisor};

pub(crate) fn room() -> Supervisor {
    let mut supervisor = Supervisor::with_worker();
    assert_eq!(supervisor.request(Method::CreateRouter { room: ROOM }), Ok(Reply::Done));
    supervisor
}

/// What the supervisor makes up for a transport.
pub(crate) fn ice_credentials(transport: u64, restarts: u64) -> IceCredentials {
    IceCredentials {
        username_fragment: format!("ufrag{transport:03}x{restarts}"),
        password: format!("a/password+of/{transport:08}/{restarts:08}"),
    }
}

pub(crate) fn create_webrtc(
    supervisor: &mut Supervisor,
    transport: u64,
    listeners: &[IceProtocol],
    descriptors: &[OwnedFd],
) -> Result<Vec<Fingerprint>, WorkerError> {
    let request = CreateWebRtcTransport {
        room: ROOM,
        transport: TransportId(transport),
        listeners: listeners.to_vec(),
        connected: Vec::new(),
        ice: ice_credentials(transport, 0),
    };
    match supervisor.request_with(Method::CreateWebRtcTransport(request), descriptors)? {
        Reply::WebRtcTransportCreated { fingerprints } => Ok(fingerprints),
        other => panic!("{other:?}"),
    }
}

/// A WebRTC transport on one UDP port, and a client that has not begun.
pub(crate) fn transport_for_client(supervisor: &mut Supervisor, transport: u64, is_active: bool) -> Client {
    let (unconnected, connected, address) = port();
    create_webrtc(supervisor, transport, &[IceProtocol::Udp], &[unconnected, connected]).unwrap();
    Client::new(address, &ice_credentials(transport, 0), is_active)
}

pub(crate) fn set_dtls_parameters(
    supervisor: &mut Supervisor,
    transport: u64,
    parameters: DtlsParameters,
) -> Result<Reply, WorkerError> {
    supervisor.request(Method::SetDtlsParameters {
        transport: TransportId(transport),
        parameters,
    })
}

/// A client that is connected on a WebRTC transport of its own.
pub(crate) fn connected_client(supervisor: &mut Supervisor, transport: u64) -> Client {
    let client = transport_for_client(supervisor, transport, true);
    connect(supervisor, transport, client)
}

/// Connects a client that begins DTLS.
pub(crate) fn connect(supervisor: &mut Supervisor, transport: u64, mut client: Client) -> Client {
    let parameters = client.parameters(DtlsRole::Auto);
    let role = set_dtls_parameters(supervisor, transport, parameters);
    assert_eq!(role, Ok(Reply::DtlsRole(DtlsRole::Server)));
    client.run_until(|client| client.is_connected());
    await_dtls(supervisor, transport, DtlsState::Connected);
    client
}

/// Waits until the worker has reported a state; whatever it reported before, and what came with it.
pub(crate) fn await_dtls(supervisor: &mut Supervisor, id: u64, wanted: DtlsState) -> Option<String> {
    loop {
        if let Notification::DtlsStateChanged {
            transport,
            state,
            remote_certificate_pem,
            ..
        } = supervisor.notification()
            && transport == TransportId(id)
            && state == wanted
        {
            return remote_certificate_pem;
        }
    }
}

/// A plain transport that sends to `peer`; its address.
pub(crate) fn plain_transport(supervisor: &mut Supervisor, transport: u64, peer: &Peer) -> SocketAddr {
    let (unconnected, connected, address) = port();
    let created = supervisor.create_transport(transport, Some(remote(peer.address)), &[unconnected, connected]);
    assert_eq!(created, Ok(Reply::Done));
    address
}

/// Whether the worker sends media to where a client is now. Before, the client has to answer a check of the worker's.
pub(crate) fn has_moved(supervisor: &mut Supervisor, transport: u64, client: &Client) -> bool {
    let remote = stats(supervisor, transport).remote;
    remote.is_some_and(|remote| remote.rtp == client.wire.address())
}

pub(crate) fn stats(supervisor: &mut Supervisor, transport: u64) -> TransportStats {
    let method = Method::Stats(Scope::Transport(TransportId(transport)));
    match supervisor.request(method) {
        Ok(Reply::Stats(mut page)) => page.transports.remove(0),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn webrtc_stats(supervisor: &mut Supervisor, transport: u64) -> WebRtcStats {
    stats(supervisor, transport).webrtc.unwrap()
}

/// Waits until so many packets were dropped for a reason. Packets and requests come by different ways.
pub(crate) fn await_unrouted(supervisor: &mut Supervisor, transport: u64, reason: UnroutedReason, count: u64) {
    let end = weir_worker::net::clock::monotonic() + std::time::Duration::from_secs(30);
    loop {
        let stats = stats(supervisor, transport);
        let counted = stats.unrouted.iter().find(|(other, _)| *other == reason);
        if counted.is_some_and(|(_, counted)| *counted >= count) {
            assert_eq!(counted, Some(&(reason, count)));
            return;
        }
        assert!(weir_worker::net::clock::monotonic() < end, "{:?}", stats.unrouted);
    }
}
