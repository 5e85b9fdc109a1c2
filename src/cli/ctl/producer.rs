//! `weir ctl producer`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weir::ProducerStats;
use weir::http::ProducerView;
use weir::{CodecName, RtpCodec, RtpEncoding, RtpParameters};
use weir_channel::message::{MediaKind, Profile};

use super::client::{Client, Failure};
use super::input::read_json;
use super::object::{Attached, Closing, Object, Pausing, print_list};
use super::output::Output;
use super::parse_profile;
use super::rtc_stats::RtcStats;
use super::table::{Cell, Table};
use super::units::{bitrate, bytes};
use crate::cli::palette::Tone;

/// `weir ctl producers`
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those in this room
    #[arg(long, value_name = "ROOM")]
    room: Option<u64>,
    /// Only those on this transport
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<u64>,
}

impl List {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let filters = [("room", self.room), ("transport", self.transport)];
        let producers = client.list("/producers", &filters).await?;
        print_list(client, output, producers, "no producers", |producer: &ProducerView| {
            [
                (">PRODUCER", producer.id.0.into()),
                (">ROOM", producer.room.0.into()),
                (">TRANSPORT", producer.transport.0.into()),
                ("KIND", producer.kind.into()),
                ("STATE", state(producer.paused)),
                ("PREFERRED", producer.preferred_profile.into()),
                ("APP DATA", Cell::app_data(&producer.app_data)),
            ]
        })
    }
}

/// A producer, by its id.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Which {
    /// The producer's id
    producer: u64,
}

/// `weir ctl producer …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the producers
    List(List),
    /// Create a producer on a transport
    Create(Box<Create>),
    /// Show a producer
    Show(Which),
    /// Stop relaying a producer
    Pause(Pausing<Which>),
    /// Relay a producer again
    Resume(Pausing<Which>),
    /// Set the profile for consumers that have no preference of their own
    Profile {
        #[command(flatten)]
        which: Which,
        /// default, low, medium or high
        #[arg(value_parser = parse_profile())]
        profile: String,
    },
    /// Show the counters of a producer
    Stats(Which),
    /// Show statistics of a producer in the format of mediasoup's RTC statistics
    RtcStats(RtcStats),
    /// Print everything that the worker knows about a producer, as JSON
    Dump(Which),
    /// Close a producer and its consumers
    Close(Closing<Which>),
}

/// `weir ctl producer create`
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The id of the transport it arrives on
    transport: u64,
    /// The RTP parameters: JSON, or a file with JSON (`-`: standard input); use this instead of the options below
    #[arg(long, value_name = "JSON|FILE", conflicts_with_all = ["codec", "payload_type", "ssrc", "simulcast"])]
    rtp_parameters: Option<String>,
    /// The codec: opus, PCMU, PCMA, G722, VP8, VP9, H264, H265, AV1, or any other as SDP names it, e.g.
    /// audio/L16/44100/2
    #[arg(long, value_parser = parse_codec, value_name = "NAME|KIND/NAME/RATE", required_unless_present = "rtp_parameters")]
    codec: Option<Declared>,
    /// The payload type [default: the codec's static one, if there is one]
    #[arg(long, value_name = "NUMBER", requires = "codec")]
    payload_type: Option<u8>,
    /// The SSRC of the only stream; `any`, on a plain transport, takes the first stream with the payload type
    #[arg(long, value_name = "SSRC|any", value_parser = parse_ssrc, requires = "codec", conflicts_with = "simulcast")]
    ssrc: Option<Ssrc>,
    /// The SSRCs of two or three simulcast layers, the lowest first
    #[arg(long, value_name = "SSRC,SSRC,SSRC", value_delimiter = ',', requires = "codec")]
    simulcast: Vec<u32>,
    /// audio or video, with --rtp-parameters [default: that of the first codec]
    #[arg(long, value_parser = ["audio", "video"], requires = "rtp_parameters")]
    kind: Option<String>,
    /// The profile for consumers that have no preference of their own
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
                let pairs = |producer: &ProducerView| {
                    [
                        ("producer", producer.id.0.into()),
                        ("room", producer.room.0.into()),
                        ("transport", producer.transport.0.into()),
                        ("kind", producer.kind.into()),
                        ("state", state(producer.paused)),
                        ("preferred profile", producer.preferred_profile.into()),
                        ("codecs", codecs(producer.rtp_parameters.as_ref())),
                        ("streams", streams(producer.rtp_parameters.as_ref())),
                        ("app data", Cell::app_data(&producer.app_data)),
                    ]
                };
                of(which).show(client, output, pairs).await
            }
            Self::Pause(pausing) => of(pausing.which).pause(client, output, &pausing.body()).await,
            Self::Resume(pausing) => of(pausing.which).resume(client, output, &pausing.body()).await,
            Self::Profile { which, profile } => of(which).prefer(client, output, &profile).await,
            Self::Stats(which) => {
                let none = "no streams received";
                of(which).stats(client, output, stats_table, none).await
            }
            Self::RtcStats(stats) => stats.run("producers", client, output).await,
            Self::Dump(which) => of(which).dump(client, output).await,
            Self::Close(Closing { which, app_data }) => of(which).close(client, output, app_data).await,
        }
    }
}

