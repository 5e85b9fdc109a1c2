//! `POST /whip/{room}` (WHIP, RFC 9725): an encoder or a page publishes with one request. `POST /whep/{room}` (WHEP,
//! draft-ietf-wish-whep): a player watches with one request. `docs/whip-whep.md` describes both for their users.
//!
//! Everything goes through the library's own handles. Who publishes is a peer with a WebRTC transport and producers, so all
//! other clients of the room find it; who watches is a spy. What is served here is what the clients in the field accept, which is
//! more lenient than the RFC in some places and stricter in others; each has its reason beside it.

mod answer;
mod events;
mod layers;
mod news;
mod play;
mod problem;
mod publish;
mod request;
mod rooms;
mod session;
mod takeover;
mod viewers;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

pub use self::answer::IceServer;
use self::answer::{Discovery, Emptiness, Patched, SdpCreated, entity_tag};
pub(super) use self::events::{follow, subscribe, unsubscribe};
use self::layers::Layers;
pub(super) use self::layers::choose_layer;
use self::news::News;
use self::play::{Watching, Wish};
use self::problem::Problem;
use self::request::{Place, WhipRequest};
use self::rooms::Rooms;
use self::session::{Begun, Session, Sessions};
use self::viewers::Viewers;
use super::admission::Admission;
use super::state::App;
use crate::sdp::{Fragment, Offer};
use crate::{Direction, Error, PeerOptions, RtpCapabilities, Server, WebRtcTransportOptions};

/// What routes for publishers and players begin with; whom they serve, is for [`App::admits`] to say.
pub(super) const PREFIXES: [&str; 2] = ["/whip/", "/whep/"];

/// Of all sessions this part may be without media yet. What does not go on from there, ends after [`WhipOptions::connect`].
const UNCONNECTED_OF_ALL: usize = 4;

/// How publishers and players are served that speak WHIP and WHEP. What they must know, and where their pages may come from, is
/// what [`SignallingOptions`](super::SignallingOptions) say.
#[derive(Clone, Debug)]
pub struct WhipOptions {
    /// The maximum number of sessions at the same time, publishers and players together.
    pub sessions: usize,
    /// The STUN and TURN servers that clients are told of.
    pub ice_servers: Vec<IceServer>,
    /// How long a session may exist before its client has connected.
    pub connect: Duration,
}

impl Default for WhipOptions {
    fn default() -> Self {
        Self {
            sessions: 10_000,
            ice_servers: Vec::new(),
            connect: Duration::from_secs(30),
        }
    }
}

/// What the handlers share.
pub(super) struct Whip {
    server: Server,
    options: WhipOptions,
    sessions: Sessions,
    rooms: Arc<Rooms>,
    news: Arc<News>,
    viewers: Arc<Viewers>,
    layers: Layers,
    slots: Arc<Semaphore>,
    unconnected: Arc<Semaphore>,
}

impl Whip {
    pub(super) fn new(server: Server, options: WhipOptions) -> Arc<Self> {
        let most = options.sessions.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            server,
            sessions: Sessions::default(),
            rooms: Arc::default(),
            news: Arc::default(),
            viewers: Arc::default(),
            layers: Layers::default(),
            slots: Arc::new(Semaphore::new(most)),
            unconnected: Arc::new(Semaphore::new(most.div_ceil(UNCONNECTED_OF_ALL))),
            options,
        })
    }

    /// How many sessions there are.
    pub(super) fn open(&self) -> usize {
        let most = self.options.sessions.min(Semaphore::MAX_PERMITS);
        most.saturating_sub(self.slots.available_permits())
    }

    /// Places for one more session: among all, and among those that have not connected.
    fn places(&self) -> Result<session::Places, Problem> {
        let full = |what: &str| {
            let message = format!("{what}, which is the limit (whip_sessions_max); try again later");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "tooMany", message)
        };
        let most = self.options.sessions;
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let unconnected = Arc::clone(&self.unconnected).try_acquire_owned();
        Ok(session::Places {
            _slot: slot.map_err(|_| full(&format!("there are {most} sessions")))?,
            unconnected: Some(unconnected.map_err(|_| full("too many sessions have not connected yet"))?),
        })
    }
}

/// Which of the two protocols a session speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Whip,
    Whep,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Whip => "whip",
            Self::Whep => "whep",
        }
    }
}

