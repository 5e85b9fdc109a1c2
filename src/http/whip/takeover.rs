//! A publisher's name that is still taken: mostly by its own session, from before its encoder has crashed, of which the server hears
//! nothing until consent to send has expired (RFC 7675), half a minute later.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::sleep;
use tracing::info;

use super::problem::Problem;
use crate::http::signalling::ClientTakeover;
use crate::http::state::App;
use crate::{Room, WebRtcTransport};

/// A publisher that has sent nothing for so long, neither media nor checks, can be replaced. Encoders send something every few
/// milliseconds, and wait longer than this for an answer.
const SILENT: Duration = Duration::from_secs(2);

/// How often it is looked at meanwhile, so that who is refused hears of it soon.
const LOOK: Duration = Duration::from_millis(250);

/// Ends the session of the publisher that has a name, for somebody else who wants to publish under it; waits for as long as it takes to
/// find out that the publisher is silent.
///
/// # Errors
/// The publisher is not silent, and clients may not end each other's sessions; or who has the name is no publisher of this kind.
pub(super) async fn take_over(app: &App, room: &Room, name: &str) -> Result<(), Problem> {
    let taken = |what: &str| {
        let message = format!("{name:.64} is in this room already, {what}");
        Problem::new(StatusCode::CONFLICT, "conflict", message)
    };
    let Some(session) = app.whip.sessions.publisher(room.id(), name) else {
        return Err(taken("and came another way; choose another name"));
    };
    let why = match app.signalling.takeover() {
        ClientTakeover::Any => "client_takeover is any",
        ClientTakeover::Own if is_silent(&session.transport).await => "it was silent",
        ClientTakeover::Own => {
            return Err(taken(
                "and is publishing; end it, or choose another name, or try again when it has been silent for two seconds",
            ));
        }
    };
    info!(
        room = room.id().0,
        peer = name,
        why,
        "a publisher is replaced by one of the same name"
    );
    app.whip.sessions.remove(session.id());
    session.end().await;
    Ok(())
}

/// Whether nothing comes from a client for [`SILENT`].
async fn is_silent(transport: &WebRtcTransport) -> bool {
    let before = heard(transport).await;
    let looks = SILENT.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        sleep(LOOK).await;
        if heard(transport).await != before {
            return false;
        }
    }
    true
}

/// How much has come from a client: media, reports, checks, and what it says in a handshake. Of one that is gone, nothing.
async fn heard(transport: &WebRtcTransport) -> u64 {
    let Ok(stats) = transport.stats().await else {
        return 0;
    };
    let webrtc = stats.webrtc.map_or(0, |webrtc| webrtc.checks + webrtc.dtls_datagrams);
    stats.packets_received + webrtc
}
