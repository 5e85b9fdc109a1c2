//! `GET /rooms/{id}/peers/{name}`: a WebSocket on which a client speaks the mediasoup protocol and is, once it has joined,
//! the room's peer of that name. `docs/protocol.md` describes what is said on it.
//!
//! A connection can be lost without the peer being lost: for [`SignallingOptions::grace`] the peer and all that is its own
//! stay, and its client may come back with a token that it was given when it joined, or join anew if it can show that it is
//! the same. A connection that its client closes in good order is over, and so is the peer.

mod claim;
mod closing;
mod envelope;
mod evidence;
mod held;
mod pace;
mod replay;
mod session;
mod sessions;
mod text;
mod websocket;

use std::convert::Infallible;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::warn;
use weir_channel::words;

use self::evidence::BrowserSecret;
use self::sessions::Sessions;
use self::text::SharedTexts;
pub(super) use self::websocket::MaybeUpgrade;
use super::admission::{Admission, Door, Refusal};
use super::crowd::{Crowd, Network, Standing};
use super::error::ApiError;
use super::guesses::{AnswerAfter, Guesses};
use super::listen::Caller;
use super::origin::is_from;
use super::seldom::Seldom;
use super::token::AccessToken;
use super::token_keys::TokenKeys;
use crate::protocol::{Grants, PlainRemotes};
use crate::server::{ClientMemory, lock};
use crate::{Peer, Room, RoomId, Server};

/// The WebSocket subprotocol. Clients need not name it.
pub const SUBPROTOCOL: &str = "protoo";

/// A network may have this part of all connections without having joined on them. Behind a proxy all clients are of one network,
/// and each needs its place for two round trips.
const UNJOINED_OF_NETWORK: usize = 4;

/// For which somebody who connects waits until another connection has given way.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(1);

/// Where clients connect.
pub(super) const ROUTE: &str = "/rooms/{id}/peers/{name}";

/// Whether a request is one for a WebSocket, or at least for something else than HTTP.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// The options for serving clients.
#[derive(Clone, Debug)]
pub struct SignallingOptions {
    /// The token that a client must send, as `Authorization: Bearer TOKEN` or as the subprotocol `bearer.TOKEN`.
    /// `None`, and no keys either: clients need no token.
    pub token: Option<AccessToken>,
    /// The keys of access tokens, one of which a client may send instead; what it may do then, the token says.
    pub token_keys: Option<TokenKeys>,
    /// The origins whose pages may connect, e.g. `https://app.example`; `*` allows all. Pages of the server's own
    /// origin may also connect if it is an address or `localhost`; another name is not enough, because its owner can
    /// let it lead to this server. Clients that are not browsers send no origin, and may always connect.
    pub origins: Vec<String>,
    /// The maximum number of connections at the same time.
    pub clients: usize,
    /// The maximum size of a client's message, in bytes.
    pub message_bytes_max: usize,
    /// How many messages per second a client may send on average; more than that wait.
    pub messages_per_second: u32,
    /// How many messages a client may send at once after it has been quiet.
    pub messages_at_once: u32,
    /// How long a connection may exist before its client joins.
    pub join: Duration,
    /// The time between two pings.
    pub ping: Duration,
    /// How long a client may send nothing, not even answers to pings, before its connection counts as lost.
    pub idle: Duration,
    /// How long a client may leave messages unread before its connection counts as lost.
    pub stall: Duration,
    /// How long a peer stays after its client has lost the connection.
    pub grace: Duration,
    /// The addresses to which clients may have plain RTP sent.
    pub plain_remotes: ClientPlainRemotes,
    /// Who may join under a name that is in use, which ends the earlier connection.
    pub takeover: ClientTakeover,
}

/// Who may join under a name that another client has, connected or not. That client's session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientTakeover {
    /// The same client: it sends the session's token, or its browser sends the cookie from the server.
    #[default]
    Own,
    /// Every client: the last one has the name, as in mediasoup v2's example. This is for applications that let only
    /// the owner of a name connect with it.
    Any,
}

words!(ClientTakeover { Own = "own", Any = "any" });

