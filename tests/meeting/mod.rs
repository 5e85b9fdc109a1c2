//! A meeting: everybody sends sound and pictures, and receives those of all the others.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;
use weir::{
    CodecName, Direction, EnableOptions, Error, MediaKind, Peer, PeerOptions, PlainTransportOptions, ProducerOptions,
    Remote, Room, RtpCodec, RtpEncoding, RtpParameters,
};

/// Where nobody listens: a meeting without media needs no receivers.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// Fills a room as its application would: all peers at once, each joining, making its two transports and its two
/// producers, and then enabling a consumer of every producer of the others. Returns the peers and how many consumers they
/// have.
pub(crate) async fn convene(room: &Room, peers: u32) -> Result<(Vec<Peer>, usize), Error> {
    let joining = (0..peers).map(|number| join(room, number));
    let members = futures::future::try_join_all(joining).await?;
    let enabling = members.iter().map(|(peer, receive)| async move {
        let consumers = peer.consumers();
        for consumer in &consumers {
            consumer.enable(receive, EnableOptions::default()).await?;
        }
        Ok::<usize, Error>(consumers.len())
    });
    let consumers = futures::future::try_join_all(enabling).await?.into_iter().sum();
    Ok((members.into_iter().map(|(peer, _)| peer).collect(), consumers))
}

async fn join(room: &Room, number: u32) -> Result<(Peer, weir::Transport), Error> {
    let options = PeerOptions::new(format!("peer {number}"), room.rtp_capabilities().clone());
    let peer = room.create_peer(options)?;
    let comedia = PlainTransportOptions {
        comedia: true,
        ..PlainTransportOptions::default()
    };
    let remote = PlainTransportOptions {
        remote: Some(Remote {
            rtp: NOWHERE,
            rtcp: None,
        }),
        ..PlainTransportOptions::default()
    };
    let send = peer.create_plain_transport(comedia, Some(Direction::Send)).await?;
    let receive = peer.create_plain_transport(remote, Some(Direction::Recv)).await?;
    for (kind, codec, payload_type, ssrc) in [
        (MediaKind::Audio, CodecName::Opus, 111, 2 * number + 1),
        (MediaKind::Video, CodecName::Vp8, 96, 2 * number + 2),
    ] {
        let parameters = RtpParameters {
            codecs: vec![RtpCodec::new(codec, payload_type)],
            encodings: vec![RtpEncoding::ssrc(ssrc)],
            ..RtpParameters::default()
        };
        send.produce(ProducerOptions::new(kind, parameters)).await?;
    }
    Ok((peer, receive))
}

/// Everybody leaves, one after the other.
pub(crate) async fn adjourn(peers: Vec<Peer>) -> Result<(), Error> {
    for peer in peers {
        peer.leave(Value::Null).await?;
    }
    Ok(())
}
