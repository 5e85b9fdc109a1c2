//! The objects that paths name.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};

use super::error::ApiError;
use super::extract::{Body, Id, PeerPath};
use super::state::{App, unknown};
use crate::{Consumer, Error, Peer, Producer, Room, Transport, WebRtcTransport};

/// What a path can name.
pub(super) trait Named: Sized {
    /// What the path says of it.
    type Path: FromRequestParts<Arc<App>, Rejection = ApiError> + Send;

    fn find(app: &App, path: Self::Path) -> Result<Self, ApiError>;
}

/// The object that the path names; 404 if there is none. For requests without a body.
pub(super) struct Of<T>(pub(super) T);

impl<T: Named> FromRequestParts<Arc<App>> for Of<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let path = T::Path::from_request_parts(parts, app).await?;
        T::find(app, path).map(Self)
    }
}

/// The object that the path names, and the JSON body. The body is read first: who sends one is answered after it is sent, and an
/// object that was closed meanwhile is not there any more.
pub(super) struct OfWith<T, B>(pub(super) T, pub(super) B);

impl<T: Named, B: DeserializeOwned> FromRequest<Arc<App>> for OfWith<T, B> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let path = T::Path::from_request_parts(&mut parts, app).await?;
        let Body(body) = Body::from_request(Request::from_parts(parts, body), app).await?;
        T::find(app, path).map(|object| Self(object, body))
    }
}

impl Named for Room {
    type Path = Id<RoomId>;

    fn find(app: &App, Id(id): Self::Path) -> Result<Self, ApiError> {
        app.server.room(id).ok_or_else(|| unknown(id))
    }
}

impl Named for Peer {
    type Path = PeerPath;

    fn find(app: &App, PeerPath { room, name }: PeerPath) -> Result<Self, ApiError> {
        let peer = Room::find(app, Id(room))?.peer(&name);
        peer.ok_or_else(|| {
            let shown: String = name.chars().take(100).collect();
            unknown(format_args!("peer {shown:?} in {room}"))
        })
    }
}

impl Named for Transport {
    type Path = Id<TransportId>;

    fn find(app: &App, Id(id): Self::Path) -> Result<Self, ApiError> {
        app.server.transport(id).ok_or_else(|| unknown(id))
    }
}

/// A transport that must be one for WebRTC to have what is asked for.
impl Named for WebRtcTransport {
    type Path = Id<TransportId>;

    fn find(app: &App, Id(id): Self::Path) -> Result<Self, ApiError> {
        Transport::find(app, Id(id))?.webrtc().ok_or_else(|| {
            Error::InvalidParameters(format!("{id} is for plain RTP: it has neither ICE nor DTLS")).into()
        })
    }
}

impl Named for Producer {
    type Path = Id<ProducerId>;

    fn find(app: &App, Id(id): Self::Path) -> Result<Self, ApiError> {
        app.server.producer(id).ok_or_else(|| unknown(id))
    }
}

impl Named for Consumer {
    type Path = Id<ConsumerId>;

    fn find(app: &App, Id(id): Self::Path) -> Result<Self, ApiError> {
        app.server.consumer(id).ok_or_else(|| unknown(id))
    }
}
