//! `/transports`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_channel::id::{ProducerId, TransportId};
use weir_channel::message::{Remote, TransportDump, TransportStats, Zoned};

use super::answer::{AppData, Closed, Created, Reply};
use super::error::ApiError;
use super::extract::{Id, Params, number_or_digits, number_or_digits_schema};
use super::list::ListQuery;
use super::named::{Named, Of, OfWith};
use super::state::App;
use super::view::{Listing, StreamerView, TransportView, WebRtcView};
use crate::{MirrorOptions, PlainTransportOptions, Producer, Room, RtpStreamerOptions, Transport};

impl From<&Transport> for TransportView {
    fn from(transport: &Transport) -> Self {
        let webrtc = transport.webrtc();
        let tuple = transport.tuple();
        Self {
            id: transport.id(),
            room: transport.room().id(),
            kind: transport.kind(),
            // Before ICE has selected one, there are several.
            tuple: (webrtc.is_none() || tuple.remote.is_some()).then_some(tuple),
            rtcp_tuple: transport.rtcp_tuple(),
            comedia: transport.comedia(),
            comedia_policy: transport.comedia_policy(),
            comedia_from: transport.comedia_from(),
            rtcp_mux: transport.rtcp_mux(),
            peer: transport.peer().map(|peer| peer.name().to_owned()),
            direction: transport.direction(),
            max_bitrate_bps: transport.max_bitrate(),
            mirroring: transport.mirroring(),
            webrtc: webrtc.as_ref().map(WebRtcView::of),
            app_data: transport.app_data().clone(),
        }
    }
}

impl TransportView {
    /// As it is shown by itself.
    pub(super) fn whole(transport: &Transport) -> Self {
        Self {
            webrtc: transport.webrtc().as_ref().map(WebRtcView::whole),
            ..Self::from(transport)
        }
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<ListQuery>,
) -> Reply<Listing<TransportView>> {
    let query = query.only(&["room", "peer"])?;
    let transports = match query.peer(&app)? {
        Some(peer) => peer.transports(),
        None => query.rooms(&app)?.iter().flat_map(|room| room.transports()).collect(),
    };
    Ok(Json(query.part(transports, |transport: &Transport| transport.id().0)))
}

/// The answer to whoever has made a transport.
pub(super) fn created(transport: &Transport) -> Created<TransportView> {
    let place = format!("/transports/{}", transport.id().0);
    Created(place, TransportView::whole(transport))
}

pub(super) async fn create(
    OfWith(room, options): OfWith<Room, PlainTransportOptions>,
) -> Result<Created<TransportView>, ApiError> {
    let transport = room.create_plain_transport(options).await?;
    Ok(created(&transport))
}

pub(super) async fn show(Of(transport): Of<Transport>) -> Json<TransportView> {
    Json(TransportView::whole(&transport))
}

pub(super) async fn set_remote(OfWith(transport, remote): OfWith<Transport, Remote>) -> Reply<TransportView> {
    transport.set_remote(remote).await?;
    Ok(Json(TransportView::whole(&transport)))
}

/// The bitrate limit for a transport's senders.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MaxBitrate {
    /// The limit in bits per second, at least 10,000; `null` removes it.
    bitrate_bps: Option<u64>,
}

pub(super) async fn set_max_bitrate(
    OfWith(transport, MaxBitrate { bitrate_bps }): OfWith<Transport, MaxBitrate>,
) -> Reply<TransportView> {
    transport.set_max_bitrate(bitrate_bps).await?;
    Ok(Json(TransportView::whole(&transport)))
}

pub(super) async fn start_mirroring(
    OfWith(transport, options): OfWith<Transport, MirrorOptions>,
) -> Reply<TransportView> {
    transport.start_mirroring(options).await?;
    Ok(Json(TransportView::whole(&transport)))
}

pub(super) async fn stop_mirroring(Of(transport): Of<Transport>) -> Reply<TransportView> {
    transport.stop_mirroring().await?;
    Ok(Json(TransportView::whole(&transport)))
}

/// The producer to send, and the address to send it to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CreateStreamer {
    /// The producer.
    #[serde(deserialize_with = "number_or_digits")]
    #[schemars(schema_with = "number_or_digits_schema")]
    producer: ProducerId,
    /// The address.
    #[schemars(with = "String")]
    remote_ip: Zoned,
    /// The port for RTP and RTCP.
    remote_port: u16,
    /// The local address; the default is the server's own of the same family.
    #[schemars(with = "Option<String>")]
    local_ip: Option<Zoned>,
}

pub(super) async fn create_streamer(
    State(app): State<Arc<App>>,
    OfWith(room, body): OfWith<Room, CreateStreamer>,
) -> Result<Created<StreamerView>, ApiError> {
    let options = RtpStreamerOptions {
        remote_ip: body.remote_ip,
        remote_port: body.remote_port,
        local_ip: body.local_ip,
    };
    let producer = Producer::find(&app, Id(body.producer))?;
    let streamer = room.create_rtp_streamer(&producer, options).await?;
    let view = StreamerView {
        room: room.id(),
        producer: body.producer,
        transport: streamer.transport().id(),
        consumer: streamer.consumer().id(),
        rtp_parameters: streamer.consumer().rtp_parameters().clone(),
    };
    Ok(Created(format!("/transports/{}", view.transport.0), view))
}

/// All that is known of a transport.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TransportDumpView {
    #[serde(flatten)]
    served: TransportDump,
    /// The part that only a WebRTC transport has.
    #[serde(skip_serializing_if = "Option::is_none")]
    webrtc: Option<WebRtcView>,
}

pub(super) async fn dump(Of(transport): Of<Transport>) -> Reply<TransportDumpView> {
    Ok(Json(TransportDumpView {
        served: transport.dump().await?,
        // How ICE and DTLS stand is known without asking the worker.
        webrtc: transport.webrtc().as_ref().map(WebRtcView::whole),
    }))
}

pub(super) async fn stats(Of(transport): Of<Transport>) -> Reply<TransportStats> {
    Ok(Json(transport.stats().await?))
}

pub(super) async fn close(OfWith(transport, body): OfWith<Transport, AppData>) -> Reply<Closed<TransportId>> {
    transport.close(body.app_data).await?;
    Ok(Json(Closed::new(transport.id())))
}
