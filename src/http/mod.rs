//! The control interface: HTTP and JSON on a Unix socket, and on TCP for those who know a token; clients of rooms, too.
//!
//! [`ControlSocket`] takes the socket's path, [`serve`] answers on it what [`app`] defines. The routes are described in
//! `docs/api.md`, whose examples a test runs.

mod admission;
mod answer;
mod claims;
mod consumers;
mod crowd;
mod demo_page;
mod error;
mod event_log;
mod events;
mod extract;
mod fair_log;
mod framing;
mod guard;
mod guesses;
mod list;
mod listen;
mod live;
mod metrics;
mod named;
mod openapi;
mod origin;
mod peers;
mod producers;
mod rooms;
mod routes;
mod seldom;
mod server;
mod signalling;
mod signing_key;
mod socket;
mod state;
mod strangers;
mod token;
mod token_keys;
mod transports;
mod view;
mod webhook_sender;
mod webhooks;
mod webrtc;
mod whip;

pub use claims::{Claims, RoomClaim};
pub use demo_page::demo_page;
pub use error::{ApiError, ErrorBody, ErrorInfo};
pub use extract::BODY_BYTES_MAX;
pub use guard::{ClientsFrom, Guard, guarded};
pub use list::LIST_MAX;
pub use listen::{Caller, Limits, Listen, Served, serve};
pub use metrics::{Metrics, metrics, metrics_limits};
pub use peers::{PeerListing, path_segment};
pub use routes::{app, openapi};
pub use server::{Health, HealthStatus, ServerStats, StatsOfWorker};
pub use signalling::{ClientPlainRemotes, ClientTakeover, SUBPROTOCOL, SignallingOptions, signalling};
pub use signing_key::{KeyKind, SigningKey};
pub use socket::{BindError, ControlSocket, default_path};
pub use state::{ControlOptions, LogHook};
pub use token::AccessToken;
pub use token_keys::{KeyError, TOKEN_BYTES_MAX, TokenError, TokenKeys, Unverified, unverified};
pub use view::{
    ConsumerView, IceRole, Introduction, Listing, PeerView, ProducerView, RoomView, StreamerView, TransportView,
    WebRtcView,
};
pub use webhooks::{WebhookSecrets, WebhookStats, WebhookUrl, Webhooks};
pub use whip::{IceServer, WhipOptions};
