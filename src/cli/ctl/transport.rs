//! `weir ctl transport`.

mod webrtc;

use std::net::{IpAddr, SocketAddr};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weir::http::TransportView;
use weir::{TransportStats, Tuple};
use weir_channel::message::{Remote, Zoned, parse_address};

use super::client::{Client, Failure};
use super::input::read_json;
use super::object::{Attached, Closing, Object, print_list};
use super::output::Output;
use super::rtc_stats::RtcStats;
use super::table::{Cell, Table};
use super::units::bytes;
use crate::cli::palette::Tone;

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
        let row = |transport: &TransportView| {
            let webrtc = transport.webrtc.as_ref();
            [
                (">TRANSPORT", transport.id.0.into()),
                (">ROOM", transport.room.0.into()),
                ("KIND", transport.kind.into()),
                ("LOCAL", local(transport).into()),
                ("REMOTE", remote(transport)),
                ("ICE", webrtc::ice(webrtc.map(|webrtc| webrtc.ice_state))),
                ("DTLS", webrtc::dtls(webrtc.map(|webrtc| webrtc.dtls_state))),
                ("APP DATA", Cell::app_data(&transport.app_data)),
            ]
        };
        print_list(client, output, transports, "no transports", row)
    }
}

/// A transport, by its id.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Which {
    /// The transport's id
    transport: u64,
}

/// `weir ctl transport …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the transports
    List(List),
    /// Create a transport for plain RTP, or for WebRTC
    Create(Create),
    /// Show a transport
    Show(Which),
    /// Set or change the remote address of a transport
    Remote {
        #[command(flatten)]
        which: Which,
        /// The address to send RTP to (and RTCP, if it has no port of its own), as IP:PORT
        #[arg(value_parser = parse_address)]
        rtp: SocketAddr,
        /// The address to send RTCP to, if it has a port of its own
        #[arg(value_parser = parse_address)]
        rtcp: Option<SocketAddr>,
    },
    /// Set the fingerprints by which a WebRTC transport recognises its client's certificate
    Dtls(webrtc::Dtls),
    /// Set the ICE credentials of a WebRTC transport's client, by which the server can check whether the client is reached where it moves to
    Ice {
        #[command(flatten)]
        which: Which,
        /// The credentials: JSON, or a file with JSON (`-`: standard input); e.g. {"usernameFragment":"…","password":"…"}
        #[arg(value_name = "JSON|FILE")]
        parameters: String,
    },
    /// Restart ICE: create new ICE parameters for a WebRTC transport, e.g. because its client's network has changed
    RestartIce(Which),
    /// Show the counters of a transport
    Stats(Which),
    /// Show statistics of a transport in the format of mediasoup's RTC statistics
    RtcStats(RtcStats),
    /// Print everything that the worker knows about a transport, as JSON
    Dump(Which),
    /// Limit the bitrate of the transport's senders
    MaxBitrate {
        #[command(flatten)]
        which: Which,
        /// The limit in bits per second, at least 10000; without it, the limit is removed
        bitrate: Option<u64>,
    },
    /// Send copies of a transport's packets to another address
    Mirror {
        #[command(flatten)]
        which: Which,
        /// The address to send to, as IP:PORT
        #[arg(value_parser = parse_address)]
        remote: SocketAddr,
        /// The local address to send from
        #[arg(long, value_name = "IP")]
        local_ip: Option<Zoned>,
    },
    /// Stop sending copies of a transport's packets
    StopMirror(Which),
    /// Close a transport with its producers and consumers
    Close(Closing<Which>),
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
            Self::Show(which) => of(which).show(client, output, pairs).await,
            Self::Remote { which, rtp, rtcp } => {
                let remote = Remote { rtp, rtcp };
                let line = format!("{} sends to {}", of(which), address(&remote));
                of(which).put(client, output, "/remote", &json!(remote), line).await
            }
            Self::Dtls(dtls) => dtls.run(client, output).await,
            Self::Ice { which, parameters } => {
                let line = format!("{} knows its client's ICE credentials", of(which));
                of(which)
                    .put(client, output, "/ice", &read_json(&parameters)?, line)
                    .await
            }
            Self::RestartIce(which) => webrtc::restart_ice(which, client, output).await,
            Self::Stats(which) => of(which).stats(client, output, stats_table, "no counters").await,
            Self::RtcStats(stats) => stats.run("transports", client, output).await,
            Self::Dump(which) => of(which).dump(client, output).await,
            Self::MaxBitrate { which, bitrate } => {
                let body = json!({"bitrateBps": bitrate});
                let line = match bitrate {
                    Some(bitrate) => format!("{} asks its senders for at most {bitrate} bit/s", of(which)),
                    None => format!("{} has no limit", of(which)),
                };
                of(which).put(client, output, "/max-bitrate", &body, line).await
            }
            Self::Mirror {
                which,
                remote,
                local_ip,
            } => {
                let mut body = json!({"remoteIp": Zoned::from(remote), "remotePort": remote.port()});
                if let Some(local_ip) = local_ip {
                    body["localIp"] = json!(local_ip);
                }
                let line = format!("copies of {} go to {remote}", of(which));
                of(which).put(client, output, "/mirroring", &body, line).await
            }
            Self::StopMirror(which) => {
                let answer = client.close(&of(which).target("/mirroring"), None).await?;
                output.done(&answer, format_args!("{} is not copied", of(which)))
            }
            Self::Close(Closing { which, app_data }) => of(which).close(client, output, app_data).await,
        }
    }
}

fn of(which: Which) -> Object {
    Object::new("transport", which.transport)
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
        ("kind", transport.kind.into()),
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
        None if transport.comedia => match transport.comedia_from {
            Some(ip) => Cell::new(format_args!("learning at {ip}"), Tone::Warning),
            None => Cell::new("learning", Tone::Warning),
        },
        None => Cell::none(),
    }
}

pub(super) fn stats_table(stats: &[TransportStats]) -> Table {
    let mut table = Table::default();
    for stats in stats {
        let webrtc = stats.webrtc.as_ref();
        let remote = match webrtc {
            Some(webrtc) => webrtc::remote(webrtc.ice_selected_tuple.as_ref()),
            None => Cell::or_none(stats.remote.as_ref().map(address)),
        };
        let srtp_profile = webrtc.and_then(|webrtc| webrtc.srtp_profile.as_ref());
        table.row([
            (">TRANSPORT", stats.transport.0.into()),
            ("REMOTE", remote),
            (">RECEIVED", stats.packets_received.into()),
            (">BYTES", bytes(stats.bytes_received).into()),
            (">SENT", stats.packets_sent.into()),
            (">BYTES", bytes(stats.bytes_sent).into()),
            (">RTCP IN", stats.rtcp_received.into()),
            (">RTCP OUT", stats.rtcp_sent.into()),
            (">KERNEL DROPS", Cell::alarming(stats.kernel_drops)),
            (">BACKLOG", stats.backlog_packets.into()),
            ("ICE", webrtc::ice(webrtc.map(|webrtc| webrtc.ice_state))),
            ("DTLS", webrtc::dtls(webrtc.map(|webrtc| webrtc.dtls_state))),
            ("SRTP", Cell::or_none(srtp_profile)),
            ("UNROUTED", Cell::reasons(&stats.unrouted)),
        ]);
    }
    table
}
