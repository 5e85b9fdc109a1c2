//! What of `weir ctl transport` is for WebRTC transports only.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use serde_json::{Value, json};
use weir::http::WebRtcView;
use weir::{DtlsState, FingerprintAlgorithm, IceProtocol, IceState, IceTuple};

use super::{Which, of};
use crate::cli::ctl::client::{Client, Failure};
use crate::cli::ctl::input::read_json;
use crate::cli::ctl::output::Output;
use crate::cli::ctl::table::Cell;
use crate::cli::palette::Tone;

/// Whether a transport is to be one for WebRTC, and how its client can reach it.
#[derive(Debug, Args)]
pub(in crate::cli::ctl) struct WebRtcArgs {
    /// Create it for WebRTC, as browsers use it: ICE, DTLS and SRTP
    #[arg(long)]
    webrtc: bool,
    /// Do not use UDP
    #[arg(long, requires = "webrtc", conflicts_with = "no_tcp")]
    no_udp: bool,
    /// Do not use TCP
    #[arg(long, requires = "webrtc")]
    no_tcp: bool,
    /// What the client should try first, best first
    #[arg(long, value_name = "FAMILY|PROTOCOL,…", requires = "webrtc", value_delimiter = ',', value_parser = ["ipv4", "ipv6", "udp", "tcp"])]
    prefer: Vec<String>,
}

impl WebRtcArgs {
    /// Where such a transport is made, below its room or its peer.
    pub(in crate::cli::ctl) fn route(&self) -> &'static str {
        match self.webrtc {
            true => "/webrtc-transports",
            false => "/transports",
        }
    }

    /// What one for WebRTC is made from; `None`: it is to be one for plain RTP.
    pub(in crate::cli::ctl) fn body(&self) -> Option<Value> {
        let mut body = self.webrtc.then(|| json!({"udp": !self.no_udp, "tcp": !self.no_tcp}))?;
        for preferred in &self.prefer {
            let member = match preferred.as_str() {
                "ipv4" => "preferIPv4",
                "ipv6" => "preferIPv6",
                "udp" => "preferUdp",
                _ => "preferTcp",
            };
            body[member] = true.into();
        }
        Some(body)
    }
}

/// `weir ctl transport dtls`
#[derive(Debug, Args)]
pub(in crate::cli::ctl) struct Dtls {
    #[command(flatten)]
    which: Which,
    /// A fingerprint of the client's certificate, as in its SDP: sha-256 AB:CD:…; can be repeated
    #[arg(long, num_args = 2, value_names = ["HASH", "VALUE"], required_unless_present = "parameters")]
    fingerprint: Vec<String>,
    /// The client's DTLS role: client if it starts the handshake, server if it waits, or auto
    #[arg(long, value_parser = ["auto", "client", "server"], default_value = "auto")]
    role: String,
    /// Role and fingerprints: JSON, or a file with JSON (`-`: standard input); e.g.
    /// {"role":"client","fingerprints":[{"algorithm":"sha-256","value":"AB:CD:…"}]}
    #[arg(long, value_name = "JSON|FILE", conflicts_with_all = ["fingerprint", "role"])]
    parameters: Option<String>,
}

impl Dtls {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let body = match &self.parameters {
            Some(source) => read_json(source)?,
            None => {
                let pairs = self.fingerprint.chunks_exact(2);
                let fingerprints: Vec<Value> = pairs
                    .map(|pair| json!({"algorithm": pair[0].to_lowercase(), "value": pair[1]}))
                    .collect();
                json!({"role": self.role, "fingerprints": fingerprints})
            }
        };
        let line = format!("{} knows its client", of(self.which));
        of(self.which).put(client, output, "/dtls", &body, line).await
    }
}

/// `weir ctl transport restart-ice`
pub(super) async fn restart_ice(which: Which, client: &mut Client, output: &Output) -> Result<(), Failure> {
    let answer = client.post(&of(which).target("/ice-restart"), &json!({})).await?;
    let parameters = &answer["iceParameters"];
    let word = |name: &str| parameters[name].as_str().unwrap_or_default().to_owned();
    let line = format!(
        "{} has the username fragment {} and the password {} now",
        of(which),
        word("usernameFragment"),
        word("password")
    );
    output.done(&answer, line)
}

/// What is shown of a transport beside what all have.
pub(super) fn pairs(webrtc: &WebRtcView) -> Vec<(&'static str, Cell)> {
    let mut pairs = vec![
        ("ice", ice(Some(webrtc.ice_state))),
        ("dtls", dtls(Some(webrtc.dtls_state))),
    ];
    if let Some(failure) = &webrtc.failure {
        pairs.push(("failure", Cell::new(&failure.message, Tone::Bad)));
    }
    if let Some(introduction) = &webrtc.introduction {
        let own = &introduction.dtls_local_parameters;
        let sha256 = own
            .fingerprints
            .iter()
            .find(|fingerprint| fingerprint.algorithm == FingerprintAlgorithm::Sha256);
        let client = match introduction.dtls_remote_cert {
            Some(_) => "has proven to have its certificate".into(),
            None => Cell::none(),
        };
        pairs.extend([
            (
                "username fragment",
                (&introduction.ice_parameters.username_fragment).into(),
            ),
            ("password", Cell::new("not shown; --json has it", Tone::Faint)),
            ("dtls role", own.role.into()),
            ("sha-256", Cell::or_none(sha256.map(|fingerprint| &fingerprint.value))),
            ("client", client),
        ]);
    }
    pairs
}

/// `10.0.0.1:4000/udp`, or before anything is selected all that there is.
pub(super) fn local(webrtc: &WebRtcView) -> String {
    if let Some(tuple) = &webrtc.ice_selected_tuple {
        return address(tuple.local.ip(), tuple.local.port(), tuple.protocol);
    }
    let candidates = webrtc.ice_candidates.iter();
    let candidates = candidates.map(|candidate| address(candidate.ip, candidate.port, candidate.protocol));
    candidates.collect::<Vec<_>>().join(", ")
}

/// Where its packets go.
pub(super) fn remote(selected: Option<&IceTuple>) -> Cell {
    Cell::or_none(selected.map(|tuple| address(tuple.remote.ip(), tuple.remote.port(), tuple.protocol)))
}

fn address(ip: IpAddr, port: u16, protocol: IceProtocol) -> String {
    format!("{}/{protocol}", SocketAddr::new(ip, port))
}

/// How far ICE got; `-` for plain RTP.
pub(super) fn ice(state: Option<IceState>) -> Cell {
    match state {
        None => Cell::none(),
        Some(IceState::New) => Cell::new("new", Tone::Faint),
        Some(IceState::Connected) => Cell::new("connected", Tone::Good),
        Some(IceState::Completed) => Cell::new("completed", Tone::Good),
        Some(IceState::Disconnected) => Cell::new("disconnected", Tone::Warning),
        Some(IceState::Closed) => Cell::new("closed", Tone::Faint),
    }
}

/// How far DTLS got; `-` for plain RTP.
pub(super) fn dtls(state: Option<DtlsState>) -> Cell {
    match state {
        None => Cell::none(),
        Some(DtlsState::New) => Cell::new("new", Tone::Faint),
        Some(DtlsState::Connecting) => Cell::new("connecting", Tone::Normal),
        Some(DtlsState::Connected) => Cell::new("connected", Tone::Good),
        Some(DtlsState::Failed) => Cell::new("failed", Tone::Bad),
        Some(DtlsState::Closed) => Cell::new("closed", Tone::Warning),
    }
}
