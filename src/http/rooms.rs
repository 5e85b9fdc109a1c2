//! `/rooms`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use weir_channel::id::RoomId;
use weir_channel::message::{DumpPage, StatsPage};

use super::answer::{AppData, Closed, Created};
use super::error::ApiError;
use super::extract::{Body, Id, Params};
use super::list::ListQuery;
use super::state::App;
use super::view::{Listing, RoomView};
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

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Listing<RoomView>>, ApiError> {
    let query = query.only(&[])?;
    Ok(Json(query.part(app.server.rooms(), |room| room.id().0)))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Body(options): Body<RoomOptions>,
) -> Result<Created<RoomView>, ApiError> {
    let room = app.server.create_room(options).await?;
    Ok(Created(format!("/rooms/{}", room.id().0), RoomView::from(&room)))
}

pub(super) async fn show(State(app): State<Arc<App>>, Id(id): Id<RoomId>) -> Result<Json<RoomView>, ApiError> {
    Ok(Json(RoomView::from(&app.room(id)?)))
}

pub(super) async fn rtp_capabilities(
    State(app): State<Arc<App>>,
    Id(id): Id<RoomId>,
) -> Result<Json<RtpCapabilities>, ApiError> {
    Ok(Json(app.room(id)?.rtp_capabilities().clone()))
}

pub(super) async fn stats(State(app): State<Arc<App>>, Id(id): Id<RoomId>) -> Result<Json<StatsPage>, ApiError> {
    Ok(Json(app.room(id)?.stats().await?))
}

pub(super) async fn dump(State(app): State<Arc<App>>, Id(id): Id<RoomId>) -> Result<Json<DumpPage>, ApiError> {
    Ok(Json(app.room(id)?.dump().await?))
}

pub(super) async fn close(
    State(app): State<Arc<App>>,
    Id(id): Id<RoomId>,
    Body(body): Body<AppData>,
) -> Result<Json<Closed<RoomId>>, ApiError> {
    app.room(id)?.close(body.app_data).await?;
    Ok(Json(Closed::new(id)))
}
