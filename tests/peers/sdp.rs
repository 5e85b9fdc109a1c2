//! As much of SDP as it takes to introduce other people's stacks to a transport.

use serde_json::{Value, json};

/// Who begins the DTLS handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerIs {
    Client,
    Server,
}

impl PeerIs {
    /// As the HTTP interface has it.
    pub(crate) fn role(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    /// What our side says of itself (RFC 8842 §5.2): the other role.
    fn our_setup(self) -> &'static str {
        match self {
            Self::Client => "passive",
            Self::Server => "active",
        }
    }

    /// What the peer says of itself, if it says one thing.
    fn setup(self) -> &'static str {
        match self {
            Self::Client => "active",
            Self::Server => "passive",
        }
    }
}

/// A media section of somebody's.
pub(crate) struct Section<'a> {
    lines: Vec<&'a str>,
}

/// The sections of an offer or an answer.
pub(crate) fn sections(sdp: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in sdp.lines() {
        if line.starts_with("m=") {
            sections.push(Section { lines: Vec::new() });
        }
        if let Some(section) = sections.last_mut() {
            section.lines.push(line);
        }
    }
    sections
}

/// What the peer says of its DTLS. It must leave open who begins, or say what is wanted.
pub(crate) fn dtls_parameters(sdp: &str, peer_is: PeerIs) -> Value {
    let value = |name: &str| sdp.lines().find_map(|line| line.strip_prefix(name));
    let setup = value("a=setup:").expect("it says who begins");
    assert!([peer_is.setup(), "actpass"].contains(&setup), "it says {setup}: {sdp}");
    let fingerprint = value("a=fingerprint:").expect("it has a certificate");
    let (algorithm, value) = fingerprint.split_once(' ').expect("a fingerprint has two parts");
    json!({"role": peer_is.role(), "fingerprints": [{"algorithm": algorithm, "value": value}]})
}

/// The lines that say where a transport is and who it is.
fn introduction(transport: &Value, peer_is: PeerIs) -> String {
    let webrtc = &transport["webrtc"];
    let text = |value: &Value| value.as_str().expect("this is text").to_owned();
    let list = |value: &Value| value.as_array().expect("this is a list").clone();
    let ice = &webrtc["iceParameters"];
    let fingerprints = list(&webrtc["dtlsLocalParameters"]["fingerprints"]);
    let sha256 = fingerprints.iter().find(|each| each["algorithm"] == "sha-256");
    let candidates = list(&webrtc["iceCandidates"]);
    let udp = candidates.iter().find(|each| each["protocol"] == "udp");
    let udp = udp.expect("there is a UDP candidate");
    format!(
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:{}\r\na=rtcp-mux\r\n\
         a=candidate:{} 1 udp {} {} {} typ host\r\na=end-of-candidates\r\n",
        text(&ice["usernameFragment"]),
        text(&ice["password"]),
        text(&sha256.expect("there is a SHA-256 fingerprint")["value"]),
        peer_is.our_setup(),
        text(&udp["foundation"]),
        udp["priority"],
        text(&udp["ip"]),
        udp["port"],
    )
}

fn session(mids: &[&str]) -> String {
    format!(
        "v=0\r\no=weir 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE {}\r\n",
        mids.join(" ")
    )
}

/// The answer that takes everything that is offered.
pub(crate) fn answer(offer: &str, transport: &Value, peer_is: PeerIs) -> String {
    let sections = sections(offer);
    let mids: Vec<_> = sections.iter().map(Section::mid).collect();
    let mut answer = session(&mids);
    for section in &sections {
        answer += &format!("{}\r\nc=IN IP4 127.0.0.1\r\na=recvonly\r\n", section.lines[0]);
        let kept = ["a=mid:", "a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"];
        for line in &section.lines {
            if kept.iter().any(|kept| line.starts_with(kept)) {
                answer += &format!("{line}\r\n");
            }
        }
        answer += &introduction(transport, peer_is);
    }
    answer
}

/// The offer of one consumer.
pub(crate) fn offer(consumer: &Value, transport: &Value, peer_is: PeerIs) -> String {
    let parameters = &consumer["rtpParameters"];
    let codec = &parameters["codecs"][0];
    let number = &codec["payloadType"];
    let name = codec["name"].as_str().expect("a codec has a name");
    let channels = codec["channels"].as_u64().map(|channels| format!("/{channels}"));
    let kind = consumer["kind"].as_str().expect("a consumer has a kind");
    let mut offer = session(&["0"]);
    offer += &format!(
        "m={kind} 9 UDP/TLS/RTP/SAVPF {number}\r\nc=IN IP4 127.0.0.1\r\na=mid:0\r\na=sendonly\r\na=rtpmap:{number} {name}/{}{}\r\n",
        codec["clockRate"],
        channels.unwrap_or_default(),
    );
    let cname = parameters["rtcp"]["cname"].as_str().expect("a consumer has a name");
    offer += &format!("a=ssrc:{} cname:{cname}\r\n", parameters["encodings"][0]["ssrc"]);
    offer + &introduction(transport, peer_is)
}

impl<'a> Section<'a> {
    fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter_map(move |line| line.strip_prefix(name))
    }

    fn mid(&self) -> &'a str {
        self.values("a=mid:").next().expect("a section has a name")
    }

    /// The body that makes its producer. Only the first codec is used, and what repeats its packets is not.
    pub(crate) fn producer(&self) -> Value {
        let mut words = self.lines[0].split_whitespace();
        let kind = words
            .next()
            .and_then(|word| word.strip_prefix("m="))
            .expect("a section has a kind");
        let number = words.nth(2).expect("a section has a codec");
        let of_codec = |name| {
            let values = self.values(name).filter_map(|value| value.split_once(' '));
            values
                .filter(|(of, _)| *of == number)
                .map(|(_, value)| value)
                .collect::<Vec<_>>()
        };
        let map: Vec<_> = of_codec("a=rtpmap:")[0].split('/').collect();
        let feedback = of_codec("a=rtcp-fb:")
            .into_iter()
            .filter(|each| each.starts_with("nack") || *each == "ccm fir");
        let feedback: Vec<_> = feedback
            .map(|each| each.split_once(' ').unwrap_or((each, "")))
            .map(|(kind, parameter)| json!({"type": kind, "parameter": parameter}))
            .collect();
        let mut codec = json!({
            "mimeType": format!("{kind}/{}", map[0]),
            "payloadType": number.parse::<u8>().expect("a payload type is a number"),
            "clockRate": map[1].parse::<u32>().expect("a clock rate is a number"),
            "rtcpFeedback": feedback,
        });
        if let Some(channels) = map.get(2) {
            codec["channels"] = json!(channels.parse::<u8>().expect("channels are a number"));
        }
        let ssrc = self.values("a=ssrc:").next().and_then(|value| value.split(' ').next());
        let ssrc: u32 = ssrc
            .expect("a section has a source")
            .parse()
            .expect("a source is a number");
        json!({"kind": kind, "rtpParameters": {"codecs": [codec], "encodings": [{"ssrc": ssrc}]}})
    }
}
