//! `weir ctl consumer`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use weir::ConsumerStats;
use weir::http::ConsumerView;

use super::client::{Client, Failure};
use super::object::{Attached, Closing, Object, Pausing, print_list};
use super::output::Output;
use super::parse_profile;
use super::producer::{codecs, streams};
use super::rtc_stats::RtcStats;
use super::table::{Cell, Table};
use super::units::{bitrate, bytes};
use crate::cli::palette::Tone;

/// `weir ctl consumers`
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those in this room
    #[arg(long, value_name = "ROOM")]
    room: Option<u64>,
    /// Only those on this transport
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<u64>,
    /// Only those of this producer
    #[arg(long, value_name = "PRODUCER")]
    producer: Option<u64>,
}

impl List {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let filters = [
            ("room", self.room),
            ("transport", self.transport),
            ("producer", self.producer),
        ];
        let consumers = client.list("/consumers", &filters).await?;
        print_list(client, output, consumers, "no consumers", |consumer: &ConsumerView| {
            [
                (">CONSUMER", consumer.id.0.into()),
                (">ROOM", consumer.room.0.into()),
                (">TRANSPORT", Cell::or_none(consumer.transport.map(|id| id.0))),
                (">PRODUCER", consumer.producer.0.into()),
                ("KIND", consumer.kind.into()),
                ("STATE", state(consumer.paused, consumer.source_paused)),
                ("PREFERRED", consumer.preferred_profile.into()),
                ("EFFECTIVE", Cell::or_none(consumer.effective_profile)),
                ("APP DATA", Cell::app_data(&consumer.app_data)),
            ]
        })
    }
}

/// A consumer, by its id.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Which {
    /// The consumer's id
    consumer: u64,
}

/// `weir ctl consumer …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the consumers
    List(List),
    /// Create a consumer on a transport
    Create(Create),
    /// Show a consumer
    Show(Which),
    /// Stop sending to a consumer
    Pause(Pausing<Which>),
    /// Send to a consumer again
    Resume(Pausing<Which>),
    /// Set the highest profile that a consumer receives; `default` removes the limit
    Profile {
        #[command(flatten)]
        which: Which,
        /// default, low, medium or high
        #[arg(value_parser = parse_profile())]
        profile: String,
    },
    /// Ask the consumer's producer for a key frame
    Keyframe(Which),
    /// Show the counters of a consumer
    Stats(Which),
    /// Show statistics of a consumer in the format of mediasoup's RTC statistics
    RtcStats(RtcStats),
    /// Print everything that the worker knows about a consumer, as JSON
    Dump(Which),
    /// Start to send a peer's consumer, on one of the peer's transports
    Enable {
        #[command(flatten)]
        which: Which,
        /// The transport's id
        transport: u64,
        /// Start paused by its client
        #[arg(long)]
        paused: bool,
    },
    /// Close a consumer
    Close(Closing<Which>),
}

/// `weir ctl consumer create`
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The id of the transport to send it on
    transport: u64,
    /// The id of the producer to consume
    producer: u64,
    /// The SSRC to send with [default: a random one]
    #[arg(long)]
    ssrc: Option<u32>,
    /// Consume only this codec, and change its payload type: the producer's, a colon, the consumer's; can be repeated
    #[arg(long, value_name = "FROM:TO", value_parser = parse_payload_types)]
    payload_type: Vec<(u8, u8)>,
    /// The highest profile that it receives
    #[arg(long, value_name = "PROFILE", value_parser = parse_profile())]
    profile: Option<String>,
    /// Start paused
    #[arg(long)]
    paused: bool,
    #[command(flatten)]
    attached: Attached,
}

