//! `/producers`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use weir_channel::id::{ProducerId, TransportId};
use weir_channel::message::{ProducerDump, ProducerStats};

use super::answer::{AppData, Closed, Created, Pause, PreferredProfile};
use super::error::ApiError;
use super::extract::{Body, Id, Params};
use super::list::ListQuery;
use super::state::App;
use super::view::{Listing, ProducerView};
use crate::{Producer, ProducerOptions};

impl From<&Producer> for ProducerView {
    fn from(producer: &Producer) -> Self {
        Self {
            id: producer.id(),
            room: producer.room().id(),
            transport: producer.transport().id(),
            kind: producer.kind(),
            peer: producer.peer().map(|peer| peer.name().to_owned()),
            paused: producer.paused(),
            locally_paused: producer.locally_paused(),
            remotely_paused: producer.remotely_paused(),
            preferred_profile: producer.preferred_profile(),
            rtp_parameters: None,
            app_data: producer.app_data().clone(),
        }
    }
}

impl ProducerView {
    /// As it is shown by itself.
    fn whole(producer: &Producer) -> Self {
        Self {
            rtp_parameters: Some(producer.rtp_parameters().clone()),
            ..Self::from(producer)
        }
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Listing<ProducerView>>, ApiError> {
    let query = query.only(&["room", "transport", "peer"])?;
    let mut producers: Vec<Producer> = match query.peer(&app)? {
        Some(peer) => peer.producers(),
        None => query.rooms(&app)?.iter().flat_map(|room| room.producers()).collect(),
    };
    if let Some(transport) = query.transport {
        producers.retain(|producer| producer.transport().id() == transport);
    }
    Ok(Json(query.part(producers, |producer| producer.id().0)))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Id(transport): Id<TransportId>,
    Body(options): Body<ProducerOptions>,
) -> Result<Created<ProducerView>, ApiError> {
    let producer = app.transport(transport)?.produce(options).await?;
    Ok(Created(
        format!("/producers/{}", producer.id().0),
        ProducerView::whole(&producer),
    ))
}

pub(super) async fn show(State(app): State<Arc<App>>, Id(id): Id<ProducerId>) -> Result<Json<ProducerView>, ApiError> {
    Ok(Json(ProducerView::whole(&app.producer(id)?)))
}

pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Id(id): Id<ProducerId>,
    Body(body): Body<Pause>,
) -> Result<Json<ProducerView>, ApiError> {
    let producer = app.producer(id)?;
    producer.pause_by(body.side.into(), body.app_data).await?;
    Ok(Json(ProducerView::from(&producer)))
}

pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Id(id): Id<ProducerId>,
    Body(body): Body<Pause>,
) -> Result<Json<ProducerView>, ApiError> {
    let producer = app.producer(id)?;
    producer.resume_by(body.side.into(), body.app_data).await?;
    Ok(Json(ProducerView::from(&producer)))
}

pub(super) async fn set_preferred_profile(
    State(app): State<Arc<App>>,
    Id(id): Id<ProducerId>,
    Body(PreferredProfile { profile }): Body<PreferredProfile>,
) -> Result<Json<ProducerView>, ApiError> {
    let producer = app.producer(id)?;
    producer.set_preferred_profile(profile).await?;
    Ok(Json(ProducerView::from(&producer)))
}

pub(super) async fn set_app_data(
    State(app): State<Arc<App>>,
    Id(id): Id<ProducerId>,
    Body(body): Body<AppData>,
) -> Result<Json<ProducerView>, ApiError> {
    let producer = app.producer(id)?;
    producer.set_app_data(body.app_data);
    Ok(Json(ProducerView::from(&producer)))
}

pub(super) async fn stats(
    State(app): State<Arc<App>>,
    Id(id): Id<ProducerId>,
) -> Result<Json<ProducerStats>, ApiError> {
    Ok(Json(app.producer(id)?.stats().await?))
}

pub(super) async fn dump(State(app): State<Arc<App>>, Id(id): Id<ProducerId>) -> Result<Json<ProducerDump>, ApiError> {
    Ok(Json(app.producer(id)?.dump().await?))
}

pub(super) async fn close(
    State(app): State<Arc<App>>,
    Id(id): Id<ProducerId>,
    Body(body): Body<AppData>,
) -> Result<Json<Closed<ProducerId>>, ApiError> {
    app.producer(id)?.close(body.app_data).await?;
    Ok(Json(Closed::new(id)))
}
