//! A server that relays a video and an audio track to receivers, for tests with real programs.

use std::net::{Ipv4Addr, SocketAddr};

use weir::{
    CodecName, Consumer, ConsumerOptions, ConsumerRtp, PlainTransportOptions, Producer, ProducerOptions, Remote, Room,
    RoomOptions, RtpCodec, RtpEncoding, RtpParameters, Server, Settings,
};

pub(crate) use crate::loopback::{free_ports, settings};

/// Between packets of a picture that is sent in real time there is time for questions.
const LOOKS_MAX: usize = 1_000;

/// A track and the numbers it goes by.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) name: &'static str,
    pub(crate) codec: CodecName,
    /// What its sender sends under.
    pub(crate) payload_type_in: u8,
    /// What its receivers want.
    pub(crate) payload_type_out: u8,
    /// What its sender sends under.
    pub(crate) ssrc: u32,
}

pub(crate) const VIDEO: Track = Track {
    name: "video",
    codec: CodecName::Vp8,
    payload_type_in: 96,
    payload_type_out: 101,
    ssrc: 0x1001,
};

pub(crate) const AUDIO: Track = Track {
    name: "audio",
    codec: CodecName::Opus,
    payload_type_in: 111,
    payload_type_out: 102,
    ssrc: 0x1002,
};

/// A server with one worker and one room.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) server: Server,
    room: Room,
    rtcp_mux: bool,
}

/// A track that is relayed.
#[derive(Debug)]
pub(crate) struct Relayed<'a> {
    relay: &'a Relay,
    track: &'static Track,
    producer: Producer,
    consumers: Vec<Consumer>,
}

impl Relay {
    /// Starts it with these settings, for one worker. `rtcp_mux` is for all transports.
    pub(crate) async fn start(settings: Settings, rtcp_mux: bool) -> Self {
        let server = Server::start(settings).await.expect("the server starts");
        let room = server.create_room(RoomOptions::default()).await.expect("a room");
        Self { server, room, rtcp_mux }
    }

    /// Makes a producer of a track. Where it comes from is learned when it comes.
    pub(crate) async fn produce(&self, track: &'static Track) -> Relayed<'_> {
        let options = PlainTransportOptions {
            comedia: true,
            rtcp_mux: self.rtcp_mux,
            ..PlainTransportOptions::default()
        };
        let transport = self.room.create_plain_transport(options).await.expect("a transport");
        let parameters = RtpParameters {
            codecs: vec![RtpCodec::new(track.codec, track.payload_type_in)],
            encodings: vec![RtpEncoding::ssrc(track.ssrc)],
            ..RtpParameters::default()
        };
        let options = ProducerOptions::new(track.codec.kind(), parameters);
        Relayed {
            relay: self,
            track,
            producer: transport.produce(options).await.expect("a producer"),
            consumers: Vec::new(),
        }
    }

    /// Ends it.
    pub(crate) async fn close(self) {
        self.server.close().await;
    }
}

impl Relayed<'_> {
    /// Where to send it: the ports for RTP and RTCP.
    pub(crate) fn ports(&self) -> (u16, u16) {
        let transport = self.producer.transport();
        let rtp = transport.tuple().local_port;
        (rtp, transport.rtcp_tuple().map_or(rtp, |rtcp| rtcp.local_port))
    }

    /// Relays it to a port on loopback.
    pub(crate) async fn consume(&mut self, port: u16) {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let rtcp_mux = self.relay.rtcp_mux;
        let options = PlainTransportOptions {
            remote: Some(Remote {
                rtp: address(port),
                rtcp: (!rtcp_mux).then(|| address(port + 1)),
            }),
            rtcp_mux,
            ..PlainTransportOptions::default()
        };
        let transport = self
            .relay
            .room
            .create_plain_transport(options)
            .await
            .expect("a transport");
        let options = ConsumerOptions {
            rtp: ConsumerRtp {
                payload_types: [(self.track.payload_type_in, self.track.payload_type_out)].into(),
                ..ConsumerRtp::default()
            },
            ..ConsumerOptions::default()
        };
        let consumer = transport.consume(&self.producer, options).await.expect("a consumer");
        self.consumers.push(consumer);
    }

    /// Nothing was lost on the way in, and whatever came in was forwarded to each consumer.
    pub(crate) async fn assert_all_forwarded(&self) {
        for _ in 0..LOOKS_MAX {
            let received = self.received().await;
            let mut forwarded = Vec::new();
            for consumer in &self.consumers {
                forwarded.push(consumer.stats().await.expect("counters"));
            }
            // What comes between two questions is in one answer only.
            if self.received().await == received {
                for stats in forwarded {
                    assert_eq!(
                        (stats.packets_in, stats.packets_forwarded),
                        (received, received),
                        "{stats:?}"
                    );
                }
                return;
            }
        }
        panic!("packets come all the time");
    }

    /// How many packets have come, none of which was lost on the way.
    async fn received(&self) -> u64 {
        let stats = self.producer.stats().await.expect("counters");
        let received = stats.streams.iter().map(|stream| stream.packets).sum();
        assert!(received > 0, "{stats:?}");
        assert!(stats.streams.iter().all(|stream| stream.packets_lost == 0), "{stats:?}");
        received
    }
}
