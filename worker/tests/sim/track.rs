//! Producers, with the streams that feed them.

use weir_channel::id::{ProducerId, TransportId};
use weir_channel::message::{
    Codec, CodecName, CreateProducer, Encoding, ExtensionUri, HeaderExtension, MediaKind, Method, Profile, WorkerError,
};

use super::Sim;
use super::stream::Stream;

/// Header extension ids of simulated producers.
pub const MID: u8 = 1;
pub const RID: u8 = 2;
pub const REPAIRED_RID: u8 = 3;
pub const TRANSPORT_CC: u8 = 4;
pub const AUDIO_LEVEL: u8 = 5;
pub const ABS_SEND_TIME: u8 = 6;
pub const ORIENTATION: u8 = 7;
pub const DEPENDENCY: u8 = 8;

/// A producer as the test knows it.
#[derive(Clone, Debug)]
pub struct Track {
    pub request: CreateProducer,
    /// One for each encoding of the request, in its order.
    pub streams: Vec<Stream>,
}

impl Track {
    pub fn id(&self) -> ProducerId {
        self.request.producer
    }

    pub fn transport(&self) -> TransportId {
        self.request.transport
    }

    /// The stream of a profile.
    pub fn layer(&mut self, profile: Profile) -> &mut Stream {
        let place = self
            .request
            .encodings
            .iter()
            .position(|encoding| encoding.profile == profile);
        &mut self.streams[place.expect("the track has this profile")]
    }

    /// The only stream.
    pub fn stream(&mut self) -> &mut Stream {
        assert_eq!(self.streams.len(), 1, "a track with one stream");
        &mut self.streams[0]
    }

    /// From now on its packets say their MID, and their RID where they have one.
    pub fn announce(&mut self) {
        for (encoding, stream) in self.request.encodings.iter().zip(&mut self.streams) {
            stream.extensions.retain(|(id, _)| *id != MID && *id != RID);
            if let Some(mid) = &self.request.mid {
                stream.extensions.push((MID, mid.clone().into_bytes()));
            }
            if let Some(rid) = &encoding.rid {
                stream.extensions.push((RID, rid.clone().into_bytes()));
            }
        }
    }
}

/// A codec under its usual payload type.
pub fn codec(name: CodecName) -> Codec {
    let (payload_type, clock_rate) = match name {
        CodecName::Opus => (111, 48_000),
        CodecName::Pcmu => (0, 8_000),
        CodecName::Pcma => (8, 8_000),
        CodecName::G722 => (9, 8_000),
        CodecName::Vp8 => (96, 90_000),
        CodecName::Vp9 => (98, 90_000),
        CodecName::H264 => (102, 90_000),
        CodecName::H265 => (104, 90_000),
        CodecName::Av1 => (45, 90_000),
        CodecName::OtherAudio => (97, 44_100),
        CodecName::OtherVideo => (33, 90_000),
        CodecName::AudioCompanion => (101, 48_000),
        CodecName::VideoCompanion => (116, 90_000),
    };
    let video = name.kind() == MediaKind::Video && CodecName::ALL.contains(&name);
    Codec {
        payload_type,
        name,
        clock_rate,
        pli: video,
        fir: video,
        nack: false,
        remb: false,
        rtx: None,
    }
}

impl Sim {
    /// An opus producer with one SSRC.
    pub fn microphone(&mut self, transport: TransportId) -> Track {
        self.track(transport, CodecName::Opus, &[Profile::Default], |_| {})
    }

    /// A video producer with one SSRC.
    pub fn camera(&mut self, transport: TransportId, codec: CodecName) -> Track {
        self.track(transport, codec, &[Profile::Default], |_| {})
    }

    /// A VP8 producer with three SSRCs.
    pub fn simulcast(&mut self, transport: TransportId) -> Track {
        let profiles = [Profile::Low, Profile::Medium, Profile::High];
        self.track(transport, CodecName::Vp8, &profiles, |_| {})
    }

    /// A producer as the test wants it.
    #[track_caller]
    pub fn track(
        &mut self,
        transport: TransportId,
        codec: CodecName,
        profiles: &[Profile],
        edit: impl FnOnce(&mut CreateProducer),
    ) -> Track {
        self.attempt_track(transport, codec, profiles, edit)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// A producer that may be refused.
    pub fn attempt_track(
        &mut self,
        transport: TransportId,
        name: CodecName,
        profiles: &[Profile],
        edit: impl FnOnce(&mut CreateProducer),
    ) -> Result<Track, WorkerError> {
        let id = self.id();
        let extension = |id, uri| HeaderExtension { id, uri };
        let mut request = CreateProducer {
            room: self.room_of(transport),
            transport,
            producer: ProducerId(id),
            kind: name.kind(),
            mid: None,
            codecs: vec![codec(name)],
            encodings: profiles
                .iter()
                .enumerate()
                .map(|(index, profile)| Encoding {
                    ssrc: Some(0x1000_0000 + (id as u32) * 16 + index as u32),
                    rid: None,
                    profile: *profile,
                    rtx_ssrc: None,
                })
                .collect(),
            header_extensions: vec![
                extension(MID, ExtensionUri::Mid),
                extension(RID, ExtensionUri::RtpStreamId),
                extension(REPAIRED_RID, ExtensionUri::RepairedRtpStreamId),
                extension(TRANSPORT_CC, ExtensionUri::TransportWideCc),
                extension(AUDIO_LEVEL, ExtensionUri::AudioLevel),
                extension(ABS_SEND_TIME, ExtensionUri::AbsSendTime),
                extension(ORIENTATION, ExtensionUri::VideoOrientation),
                extension(DEPENDENCY, ExtensionUri::DependencyDescriptor),
            ],
            preferred_profile: Profile::Default,
            paused: false,
            reduced_size: true,
        };
        edit(&mut request);
        self.attempt(Method::CreateProducer(request.clone()))?;
        let payload_type = request.codecs[0].payload_type;
        let streams = request
            .encodings
            .iter()
            .enumerate()
            .map(|(index, encoding)| {
                // Where the request names no SSRC, the sender takes one of its own.
                let ssrc = encoding.ssrc.unwrap_or(0x3000_0000 + (id as u32) * 16 + index as u32);
                let number = self.stream_number();
                Stream::new(number, request.codecs[0].name, payload_type, ssrc, &mut self.random)
            })
            .collect();
        Ok(Track { request, streams })
    }
}
