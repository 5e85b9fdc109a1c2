//! Which simulcast layer a player is sent: `POST` to the URL that the answer to its offer links to (an extension of draft-ietf-wish-whep,
//! in a document of its own). The URL is below the session's, which is a secret, so no token is needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::answer::Emptiness;
use super::play::Seen;
use super::problem::Problem;
use super::request::WhipRequest;
use crate::http::state::App;
use crate::server::lock;
use crate::{MediaKind, Producer, ProducerId, Profile};

/// For how long the bitrates of a producer's layers are told as they were, to however many.
const ARE_NEW_FOR: Duration = Duration::from_secs(2);

/// Which layer a player wants.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LayerWish {
    /// The number of the section in the offer.
    media_id: Option<Value>,
    /// The layer, as the publisher calls it, or `low`, `medium` or `high`.
    rid: Option<String>,
    /// The same, in an earlier draft.
    encoding_id: Option<String>,
    spatial_layer_id: Option<u64>,
    max_spatial_layer_id: Option<u64>,
    max_width: Option<u64>,
    max_height: Option<u64>,
}

/// Chooses the layer that a player is sent at most; an empty object lets the server choose.
pub(in crate::http) async fn choose_layer(State(app): State<Arc<App>>, request: WhipRequest) -> Emptiness {
    let chosen = chosen(&app, &request).await;
    Emptiness(request.finish(&app, chosen))
}

async fn chosen(app: &App, request: &WhipRequest) -> Result<Response, Problem> {
    app.check_origin(request)?;
    let session = app.whip.sessions.of(request)?;
    let watching = session.watching()?;
    let wish: LayerWish = request.json()?;
    let section = wish.section()?;
    let seen = watching.seen();
    let is_meant = |seen: &&Seen| match section {
        Some(section) => seen.section == section,
        None => seen.kind == MediaKind::Video,
    };
    let Some(meant) = seen.iter().find(is_meant) else {
        return Err(unsupported("the session has no such section of video"));
    };
    let profile = wish.profile(meant)?;
    watching.prefer(meant.section, profile).await?;
    Ok(StatusCode::OK.into_response())
}

impl LayerWish {
    fn section(&self) -> Result<Option<usize>, Problem> {
        let number = match &self.media_id {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(Value::Number(number)) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
            Some(_) => None,
        };
        let wrong = || unsupported("mediaId is the number of a section of the offer, e.g. \"1\"");
        number.map(Some).ok_or_else(wrong)
    }

    fn profile(&self, seen: &Seen) -> Result<Profile, Problem> {
        let layers = seen
            .producer()
            .map(|producer| Layer::all_of(&producer))
            .unwrap_or_default();
        if let Some(name) = self.rid.as_ref().or(self.encoding_id.as_ref()) {
            let own = layers
                .iter()
                .find(|layer| layer.rid == *name)
                .map(|layer| layer.profile);
            let named = || name.parse().ok().filter(|profile| *profile != Profile::Default);
            return own
                .or_else(named)
                .ok_or_else(|| unsupported(format!("no layer {name:.32} is published; see the event layers")));
        }
        if let Some(index) = self.spatial_layer_id.or(self.max_spatial_layer_id) {
            let index = usize::try_from(index)
                .unwrap_or(usize::MAX)
                .min(layers.len().saturating_sub(1));
            return Ok(layers.get(index).map_or(Profile::Default, |layer| layer.profile));
        }
        if self.max_width.or(self.max_height).is_some() {
            return Err(unsupported(
                "the server does not know how large layers are; choose one by its rid (see the event layers)",
            ));
        }
        Ok(Profile::Default)
    }
}

/// A layer of what is published.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Layer {
    /// As the publisher calls it, or after its profile.
    pub(super) rid: String,
    profile: Profile,
    /// In bits per second.
    pub(super) bitrate: u64,
}

impl Layer {
    /// The layers of a producer, the lowest first.
    fn all_of(producer: &Producer) -> Vec<Self> {
        let encodings = &producer.rtp_parameters().encodings;
        let mut layers: Vec<Self> = encodings
            .iter()
            .map(|encoding| {
                let profile = encoding.profile.unwrap_or_default();
                Self {
                    rid: encoding.encoding_id.clone().unwrap_or_else(|| profile.to_string()),
                    profile,
                    bitrate: 0,
                }
            })
            .collect();
        layers.sort_by_key(|layer| layer.profile);
        layers
    }
}

/// The layers of producers with their bitrates, which are asked for once for everybody.
#[derive(Debug, Default)]
pub(super) struct Layers {
    known: Mutex<HashMap<ProducerId, Arc<Place>>>,
}

/// Of one producer: held while somebody asks.
type Place = tokio::sync::Mutex<Option<(Instant, Vec<Layer>)>>;

impl Layers {
    /// Those of a producer, the lowest first.
    pub(super) async fn of(&self, producer: &Producer) -> Vec<Layer> {
        let place = {
            let mut known = lock(&self.known);
            // Who else has one is about to look at it.
            let is_new = |place: &Place| {
                let own = place.try_lock();
                own.is_ok_and(|own| own.as_ref().is_some_and(|(at, _)| at.elapsed() < ARE_NEW_FOR))
            };
            known.retain(|id, place| *id == producer.id() || Arc::strong_count(place) > 1 || is_new(place));
            Arc::clone(known.entry(producer.id()).or_default())
        };
        let mut place = place.lock().await;
        if let Some((_, layers)) = place.as_ref().filter(|(at, _)| at.elapsed() < ARE_NEW_FOR) {
            return layers.clone();
        }
        let mut layers = Layer::all_of(producer);
        if let Ok(stats) = producer.stats().await {
            for stream in &stats.streams {
                if let Some(layer) = layers.iter_mut().find(|layer| layer.profile == stream.profile) {
                    layer.bitrate = stream.bitrate;
                }
            }
        }
        *place = Some((Instant::now(), layers.clone()));
        layers
    }
}

fn unsupported(message: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unsupportedLayer", message)
}
