//! `/rooms/{id}/peers`

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::message::{ComediaPolicy, Remote, Zoned, any_case};

use super::answer::{AppData, Closed, Created, Reply};
use super::error::ApiError;
use super::extract::{Params, PeerPath};
use super::list::part;
use super::named::{Named, Of, OfWith};
use super::openapi::{Answer, Operation, Part, Schemas};
use super::signalling;
use super::state::App;
use super::transports::created;
use super::view::{PeerView, TransportView};
use crate::{Direction, IpFamily, Peer, PeerDump, PeerOptions, PlainTransportOptions, Room};

impl PeerView {
    fn of(peer: &Peer) -> Self {
        Self {
            name: peer.name().to_owned(),
            room: peer.room().id(),
            spy: peer.spy(),
            transports: peer.transports().len(),
            producers: peer.producers().len(),
            consumers: peer.consumers().len(),
            rtp_capabilities: None,
            app_data: peer.app_data(),
        }
    }

    /// As it is shown by itself.
    fn whole(peer: &Peer) -> Self {
        Self {
            rtp_capabilities: Some(peer.rtp_capabilities().clone()),
            ..Self::of(peer)
        }
    }
}

/// `?after=alice&limit=100`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PeerQuery {
    /// Only peers whose names come after this one.
    after: Option<String>,
    /// The maximum number of objects in the answer.
    limit: Option<usize>,
}

/// A part of a room's peers, ordered by name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PeerListing {
    /// The peers.
    pub items: Vec<PeerView>,
    /// The name after which the next part starts (`?after=`); `null` if this is the last part.
    pub next: Option<String>,
}

pub(super) async fn list(Of(room): Of<Room>, Params(query): Params<PeerQuery>) -> Json<PeerListing> {
    let name = |peer: &Peer| peer.name().to_owned();
    let (peers, next) = part(room.peers(), name, query.after, query.limit);
    let items = peers.iter().map(PeerView::of).collect();
    Json(PeerListing { items, next })
}

pub(super) async fn join(OfWith(room, options): OfWith<Room, PeerOptions>) -> Result<Created<PeerView>, ApiError> {
    let peer = room.create_peer(options)?;
    let place = format!("/rooms/{}/peers/{}", room.id().0, path_segment(peer.name()));
    Ok(Created(place, PeerView::whole(&peer)))
}

impl Part for signalling::MaybeUpgrade {}

impl Part for signalling::Source {}

/// A peer, or the end of HTTP on this connection.
pub(super) struct PeerOrSocket(Response);

impl IntoResponse for PeerOrSocket {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Answer for PeerOrSocket {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        <Json<PeerView> as Answer>::describe(operation, schemas);
    }
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    path: PeerPath,
    source: signalling::Source,
    headers: HeaderMap,
    upgrade: signalling::MaybeUpgrade,
) -> Result<PeerOrSocket, ApiError> {
    if signalling::wants_upgrade(&headers) {
        let place = Path((path.room.0.to_string(), path.name));
        let signalling = State(Arc::clone(&app.signalling));
        return signalling::connect(signalling, place, source, headers, upgrade)
            .await
            .map(PeerOrSocket);
    }
    let peer = Peer::find(&app, path)?;
    Ok(PeerOrSocket(Json(PeerView::whole(&peer)).into_response()))
}

pub(super) async fn close(OfWith(peer, body): OfWith<Peer, AppData>) -> Reply<Closed<String>> {
    peer.close(body.app_data).await?;
    Ok(Json(Closed::new(peer.name().to_owned())))
}

pub(super) async fn set_app_data(OfWith(peer, body): OfWith<Peer, AppData>) -> Json<PeerView> {
    peer.set_app_data(body.app_data);
    Json(PeerView::whole(&peer))
}

/// [`PlainTransportOptions`], and the direction in which the peer's client uses it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PeerTransport {
    /// The direction in which its client uses it; it is only kept, and restricts nothing.
    direction: Option<Direction>,
    /// The address to send to, if known already.
    remote: Option<Remote>,
    /// Learn the remote address from the first valid packet; not together with `remote`.
    #[serde(default)]
    comedia: bool,
    /// Whether a learned address may change to another port of the same IP.
    #[serde(default, deserialize_with = "any_case")]
    comedia_policy: ComediaPolicy,
    /// The only IP address at which the remote is learned; only with `comedia`. The default is any.
    comedia_from: Option<IpAddr>,
    /// Whether RTP and RTCP share one port (RFC 5761); the default is `true`.
    rtcp_mux: Option<bool>,
    /// The IP family.
    family: Option<IpFamily>,
    /// The local address; the default is the server's own.
    #[schemars(with = "Option<String>")]
    local_ip: Option<Zoned>,
    /// The local port for RTP.
    local_port: Option<u16>,
    /// Any data to keep with it.
    #[serde(default)]
    app_data: Value,
}

pub(super) async fn create_transport(
    OfWith(peer, body): OfWith<Peer, PeerTransport>,
) -> Result<Created<TransportView>, ApiError> {
    let options = PlainTransportOptions {
        remote: body.remote,
        comedia: body.comedia,
        comedia_policy: body.comedia_policy,
        comedia_from: body.comedia_from,
        rtcp_mux: body.rtcp_mux.unwrap_or(true),
        family: body.family,
        local_ip: body.local_ip,
        local_port: body.local_port,
        app_data: body.app_data,
    };
    let transport = peer.create_plain_transport(options, body.direction).await?;
    Ok(created(&transport))
}

pub(super) async fn dump(Of(peer): Of<Peer>) -> Reply<PeerDump> {
    Ok(Json(peer.dump().await?))
}

/// What is encoded: everything but what needs it nowhere in a URI (RFC 3986 §2.3).
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as it is written in a path or a query, e.g. a peer's in `/rooms/1/peers/{name}`.
pub fn path_segment(name: &str) -> impl Display {
    utf8_percent_encode(name, &RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_so_that_paths_can_have_them() {
        assert_eq!(path_segment("alice-1._~").to_string(), "alice-1._~");
        assert_eq!(path_segment("a/b ?é%&+").to_string(), "a%2Fb%20%3F%C3%A9%25%26%2B");
    }
}