/// The addresses to which clients may have plain RTP sent. The limit exists so that nobody can use the server to flood
/// others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientPlainRemotes {
    /// The address that their WebSocket comes from, with any port; transports that learn their client's address learn it there only.
    /// Clients on the control socket may use every address, because they can command the server anyway. No address, and no such
    /// transports, if the client's is not known, because an application serves [`signalling`] without axum's
    /// `ConnectInfo<SocketAddr>`.
    #[default]
    Own,
    /// Every address.
    Any,
    /// No address: such transports learn the address from the packets that arrive.
    None,
}

words!(ClientPlainRemotes { Own = "own", Any = "any", None = "none" });

impl ClientPlainRemotes {
    fn of(self, source: Source) -> PlainRemotes {
        match (self, source.0) {
            (Self::Any, _) | (Self::Own, Some(Caller::Process(_))) => PlainRemotes::Any,
            (Self::Own, Some(Caller::Remote(address))) => PlainRemotes::Only(address.ip().to_canonical()),
            (Self::Own, None) => PlainRemotes::Unknown,
            (Self::None, _) => PlainRemotes::None,
        }
    }
}

/// Who a request comes from, as far as that is known.
#[derive(Clone, Copy)]
pub(super) struct Source(Option<Caller>);

impl<S: Send + Sync> FromRequestParts<S> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let own = parts.extensions.get::<Caller>().copied();
        let axums = || parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self(own.or_else(|| axums().map(|info| Caller::Remote(info.0)))))
    }
}

impl Default for SignallingOptions {
    fn default() -> Self {
        Self {
            token: None,
            token_keys: None,
            origins: Vec::new(),
            clients: 10_000,
            // v2's channel took no more in one message, either.
            message_bytes_max: 64 * 1024,
            // Who joins a room of 500 senders enables its 1,000 consumers at once.
            messages_per_second: 100,
            messages_at_once: 1_000,
            join: Duration::from_secs(30),
            ping: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            stall: Duration::from_secs(10),
            grace: Duration::from_secs(15),
            plain_remotes: ClientPlainRemotes::default(),
            takeover: ClientTakeover::default(),
        }
    }
}

/// Who has connected, as whom.
struct Client {
    room: Room,
    name: String,
    /// What it may do in the room.
    grants: Grants,
    plain_remotes: PlainRemotes,
    /// What its browser keeps, or was just given to keep.
    browser: Option<BrowserSecret>,
    /// Its part in the crowd of those who have not joined; `None`: it gives way to nobody.
    unjoined: Option<Standing>,
}

/// What connections share.
pub(super) struct Signalling {
    server: Server,
    options: SignallingOptions,
    slots: Arc<Semaphore>,
    /// Connections on which nobody has joined yet.
    unjoined: Arc<Crowd>,
    crowded: Seldom,
    /// Sessions that have joined.
    sessions: Mutex<Sessions>,
    guesses: Guesses,
    client_memory: Arc<ClientMemory>,
    /// Of messages that clients have been sent, which are forgotten before anybody suffers.
    kept_messages: Arc<ClientMemory>,
    /// What several of those messages have in common.
    shared: SharedTexts,
}

impl Signalling {
    pub(super) fn new(server: Server, options: SignallingOptions) -> Self {
        let kept_messages = Arc::default();
        Self {
            client_memory: server.client_memory(),
            shared: SharedTexts::new(&kept_messages),
            kept_messages,
            server,
            slots: Arc::new(Semaphore::new(options.clients)),
            unjoined: Crowd::new(options.clients, options.clients.div_ceil(UNJOINED_OF_NETWORK)),
            crowded: Seldom::default(),
            options,
            sessions: Mutex::default(),
            guesses: Guesses::default(),
        }
    }

    /// Whether a client of this interface is the peer, connected or about to come back.
    pub(super) fn speaks_for(&self, peer: &Peer) -> bool {
        let sessions = self.sessions();
        sessions.of_peer(peer.room().id(), peer.name()).is_some()
    }

    /// How many clients are connected.
    pub(super) fn connected(&self) -> usize {
        self.options.clients.saturating_sub(self.slots.available_permits())
    }

