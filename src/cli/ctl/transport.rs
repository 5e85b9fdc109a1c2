//! `weir ctl transport`.

mod webrtc;

use std::net::{IpAddr, SocketAddr};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weir::TransportStats;
use weir::http::TransportView;
use weir::{TransportKind, Tuple};
use weir_channel::message::{Remote, Zoned, parse_address};

use super::client::{Client, Failure};
use super::object::{Attached, Columns, EventData, Object};
use super::output::Output;
use super::rtc_stats::RtcStats;
use super::table::{Cell, Table, Tone};
use super::units::bytes;

pub(super) use webrtc::WebRtcArgs;

/// `weir ctl transports`
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those in this room
    #[arg(long, value_name = "ROOM")]
    room: Option<u64>,
}

impl List {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let transports = client.list("/transports", &[("room", self.room)]).await?;
        let columns = Columns {
            titles: [
                ">TRANSPORT",
                ">ROOM",
                "KIND",
                "LOCAL",
                "REMOTE",
                "ICE",
                "DTLS",
                "APP DATA",
            ],
            none: "no transports",
        };
        columns.print(client, output, transports, |transport: &TransportView| {
            [
                transport.id.0.into(),
                transport.room.0.into(),
                kind(transport).into(),
                local(transport).into(),
                remote(transport),
                webrtc::ice(transport.webrtc.as_ref().map(|webrtc| webrtc.ice_state)),
                webrtc::dtls(transport.webrtc.as_ref().map(|webrtc| webrtc.dtls_state)),
                Cell::app_data(&transport.app_data),
            ]
        })
    }
}

/// `weir ctl transport …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the transports
    List(List),
    /// Create a transport for plain RTP, or for WebRTC
    Create(Create),
    /// Show a transport
    Show {
        /// The transport's id
        transport: u64,
    },
    /// Set or change the remote address of a transport
    Remote {
        /// The transport's id
        transport: u64,
        /// The address to send RTP to (and RTCP, if it has no port of its own), as IP:PORT
        #[arg(value_parser = parse_address)]
        rtp: SocketAddr,
        /// The address to send RTCP to, if it has a port of its own
        #[arg(value_parser = parse_address)]
        rtcp: Option<SocketAddr>,
    },
    /// Set the fingerprints by which a WebRTC transport recognises its client's certificate
    Dtls(webrtc::Dtls),
    /// Restart ICE: create new ICE parameters for a WebRTC transport, e.g. because its client's network has changed
    RestartIce {
        /// The transport's id
        transport: u64,
    },
    /// Show the counters of a transport
    Stats {
        /// The transport's id
        transport: u64,
    },
    /// Show statistics of a transport in the format of mediasoup's RTC statistics
    RtcStats(RtcStats),
    /// Print everything that the worker knows about a transport, as JSON
    Dump {
        /// The transport's id
        transport: u64,
    },
    /// Limit the bitrate of the transport's senders
    MaxBitrate {
        /// The transport's id
        transport: u64,
        /// The limit in bits per second, at least 10000; without it, the limit is removed
        bitrate: Option<u64>,
    },
    /// Send copies of a transport's packets to another address
    Mirror {
        /// The transport's id
        transport: u64,
        /// The address to send to, as IP:PORT
        #[arg(value_parser = parse_address)]
        remote: SocketAddr,
        /// The local address to send from
        #[arg(long, value_name = "IP")]
        local_ip: Option<Zoned>,
    },
    /// Stop sending copies of a transport's packets
    StopMirror {
        /// The transport's id
        transport: u64,
    },
    /// Close a transport with its producers and consumers
    Close {
        /// The transport's id
        transport: u64,
        #[command(flatten)]
        event_data: EventData,
    },
}

