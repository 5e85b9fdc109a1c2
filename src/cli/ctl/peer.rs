//! `weir ctl peer`.

use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weir::http::{PeerListing, PeerView, TransportView, path_segment};

use super::client::{Client, Failure};
use super::events::follow_live;
use super::input::parse_json;
use super::object::{Attached, Closing, print_one};
use super::output::Output;
use super::server::flat;
use super::table::{Cell, Table};
use super::transport::{WebRtcArgs, local};

/// `weir ctl peers`
#[derive(Debug, Args)]
pub(super) struct List {
    /// The room's id
    room: u64,
}

impl List {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let mut peers: Vec<PeerView> = Vec::new();
        loop {
            let after = peers.last().map(|last| format!("&after={}", path_segment(&last.name)));
            let target = format!("/rooms/{}/peers?limit=1000{}", self.room, after.unwrap_or_default());
            let part: PeerListing = client.get(&target).await?;
            peers.extend(part.items);
            if part.next.is_none() {
                break;
            }
        }
        if output.is_json() {
            return output.json(&peers);
        }
        let mut table = Table::default();
        for peer in peers {
            table.row([
                ("PEER", (&peer.name).into()),
                (">ROOM", peer.room.0.into()),
                ("ROLE", role(&peer).into()),
                (">TRANSPORTS", peer.transports.into()),
                (">PRODUCERS", peer.producers.into()),
                (">CONSUMERS", peer.consumers.into()),
                ("APP DATA", Cell::app_data(&peer.app_data)),
            ]);
        }
        output.table(&table, "no peers")
    }
}

/// A peer, by its room and its name.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The room's id
    room: u64,
    /// The peer's name
    name: String,
}

impl Which {
    fn target(&self, rest: &str) -> String {
        format!("/rooms/{}/peers/{}{rest}", self.room, path_segment(&self.name))
    }
}

/// `weir ctl peer …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List a room's peers
    List(List),
    /// Create a peer that can receive everything in the room
    Create {
        #[command(flatten)]
        which: Which,
        /// Let it receive without the other peers knowing of it
        #[arg(long)]
        spy: bool,
        #[command(flatten)]
        attached: Attached,
    },
    /// Show a peer
    Show(Which),
    /// Create a transport for a peer: for plain RTP, which learns its remote address from the first packet, or for
    /// WebRTC
    Transport {
        #[command(flatten)]
        which: Which,
        /// The direction in which its client uses it
        #[arg(long, value_parser = ["send", "recv"])]
        direction: Option<String>,
        /// The local port for plain RTP, one of the server's rtc_ports [default: any that is free]
        #[arg(long, value_name = "PORT", conflicts_with = "webrtc")]
        port: Option<u16>,
        #[command(flatten)]
        webrtc_args: WebRtcArgs,
    },
    /// Replace the app data of a peer
    AppData {
        #[command(flatten)]
        which: Which,
        /// The new app data, as JSON
        #[arg(value_name = "JSON", value_parser = parse_json)]
        app_data: Value,
    },
    /// Print everything that is known about a peer, as JSON
    Dump(Which),
    /// Receive the notifications for a peer's client, until the peer closes; whoever received them before gets no more
    Notifications(Which),
    /// Close a peer with everything that belongs to it
    Close(Closing<Which>),
}

impl Command {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(client, output).await,
            Self::Create { which, spy, attached } => {
                let capabilities: Value = client.get(&format!("/rooms/{}/rtp-capabilities", which.room)).await?;
                let mut body = json!({"name": which.name, "rtpCapabilities": capabilities, "spy": spy});
                attached.add_to(&mut body);
                let answer = client.post(&format!("/rooms/{}/peers", which.room), &body).await?;
                output.done(&answer, format_args!("peer {} is in room {}", which.name, which.room))
            }
            Self::Show(which) => {
                let print = |peer: PeerView| {
                    output.pairs(&[
                        ("peer", (&peer.name).into()),
                        ("room", peer.room.0.into()),
                        ("role", role(&peer).into()),
                        ("transports", peer.transports.into()),
                        ("producers", peer.producers.into()),
                        ("consumers", peer.consumers.into()),
                        ("receives", receives(&peer)),
                        ("app data", Cell::app_data(&peer.app_data)),
                    ])
                };
                print_one(client, output, &which.target(""), print).await
            }
            Self::Transport {
                which,
                direction,
                port,
                webrtc_args,
            } => {
                let mut body = webrtc_args.body().unwrap_or_else(|| json!({"comedia": true}));
                if let Some(port) = port {
                    body["localPort"] = json!(port);
                }
                body["direction"] = json!(direction);
                let answer = client.post(&which.target(webrtc_args.route()), &body).await?;
                let transport: TransportView = client.read(answer.clone())?;
                let line = format!("{} of {} opened at {}", transport.id, which.name, local(&transport));
                output.done(&answer, line)
            }
            Self::AppData { which, app_data } => {
                let body = json!({"appData": app_data});
                let answer = client
                    .send(Method::PUT, &which.target("/app-data"), Some(&body))
                    .await?;
                output.done(&answer, format_args!("peer {} has other app data now", which.name))
            }
            Self::Notifications(which) => {
                follow_live(client, output, &which.target("/notifications"), notification).await
            }
            Self::Dump(which) => output.json(&client.get::<Value>(&which.target("/dump")).await?),
            Self::Close(Closing { which, app_data }) => {
                let answer = client.close(&which.target(""), app_data).await?;
                output.done(&answer, format_args!("peer {} closed", which.name))
            }
        }
    }
}

fn role(peer: &PeerView) -> &'static str {
    if peer.spy { "spy" } else { "peer" }
}

fn receives(peer: &PeerView) -> Cell {
    let codecs = peer
        .rtp_capabilities
        .iter()
        .flat_map(|capabilities| &capabilities.codecs);
    let names: Vec<&str> = codecs.map(|codec| codec.name.as_str()).collect();
    names.join(", ").into()
}

/// `newConsumer id=3 kind=video …`, `end reason=closed`
fn notification(event: &Value) -> String {
    let mut members = event.as_object().cloned().unwrap_or_default();
    let method = members.remove("method");
    let method = method.as_ref().and_then(Value::as_str).unwrap_or("end");
    // Longer than a line.
    members.remove("rtpParameters");
    format!("{method} {}", flat(&Value::Object(members)))
        .trim_end()
        .to_owned()
}
