//! `/rooms`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use weir_channel::id::RoomId;
use weir_channel::message::{DumpPage, StatsPage};

use super::answer::{AppData, Closed, Created, Reply};
use super::error::ApiError;
use super::extract::{Body, Params};
use super::list::ListQuery;
use super::named::{Of, OfWith};
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

pub(super) async fn list(State(app): State<Arc<App>>, Params(query): Params<ListQuery>) -> Reply<Listing<RoomView>> {
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

pub(super) async fn show(Of(room): Of<Room>) -> Json<RoomView> {
    Json(RoomView::from(&room))
}

pub(super) async fn rtp_capabilities(Of(room): Of<Room>) -> Json<RtpCapabilities> {
    Json(room.rtp_capabilities().clone())
}

pub(super) async fn stats(Of(room): Of<Room>) -> Reply<StatsPage> {
    Ok(Json(room.stats().await?))
}

pub(super) async fn dump(Of(room): Of<Room>) -> Reply<DumpPage> {
    Ok(Json(room.dump().await?))
}

pub(super) async fn close(OfWith(room, body): OfWith<Room, AppData>) -> Reply<Closed<RoomId>> {
    room.close(body.app_data).await?;
    Ok(Json(Closed::new(room.id())))
}
