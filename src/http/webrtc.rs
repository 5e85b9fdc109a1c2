//! Transports for WebRTC: what they are made with, what their clients are told, and what they must be told of their clients.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::message::DtlsParameters;

use super::answer::{Created, Nothing, Reply};
use super::error::ApiError;
use super::named::OfWith;
use super::transports::created;
use super::view::{ClientCandidate, ClientOptions, IceRole, Introduction, TransportView, WebRtcView};
use crate::{Direction, IceCandidate, IceParameters, Peer, Room, WebRtcTransport, WebRtcTransportOptions};

impl WebRtcView {
    /// As it is shown in a list.
    pub(super) fn of(transport: &WebRtcTransport) -> Self {
        Self {
            ice_role: IceRole::Controlled,
            ice_candidates: transport.ice_candidates().to_vec(),
            ice_state: transport.ice_state(),
            ice_selected_tuple: transport.ice_selected_tuple(),
            dtls_state: transport.dtls_state(),
            failure: transport.failure(),
            introduction: None,
        }
    }

    /// As it is shown by itself.
    pub(super) fn whole(transport: &WebRtcTransport) -> Self {
        Self {
            introduction: Some(Introduction {
                ice_parameters: transport.ice_parameters(),
                dtls_local_parameters: transport.dtls_local_parameters(),
                dtls_remote_cert: transport.dtls_remote_cert(),
                client_options: ClientOptions::of(transport),
            }),
            ..Self::of(transport)
        }
    }
}

impl ClientOptions {
    fn of(transport: &WebRtcTransport) -> Self {
        let candidates = transport.ice_candidates().iter();
        Self {
            id: transport.id().0.to_string(),
            ice_parameters: transport.ice_parameters(),
            ice_candidates: candidates.map(ClientCandidate::of).collect(),
            dtls_parameters: transport.dtls_local_parameters(),
        }
    }
}

impl ClientCandidate {
    fn of(candidate: &IceCandidate) -> Self {
        Self {
            address: candidate.ip,
            candidate: candidate.clone(),
        }
    }
}

pub(super) async fn create(
    OfWith(room, options): OfWith<Room, WebRtcTransportOptions>,
) -> Result<Created<TransportView>, ApiError> {
    let transport = room.create_webrtc_transport(options).await?;
    Ok(created(&transport))
}

/// [`WebRtcTransportOptions`], and the direction in which the peer's client uses it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PeerWebRtcTransport {
    /// The direction in which its client uses it; it is only kept, and restricts nothing.
    direction: Option<Direction>,
    /// Whether clients can reach it over UDP; the default is `true`.
    udp: Option<bool>,
    /// Whether clients can reach it over TCP; the default is `true`.
    tcp: Option<bool>,
    /// The client should try IPv4 first.
    #[serde(default, rename = "preferIPv4")]
    prefer_ipv4: bool,
    /// The client should try IPv6 first.
    #[serde(default, rename = "preferIPv6")]
    prefer_ipv6: bool,
    /// The client should try UDP first.
    #[serde(default)]
    prefer_udp: bool,
    /// The client should try TCP first.
    #[serde(default)]
    prefer_tcp: bool,
    /// Any data to keep with it.
    #[serde(default)]
    app_data: Value,
}

pub(super) async fn create_of_peer(
    OfWith(peer, body): OfWith<Peer, PeerWebRtcTransport>,
) -> Result<Created<TransportView>, ApiError> {
    let options = WebRtcTransportOptions {
        udp: body.udp.unwrap_or(true),
        tcp: body.tcp.unwrap_or(true),
        prefer_ipv4: body.prefer_ipv4,
        prefer_ipv6: body.prefer_ipv6,
        prefer_udp: body.prefer_udp,
        prefer_tcp: body.prefer_tcp,
        app_data: body.app_data,
    };
    let transport = peer.create_webrtc_transport(options, body.direction).await?;
    Ok(created(&transport))
}

pub(super) async fn set_dtls(
    OfWith(transport, parameters): OfWith<WebRtcTransport, DtlsParameters>,
) -> Reply<TransportView> {
    transport.set_remote_dtls_parameters(parameters).await?;
    Ok(Json(TransportView::whole(&transport)))
}

/// The client's ICE credentials, as in its SDP.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ClientIce {
    /// `a=ice-ufrag`: 4 to 256 characters.
    username_fragment: String,
    /// `a=ice-pwd`: 22 to 256 characters.
    password: String,
}

pub(super) async fn set_ice(OfWith(transport, body): OfWith<WebRtcTransport, ClientIce>) -> Reply<TransportView> {
    let ClientIce {
        username_fragment,
        password,
    } = body;
    transport.set_remote_ice(username_fragment, password).await?;
    Ok(Json(TransportView::whole(&transport)))
}

/// The new credentials for the client's connectivity checks.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct IceRestarted {
    ice_parameters: IceParameters,
}

pub(super) async fn restart_ice(
    OfWith(transport, Nothing {}): OfWith<WebRtcTransport, Nothing>,
) -> Reply<IceRestarted> {
    let ice_parameters = transport.restart_ice().await?;
    Ok(Json(IceRestarted { ice_parameters }))
}
