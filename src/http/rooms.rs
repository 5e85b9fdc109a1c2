//! `/rooms`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::Value;
use weir_channel::id::RoomId;

use super::answer::{AppData, Closed, Created, camel_case};
use super::error::ApiError;
use super::extract::{Body, Id, Params};
use super::list::ListQuery;
use super::state::App;
use super::stats::RoomStats;
use super::view::{Listing, RoomView};
use crate::server::shown_tuple;
use crate::{Room, RoomOptions, RtpCapabilities};

impl From<&Room> for RoomView {
    fn from(room: &Room) -> Self {
        Self {
            id: room.id(),
            worker: room.worker(),
            peers: room.peers().len(),
            transports: room.transports().len(),
            producers: room.producers().len(),
            consumers: room.consumers().len(),
            app_data: room.app_data().clone(),
        }
    }
}

/// `GET /rooms`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Listing<RoomView>>, ApiError> {
    let query = query.only(&[])?;
    Ok(Json(query.part(app.server.rooms(), |room| room.id().0)))
}

/// `POST /rooms`
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Body(options): Body<RoomOptions>,
) -> Result<Created<RoomView>, ApiError> {
    let room = app.server.create_room(options).await?;
    Ok(Created(format!("/rooms/{}", room.id().0), RoomView::from(&room)))
}

/// `GET /rooms/{id}`
pub(super) async fn show(State(app): State<Arc<App>>, Id(id): Id<RoomId>) -> Result<Json<RoomView>, ApiError> {
    Ok(Json(RoomView::from(&app.room(id)?)))
}

/// `GET /rooms/{id}/rtp-capabilities`
pub(super) async fn rtp_capabilities(
    State(app): State<Arc<App>>,
    Id(id): Id<RoomId>,
) -> Result<Json<RtpCapabilities>, ApiError> {
    Ok(Json(app.room(id)?.rtp_capabilities().clone()))
}

/// `GET /rooms/{id}/stats`
pub(super) async fn stats(State(app): State<Arc<App>>, Id(id): Id<RoomId>) -> Result<Json<RoomStats>, ApiError> {
    let page = app.room(id)?.stats().await?;
    let shown = |transport, tuple| match app.server.transport(transport) {
        Some(transport) => transport.shown(tuple),
        // It has closed meanwhile, and what its address was called outside is not known any more.
        None => shown_tuple(tuple, |local| local.ip()),
    };
    let producer = |producer| app.server.producer(producer);
    let consumer = |consumer| app.server.consumer(consumer);
    Ok(Json(RoomStats::of(page, shown, producer, consumer)))
}

/// `GET /rooms/{id}/dump`
pub(super) async fn dump(State(app): State<Arc<App>>, Id(id): Id<RoomId>) -> Result<Json<Value>, ApiError> {
    let page = app.room(id)?.dump().await?;
    let mut dump = serde_json::to_value(page).map_err(ApiError::internal)?;
    camel_case(&mut dump);
    if let Some(dump) = dump.as_object_mut() {
        dump.remove("next");
    }
    Ok(Json(dump))
}

/// `DELETE /rooms/{id}`
pub(super) async fn close(
    State(app): State<Arc<App>>,
    Id(id): Id<RoomId>,
    Body(body): Body<AppData>,
) -> Result<Json<Closed<RoomId>>, ApiError> {
    app.room(id)?.close(body.app_data).await?;
    Ok(Json(Closed::new(id)))
}