    /// What clients must know.
    pub(super) fn door(&self) -> Door<'_> {
        Door {
            token: self.options.token.as_ref(),
            keys: self.options.token_keys.as_ref(),
        }
    }

    /// Who may end the session of somebody else with the same name.
    pub(super) fn takeover(&self) -> ClientTakeover {
        self.options.takeover
    }

    /// The origins whose pages may connect.
    pub(super) fn origins(&self) -> &[String] {
        &self.options.origins
    }

    /// Counts a wrong token of somebody who would be a client.
    pub(super) fn count_guess(&self, source: Source) -> AnswerAfter {
        self.guesses.count(source.0, "clients")
    }

    /// A place for one more connection. If there is none, one on which nobody has joined gives way.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slots = Arc::clone(&self.slots);
        if let Ok(slot) = slots.try_acquire_owned() {
            return Some(slot);
        }
        if !self.unjoined.evict_one() {
            return None;
        }
        let slots = Arc::clone(&self.slots);
        timeout(PLACE_WAIT_MAX, slots.acquire_owned()).await.ok()?.ok()
    }

    /// Takes up a connection on which nobody has joined yet. Processes on the control socket may command the server anyway.
    fn enter(&self, source: Source) -> Option<Standing> {
        let network = match source.0 {
            Some(Caller::Process(_)) => return None,
            Some(Caller::Remote(address)) => Network::of(address.ip()),
            // As behind a proxy: one for all.
            None => Network::of(Ipv4Addr::UNSPECIFIED.into()),
        };
        Some(self.unjoined.enter(network))
    }

    /// A connection has had to give way.
    fn log_crowd(&self) {
        if let Some(others) = self.crowded.line(Instant::now()) {
            warn!(
                not_logged = others,
                "closed a connection on which nobody had joined, because others need the place"
            );
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }
}

/// The one route for clients, to be served where they are. It is part of [`app`](super::app), too.
pub fn signalling(server: Server, options: SignallingOptions) -> Router {
    let signalling = Arc::new(Signalling::new(server, options));
    Router::new().route(ROUTE, get(connect)).with_state(signalling)
}

pub(super) async fn connect(
    State(signalling): State<Arc<Signalling>>,
    Path((room, name)): Path<(String, String)>,
    source: Source,
    headers: HeaderMap,
    upgrade: MaybeUpgrade,
) -> Result<Response, ApiError> {
    let options = &signalling.options;
    if !is_from(&headers, &options.origins) {
        let message = "pages of this origin may not connect; name it in the setting http_origins if they may";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "foreignOrigin", message));
    }
    let admission = match admit(&signalling, &headers, (&room, &name)) {
        Ok(admission) => admission,
        Err(refusal) => return Ok(refusal.into_response(|| signalling.count_guess(source))),
    };
    let no_room = || {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "notFound",
            format!("there is no room {room:.20}"),
        )
    };
    let id: u64 = room.parse().map_err(|_| no_room())?;
    let room = signalling.server.room(RoomId(id)).ok_or_else(no_room)?;
    let upgrade = upgrade?;
    let slot = signalling.slot().await.ok_or_else(|| {
        let message = format!("{} clients are connected, which is the limit", options.clients);
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "tooMany", message)
    })?;
    let known = BrowserSecret::of(&headers);
    let given = if known.is_none() { BrowserSecret::new() } else { None };
    let cookie = given.as_ref().and_then(|secret| secret.cookie(&headers));
    let client = Client {
        room,
        name,
        grants: admission.grants(),
        plain_remotes: options.plain_remotes.of(source),
        browser: known.or(given),
        unjoined: signalling.enter(source),
    };
    let message_bytes_max = options.message_bytes_max;
    let serve = move |socket| session::serve(socket, slot, signalling, client);
    let mut response = upgrade.accept(message_bytes_max, serve);
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// What somebody may do who wants to be a room's peer of this name.
fn admit(signalling: &Signalling, headers: &HeaderMap, (room, name): (&str, &str)) -> Result<Admission, Refusal> {
    let hint = "send the clients' token as `authorization: Bearer TOKEN` or as subprotocol `bearer.TOKEN`";
    let admission = signalling.door().admit_socket(headers, hint)?;
    admission.check_room(room)?;
    admission.check_peer(name)?;
    Ok(admission)
}

/// A secret of 128 bits from the system's source of randomness, in hexadecimal.
pub(super) fn secret() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let secrets: std::collections::BTreeSet<String> = (0..64).map(|_| secret().unwrap()).collect();
        assert_eq!(secrets.len(), 64);
        assert!(secrets.iter().all(|secret| secret.len() == 32));
    }
}
