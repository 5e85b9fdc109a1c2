//! `/consumers`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{ConsumerDump, ConsumerStats, Profile};

use super::answer::{AppData, Closed, Created, Nothing, Pause, PreferredProfile, Reply};
use super::error::ApiError;
use super::extract::{Id, Params, number_or_digits, number_or_digits_schema};
use super::list::ListQuery;
use super::named::{Named, Of, OfWith};
use super::state::App;
use super::view::{ConsumerView, Listing};
use crate::{Consumer, ConsumerOptions, ConsumerRtp, EnableOptions, Producer, RtpCapabilities, Transport};

impl From<&Consumer> for ConsumerView {
    fn from(consumer: &Consumer) -> Self {
        Self {
            id: consumer.id(),
            room: consumer.room().id(),
            transport: consumer.transport().map(|transport| transport.id()),
            producer: consumer.producer().id(),
            waits: consumer.waits(),
            kind: consumer.kind(),
            peer: consumer.peer().map(|peer| peer.name().to_owned()),
            receiver: consumer.receiver().map(|peer| peer.name().to_owned()),
            enabled: consumer.enabled(),
            paused: consumer.paused(),
            locally_paused: consumer.locally_paused(),
            remotely_paused: consumer.remotely_paused(),
            source_paused: consumer.source_paused(),
            preferred_profile: consumer.preferred_profile(),
            effective_profile: consumer.effective_profile(),
            rtp_parameters: None,
            app_data: consumer.app_data().clone(),
        }
    }
}

impl ConsumerView {
    /// As it is shown by itself.
    fn whole(consumer: &Consumer) -> Self {
        Self {
            rtp_parameters: Some(consumer.rtp_parameters().clone()),
            ..Self::from(consumer)
        }
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<ListQuery>,
) -> Reply<Listing<ConsumerView>> {
    let mut consumers: Vec<Consumer> = match query.peer(&app)? {
        Some(peer) => peer.consumers(),
        None => query.rooms(&app)?.iter().flat_map(|room| room.consumers()).collect(),
    };
    if let Some(transport) = query.transport {
        consumers.retain(|consumer| consumer.transport().is_some_and(|own| own.id() == transport));
    }
    if let Some(producer) = query.producer {
        consumers.retain(|consumer| consumer.producer().id() == producer);
    }
    Ok(Json(query.part(consumers, |consumer| consumer.id().0)))
}

/// [`ConsumerOptions`], and of which producer.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CreateConsumer {
    /// The producer.
    #[serde(deserialize_with = "number_or_digits")]
    #[schemars(schema_with = "number_or_digits_schema")]
    producer: ProducerId,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    preferred_profile: Profile,
    /// What the receiver can receive, as `device.rtpCapabilities` of mediasoup's clients: it is sent what both have in
    /// common, under the receiver's payload types and header extension ids. Not together with those of `rtp`.
    rtp_capabilities: Option<RtpCapabilities>,
    #[serde(default)]
    rtp: ConsumerRtp,
    #[serde(default)]
    app_data: Value,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    OfWith(transport, body): OfWith<Transport, CreateConsumer>,
) -> Result<Created<ConsumerView>, ApiError> {
    let has_numbers = !body.rtp.payload_types.is_empty() || body.rtp.header_extensions.is_some();
    if body.rtp_capabilities.is_some() && has_numbers {
        return Err(ApiError::invalid(
            "give either rtpCapabilities or payloadTypes and headerExtensions of rtp, not both",
        ));
    }
    let options = ConsumerOptions {
        paused: body.paused,
        preferred_profile: body.preferred_profile,
        rtp: body.rtp,
        app_data: body.app_data,
    };
    let consumer = match body.rtp_capabilities {
        None => transport.consume(body.producer, options).await?,
        Some(receiver) => {
            let producer = Producer::find(&app, Id(body.producer))?;
            transport.consume_as(&producer, &receiver, options).await?
        }
    };
    Ok(Created(
        format!("/consumers/{}", consumer.id().0),
        ConsumerView::whole(&consumer),
    ))
}

pub(super) async fn show(Of(consumer): Of<Consumer>) -> Json<ConsumerView> {
    Json(ConsumerView::whole(&consumer))
}

/// The transport to send a consumer on, and how it starts.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Enable {
    /// The transport.
    #[serde(deserialize_with = "number_or_digits")]
    #[schemars(schema_with = "number_or_digits_schema")]
    transport: TransportId,
    /// Whether it starts paused by the client.
    #[serde(default)]
    paused: bool,
    /// The highest profile that the client wants.
    preferred_profile: Option<Profile>,
}

pub(super) async fn enable(
    State(app): State<Arc<App>>,
    OfWith(consumer, body): OfWith<Consumer, Enable>,
) -> Reply<ConsumerView> {
    let transport = Transport::find(&app, Id(body.transport))?;
    let options = EnableOptions {
        paused: body.paused,
        preferred_profile: body.preferred_profile,
    };
    consumer.enable(&transport, options).await?;
    Ok(Json(ConsumerView::from(&consumer)))
}

pub(super) async fn pause(OfWith(consumer, body): OfWith<Consumer, Pause>) -> Reply<ConsumerView> {
    consumer.pause_by(body.side, body.app_data).await?;
    Ok(Json(ConsumerView::from(&consumer)))
}

pub(super) async fn resume(OfWith(consumer, body): OfWith<Consumer, Pause>) -> Reply<ConsumerView> {
    consumer.resume_by(body.side, body.app_data).await?;
    Ok(Json(ConsumerView::from(&consumer)))
}

pub(super) async fn set_preferred_profile(
    OfWith(consumer, PreferredProfile { profile }): OfWith<Consumer, PreferredProfile>,
) -> Reply<ConsumerView> {
    consumer.set_preferred_profile(profile).await?;
    Ok(Json(ConsumerView::from(&consumer)))
}

pub(super) async fn request_key_frame(OfWith(consumer, Nothing {}): OfWith<Consumer, Nothing>) -> Reply<ConsumerView> {
    consumer.request_key_frame().await?;
    Ok(Json(ConsumerView::from(&consumer)))
}

pub(super) async fn stats(Of(consumer): Of<Consumer>) -> Reply<ConsumerStats> {
    Ok(Json(consumer.stats().await?))
}

pub(super) async fn dump(Of(consumer): Of<Consumer>) -> Reply<ConsumerDump> {
    Ok(Json(consumer.dump().await?))
}

pub(super) async fn close(OfWith(consumer, body): OfWith<Consumer, AppData>) -> Reply<Closed<ConsumerId>> {
    consumer.close(body.app_data).await?;
    Ok(Json(Closed::new(consumer.id())))
}
