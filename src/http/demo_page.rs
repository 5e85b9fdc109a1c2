//! The demo page: static files that are part of the program, rooms that come into being when they are first named, and the
//! protocol for those who are in them. Beside it are the pages `/publish` and `/watch`, which use WHIP and WHEP. Nothing else of the
//! server can be reached through it.
//!
//! It knows no token, so it is for an address that only this machine reaches, and serves no page but its own: a request
//! must be meant for `localhost` or a loopback address, which no other site can call itself. `web/` has the page's sources.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::ApiError;
use super::origin::{is_from, is_of_this_machine};
use super::signalling::{self, Signalling, SignallingOptions};
use super::whip;
use crate::{Room, RoomId, RoomOptions, Server};

/// Rooms at once. More than anybody opens tabs for.
const ROOMS_MAX: usize = 64;

/// The longest name of a room.
const NAME_LEN_MAX: usize = 40;

/// How long a room that nobody is in stays when another one needs its place: more than its client needs to join.
const EMPTY_ROOM_TIME: Duration = Duration::from_secs(60);

/// What the page may do: run its own script, speak to its own server, and nothing with anybody else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

/// What `web/build.mjs` has made; and the pages beside, as they are.
static FILES: [File; 11] = [
    File {
        path: "/",
        content_type: "text/html; charset=utf-8",
        content: include_str!("../../web/dist/index.html"),
    },
    File {
        path: "/demo/app.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("../../web/dist/app.js"),
    },
    File {
        path: "/demo/app.css",
        content_type: "text/css; charset=utf-8",
        content: include_str!("../../web/dist/app.css"),
    },
    File {
        path: "/demo/icon.svg",
        content_type: "image/svg+xml",
        content: include_str!("../../web/dist/icon.svg"),
    },
    File {
        path: "/demo/licenses.txt",
        content_type: "text/plain; charset=utf-8",
        content: include_str!("../../web/dist/licenses.txt"),
    },
    File {
        path: "/publish",
        content_type: "text/html; charset=utf-8",
        content: include_str!("../../web/pages/publish.html"),
    },
    File {
        path: "/watch",
        content_type: "text/html; charset=utf-8",
        content: include_str!("../../web/pages/watch.html"),
    },
    File {
        path: "/pages/publish.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("../../web/pages/publish.js"),
    },
    File {
        path: "/pages/watch.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("../../web/pages/watch.js"),
    },
    File {
        path: "/pages/session.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("../../web/pages/session.js"),
    },
    File {
        path: "/pages/pages.css",
        content_type: "text/css; charset=utf-8",
        content: include_str!("../../web/pages/pages.css"),
    },
];

/// The page, its rooms, and the protocol for who is in them; and of `app`, which is what [`app`](super::app) returns, WHIP and WHEP, for the
/// pages that publish and watch. To be served where only this machine reaches it.
pub fn demo_page(server: Server, app: Router) -> Router {
    let rooms = Arc::new(DemoRooms {
        signalling: Arc::new(Signalling::new(server.clone(), SignallingOptions::default())),
        server,
        named: Mutex::default(),
    });
    let mut router = Router::new();
    for file in &FILES {
        let answer = move || async move { ([(header::CONTENT_TYPE, file.content_type)], file.content) };
        router = router.route(file.path, get(answer));
    }
    router
        .route("/demo/rooms/{name}", post(open))
        .route(signalling::ROUTE, get(connect))
        .fallback_service(app.layer(middleware::from_fn(only_sessions)))
        .layer(middleware::from_fn(guard))
        .with_state(rooms)
}

/// The rooms that the page has named.
struct DemoRooms {
    server: Server,
    signalling: Arc<Signalling>,
    named: Mutex<HashMap<String, NamedRoom>>,
}

struct NamedRoom {
    id: RoomId,
    /// When somebody last wanted to go in.
    wanted: Instant,
}

impl DemoRooms {
    /// The room of this name, made if there is none.
    async fn open(&self, name: &str) -> Result<RoomId, ApiError> {
        // Held while a room is made: two that come at once must find the same one.
        let mut named = self.named.lock().await;
        if let Some(known) = named.get_mut(name)
            && self.server.room(known.id).is_some()
        {
            known.wanted = Instant::now();
            return Ok(known.id);
        }
        named.retain(|_, room| self.server.room(room.id).is_some());
        if named.len() >= ROOMS_MAX {
            self.close_empty(&mut named).await;
        }
        if named.len() >= ROOMS_MAX {
            let message = format!("there are {ROOMS_MAX} demo rooms with somebody in each, which is the limit");
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "tooMany", message));
        }
        let options = RoomOptions {
            app_data: json!({ "demo": name }),
            ..RoomOptions::default()
        };
        let id = self.server.create_room(options).await?.id();
        info!(room = %id, name, "a room for the demo page");
        let wanted = Instant::now();
        named.insert(name.to_owned(), NamedRoom { id, wanted });
        Ok(id)
    }

    /// Closes the rooms that everybody has left.
    async fn close_empty(&self, named: &mut HashMap<String, NamedRoom>) {
        let empty = |known: &NamedRoom| -> Option<Room> {
            let room = self.server.room(known.id)?;
            (room.peers().is_empty() && known.wanted.elapsed() > EMPTY_ROOM_TIME).then_some(room)
        };
        let over: Vec<Room> = named.values().filter_map(empty).collect();
        for room in over {
            let id = room.id();
            match room.close(Value::Null).await {
                Ok(()) => named.retain(|_, known| known.id != id),
                Err(error) => warn!(room = %id, %error, "an empty demo room could not be closed"),
            }
        }
    }

    async fn has(&self, id: RoomId) -> bool {
        self.named.lock().await.values().any(|room| room.id == id)
    }
}

