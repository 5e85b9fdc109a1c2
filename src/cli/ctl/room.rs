//! `weir ctl room`.

use std::net::SocketAddr;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weir::RtpCapabilities;
use weir::StatsPage;
use weir::http::{RoomView, StreamerView};
use weir_channel::message::{Zoned, parse_address};

use super::client::{Client, Failure};
use super::events::follow_live;
use super::input::read_json;
use super::object::{Attached, EventData, Object, print_list};
use super::output::Output;
use super::table::{Cell, Table};
use super::{producer, transport};

/// `weir ctl rooms`
#[derive(Debug, Args)]
pub(super) struct List {}

impl List {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let rooms = client.list("/rooms", &[]).await?;
        print_list(client, output, rooms, "no rooms", |room: &RoomView| {
            [
                (">ROOM", room.id.0.into()),
                (">WORKER", room.worker.0.into()),
                (">PEERS", room.peers.into()),
                (">TRANSPORTS", room.transports.into()),
                (">PRODUCERS", room.producers.into()),
                (">CONSUMERS", room.consumers.into()),
                ("APP DATA", Cell::app_data(&room.app_data)),
            ]
        })
    }
}

/// `weir ctl room …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the rooms
    List(List),
    /// Create a room
    Create {
        /// The worker that serves it [default: the one with the fewest rooms]
        #[arg(long, value_name = "ID")]
        worker: Option<u32>,
        /// The codecs that its peers may send: JSON, or a file with JSON (`-`: standard input); e.g.
        /// [{"kind":"audio","name":"opus","clockRate":48000,"channels":2}] [default: all codecs that Weir knows]
        #[arg(long, value_name = "JSON|FILE")]
        media_codecs: Option<String>,
        #[command(flatten)]
        attached: Attached,
    },
    /// Show a room
    Show {
        /// The room's id
        room: u64,
    },
    /// Show the counters of everything in a room
    Stats {
        /// The room's id
        room: u64,
    },
    /// Print everything that the worker knows about a room, as JSON
    Dump {
        /// The room's id
        room: u64,
    },
    /// Show what a room's peers may send and receive
    Capabilities {
        /// The room's id
        room: u64,
    },
    /// Stream a producer to an address
    Stream {
        /// The room's id
        room: u64,
        /// The producer's id
        producer: u64,
        /// The address to send to, as IP:PORT
        #[arg(value_parser = parse_address)]
        remote: SocketAddr,
    },
    /// Show who is speaking, until the room closes
    Speakers {
        /// The room's id
        room: u64,
    },
    /// Show the audio levels in a room, twice a second, until it closes
    Levels {
        /// The room's id
        room: u64,
    },
    /// Close a room with everything in it
    Close {
        /// The room's id
        room: u64,
        #[command(flatten)]
        event_data: EventData,
    },
}

impl Command {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(client, output).await,
            Self::Create {
                worker,
                media_codecs,
                attached,
            } => {
                let mut body = json!({});
                if let Some(worker) = worker {
                    body["worker"] = worker.into();
                }
                if let Some(source) = media_codecs {
                    body["mediaCodecs"] = read_json(&source)?;
                }
                attached.add_to(&mut body);
                let answer = client.post("/rooms", &body).await?;
                let room: RoomView = client.read(answer.clone())?;
                output.done(&answer, format_args!("{} opened on {}", room.id, room.worker))
            }
            Self::Show { room } => {
                let pairs = |room: &RoomView| {
                    [
                        ("room", room.id.0.into()),
                        ("worker", room.worker.0.into()),
                        ("peers", room.peers.into()),
                        ("transports", room.transports.into()),
                        ("producers", room.producers.into()),
                        ("consumers", room.consumers.into()),
                        ("app data", Cell::app_data(&room.app_data)),
                    ]
                };
                of(room).show(client, output, pairs).await
            }
            Self::Stats { room } => stats(client, output, room).await,
            Self::Dump { room } => of(room).dump(client, output).await,
            Self::Capabilities { room } => capabilities(client, output, room).await,
            Self::Stream { room, producer, remote } => {
                let body = json!({"producer": producer, "remoteIp": Zoned::from(remote), "remotePort": remote.port()});
                let answer = client.post(&format!("/rooms/{room}/rtp-streamers"), &body).await?;
                let streamer: StreamerView = client.read(answer.clone())?;
                output.done(
                    &answer,
                    format_args!("producer {producer} goes to {remote} on {}", streamer.transport),
                )
            }
            Self::Speakers { room } => {
                follow_live(client, output, &format!("/rooms/{room}/active-speaker"), speaker).await
            }
            Self::Levels { room } => follow_live(client, output, &format!("/rooms/{room}/audio-levels"), levels).await,
            Self::Close { room, event_data } => of(room).close(client, output, event_data).await,
        }
    }
}

fn of(room: u64) -> Object {
    Object::new("room", room)
}

async fn capabilities(client: &mut Client, output: &Output, room: u64) -> Result<(), Failure> {
    let answer: Value = client.get(&format!("/rooms/{room}/rtp-capabilities")).await?;
    if output.is_json() {
        return output.json(&answer);
    }
    let capabilities: RtpCapabilities = client.read(answer)?;
    let mut table = Table::default();
    for codec in &capabilities.codecs {
        table.row([
            ("KIND", codec.kind.into()),
            ("CODEC", (&codec.name).into()),
            (">PAYLOAD TYPE", Cell::or_none(codec.preferred_payload_type)),
            (">CLOCK RATE", codec.clock_rate.into()),
        ]);
    }
    output.table(&table, "no codecs")
}

/// `alice (producer 3)`
fn speaker(event: &Value) -> String {
    match (event["peer"].as_str(), event["producer"].as_u64()) {
        (_, None) => "nobody".to_owned(),
        (Some(peer), Some(producer)) => format!("{peer} (producer {producer})"),
        (None, Some(producer)) => format!("producer {producer}"),
    }
}

/// `producer 3 -30 dBov, producer 5 -62 dBov`
fn levels(event: &Value) -> String {
    let levels = event.as_array().into_iter().flatten();
    let levels: Vec<String> = levels
        .map(|level| format!("producer {} {} dBov", level["producer"], level["levelDbov"]))
        .collect();
    match levels.is_empty() {
        true => "silence".to_owned(),
        false => levels.join(", "),
    }
}

async fn stats(client: &mut Client, output: &Output, room: u64) -> Result<(), Failure> {
    let answer: Value = client.get(&format!("/rooms/{room}/stats")).await?;
    if output.is_json() {
        return output.json(&answer);
    }
    let stats: StatsPage = client.read(answer)?;
    output.table(&transport::stats_table(&stats.transports), "no transports")?;
    output.line("")?;
    output.table(&producer::stats_table(&stats.producers), "no streams received")?;
    output.line("")?;
    output.table(&super::consumer::stats_table(&stats.consumers), "no consumers")
}
