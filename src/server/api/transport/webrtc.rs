//! A WebRTC transport: the path between the server and a browser. Found by ICE, encrypted with keys from DTLS
//! (differences §9).

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::message::{
    CreateWebRtcTransport, DtlsParameters, DtlsState, FINGERPRINTS_MAX, Fingerprint, IceCredentials, IceProtocol,
    IceState, IceTuple, Method, Reply, WebRtcFailure,
};
use weir_worker::webrtc::dtls;
use weir_worker::webrtc::ice::{Credentials, Preferences};

use super::Transport;
use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::room::RoomNode;
use crate::server::model::settings::Settings;
use crate::server::model::state::{Command, OnAccept};
use crate::server::model::transport::{
    IceCandidate, IceParameters, Owner, TransportNode, WebRtcNode, WebRtcState, new_credentials,
};
use crate::server::workers::shared::Shared;
use crate::server::workers::sockets::{LocalAddresses, need_of_endpoints};

/// The options of a new WebRTC transport. What the server's settings switch off stays off.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebRtcTransportOptions {
    /// Whether clients can reach it over UDP.
    pub udp: bool,
    /// Whether clients can reach it over TCP.
    pub tcp: bool,
    /// The client should try IPv4 first.
    #[serde(rename = "preferIPv4")]
    pub prefer_ipv4: bool,
    /// The client should try IPv6 first.
    #[serde(rename = "preferIPv6")]
    pub prefer_ipv6: bool,
    /// The client should try UDP first.
    pub prefer_udp: bool,
    /// The client should try TCP first.
    pub prefer_tcp: bool,
    /// Any data of the application, kept with the transport.
    pub app_data: Value,
}

impl Default for WebRtcTransportOptions {
    fn default() -> Self {
        Self {
            udp: true,
            tcp: true,
            prefer_ipv4: false,
            prefer_ipv6: false,
            prefer_udp: false,
            prefer_tcp: false,
            app_data: Value::Null,
        }
    }
}

impl WebRtcTransportOptions {
    fn preferences(&self) -> Preferences {
        Preferences {
            ipv4: self.prefer_ipv4,
            ipv6: self.prefer_ipv6,
            udp: self.prefer_udp,
            tcp: self.prefer_tcp,
        }
    }

    /// How the transport is to be reached: UDP before TCP, IPv4 before IPv6, as mediasoup lists them.
    fn endpoints(&self, settings: &Settings, local: LocalAddresses) -> Result<Vec<(IceProtocol, IpAddr)>, Error> {
        let protocols = [
            (IceProtocol::Udp, self.udp && settings.rtc_udp),
            (IceProtocol::Tcp, self.tcp && settings.rtc_tcp),
        ];
        let endpoints: Vec<_> = protocols
            .into_iter()
            .filter_map(|(protocol, wanted)| wanted.then_some(protocol))
            .flat_map(|protocol| local.ips().map(move |ip| (protocol, ip)))
            .collect();
        match endpoints.is_empty() {
            true => Err(Error::InvalidParameters(
                "neither UDP nor TCP is left to reach the transport; allow one that the server has (rtc_udp, rtc_tcp)"
                    .to_owned(),
            )),
            false => Ok(endpoints),
        }
    }
}

/// A handle on a WebRTC transport: a [`Transport`], and the part that only WebRTC transports have.
#[derive(Clone)]
pub struct WebRtcTransport {
    transport: Transport,
    webrtc: Arc<WebRtcNode>,
}

impl WebRtcTransport {
    /// Binds the sockets and has the worker make the transport.
    pub(crate) async fn create(
        shared: &Arc<Shared>,
        room: &Arc<RoomNode>,
        options: WebRtcTransportOptions,
        owner: Option<Owner>,
    ) -> Result<Self, Error> {
        room.check_open()?;
        let endpoints = options.endpoints(&shared.settings, shared.addresses)?;
        let (sockets, need) = match &shared.shared_ports {
            // The worker has them.
            Some(shared_ports) => (shared_ports.sockets(room.worker, &endpoints)?, 0),
            None => {
                let made = shared.make_sockets(|maker| maker.listen(&endpoints));
                (made.await?, need_of_endpoints(&endpoints))
            }
        };
        let doing = "duplicating the sockets of a transport";
        let descriptors = shared.sockets.made(need, doing, sockets.descriptors())?;
        let ice = new_credentials();
        let request = CreateWebRtcTransport {
            room: room.id,
            transport: shared.ids.transport(),
            listeners: sockets.own_protocols(),
            ice: ice.clone(),
            connected: Vec::new(),
        };
        let addresses: Vec<_> = sockets.addresses().collect();
        let webrtc = WebRtcNode::new(
            &shared.settings,
            sockets.first_address(),
            &addresses,
            ice,
            options.preferences(),
        );
        let webrtc = Arc::new(webrtc);
        let node = TransportNode::for_webrtc(
            request.transport,
            Arc::clone(room),
            owner,
            Arc::clone(&webrtc),
            Box::new(sockets),
            options.app_data,
        );
        let command = Command {
            method: Method::CreateWebRtcTransport(request),
            on_accept: OnAccept::Transport(Arc::clone(&node)),
        };
        let created = shared.call_with_descriptors(room.worker, descriptors, |state| {
            state.admit_transport(&node)?;
            Ok(Some(command))
        });
        let reply = created.await?;
        let transport = Self {
            transport: Transport::new(shared, &node),
            webrtc,
        };
        match reply {
            Reply::WebRtcTransportCreated { .. } => Ok(transport),
            other => {
                transport.abandon();
                Err(shared.unexpected(room.worker, "CreateWebRtcTransport", &other))
            }
        }
    }