pub(super) async fn publish(State(app): State<Arc<App>>, request: WhipRequest) -> SdpCreated {
    let opened = open(&app, &request, Protocol::Whip).await;
    SdpCreated(request.finish(&app, opened))
}

pub(super) async fn play(State(app): State<Arc<App>>, request: WhipRequest) -> SdpCreated {
    let opened = open(&app, &request, Protocol::Whep).await;
    SdpCreated(request.finish(&app, opened))
}

/// Begins a session: 201, the answer, and where the session is.
async fn open(app: &Arc<App>, request: &WhipRequest, protocol: Protocol) -> Result<Response, Problem> {
    let admission = app.admits(request)?;
    let place = admitted(&admission, request.place()?, protocol)?;
    let offer = Offer::parse(request.body(request::SDP)?)?;
    request.check_accepts_sdp()?;
    if offer.ice_lite {
        let message = "the server is ICE-lite and answers checks only, so the client cannot be (a=ice-lite)";
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unsupportedOffer",
            message,
        ));
    }
    let whip = &app.whip;
    let places = whip.places()?;
    let stay = whip.rooms.enter(&whip.server, &place.room).await?;
    let room = stay.room().clone();
    let id = session::new_id()?;
    let (name, spy) = match (protocol, &place.peer) {
        (Protocol::Whip, Some(name)) => (name.clone(), false),
        (Protocol::Whip, None) => (session::made_up_name(protocol), false),
        (Protocol::Whep, _) => (session::made_up_name(protocol), true),
    };
    // What cannot be had is refused before anything is made.
    let wanted = match protocol {
        Protocol::Whip => Wanted::Publish(publish::plan(&offer, room.rtp_capabilities())?),
        Protocol::Whep => {
            let wish = Wish {
                room: room.clone(),
                peer: place.peer.clone(),
            };
            Wanted::Play(play::plan(&offer, &wish)?, wish)
        }
    };
    let options = PeerOptions {
        spy,
        app_data: serde_json::json!({ "protocol": protocol.name() }),
        ..PeerOptions::new(name.clone(), RtpCapabilities::default())
    };
    let peer = match room.create_peer(options.clone()) {
        Err(Error::DuplicatePeer { .. }) if protocol == Protocol::Whip => {
            takeover::take_over(app, &room, &name).await?;
            room.create_peer(options)?
        }
        created => created?,
    };
    let begun = Begun::new(peer.clone(), stay);
    let direction = match protocol {
        Protocol::Whip => Direction::Send,
        Protocol::Whep => Direction::Recv,
    };
    let options = WebRtcTransportOptions::default();
    let transport = peer.create_webrtc_transport(options, Some(direction)).await?;
    transport.set_remote_dtls_parameters(offer.dtls.clone()).await?;
    let ice = &offer.ice;
    transport
        .set_remote_ice(ice.username_fragment.clone(), ice.password.clone())
        .await?;
    let (media, watching) = match wanted {
        Wanted::Publish(plan) => (publish::produce(&transport, plan).await?, None),
        Wanted::Play(plan, wish) => {
            let (watching, media) = Watching::begin(&transport, wish, plan)?;
            watching.attend().await;
            (media, Some(watching))
        }
    };
    let mut taken = offer.media.iter().zip(&media);
    let mid = taken.find_map(|(section, media)| media.as_ref().and(section.mid.clone()));
    let text = answer::write(&offer, &transport, media);
    let tag = entity_tag(&transport);
    let mut response = (StatusCode::CREATED, text).into_response();
    let headers = response.headers_mut();
    // From here on the session has what was begun.
    if let Some(begun) = begun.done() {
        let session = Session::new(id, protocol, place.room, begun, (offer.ice, mid), (transport, watching));
        let location = session.path();
        if protocol == Protocol::Whep {
            events::announce(headers, &location);
        }
        if let Ok(location) = HeaderValue::try_from(location) {
            headers.insert(header::LOCATION, location);
        }
        session::begin(whip, session, places);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(request::SDP));
    headers.insert(header::ETAG, tag);
    answer::add_links(headers, &whip.options.ice_servers);
    Ok(response)
}