fn of(which: Which) -> Object {
    Object::new("producer", which.producer)
}

impl Create {
    async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let (kind, rtp_parameters) = self.parameters()?;
        let mut body = json!({"kind": kind, "rtpParameters": rtp_parameters, "paused": self.paused});
        if let Some(profile) = self.profile {
            body["preferredProfile"] = profile.into();
        }
        self.attached.add_to(&mut body);
        let answer = client
            .post(&format!("/transports/{}/producers", self.transport), &body)
            .await?;
        let producer: ProducerView = client.read(answer.clone())?;
        let line = format!("{} ({}) opened on {}", producer.id, producer.kind, producer.transport);
        output.done(&answer, line)
    }

    /// The kind and the RTP parameters, from the file or from the options.
    fn parameters(&self) -> Result<(String, Value), Failure> {
        if let Some(source) = &self.rtp_parameters {
            let parameters = read_json(source)?;
            let of_codec = || {
                let mime_type = parameters.pointer("/codecs/0/mimeType")?.as_str()?;
                Some(mime_type.split('/').next()?.to_ascii_lowercase())
            };
            let kind = self.kind.clone().or_else(of_codec).ok_or_else(|| {
                Failure::Usage("the RTP parameters name no codec to tell the kind from; say --kind".to_owned())
            })?;
            return Ok((kind, parameters));
        }
        let Declared { kind, mut codec } = self
            .codec
            .clone()
            .ok_or_else(|| Failure::Usage("say --codec or --rtp-parameters".to_owned()))?;
        codec.payload_type = self
            .payload_type
            .or_else(|| codec.conventional_payload_type())
            .ok_or_else(|| {
                Failure::Usage(format!(
                    "{} has no static payload type; say --payload-type, e.g. 96",
                    codec.mime_type
                ))
            })?;
        let parameters = RtpParameters {
            codecs: vec![codec],
            encodings: self.encodings()?,
            ..RtpParameters::default()
        };
        Ok((kind.to_string(), json!(parameters)))
    }

    fn encodings(&self) -> Result<Vec<RtpEncoding>, Failure> {
        const LAYERS: [Profile; 3] = [Profile::Low, Profile::Medium, Profile::High];
        match (self.ssrc, self.simulcast.as_slice()) {
            (Some(Ssrc::Known(ssrc)), _) => Ok(vec![RtpEncoding::ssrc(ssrc)]),
            (Some(Ssrc::Any), _) => Ok(vec![RtpEncoding::default()]),
            (None, [low, high]) => Ok(vec![
                RtpEncoding::layer(*low, Profile::Low),
                RtpEncoding::layer(*high, Profile::High),
            ]),
            (None, ssrcs @ [_, _, _]) => {
                let layers = ssrcs.iter().zip(LAYERS);
                Ok(layers
                    .map(|(ssrc, profile)| RtpEncoding::layer(*ssrc, profile))
                    .collect())
            }
            (None, []) => Err(Failure::Usage(
                "say --ssrc, or --simulcast with an SSRC per layer".to_owned(),
            )),
            (None, ssrcs) => Err(Failure::Usage(format!(
                "--simulcast takes two or three SSRCs, not {}",
                ssrcs.len()
            ))),
        }
    }
}

/// What the only stream is recognised by.
#[derive(Clone, Copy, Debug)]
enum Ssrc {
    /// Its SSRC.
    Known(u32),
    /// Its payload type.
    Any,
}

fn parse_ssrc(text: &str) -> Result<Ssrc, String> {
    match text {
        "any" => Ok(Ssrc::Any),
        number => number
            .parse()
            .map(Ssrc::Known)
            .map_err(|_| "an SSRC is a number below 2^32, or any".to_owned()),
    }
}

/// A codec, but for its payload type.
#[derive(Clone, Debug)]
struct Declared {
    kind: MediaKind,
    codec: RtpCodec,
}