/// Which room a name stands for.
#[derive(Debug, Serialize)]
struct DemoRoom {
    id: RoomId,
}

/// `POST /demo/rooms/{name}`
async fn open(State(rooms): State<Arc<DemoRooms>>, Path(name): Path<String>) -> Result<Json<DemoRoom>, ApiError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(plain) {
        let message = format!("a room's name has 1 to {NAME_LEN_MAX} letters, digits, - and _");
        return Err(ApiError::invalid(message));
    }
    let id = rooms.open(&name).await?;
    Ok(Json(DemoRoom { id }))
}

/// `GET /rooms/{id}/peers/{name}`, for the rooms of the page only.
async fn connect(
    State(rooms): State<Arc<DemoRooms>>,
    Path((room, name)): Path<(String, String)>,
    source: signalling::Source,
    headers: HeaderMap,
    upgrade: signalling::MaybeUpgrade,
) -> Result<Response, ApiError> {
    let known = match room.parse() {
        Ok(id) => rooms.has(RoomId(id)).await,
        Err(_) => false,
    };
    if !known {
        let message = format!("the demo page has no room {room:.20}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "notFound", message));
    }
    let signalling = State(Arc::clone(&rooms.signalling));
    signalling::connect(signalling, Path((room, name)), source, headers, upgrade).await
}

/// Keeps out what is for operators.
async fn only_sessions(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    match whip::PREFIXES.iter().any(|prefix| path.starts_with(prefix)) {
        true => next.run(request).await,
        false => nothing().into_response(),
    }
}

fn nothing() -> ApiError {
    let message = "there is nothing here; the demo page is at /, /publish and /watch beside it, and the control interface elsewhere";
    ApiError::new(StatusCode::NOT_FOUND, "unknownRoute", message)
}

/// Keeps out what is not meant for this machine or comes from another site's page, and tells browsers how to treat what
/// they get.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = match is_own(request.headers()) {
        true => next.run(request).await,
        false => {
            let message = "the demo page is for this machine: open it as http://localhost or by a loopback address";
            ApiError::new(StatusCode::FORBIDDEN, "foreignOrigin", message).into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A newer program has a newer page.
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a request is meant for this machine as only itself calls it, and comes from no page or from the demo page. A site
/// that has its name resolve to a loopback address (DNS rebinding) still says its name.
fn is_own(headers: &HeaderMap) -> bool {
    is_of_this_machine(headers) && is_from(headers, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_this_machine_and_its_own_page_are_served() {
        for host in [
            "localhost:4080",
            "LOCALHOST",
            "127.0.0.1:4080",
            "127.8.8.8",
            "[::1]:4080",
        ] {
            assert!(is_own(&headers(host, None)), "{host}");
            assert!(is_own(&headers(host, Some(&format!("http://{host}")))), "{host}");
            assert!(!is_own(&headers(host, Some("http://localhost:3000"))), "{host}");
            assert!(!is_own(&headers(host, Some("https://evil.example"))), "{host}");
            assert!(!is_own(&headers(host, Some("null"))), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "192.0.2.1",
            "[2001:db8::1]",
            "",
            "user@localhost@x",
        ] {
            assert!(!is_own(&headers(host, None)), "{host}");
            assert!(!is_own(&headers(host, Some(&format!("http://{host}")))), "{host}");
        }
        assert!(!is_own(&HeaderMap::new()));
        let mut twice = headers("localhost", None);
        twice.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(!is_own(&twice));
    }

    #[test]
    fn the_page_asks_for_nothing_that_is_not_served() {
        let served: Vec<&str> = FILES.iter().map(|file| file.path).collect();
        let html = FILES[0].content;
        let mut asked = 0;
        for attribute in ["src=\"", "href=\""] {
            for (at, _) in html.match_indices(attribute) {
                let rest = &html[at + attribute.len()..];
                let link = &rest[..rest.find('"').unwrap()];
                if !link.starts_with('#') {
                    assert!(served.contains(&link), "{link}");
                    asked += 1;
                }
            }
        }
        assert!(asked >= 3, "the script, the style and the icon");
        assert!(
            !html.contains("<style") && !html.contains("style=\""),
            "the policy forbids it"
        );
        assert!(!html.contains("://"), "nothing of other hosts");
    }
}