/// `weir ctl transport create`
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The room's id
    room: u64,
    /// The address to send RTP to, as IP:PORT; can be set later
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address, conflicts_with = "webrtc")]
    remote: Option<SocketAddr>,
    /// The address to send RTCP to, with --separate-rtcp
    #[arg(
        long,
        value_name = "IP:PORT",
        value_parser = parse_address,
        requires = "remote",
        requires = "separate_rtcp"
    )]
    remote_rtcp: Option<SocketAddr>,
    /// Learn the remote address from the first valid packet
    #[arg(long, conflicts_with_all = ["remote", "webrtc"])]
    comedia: bool,
    /// With --comedia: lock (the first address stays) or relearn (another port of the same IP may follow after 5 s of silence)
    /// [default: relearn]
    #[arg(long, value_name = "POLICY", value_parser = ["lock", "relearn"], requires = "comedia")]
    comedia_policy: Option<String>,
    /// With --comedia: learn the remote address only at this IP [default: any]
    #[arg(long, value_name = "IP", requires = "comedia")]
    comedia_from: Option<IpAddr>,
    /// Use a port of its own for RTCP
    #[arg(long, conflicts_with = "webrtc")]
    separate_rtcp: bool,
    /// ipv4 or ipv6 [default: the family of the given addresses, else IPv4 if the server has it]
    #[arg(long, value_parser = ["ipv4", "ipv6"], conflicts_with = "webrtc")]
    family: Option<String>,
    /// The local address, instead of the server's own
    #[arg(long, value_name = "IP", conflicts_with = "webrtc")]
    local_ip: Option<Zoned>,
    /// The local port for RTP, one of the server's rtc_ports [default: any that is free]
    #[arg(long, value_name = "PORT", conflicts_with = "webrtc")]
    port: Option<u16>,
    #[command(flatten)]
    webrtc_args: WebRtcArgs,
    #[command(flatten)]
    attached: Attached,
}

impl Command {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(client, output).await,
            Self::Create(create) => create.run(client, output).await,
            Self::Show { transport } => of(transport).show(client, output, pairs).await,
            Self::Remote { transport, rtp, rtcp } => {
                let remote = Remote { rtp, rtcp };
                let line = format!("transport {transport} sends to {}", address(&remote));
                of(transport).put(client, output, "/remote", &json!(remote), line).await
            }
            Self::Dtls(dtls) => dtls.run(client, output).await,
            Self::RestartIce { transport } => webrtc::restart_ice(transport, client, output).await,
            Self::Stats { transport } => of(transport).stats(client, output, stats_table, "no counters").await,
            Self::RtcStats(stats) => stats.run("transports", client, output).await,
            Self::Dump { transport } => of(transport).dump(client, output).await,
            Self::MaxBitrate { transport, bitrate } => {
                let body = json!({"bitrateBps": bitrate});
                let line = match bitrate {
                    Some(bitrate) => format!("transport {transport} asks its senders for at most {bitrate} bit/s"),
                    None => format!("transport {transport} has no limit"),
                };
                of(transport).put(client, output, "/max-bitrate", &body, line).await
            }
            Self::Mirror {
                transport,
                remote,
                local_ip,
            } => {
                let mut body = json!({"remoteIp": Zoned::from(remote), "remotePort": remote.port()});
                if let Some(local_ip) = local_ip {
                    body["localIp"] = json!(local_ip);
                }
                let line = format!("copies of transport {transport} go to {remote}");
                of(transport).put(client, output, "/mirroring", &body, line).await
            }
            Self::StopMirror { transport } => {
                let answer = client.close(&of(transport).target("/mirroring"), None).await?;
                output.done(&answer, format_args!("transport {transport} is not copied"))
            }
            Self::Close { transport, event_data } => of(transport).close(client, output, event_data).await,
        }
    }
}

fn of(transport: u64) -> Object {
    Object::new("transport", transport)
}

/// A transport by itself.
fn pairs(transport: &TransportView) -> Vec<(&'static str, Cell)> {
    let rtcp = match transport.rtcp_mux {
        true => "on the RTP port",
        false => "on its own port",
    };
    let mut pairs = vec![
        ("transport", transport.id.0.into()),
        ("room", transport.room.0.into()),
        ("kind", kind(transport).into()),
        ("local", local(transport).into()),
        ("remote", remote(transport)),
        ("rtcp", rtcp.into()),
    ];
    pairs.extend(transport.webrtc.iter().flat_map(webrtc::pairs));
    pairs.push(("app data", Cell::app_data(&transport.app_data)));
    pairs
}