/// `VP8`, or what is not known as in SDP (RFC 8866 §6.6), with its kind before it: `audio/L16/44100/2`.
fn parse_codec(text: &str) -> Result<Declared, String> {
    if let Some(name) = CodecName::from_subtype(text) {
        return Ok(Declared {
            kind: name.kind(),
            codec: RtpCodec::new(name, 0),
        });
    }
    let known = || {
        let known = CodecName::ALL.map(CodecName::subtype).join(", ");
        format!("choose from {known}, or say kind, name and clock rate, e.g. audio/L16/44100/2")
    };
    let mut parts = text.split('/');
    let (Some(kind), Some(name), Some(rate)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(known());
    };
    let (Ok(kind), Ok(clock_rate), channels, None) = (
        kind.parse::<MediaKind>(),
        rate.parse(),
        parts.next().map(str::parse),
        parts.next(),
    ) else {
        return Err(known());
    };
    let codec = RtpCodec {
        mime_type: format!("{kind}/{name}"),
        payload_type: 0,
        clock_rate,
        channels: channels.transpose().map_err(|_| known())?,
        parameters: serde_json::Map::new(),
        rtcp_feedback: Vec::new(),
    };
    Ok(Declared { kind, codec })
}

fn state(paused: bool) -> Cell {
    match paused {
        true => Cell::new("paused", Tone::Warning),
        false => Cell::new("on", Tone::Good),
    }
}

/// `video/VP8 (96), …`
pub(super) fn codecs(parameters: Option<&RtpParameters>) -> Cell {
    let codecs = parameters.iter().flat_map(|parameters| &parameters.codecs);
    let codecs: Vec<_> = codecs
        .map(|codec| format!("{} ({})", codec.mime_type, codec.payload_type))
        .collect();
    if codecs.is_empty() {
        Cell::none()
    } else {
        codecs.join(", ").into()
    }
}

/// `low 1111, medium 2222, …`
pub(super) fn streams(parameters: Option<&RtpParameters>) -> Cell {
    let encodings = parameters.iter().flat_map(|parameters| &parameters.encodings);
    let encodings: Vec<_> = encodings
        .map(|encoding| {
            let profile = encoding.profile.map(|profile| profile.to_string());
            let ssrc = encoding.ssrc.map(|ssrc| ssrc.to_string());
            let parts: Vec<_> = [profile, ssrc, encoding.encoding_id.clone()]
                .into_iter()
                .flatten()
                .collect();
            parts.join(" ")
        })
        .collect();
    if encodings.is_empty() {
        Cell::none()
    } else {
        encodings.join(", ").into()
    }
}

pub(super) fn stats_table(stats: &[ProducerStats]) -> Table {
    let mut table = Table::default();
    for producer in stats {
        for stream in &producer.streams {
            let activity = match stream.active {
                true => Cell::new("active", Tone::Good),
                false => Cell::new("silent", Tone::Faint),
            };
            table.row([
                (">PRODUCER", producer.producer.0.into()),
                ("STATE", state(producer.paused)),
                (">SSRC", stream.ssrc.into()),
                ("PROFILE", stream.profile.into()),
                ("STREAM", activity),
                (">PACKETS", stream.packets.into()),
                (">BYTES", bytes(stream.bytes).into()),
                (">BITRATE", bitrate(stream.bitrate).into()),
                (">LOST", Cell::alarming(stream.packets_lost)),
                (">DUPLICATED", stream.packets_duplicated.into()),
                (">DISCARDED", stream.packets_discarded.into()),
                (">KEY FRAMES", stream.key_frames.into()),
                (">ASKED FOR", (stream.pli_count + stream.fir_count).into()),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_named_or_described() {
        let read = |text| parse_codec(text).map(|declared| (declared.kind, declared.codec));
        assert_eq!(read("vp8"), Ok((MediaKind::Video, RtpCodec::new(CodecName::Vp8, 0))));
        let (kind, codec) = read("audio/L16/44100/2").unwrap();
        assert_eq!(kind, MediaKind::Audio);
        assert_eq!(
            (codec.mime_type.as_str(), codec.clock_rate, codec.channels),
            ("audio/L16", 44_100, Some(2))
        );
        assert_eq!(codec.conventional_payload_type(), Some(10));
        for text in [
            "",
            "Theora",
            "video/JPEG",
            "text/t140/1000",
            "audio/L16/x",
            "audio/L16/8000/999",
            "a/b/1/2/3",
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains("audio/L16/44100/2"), "{text}: {error}");
        }
    }
}