    /// The credentials for the client's connectivity checks.
    pub fn ice_parameters(&self) -> IceParameters {
        self.read(|state| IceParameters::of(&state.ice))
    }

    /// The addresses to which the client may send.
    pub fn ice_candidates(&self) -> &[IceCandidate] {
        &self.webrtc.candidates
    }

    /// The state of ICE.
    pub fn ice_state(&self) -> IceState {
        self.read(|state| state.ice_state)
    }

    /// The pair of addresses in use, once the client has been found. The local one is the announced address.
    pub fn ice_selected_tuple(&self) -> Option<IceTuple> {
        let tuple = self.read(|state| state.selected_tuple)?;
        Some(self.webrtc.shown(tuple))
    }

    /// The state of DTLS.
    pub fn dtls_state(&self) -> DtlsState {
        self.read(|state| state.dtls_state)
    }

    /// What failed last in ICE or DTLS, if anything did.
    pub fn failure(&self) -> Option<WebRtcFailure> {
        self.read(|state| state.failure.clone())
    }

    /// The server's DTLS role ([`DtlsRole::Auto`](weir_channel::message::DtlsRole::Auto) until the client's role is known) and the fingerprints of its
    /// certificate.
    pub fn dtls_local_parameters(&self) -> DtlsParameters {
        self.read(|state| state.dtls.clone())
    }

    /// The client's certificate, in PEM, once the client has proven that it has it.
    pub fn dtls_remote_cert(&self) -> Option<String> {
        self.read(|state| state.remote_certificate_pem.clone())
    }

    /// Sets the client's DTLS parameters: the fingerprints of its certificate, and its role. This is possible once, and
    /// media can flow only after it.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when the fingerprints are not fingerprints, or when there is none that can be trusted
    /// (SHA-256 at least, unless the settings let in less), a conflict when that has been said before, [`Error::InvalidState`] when the transport is closed.
    pub async fn set_remote_dtls_parameters(&self, parameters: DtlsParameters) -> Result<(), Error> {
        check_remote(&parameters, self.shared.settings.dtls_weak_fingerprints).map_err(Error::InvalidParameters)?;
        let transport = self.id();
        let method = Method::SetDtlsParameters { transport, parameters };
        match self.call(Command::new(method)).await? {
            Reply::DtlsRole(_) => Ok(()),
            other => Err(self
                .shared
                .unexpected(self.node.room.worker, "SetDtlsParameters", &other)),
        }
    }

    /// Sets the client's own ICE credentials (`a=ice-ufrag` and `a=ice-pwd` of its SDP), until ICE is restarted. The server then finds out by
    /// checks made with them whether the client receives what is sent to another address that it has moved to. Browsers need that not; some
    /// libraries (Pion, str0m, libjuice) answer no other checks.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when they are not what RFC 8445 §5.3 allows, [`Error::InvalidState`] when the transport is closed.
    pub async fn set_remote_ice(&self, username_fragment: String, password: String) -> Result<(), Error> {
        Credentials::restore(&username_fragment, &password)
            .map_err(|error| Error::InvalidParameters(error.to_string()))?;
        let transport = self.id();
        let ice = IceCredentials {
            username_fragment,
            password,
        };
        self.call(Command::new(Method::SetRemoteIce { transport, ice })).await?;
        Ok(())
    }

    /// Creates new credentials, for a client whose network has changed. Media continues as before until the client uses
    /// them.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when the transport is closed, and what the worker answers.
    pub async fn restart_ice(&self) -> Result<IceParameters, Error> {
        let ice = new_credentials();
        let parameters = IceParameters::of(&ice);
        let transport = self.id();
        self.call(Command::new(Method::RestartIce { transport, ice })).await?;
        Ok(parameters)
    }

    fn read<T>(&self, read: impl FnOnce(&WebRtcState) -> T) -> T {
        read(&lock(&self.webrtc.state))
    }
}

impl Deref for WebRtcTransport {
    type Target = Transport;

    fn deref(&self) -> &Transport {
        &self.transport
    }
}

impl From<WebRtcTransport> for Transport {
    fn from(transport: WebRtcTransport) -> Self {
        transport.transport
    }
}

impl fmt::Debug for WebRtcTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transport.fmt(f)
    }
}

impl Transport {
    /// This transport as a WebRTC transport; `None` if it is a plain one.
    pub fn webrtc(&self) -> Option<WebRtcTransport> {
        let webrtc = self.node.webrtc()?;
        Some(WebRtcTransport {
            transport: self.clone(),
            webrtc: Arc::clone(webrtc),
        })
    }
}

/// Whether these can tell a certificate: here, so that the reason is a sentence about what was said.
fn check_remote(parameters: &DtlsParameters, weak_allowed: bool) -> Result<(), String> {
    let count = parameters.fingerprints.len();
    if count == 0 || count > FINGERPRINTS_MAX {
        return Err(format!("1 to {FINGERPRINTS_MAX} fingerprints are needed, not {count}"));
    }
    let mut trusted = weak_allowed;
    for Fingerprint { algorithm, value } in &parameters.fingerprints {
        dtls::Fingerprint::parse(*algorithm, value).map_err(|error| format!("{algorithm}: {error}"))?;
        trusted |= algorithm.is_strong();
    }
    match trusted {
        true => Ok(()),
        false => Err("a fingerprint made with sha-256, sha-384 or sha-512 is needed".to_owned()),
    }
}
