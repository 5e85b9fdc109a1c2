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
use super::object::{Attached, Closing, Object, print_list, print_one};
use super::output::Output;
use super::table::{Cell, Table};
use super::{consumer, producer, transport};

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

/// A room, by its id.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Which {
    /// The room's id
    room: u64,
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
    Show(Which),
    /// Show the counters of everything in a room
    Stats(Which),
    /// Print everything that the worker knows about a room, as JSON
    Dump(Which),
    /// Show what a room's peers may send and receive
    Capabilities(Which),
    /// Stream a producer to an address
    Stream {
        #[command(flatten)]
        which: Which,
        /// The producer's id
        producer: u64,
        /// The address to send to, as IP:PORT
        #[arg(value_parser = parse_address)]
        remote: SocketAddr,
    },
    /// Show who is speaking, until the room closes
    Speakers(Which),
    /// Show the audio levels in a room, twice a second, until it closes
    Levels(Which),
    /// Close a room with everything in it
    Close(Closing<Which>),
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
            Self::Show(which) => {
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
                of(which).show(client, output, pairs).await
            }
            Self::Stats(which) => stats(client, output, which).await,
            Self::Dump(which) => of(which).dump(client, output).await,
            Self::Capabilities(which) => capabilities(client, output, which).await,
            Self::Stream {
                which,
                producer,
                remote,
            } => {
                let body = json!({"producer": producer, "remoteIp": Zoned::from(remote), "remotePort": remote.port()});
                let answer = client.post(&of(which).target("/rtp-streamers"), &body).await?;
                let streamer: StreamerView = client.read(answer.clone())?;
                output.done(
                    &answer,
                    format_args!("producer {producer} goes to {remote} on {}", streamer.transport),
                )
            }
            Self::Speakers(which) => follow_live(client, output, &of(which).target("/active-speaker"), speaker).await,
            Self::Levels(which) => follow_live(client, output, &of(which).target("/audio-levels"), levels).await,
            Self::Close(Closing { which, app_data }) => of(which).close(client, output, app_data).await,
        }
    }
}

fn of(which: Which) -> Object {
    Object::new("room", which.room)
}

async fn capabilities(client: &mut Client, output: &Output, which: Which) -> Result<(), Failure> {
    let table = |capabilities: RtpCapabilities| {
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
    };
    print_one(client, output, &of(which).target("/rtp-capabilities"), table).await
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

async fn stats(client: &mut Client, output: &Output, which: Which) -> Result<(), Failure> {
    let tables = |stats: StatsPage| {
        output.table(&transport::stats_table(&stats.transports), "no transports")?;
        output.line("")?;
        output.table(&producer::stats_table(&stats.producers), "no streams received")?;
        output.line("")?;
        output.table(&consumer::stats_table(&stats.consumers), "no consumers")
    };
    print_one(client, output, &of(which).target("/stats"), tables).await
}
