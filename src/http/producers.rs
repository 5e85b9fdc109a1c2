//! `/producers`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use weir_channel::id::ProducerId;
use weir_channel::message::{ProducerDump, ProducerStats};

use super::answer::{AppData, Closed, Created, Pause, PreferredProfile, Reply};
use super::error::ApiError;
use super::extract::Params;
use super::list::ListQuery;
use super::named::{Of, OfWith};
use super::state::App;
use super::view::{Listing, ProducerView};
use crate::{Producer, ProducerOptions, Transport};

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
) -> Reply<Listing<ProducerView>> {
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
    OfWith(transport, options): OfWith<Transport, ProducerOptions>,
) -> Result<Created<ProducerView>, ApiError> {
    let producer = transport.produce(options).await?;
    Ok(Created(
        format!("/producers/{}", producer.id().0),
        ProducerView::whole(&producer),
    ))
}

pub(super) async fn show(Of(producer): Of<Producer>) -> Json<ProducerView> {
    Json(ProducerView::whole(&producer))
}

pub(super) async fn pause(OfWith(producer, body): OfWith<Producer, Pause>) -> Reply<ProducerView> {
    producer.pause_by(body.side, body.app_data).await?;
    Ok(Json(ProducerView::from(&producer)))
}

pub(super) async fn resume(OfWith(producer, body): OfWith<Producer, Pause>) -> Reply<ProducerView> {
    producer.resume_by(body.side, body.app_data).await?;
    Ok(Json(ProducerView::from(&producer)))
}

pub(super) async fn set_preferred_profile(
    OfWith(producer, PreferredProfile { profile }): OfWith<Producer, PreferredProfile>,
) -> Reply<ProducerView> {
    producer.set_preferred_profile(profile).await?;
    Ok(Json(ProducerView::from(&producer)))
}

pub(super) async fn set_app_data(OfWith(producer, body): OfWith<Producer, AppData>) -> Json<ProducerView> {
    producer.set_app_data(body.app_data);
    Json(ProducerView::from(&producer))
}

pub(super) async fn stats(Of(producer): Of<Producer>) -> Reply<ProducerStats> {
    Ok(Json(producer.stats().await?))
}

pub(super) async fn dump(Of(producer): Of<Producer>) -> Reply<ProducerDump> {
    Ok(Json(producer.dump().await?))
}

pub(super) async fn close(OfWith(producer, body): OfWith<Producer, AppData>) -> Reply<Closed<ProducerId>> {
    producer.close(body.app_data).await?;
    Ok(Json(Closed::new(producer.id())))
}