impl Command {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(client, output).await,
            Self::Create(create) => create.run(client, output).await,
            Self::Show(which) => {
                let pairs = |consumer: &ConsumerView| {
                    [
                        ("consumer", consumer.id.0.into()),
                        ("room", consumer.room.0.into()),
                        ("transport", Cell::or_none(consumer.transport.map(|id| id.0))),
                        ("producer", consumer.producer.0.into()),
                        ("kind", consumer.kind.into()),
                        ("state", state(consumer.paused, consumer.source_paused)),
                        ("preferred profile", consumer.preferred_profile.into()),
                        ("effective profile", Cell::or_none(consumer.effective_profile)),
                        ("codecs", codecs(consumer.rtp_parameters.as_ref())),
                        ("streams", streams(consumer.rtp_parameters.as_ref())),
                        ("app data", Cell::app_data(&consumer.app_data)),
                    ]
                };
                of(which).show(client, output, pairs).await
            }
            Self::Pause(pausing) => of(pausing.which).pause(client, output, &pausing.body()).await,
            Self::Resume(pausing) => of(pausing.which).resume(client, output, &pausing.body()).await,
            Self::Profile { which, profile } => of(which).prefer(client, output, &profile).await,
            Self::Keyframe(which) => {
                let answer = client.post(&of(which).target("/key-frame"), &json!({})).await?;
                output.done(&answer, format_args!("key frame requested for {}", of(which)))
            }
            Self::Stats(which) => of(which).stats(client, output, stats_table, "no counters").await,
            Self::RtcStats(stats) => stats.run("consumers", client, output).await,
            Self::Dump(which) => of(which).dump(client, output).await,
            Self::Enable {
                which,
                transport,
                paused,
            } => {
                let body = json!({"transport": transport, "paused": paused});
                let answer = client.post(&of(which).target("/enable"), &body).await?;
                output.done(&answer, format_args!("{} is sent on transport {transport}", of(which)))
            }
            Self::Close(Closing { which, app_data }) => of(which).close(client, output, app_data).await,
        }
    }
}

fn of(which: Which) -> Object {
    Object::new("consumer", which.consumer)
}

impl Create {
    async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let mut rtp = json!({});
        if let Some(ssrc) = self.ssrc {
            rtp["ssrc"] = ssrc.into();
        }
        if !self.payload_type.is_empty() {
            let pairs = self
                .payload_type
                .iter()
                .map(|(from, to)| (from.to_string(), Value::from(*to)));
            rtp["payloadTypes"] = Value::Object(Map::from_iter(pairs));
        }
        let mut body = json!({"producer": self.producer, "rtp": rtp, "paused": self.paused});
        if let Some(profile) = self.profile {
            body["preferredProfile"] = profile.into();
        }
        self.attached.add_to(&mut body);
        let answer = client
            .post(&format!("/transports/{}/consumers", self.transport), &body)
            .await?;
        let consumer: ConsumerView = client.read(answer.clone())?;
        let line = format!(
            "{} of {} opened on transport {}",
            consumer.id, consumer.producer, self.transport
        );
        output.done(&answer, line)
    }
}

fn parse_payload_types(text: &str) -> Result<(u8, u8), String> {
    let parsed = text
        .split_once(':')
        .and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    parsed.ok_or_else(|| "write it like 96:100".to_owned())
}

fn state(paused: bool, source_paused: bool) -> Cell {
    match (paused, source_paused) {
        (false, false) => Cell::new("on", Tone::Good),
        (true, false) => Cell::new("paused", Tone::Warning),
        (false, true) => Cell::new("source paused", Tone::Warning),
        (true, true) => Cell::new("paused, source too", Tone::Warning),
    }
}

pub(super) fn stats_table(stats: &[ConsumerStats]) -> Table {
    let mut table = Table::default();
    for stats in stats {
        table.row([
            (">CONSUMER", stats.consumer.0.into()),
            ("STATE", state(stats.paused, stats.source_paused)),
            ("EFFECTIVE", Cell::or_none(stats.effective_profile)),
            ("TARGET", Cell::or_none(stats.target_profile)),
            (">PACKETS IN", stats.packets_in.into()),
            (">FORWARDED", stats.packets_forwarded.into()),
            (">BYTES", bytes(stats.bytes_forwarded).into()),
            (">BITRATE", bitrate(stats.bitrate).into()),
            (">SWITCHES", stats.switches.into()),
            (">ASKED FOR", (stats.pli_count + stats.fir_count).into()),
            ("DROPPED", Cell::reasons(&stats.dropped)),
        ]);
    }
    table
}