impl Create {
    async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let mut body = match self.webrtc_args.body() {
            Some(body) => body,
            None => self.plain(),
        };
        self.attached.add_to(&mut body);
        let target = format!("/rooms/{}{}", self.room, self.webrtc_args.route());
        let answer = client.post(&target, &body).await?;
        let transport: TransportView = client.read(answer.clone())?;
        let local = local(&transport);
        output.done(
            &answer,
            format_args!("{} opened in {} at {local}", transport.id, transport.room),
        )
    }

    /// What one for plain RTP is made from.
    fn plain(&self) -> Value {
        let mut body = json!({"rtcpMux": !self.separate_rtcp, "comedia": self.comedia});
        if let Some(rtp) = self.remote {
            body["remote"] = json!(Remote {
                rtp,
                rtcp: self.remote_rtcp
            });
        }
        if let Some(family) = &self.family {
            body["family"] = json!(family);
        }
        if let Some(local_ip) = self.local_ip {
            body["localIp"] = json!(local_ip);
        }
        if let Some(port) = self.port {
            body["localPort"] = json!(port);
        }
        if let Some(policy) = &self.comedia_policy {
            body["comediaPolicy"] = json!(policy);
        }
        if let Some(ip) = self.comedia_from {
            body["comediaFrom"] = json!(ip);
        }
        body
    }
}

/// `10.0.0.1:4000`, or with a separate RTCP address `10.0.0.1:4000+4001`.
fn address(address: &Remote) -> String {
    match address.rtcp {
        None => address.rtp.to_string(),
        Some(rtcp) if rtcp.ip() == address.rtp.ip() => format!("{}+{}", address.rtp, rtcp.port()),
        Some(rtcp) => format!("{}+{rtcp}", address.rtp),
    }
}

fn kind(transport: &TransportView) -> &'static str {
    match transport.kind {
        TransportKind::Plain => "plain",
        TransportKind::WebRtc => "webrtc",
    }
}

/// Where it is to be reached: in WebRTC, where ICE may choose, everywhere where it may be.
pub(super) fn local(transport: &TransportView) -> String {
    let port = |tuple: &Tuple| {
        let zoned = Zoned {
            ip: tuple.local_ip,
            zone: tuple.zone.unwrap_or(0),
        };
        zoned.at(tuple.local_port)
    };
    match (&transport.webrtc, &transport.tuple) {
        (Some(webrtc), _) => webrtc::local(webrtc),
        (None, Some(tuple)) => address(&Remote {
            rtp: port(tuple),
            rtcp: transport.rtcp_tuple.as_ref().map(port),
        }),
        (None, None) => String::new(),
    }
}

fn remote(transport: &TransportView) -> Cell {
    if let Some(webrtc) = &transport.webrtc {
        return webrtc::remote(webrtc.ice_selected_tuple.as_ref());
    }
    match transport.tuple.and_then(|tuple| tuple.remote) {
        Some(rtp) => {
            let rtcp = transport.rtcp_tuple.and_then(|tuple| tuple.remote);
            address(&Remote { rtp, rtcp }).into()
        }
        None if transport.comedia => Cell::new("learning", Tone::Warning),
        None => Cell::none(),
    }
}

pub(super) fn stats_table(stats: &[TransportStats]) -> Table {
    let mut table = Table::new([
        ">TRANSPORT",
        "REMOTE",
        ">RECEIVED",
        ">BYTES",
        ">SENT",
        ">BYTES",
        ">RTCP IN",
        ">RTCP OUT",
        ">KERNEL DROPS",
        ">BACKLOG",
        "ICE",
        "DTLS",
        "SRTP",
        "UNROUTED",
    ]);
    for stats in stats {
        let webrtc = stats.webrtc.as_ref();
        table.row([
            stats.transport.0.into(),
            match webrtc {
                Some(webrtc) => webrtc::remote(webrtc.ice_selected_tuple.as_ref()),
                None => Cell::or_none(stats.remote.as_ref().map(address)),
            },
            stats.packets_received.into(),
            bytes(stats.bytes_received).into(),
            stats.packets_sent.into(),
            bytes(stats.bytes_sent).into(),
            stats.rtcp_received.into(),
            stats.rtcp_sent.into(),
            Cell::alarming(stats.kernel_drops),
            stats.backlog_packets.into(),
            webrtc::ice(webrtc.map(|webrtc| webrtc.ice_state)),
            webrtc::dtls(webrtc.map(|webrtc| webrtc.dtls_state)),
            Cell::or_none(webrtc.and_then(|webrtc| webrtc.srtp_profile.as_ref())),
            Cell::reasons(&stats.unrouted),
        ]);
    }
    table
}