/// Where the bearer of a token publishes or watches, if that is permitted. Who has a name and gives none publishes under it; who
/// watches has no name that others see.
fn admitted(admission: &Admission, place: Place, protocol: Protocol) -> Result<Place, Problem> {
    admission.check_room(&place.room)?;
    if protocol == Protocol::Whep {
        admission.check_subscribe()?;
        return Ok(place);
    }
    admission.check_publish()?;
    if let Some(name) = &place.peer {
        admission.check_peer(name)?;
    }
    Ok(Place {
        peer: place.peer.or_else(|| admission.peer().map(str::to_owned)),
        ..place
    })
}

/// What a session is going to do.
enum Wanted {
    Publish(Vec<Option<publish::Track>>),
    Play(Vec<Option<play::Track>>, Wish),
}

/// Trickles a client's candidates (204), or restarts ICE (200).
pub(super) async fn patch(State(app): State<Arc<App>>, request: WhipRequest) -> Patched {
    let patched = patched(&app, &request).await;
    Patched(request.finish(&app, patched))
}

async fn patched(app: &App, request: &WhipRequest) -> Result<Response, Problem> {
    app.check_origin(request)?;
    let session = app.whip.sessions.of(request)?;
    let fragment = Fragment::parse(request.body(request::FRAGMENT)?)?;
    let mut current = session.ice.lock().await;
    let Some(fragment_of) = &fragment.username_fragment else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    // The transport answers checks from everywhere, so candidates are of no use to it. Some clients send `If-Match: *` with every
    // candidate, or none at all: only who brings new credentials restarts.
    if *fragment_of == current.username_fragment {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let new = fragment.ice()?;
    request.check_matches(&entity_tag(&session.transport))?;
    let parameters = session.transport.restart_ice().await?;
    session
        .transport
        .set_remote_ice(new.username_fragment.clone(), new.password.clone())
        .await?;
    *current = new;
    let candidates = session.transport.ice_candidates();
    let text = Fragment::restarted(&parameters, candidates, session.mid.as_deref());
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(request::FRAGMENT));
    headers.insert(header::ETAG, entity_tag(&session.transport));
    Ok(response)
}

/// Ends a session. Its URL is a secret, so who has it needs no token: some clients send none here.
pub(super) async fn end(State(app): State<Arc<App>>, request: WhipRequest) -> Emptiness {
    let ended = ended(&app, &request).await;
    Emptiness(request.finish(&app, ended))
}

async fn ended(app: &App, request: &WhipRequest) -> Result<Response, Problem> {
    app.check_origin(request)?;
    let session = app.whip.sessions.of(request)?;
    app.whip.sessions.remove(session.id());
    session.end().await;
    // Some clients take 204 for a failure.
    Ok(StatusCode::OK.into_response())
}

/// What is at a session's URL: nothing to see (RFC 9725 §4.1).
pub(super) async fn show_session(State(app): State<Arc<App>>, request: WhipRequest) -> Emptiness {
    let found = app.whip.sessions.of(&request).map(|_| StatusCode::OK.into_response());
    Emptiness(request.finish(&app, found))
}

/// What is at an endpoint's URL: nothing to see (RFC 9725 §4.1).
pub(super) async fn show_endpoint(State(app): State<Arc<App>>, request: WhipRequest) -> Emptiness {
    let found = request.place().map(|_| StatusCode::OK.into_response());
    Emptiness(request.finish(&app, found))
}

/// By this players find out that WHEP is spoken here: `HEAD` answers with the type of what is spoken.
pub(super) async fn discover(State(app): State<Arc<App>>, request: WhipRequest) -> Discovery {
    let found = request.place().map(|_| {
        let content_type = [(header::CONTENT_TYPE, request::SDP)];
        (StatusCode::OK, content_type, "").into_response()
    });
    Discovery(request.finish(&app, found))
}

/// What may be asked: for pages of other origins, before they ask, and for clients that look for ICE servers.
pub(super) async fn options(State(app): State<Arc<App>>, request: WhipRequest) -> Emptiness {
    let mut response = StatusCode::OK.into_response();
    answer::add_capabilities(response.headers_mut());
    // A preflight knows no token (RFC 9725 §4.6).
    if !request.is_preflight() && app.admits(&request).is_ok() {
        answer::add_links(response.headers_mut(), &app.whip.options.ice_servers);
    }
    let may = app.check_origin(&request).map(|()| response);
    Emptiness(request.finish(&app, may))
}
