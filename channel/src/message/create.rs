//! What transports, producers and consumers are made of.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::id::{ConsumerId, ProducerId, RoomId, TransportId};

use super::address;
use super::media::{Codec, Encoding, HeaderExtension, MediaKind, Profile};

/// A plain RTP transport: RTP and RTCP over UDP, unencrypted.
///
/// Each port is two sockets bound to the same address. The *connected* one is connected to the remote and carries the media.
/// The *unconnected* one receives what others send, so that it can be counted and, with `comedia`, a remote can be learned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreatePlainTransport {
    /// The router it belongs to.
    pub room: RoomId,
    /// Its new id.
    pub transport: TransportId,
    /// The address to send to, if known already.
    pub remote: Option<Remote>,
    /// Learn the remote from the first valid packet. Together with `remote`: that is what was learned, by a worker before
    /// this one.
    pub comedia: bool,
    /// Whether RTP and RTCP share one port (RFC 5761).
    pub rtcp_mux: bool,
    /// Whether what `comedia` has learned may be learned anew.
    pub comedia_policy: ComediaPolicy,
    /// The only IP that `comedia` learns a remote at; the default is any.
    pub comedia_from: Option<IpAddr>,
}

/// What happens when a sender whose address `comedia` has learned continues from another port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ComediaPolicy {
    /// The first address stays.
    Lock,
    /// The remote may change to another port of the same IP, when a known SSRC comes from there and the old port has
    /// sent nothing for five seconds or has said goodbye (RFC 3550 §6.6).
    #[default]
    Relearn,
}

/// The other end of a plain transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)] // in JSON, where a typo must not pass for "no RTCP address"
pub struct Remote {
    /// The address for RTP (and for RTCP, if they share one port).
    #[serde(with = "address")]
    #[cfg_attr(feature = "schema", schemars(with = "SocketAddr"))]
    pub rtp: SocketAddr,
    /// The address for RTCP, if it has its own port.
    #[serde(default, with = "address::optional")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<SocketAddr>"))]
    pub rtcp: Option<SocketAddr>,
}

impl Remote {
    /// Where RTCP goes when the transport has a port of its own for it: where it was told or learned, until then to the port
    /// above that of RTP (RFC 3550 §11). `None`: there is none above.
    pub fn rtcp_or_next(&self) -> Option<SocketAddr> {
        self.rtcp.or_else(|| {
            let mut next = self.rtp;
            next.set_port(self.rtp.port().checked_add(1)?);
            Some(next)
        })
    }
}

/// A producer: one track that somebody sends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateProducer {
    /// The router it belongs to.
    pub room: RoomId,
    /// The transport it arrives on.
    pub transport: TransportId,
    /// Its new id.
    pub producer: ProducerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// The media id it may be recognised by (RFC 8843 §15), at most 32 bytes.
    pub mid: Option<String>,
    /// The codecs it may send, 1 to 16.
    pub codecs: Vec<Codec>,
    /// Its streams, 1 to 3: one with [`Profile::Default`], or simulcast layers with distinct other profiles.
    pub encodings: Vec<Encoding>,
    /// Under the producer's own ids.
    pub header_extensions: Vec<HeaderExtension>,
    /// See [`Method::SetProducerPreferredProfile`](super::Method::SetProducerPreferredProfile).
    pub preferred_profile: Profile,
    /// The sender takes feedback that is not in a compound packet (RFC 5506).
    pub reduced_size: bool,
    /// Start paused.
    pub paused: bool,
}

/// A consumer: one producer as somebody receives it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateConsumer {
    /// The router it belongs to.
    pub room: RoomId,
    /// The transport that it is sent on.
    pub transport: TransportId,
    /// The producer that it consumes.
    pub producer: ProducerId,
    /// Its new id.
    pub consumer: ConsumerId,
    /// The one SSRC it is sent under, whichever profile flows; unique on its transport.
    pub ssrc: u32,
    /// (producer's payload type, consumer's payload type); packets of other payload types are dropped and counted.
    pub payload_types: Vec<(u8, u8)>,
    /// Under the consumer's ids; what is not listed is not readable for the receiver.
    pub header_extensions: Vec<HeaderExtension>,
    /// The receiver asks for missing packets (RFC 4585 §6.2.1).
    pub nack: bool,
    /// How they are sent again; `None`: as they were.
    pub rtx: Option<ConsumerRtx>,
    /// The canonical name in the stream's source descriptions (RFC 3550 §6.5.1), 1 to 255 bytes; the same for all streams
    /// of one producing endpoint, so that receivers keep them in sync.
    pub cname: String,
    /// See [`Method::SetConsumerPreferredProfile`](super::Method::SetConsumerPreferredProfile).
    pub preferred_profile: Profile,
    /// Start paused.
    pub paused: bool,
    /// Nobody has given the `cname`: it gives way to the one that the sender says of itself (RFC 3550 §6.5.1).
    pub cname_is_made_up: bool,
    /// The consumer outlives its producers, and has this canonical name all its life, whatever the `cname` of its producer is. When
    /// its producer closes, it waits until [`Method::SetConsumerSource`](super::Method::SetConsumerSource) gives it another one, with
    /// its SSRCs and its numbers, which go on. It waits from the beginning if there is no such producer. `None`: it closes with its
    /// producer.
    pub lasting_cname: Option<String>,
}

/// How a consumer is sent packets again (RFC 4588).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConsumerRtx {
    /// The SSRC of retransmissions; unique on the consumer's transport.
    pub ssrc: u32,
    /// (the consumer's payload type of a codec, that of its retransmissions). Codecs that are not listed are sent again as
    /// they were.
    pub payload_types: Vec<(u8, u8)>,
}

/// Which of a transport's packets are copied, and where to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mirror {
    /// The address to send copies to.
    #[serde(with = "address")]
    pub remote: SocketAddr,
    /// RTP that the transport sends.
    pub send_rtp: bool,
    /// RTCP that the transport sends.
    pub send_rtcp: bool,
    /// RTP that the transport receives.
    pub recv_rtp: bool,
    /// RTCP that the transport receives.
    pub recv_rtcp: bool,
}
