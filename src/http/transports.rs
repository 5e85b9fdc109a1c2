//! `/transports`

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use weir_channel::id::{RoomId, TransportId};
use weir_channel::message::Remote;

use super::answer::{AppData, Closed, Created};
use super::app::App;
use super::error::ApiError;
use super::extract::{Body, Id, Params};
use super::list::{ListQuery, unknown};
use super::stats::TransportStats;
use super::view::{Listing, TransportView};
use crate::{PlainTransportOptions, Transport};

impl From<&Transport> for TransportView {
    fn from(transport: &Transport) -> Self {
        Self {
            id: transport.id(),
            room: transport.room().id(),
            tuple: transport.tuple(),
            rtcp_tuple: transport.rtcp_tuple(),
            comedia: transport.comedia(),
            rtcp_mux: transport.rtcp_mux(),
            app_data: transport.app_data().clone(),
        }
    }
}

impl App {
    pub(super) fn transport(&self, id: TransportId) -> Result<Transport, ApiError> {
        self.server.transport(id).ok_or_else(|| unknown(id))
    }
}

/// `GET /transports`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Listing<TransportView>>, ApiError> {
    let query = query.only(&["room"])?;
    let rooms = query.rooms(&app.server)?;
    let transports = rooms.iter().flat_map(|room| room.transports()).collect();
    Ok(Json(query.part(transports, |transport: &Transport| transport.id().0)))
}

/// `POST /rooms/{id}/transports`
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Id(room): Id<RoomId>,
    Body(options): Body<PlainTransportOptions>,
) -> Result<Created<TransportView>, ApiError> {
    let transport = app.room(room)?.create_plain_transport(options).await?;
    Ok(Created(
        format!("/transports/{}", transport.id().0),
        TransportView::from(&transport),
    ))
}

/// `GET /transports/{id}`
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Id(id): Id<TransportId>,
) -> Result<Json<TransportView>, ApiError> {
    Ok(Json(TransportView::from(&app.transport(id)?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetRemote {
    rtp: SocketAddr,
    rtcp: Option<SocketAddr>,
}

/// `PUT /transports/{id}/remote`
pub(super) async fn set_remote(
    State(app): State<Arc<App>>,
    Id(id): Id<TransportId>,
    Body(SetRemote { rtp, rtcp }): Body<SetRemote>,
) -> Result<Json<TransportView>, ApiError> {
    let transport = app.transport(id)?;
    transport.set_remote(Remote { rtp, rtcp }).await?;
    Ok(Json(TransportView::from(&transport)))
}

/// `GET /transports/{id}/stats`
pub(super) async fn stats(
    State(app): State<Arc<App>>,
    Id(id): Id<TransportId>,
) -> Result<Json<TransportStats>, ApiError> {
    Ok(Json(app.transport(id)?.stats().await?.into()))
}

/// `DELETE /transports/{id}`
pub(super) async fn close(
    State(app): State<Arc<App>>,
    Id(id): Id<TransportId>,
    Body(body): Body<AppData>,
) -> Result<Json<Closed<TransportId>>, ApiError> {
    app.transport(id)?.close(body.app_data).await?;
    Ok(Json(Closed::new(id)))
}
