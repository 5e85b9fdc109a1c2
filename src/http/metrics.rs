//! What a monitoring system asks: `/metrics`, `/health`, `/ready`, on a listener of their own, without a token.
//!
//! Numbers are gathered once for all who ask within [`FRESH`], so that nobody who asks often costs the workers anything. No label
//! has a value that came from outside.

mod collect;
mod exposition;
mod family;
mod requests;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::collect::{collect, of_rooms};
use self::exposition::{Format, encode};
use self::family::Family;
use self::requests::Requests;
use super::error::ApiError;
use super::extract::Params;
use super::listen::Limits;
use super::origin::is_of_this_machine;
use super::server::{Health, HealthStatus};
use super::state::App;
use crate::Server;
use crate::server::{RoomCensus, wall_clock_ms};

/// For how long gathered numbers are told again.
const FRESH: Duration = Duration::from_secs(1);

/// The most rooms that can be asked for by themselves.
const ROOMS_MAX: usize = 1_000;

/// What there is to know of a server whose control interface is [`app`](super::app): made before it, and given to it as
/// [`ControlOptions::metrics`](super::ControlOptions::metrics).
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Known>);

#[derive(Debug)]
struct Known {
    /// In milliseconds of Unix time.
    started_ms: u64,
    requests: Requests,
    /// Not there before the server is, nor after its end.
    app: OnceLock<Weak<App>>,
    last: Mutex<Option<Snapshot>>,
}

/// Numbers of one moment.
#[derive(Debug)]
struct Snapshot {
    at: Instant,
    families: Vec<Family>,
    rooms: Vec<RoomCensus>,
    /// By format.
    texts: [OnceLock<String>; 2],
}

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Known {
            started_ms: wall_clock_ms(),
            requests: Requests::default(),
            app: OnceLock::new(),
            last: Mutex::new(None),
        }))
    }
}

impl Metrics {
    /// The server is there.
    pub(super) fn begin(&self, app: &Arc<App>) {
        // It is the first one, or another of the same server's.
        let _ = self.0.app.set(Arc::downgrade(app));
    }

    /// `app`, whose requests are counted.
    pub fn counted(&self, app: Router) -> Router {
        let known = Arc::clone(&self.0);
        app.layer(middleware::from_fn(move |request: Request, next: Next| {
            let known = Arc::clone(&known);
            async move { known.requests.count(request, next).await }
        }))
    }

    fn app(&self) -> Option<Arc<App>> {
        self.0.app.get()?.upgrade()
    }

    /// The server, unless it is starting, or has ended.
    fn server(&self) -> Result<Server, &'static str> {
        match (self.0.app.get(), self.app()) {
            (None, _) => Err("the server is starting"),
            (_, None) => Err("the server is closing"),
            (_, Some(app)) => Ok(app.server.clone()),
        }
    }

    async fn text(&self, format: Format, rooms: Option<usize>) -> Result<String, ApiError> {
        let mut last = self.0.last.lock().await;
        if last.as_ref().is_none_or(|last| last.at.elapsed() >= FRESH) {
            let (families, rooms) = collect(self).await;
            *last = Some(Snapshot {
                at: Instant::now(),
                families,
                rooms,
                texts: Default::default(),
            });
        }
        let Some(snapshot) = last.as_ref() else {
            return Err(ApiError::internal("no numbers were gathered"));
        };
        let text = snapshot.texts[format as usize].get_or_init(|| encode(&snapshot.families, format));
        Ok(match rooms {
            None => text.clone(),
            Some(most) => {
                let mut families = snapshot.families.clone();
                families.extend(of_rooms(&snapshot.rooms, most));
                encode(&families, format)
            }
        })
    }
}

/// `/metrics`, `/health` and `/ready`, to be served at `listen`. Whoever reaches that may ask. At a loopback address a request for numbers
/// must be meant for one, so that no page of another site reads them.
pub fn metrics(metrics: Metrics, listen: SocketAddr) -> Router {
    let mut numbers = get(show);
    if listen.ip().to_canonical().is_loopback() {
        numbers = numbers.layer(middleware::from_fn(only_this_machine));
    }
    Router::new()
        .route("/metrics", numbers)
        .route("/health", get(health))
        .route("/ready", get(ready))
        .fallback(async || {
            let message = "there is /metrics, /health and /ready here";
            ApiError::new(StatusCode::NOT_FOUND, "unknownRoute", message)
        })
        .method_not_allowed_fallback(async || {
            let message = "only GET and HEAD are answered here";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "methodNotAllowed", message)
        })
        .with_state(metrics)
}

/// How much of the server those can hold on to who ask there.
pub fn metrics_limits(limits: Limits) -> Limits {
    Limits {
        // A few monitoring systems and probes, each with a connection or two.
        strangers: 128,
        strangers_per_network: 64,
        stall: Duration::from_secs(10),
        ..limits
    }
}

async fn only_this_machine(request: Request, next: Next) -> Response {
    if is_of_this_machine(request.headers()) {
        return next.run(request).await;
    }
    let message = "this address is loopback's: it answers requests for `localhost` or a loopback address that come through no proxy; \
                   set metrics_listen to another address to be asked by another name";
    ApiError::new(StatusCode::FORBIDDEN, "noStrangers", message).into_response()
}

/// `?rooms=20`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    rooms: Option<usize>,
}

async fn show(
    State(metrics): State<Metrics>,
    Params(asked): Params<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if asked.rooms.is_some_and(|rooms| !(1..=ROOMS_MAX).contains(&rooms)) {
        return Err(ApiError::query(format_args!("`rooms` is 1 to {ROOMS_MAX}")));
    }
    let format = Format::wanted(&headers);
    let text = metrics.text(format, asked.rooms).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

/// Whether the server is worth being kept: it is as long as a worker serves.
async fn health(State(metrics): State<Metrics>) -> (StatusCode, Json<Health>) {
    let health = match metrics.server() {
        Ok(server) => Health::of_server(&server),
        Err(reason) => Health {
            status: HealthStatus::Down,
            reasons: vec![reason.to_owned()],
        },
    };
    let status = match health.status {
        HealthStatus::Ok | HealthStatus::Degraded => StatusCode::OK,
        HealthStatus::Down => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

/// Whether a server should be given new clients.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    /// Why it should not.
    reasons: Vec<String>,
}

impl Metrics {
    /// It should as long as a worker takes new rooms, and the system has capacity for new transports. What is served already does not
    /// matter here.
    fn readiness(&self) -> Readiness {
        let reasons = match self.server() {
            Err(reason) => vec![reason.to_owned()],
            Ok(server) => match server.shortage() {
                Some(shortage) => vec![shortage.to_string()],
                None => match Health::of_server(&server) {
                    Health {
                        status: HealthStatus::Down,
                        reasons,
                    } => reasons,
                    _ => Vec::new(),
                },
            },
        };
        Readiness {
            ready: reasons.is_empty(),
            reasons,
        }
    }
}

async fn ready(State(metrics): State<Metrics>) -> (StatusCode, Json<Readiness>) {
    let readiness = metrics.readiness();
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(readiness))
}
