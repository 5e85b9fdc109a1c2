//! Messages for the tests: one of each kind with fixed values, and arbitrary ones.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use weir_channel::id::{ConsumerId, ProducerId, RequestId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    Coalescing, Codec, CodecName, ComediaPolicy, ConsumerDump, ConsumerRtx, ConsumerStats, Counts, CreateConsumer,
    CreatePlainTransport, CreateProducer, CreateWebRtcTransport, Deadline, DropReason, DtlsCertificate, DtlsParameters,
    DtlsRole, DtlsState, DumpPage, Enclosed, Encoding, ExtensionUri, Fingerprint, FingerprintAlgorithm,
    HeaderExtension, Hello, Histogram, IceCredentials, IceProtocol, IceState, IceTuple, LogFilter, LogLevel, LogLine,
    MediaKind, Message, Method, Mirror, NotRepaired, NotTakenUp, Notification, OpenSharedPorts, Page, ProducerDump,
    ProducerStats, Profile, QuarantinedSource, Remote, Reply, Request, Response, Sandbox, SandboxLack, SandboxLayer,
    Scope, StatsPage, StreamStats, TransportDump, TransportStats, UnroutedReason, WebRtcFailure, WebRtcFailureReason,
    WebRtcStats, WorkerError, WorkerStats,
};

const ROOM: RoomId = RoomId(7);
const TRANSPORT: TransportId = TransportId(8);
const PRODUCER: ProducerId = ProducerId(9);
const CONSUMER: ConsumerId = ConsumerId(10);

pub(crate) const PROFILES: [Profile; 4] = [Profile::Default, Profile::Low, Profile::Medium, Profile::High];
pub(crate) const LOG_LEVELS: [LogLevel; 5] = [
    LogLevel::Error,
    LogLevel::Warn,
    LogLevel::Info,
    LogLevel::Debug,
    LogLevel::Trace,
];

fn v4() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 5004))
}

fn v6() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 5005))
}

fn ice() -> IceCredentials {
    IceCredentials {
        username_fragment: String::from("0123456789abcdef"),
        password: String::from("0123456789abcdef0123456789abcdef"),
    }
}

fn tuple() -> IceTuple {
    IceTuple {
        protocol: IceProtocol::Tcp,
        local: v4(),
        remote: v6(),
    }
}

fn fingerprints() -> Vec<Fingerprint> {
    [
        FingerprintAlgorithm::Sha1,
        FingerprintAlgorithm::Sha224,
        FingerprintAlgorithm::Sha256,
        FingerprintAlgorithm::Sha384,
        FingerprintAlgorithm::Sha512,
    ]
    .map(|algorithm| Fingerprint {
        algorithm,
        value: String::from("01:AB"),
    })
    .to_vec()
}

/// The Hello with fixed values.
pub(crate) fn hello() -> Message {
    Message::Hello(Hello {
        protocol: 1,
        build: String::from("0.1.0"),
        worker: WorkerId(3),
        pid: 70_000,
    })
}

/// One request for each method, in the order of the enum.
pub(crate) fn methods() -> Vec<Method> {
    let page = Page { cursor: Some(300) };
    vec![
        Method::Ping,
        Method::SetLogFilter(LogFilter {
            directives: String::from("warn,weir_worker::relay=debug"),
        }),
        Method::SetCoalescing(Coalescing {
            window_us_max: 1000,
            spin_us_max: 50,
            measure_residence: true,
        }),
        Method::CreateRouter { room: ROOM },
        Method::CloseRouter { room: ROOM },
        Method::SetAudioLevels {
            room: ROOM,
            enabled: true,
        },
        Method::CreatePlainTransport(CreatePlainTransport {
            room: ROOM,
            transport: TRANSPORT,
            remote: Some(Remote {
                rtp: v4(),
                rtcp: Some(v6()),
            }),
            comedia: false,
            rtcp_mux: true,
            comedia_policy: ComediaPolicy::default(),
            comedia_from: None,
        }),
        Method::SetRemote {
            transport: TRANSPORT,
            remote: Remote { rtp: v6(), rtcp: None },
        },
        Method::UseDtlsCertificate(DtlsCertificate {
            certificate_pem: String::from("-----BEGIN CERTIFICATE-----"),
            private_key_pem: String::from("-----BEGIN PRIVATE KEY-----"),
        }),
        Method::CreateWebRtcTransport(CreateWebRtcTransport {
            room: ROOM,
            transport: TRANSPORT,
            listeners: vec![IceProtocol::Udp, IceProtocol::Tcp],
            ice: ice(),
            connected: vec![tuple()],
        }),
        Method::RestartIce {
            transport: TRANSPORT,
            ice: ice(),
        },
        Method::SetRemoteIce {
            transport: TRANSPORT,
            ice: ice(),
        },
        Method::SetDtlsParameters {
            transport: TRANSPORT,
            parameters: DtlsParameters {
                role: DtlsRole::Client,
                fingerprints: fingerprints(),
            },
        },
        Method::SetMaxBitrate {
            transport: TRANSPORT,
            bitrate_bps: Some(1_000_000),
        },
        Method::StartMirroring {
            transport: TRANSPORT,
            mirror: Mirror {
                remote: v4(),
                send_rtp: true,
                send_rtcp: false,
                recv_rtp: true,
                recv_rtcp: false,
            },
        },
        Method::StopMirroring { transport: TRANSPORT },
        Method::CloseTransport { transport: TRANSPORT },
        Method::CreateProducer(CreateProducer {
            room: ROOM,
            transport: TRANSPORT,
            producer: PRODUCER,
            kind: MediaKind::Video,
            mid: Some(String::from("v1")),
            codecs: CodecName::ALL
                .into_iter()
                .chain(CodecName::OPAQUE)
                .zip(96..)
                .map(|(name, payload_type)| Codec {
                    payload_type,
                    name,
                    clock_rate: 90_000,
                    pli: true,
                    fir: false,
                    nack: true,
                    remb: false,
                    rtx: (name == CodecName::Vp8).then_some(120),
                })
                .collect(),
            encodings: PROFILES
                .map(|profile| Encoding {
                    ssrc: (profile == Profile::Low).then_some(0xdead_beef),
                    rid: (profile == Profile::High).then(|| String::from("h")),
                    rtx_ssrc: (profile == Profile::Low).then_some(0xdead_bef0),
                    profile,
                })
                .to_vec(),
            header_extensions: extensions(),
            preferred_profile: Profile::Medium,
            reduced_size: true,
            paused: true,
        }),
        Method::SetProducerPaused {
            producer: PRODUCER,
            paused: true,
        },
        Method::SetProducerPaused {
            producer: PRODUCER,
            paused: false,
        },
        Method::SetProducerPreferredProfile {
            producer: PRODUCER,
            profile: Profile::Low,
        },
        Method::CloseProducer { producer: PRODUCER },
        Method::CreateConsumer(CreateConsumer {
            room: ROOM,
            transport: TRANSPORT,
            producer: PRODUCER,
            consumer: CONSUMER,
            ssrc: 0x0102_0304,
            payload_types: vec![(96, 101), (97, 102)],
            header_extensions: extensions(),
            preferred_profile: Profile::High,
            paused: false,
            nack: true,
            rtx: Some(ConsumerRtx {
                ssrc: 0x0102_0305,
                payload_types: vec![(101, 103)],
            }),
            cname: String::from("weir"),
            cname_is_made_up: false,
            lasting_cname: None,
        }),
        Method::SetConsumerPaused {
            consumer: CONSUMER,
            paused: true,
        },
        Method::SetConsumerPaused {
            consumer: CONSUMER,
            paused: false,
        },
        Method::SetConsumerPreferredProfile {
            consumer: CONSUMER,
            profile: Profile::Default,
        },
        Method::RequestKeyFrame { consumer: CONSUMER },
        Method::CloseConsumer { consumer: CONSUMER },
        Method::WorkerStats,
        Method::Stats(Scope::Room { room: ROOM, page }),
        Method::Stats(Scope::Transport(TRANSPORT)),
        Method::Stats(Scope::Producer(PRODUCER)),
        Method::Stats(Scope::Consumer(CONSUMER)),
        Method::Dump(Scope::Room {
            room: ROOM,
            page: Page { cursor: None },
        }),
        Method::Dump(Scope::Transport(TRANSPORT)),
        Method::Dump(Scope::Producer(PRODUCER)),
        Method::Dump(Scope::Consumer(CONSUMER)),
        Method::Shutdown,
        Method::OpenSharedPorts(OpenSharedPorts {
            protocols: vec![IceProtocol::Udp, IceProtocol::Tcp],
            connected: true,
        }),
        Method::UsePollers,
        Method::UseConnectedSocket {
            transport: TRANSPORT,
            tuple: tuple(),
        },
        Method::Adopt { room: ROOM, pages: 2 },
        Method::AdoptionEnded { room: ROOM },
        Method::DropWaiting { room: ROOM },
        Method::SetConsumerSource(CreateConsumer {
            room: ROOM,
            transport: TRANSPORT,
            producer: PRODUCER,
            consumer: CONSUMER,
            ssrc: 0x0102_0304,
            payload_types: vec![(96, 101), (97, 102)],
            header_extensions: extensions(),
            preferred_profile: Profile::High,
            paused: false,
            nack: true,
            rtx: Some(ConsumerRtx {
                ssrc: 0x0102_0305,
                payload_types: vec![(101, 103)],
            }),
            cname: String::from("weir"),
            cname_is_made_up: false,
            lasting_cname: Some("stage".to_owned()),
        }),
        Method::SetQuarantine(vec![
            QuarantinedSource {
                ip: v4().ip(),
                port: Some(v4().port()),
            },
            QuarantinedSource {
                ip: v6().ip(),
                port: None,
            },
        ]),
        Method::Rehearse,
        Method::RehearsalEnded,
        Method::TakeUp {
            room: ROOM,
            transports: vec![TRANSPORT],
            producers: vec![PRODUCER],
            consumers: vec![CONSUMER],
        },
    ]
}

fn extensions() -> Vec<HeaderExtension> {
    ExtensionUri::ALL
        .into_iter()
        .zip(1..)
        .map(|(uri, id)| HeaderExtension { id, uri })
        .collect()
}

/// One of each reply, in the order of the enum.
pub(crate) fn replies() -> Vec<Reply> {
    vec![
        Reply::Done,
        Reply::ConsumerCreated { source_paused: true },
        Reply::WebRtcTransportCreated {
            fingerprints: fingerprints(),
        },
        Reply::DtlsRole(DtlsRole::Server),
        Reply::WorkerStats(Box::new(WorkerStats {
            rooms: 1,
            transports: 2,
            producers: 3,
            consumers: 4,
            packets_received: 5,
            bytes_received: 6_000,
            packets_sent: 7_000_000,
            bytes_sent: 8_000_000_000,
            kernel_drops: 9,
            receive_calls: 10,
            send_calls: 11,
            wait_calls: 12,
            gso_refusals: 13,
            packets_padded: 22,
            padding_bytes: 23,
            log_lines_dropped: 14,
            turns: 15,
            coalesced_turns: 16,
            spun_ns: 17,
            cpu_ns: u64::MAX,
            resident_bytes: 18,
            residence: Some(Histogram {
                counts: vec![0, 1, 1 << 40],
            }),
            unrouted: 19,
            webrtc_failures: Counts::from([(WebRtcFailureReason::Alert, 20)]),
            unrouted_reasons: Counts::from([(UnroutedReason::ConnectionEvicted, 21)]),
            contained_panics: 21,
            packets_offered: 24,
            packets_forwarded: 25,
            packets_retransmitted: 26,
            packets_requested: 27,
            packets_repaired: 28,
            nacks_received: 29,
            nacks_sent: 30,
            plis_received: 31,
            plis_sent: 32,
            firs_received: 33,
            firs_sent: 34,
            key_frames_received: 35,
            dropped: DropReason::ALL.into_iter().zip(36..).collect(),
            not_repaired: NotRepaired::ALL.into_iter().zip(50..).collect(),
            transports_unrouted: Counts::from([(UnroutedReason::Malformed, 60)]),
        })),
        Reply::Stats(StatsPage {
            transports: vec![TransportStats {
                transport: TRANSPORT,
                remote: Some(Remote { rtp: v4(), rtcp: None }),
                packets_received: 1,
                bytes_received: 2,
                packets_sent: 3,
                bytes_sent: 4,
                rtcp_received: 5,
                rtcp_sent: 6,
                unrouted: UnroutedReason::ALL.into_iter().zip(1..).collect(),
                kernel_drops: 7,
                backlog_packets: 8,
                max_bitrate_bps: Some(9),
                remote_bitrate_bps: Some(10),
                packets_mirrored: 11,
                mirror_failures: 12,
                webrtc: Some(WebRtcStats {
                    ice_state: IceState::Completed,
                    ice_selected_tuple: Some(tuple()),
                    dtls_state: DtlsState::Connected,
                    srtp_profile: Some(String::from("AEAD_AES_128_GCM")),
                    checks: 13,
                    checks_refused: 14,
                    dtls_datagrams: 15,
                    protect_failures: 16,
                    failures: Counts::from([(WebRtcFailureReason::Timeout, 17)]),
                }),
                remotes_relearned: 13,
            }],
            producers: vec![ProducerStats {
                producer: PRODUCER,
                paused: true,
                streams: vec![StreamStats {
                    ssrc: 0xffff_ffff,
                    profile: Profile::High,
                    active: true,
                    packets: 1,
                    bytes: 2,
                    bitrate: 3,
                    packets_lost: 4,
                    packets_discarded: 5,
                    packets_duplicated: 6,
                    key_frames: 7,
                    packets_paused: 9,
                    packets_not_kept: 10,
                    codec: Some(String::from("VP9")),
                    packets_repaired: 10,
                    rtx_useless: 11,
                    fraction_lost: 12,
                    jitter: 13,
                    round_trip_us: Some(14),
                    nack_count: 15,
                    packets_nacked: 16,
                    pli_count: 17,
                    fir_count: 18,
                    payload_type: Some(98),
                    ssrc_changes: 19,
                }],
            }],
            consumers: vec![ConsumerStats {
                consumer: CONSUMER,
                paused: false,
                source_paused: true,
                effective_profile: Some(Profile::Low),
                target_profile: None,
                packets_in: 1,
                packets_forwarded: 2,
                bytes_forwarded: 3,
                bitrate: 4,
                dropped: DropReason::ALL.into_iter().zip(1..).collect(),
                switches: 5,
                ssrc: 6,
                codec: Some(String::from("opus")),
                packets_retransmitted: 7,
                bytes_retransmitted: 8,
                not_repaired: NotRepaired::ALL.into_iter().zip(1..).collect(),
                nack_count: 9,
                pli_count: 10,
                fir_count: 11,
                packets_lost: -12,
                fraction_lost: 13,
                jitter: 14,
                round_trip_us: Some(15),
                last_seq: Some(65_536),
                payload_type: Some(111),
            }],
            next: Some(11),
        }),
        Reply::Dump(DumpPage {
            transports: vec![TransportDump {
                transport: TRANSPORT,
                remote: None,
                comedia: true,
                rtcp_mux: false,
                ssrcs: vec![(1, PRODUCER)],
                mids: vec![(String::from("v1"), PRODUCER)],
                rids: vec![(String::from("h"), PRODUCER)],
                mirror: Some(v6()),
            }],
            producers: vec![ProducerDump {
                producer: PRODUCER,
                transport: TRANSPORT,
                kind: MediaKind::Audio,
                paused: false,
                preferred_profile: Profile::Default,
                available_profiles: PROFILES.to_vec(),
                consumers: vec![CONSUMER],
            }],
            consumers: vec![ConsumerDump {
                consumer: CONSUMER,
                producer: PRODUCER,
                transport: TRANSPORT,
                ssrc: 1,
                preferred_profile: Profile::Medium,
                effective_profile: None,
                target_profile: Some(Profile::High),
                paused: false,
                source_paused: false,
                sync_required: true,
                rtx_ssrc: None,
            }],
            next: None,
        }),
        Reply::TakenUp(NotTakenUp {
            transports: vec![(TRANSPORT, WorkerError::UnknownTransport(TRANSPORT))],
            producers: vec![(PRODUCER, WorkerError::UnknownProducer(PRODUCER))],
            consumers: vec![(CONSUMER, WorkerError::invalid("its last number sent again is none"))],
        }),
    ]
}

/// One of each error, in the order of the enum.
pub(crate) fn worker_errors() -> Vec<WorkerError> {
    vec![
        WorkerError::UnknownRoom(ROOM),
        WorkerError::UnknownTransport(TRANSPORT),
        WorkerError::UnknownProducer(PRODUCER),
        WorkerError::UnknownConsumer(CONSUMER),
        WorkerError::DuplicateRoom(ROOM),
        WorkerError::DuplicateTransport(TRANSPORT),
        WorkerError::DuplicateProducer(PRODUCER),
        WorkerError::DuplicateConsumer(CONSUMER),
        WorkerError::OtherRoom {
            entity: String::from("producer 9"),
            room: ROOM,
        },
        WorkerError::SsrcInUse {
            ssrc: 1,
            owner: String::from("consumer 10"),
            transport: TRANSPORT,
        },
        WorkerError::MidInUse {
            mid: String::from("v1"),
            owner: PRODUCER,
            transport: TRANSPORT,
        },
        WorkerError::Mirrored(TRANSPORT),
        WorkerError::NotWebRtc(TRANSPORT),
        WorkerError::NotPlain(TRANSPORT),
        WorkerError::DtlsParametersSet(TRANSPORT),
        WorkerError::InvalidParameters(String::from("no codec")),
        WorkerError::DeadlinePassed,
        WorkerError::Descriptors {
            expected: 4,
            received: 2,
        },
        WorkerError::TooMany {
            noun: String::from("consumers"),
            limit: 100_000,
        },
        WorkerError::Os {
            call: String::from("epoll_ctl"),
            reason: String::from("ENOSPC"),
        },
    ]
}

fn failure(reason: WebRtcFailureReason) -> WebRtcFailure {
    WebRtcFailure {
        reason,
        message: String::from("in words"),
    }
}

fn any_failure() -> impl Strategy<Value = WebRtcFailure> {
    (proptest::sample::select(WebRtcFailureReason::ALL.to_vec()), text())
        .prop_map(|(reason, message)| WebRtcFailure { reason, message })
}

/// One of each notification, in the order of the enum.
pub(crate) fn notifications() -> Vec<Notification> {
    vec![
        Notification::RemoteLearned {
            transport: TRANSPORT,
            remote: Remote {
                rtp: v6(),
                rtcp: Some(v4()),
            },
        },
        Notification::IceStateChanged {
            transport: TRANSPORT,
            state: IceState::Disconnected,
            failure: Some(failure(WebRtcFailureReason::ConsentExpired)),
        },
        Notification::IceSelectedTupleChanged {
            transport: TRANSPORT,
            tuple: Some(tuple()),
        },
        Notification::DtlsStateChanged {
            transport: TRANSPORT,
            state: DtlsState::Connected,
            remote_certificate_pem: Some(String::from("-----BEGIN CERTIFICATE-----")),
            failure: Some(failure(WebRtcFailureReason::Fingerprint)),
        },
        Notification::EffectiveProfileChanged {
            consumer: CONSUMER,
            profile: Some(Profile::Medium),
        },
        Notification::AudioLevels {
            room: ROOM,
            levels: vec![(PRODUCER, -127), (ProducerId(11), 0)],
        },
        Notification::Log(LogLine {
            level: LogLevel::Warn,
            target: String::from("weir_worker::relay"),
            text: String::from("hello, wörld"),
        }),
        Notification::LogLinesDropped { count: 1_000 },
        Notification::SocketWanted {
            transport: TRANSPORT,
            tuple: tuple(),
        },
        Notification::ChecksRefused {
            transport: TRANSPORT,
            failure: failure(WebRtcFailureReason::CheckUnauthenticated),
        },
        Notification::ProducerActivityChanged {
            producer: PRODUCER,
            active: true,
        },
        Notification::SsrcChanged {
            producer: PRODUCER,
            ssrc: 0xffff_fffe,
            previous: Some(1),
        },
        Notification::Sandboxed(sandbox()),
        Notification::ConnectionProven {
            transport: TRANSPORT,
            tuple: tuple(),
        },
        Notification::SocketClosed {
            transport: TRANSPORT,
            tuple: tuple(),
        },
    ]
}

/// With every layer.
fn sandbox() -> Sandbox {
    Sandbox {
        holds: SandboxLayer::ALL.to_vec(),
        lacks: vec![SandboxLack {
            layer: SandboxLayer::Landlock,
            reason: "ENOSYS".to_owned(),
        }],
        user: Some(65_534),
        landlock_abi: Some(7),
    }
}

/// One message of each kind, with every variant of every enum.
pub(crate) fn all() -> Vec<Message> {
    let mut messages = vec![hello()];
    messages.extend(methods().into_iter().map(request));
    messages.extend(replies().into_iter().map(|reply| response(Ok(reply))));
    messages.extend(worker_errors().into_iter().map(|error| response(Err(error))));
    messages.extend(notifications().into_iter().map(Message::Notification));
    messages.push(together());
    messages.extend(LOG_LEVELS.map(|level| {
        Message::Notification(Notification::Log(LogLine {
            level,
            target: String::new(),
            text: String::new(),
        }))
    }));
    messages
}

pub(crate) fn together() -> Message {
    let enclosed = |id, method, descriptors| Enclosed {
        request: Request {
            id: RequestId(id),
            deadline: Deadline(2),
            method,
        },
        descriptors,
    };
    Message::Requests(vec![enclosed(1, Method::Ping, 0), enclosed(2, Method::UsePollers, 2)])
}

pub(crate) fn request(method: Method) -> Message {
    Message::Request(Request {
        id: RequestId(1),
        deadline: Deadline(2),
        method,
    })
}

pub(crate) fn response(result: Result<Reply, WorkerError>) -> Message {
    Message::Response(Response {
        id: RequestId(1),
        result,
    })
}

/// Any message.
pub(crate) fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        1 => (any::<u32>(), text(), any::<u32>(), any::<u32>()).prop_map(|(protocol, build, worker, pid)| {
            Message::Hello(Hello { protocol, build, worker: WorkerId(worker), pid })
        }),
        4 => (number(), number(), any_method()).prop_map(|(id, deadline, method)| {
            Message::Request(Request { id: RequestId(id), deadline: Deadline(deadline), method })
        }),
        4 => (number(), prop_oneof![any_reply().prop_map(Ok), any_worker_error().prop_map(Err)])
            .prop_map(|(id, result)| Message::Response(Response { id: RequestId(id), result })),
        2 => any_notification().prop_map(Message::Notification),
        1 => vec((number(), number(), any_method(), any::<u8>()), 0..4).prop_map(|requests| {
            let enclosed = requests.into_iter().map(|(id, deadline, method, descriptors)| Enclosed {
                request: Request { id: RequestId(id), deadline: Deadline(deadline), method },
                descriptors,
            });
            Message::Requests(enclosed.collect())
        }),
    ]
}

/// Numbers of every encoded length.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..=250_u64, 251..=0xffff_u64, 0x1_0000..=0xffff_ffff_u64, any::<u64>()]
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

fn flag() -> impl Strategy<Value = bool> {
    any::<bool>()
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<u32>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((Ipv4Addr::from_bits(ip), port))),
        (any::<u128>(), any::<u16>(), any::<u32>()).prop_map(|(ip, port, zone)| SocketAddrV6::new(
            Ipv6Addr::from_bits(ip),
            port,
            0,
            zone
        )
        .into()),
    ]
}

fn any_remote() -> impl Strategy<Value = Remote> {
    (any_address(), option::of(any_address())).prop_map(|(rtp, rtcp)| Remote { rtp, rtcp })
}

fn any_profile() -> impl Strategy<Value = Profile> {
    proptest::sample::select(PROFILES.to_vec())
}

fn any_kind() -> impl Strategy<Value = MediaKind> {
    proptest::sample::select(vec![MediaKind::Audio, MediaKind::Video])
}

fn any_extensions() -> impl Strategy<Value = Vec<HeaderExtension>> {
    let uri = proptest::sample::select(ExtensionUri::ALL.to_vec());
    vec(
        (any::<u8>(), uri).prop_map(|(id, uri)| HeaderExtension { id, uri }),
        0..12,
    )
}

fn any_ice() -> impl Strategy<Value = IceCredentials> {
    (text(), text()).prop_map(|(username_fragment, password)| IceCredentials {
        username_fragment,
        password,
    })
}

fn any_ice_protocol() -> impl Strategy<Value = IceProtocol> {
    proptest::sample::select(vec![IceProtocol::Udp, IceProtocol::Tcp])
}

fn any_role() -> impl Strategy<Value = DtlsRole> {
    proptest::sample::select(vec![DtlsRole::Auto, DtlsRole::Client, DtlsRole::Server])
}

fn any_fingerprint() -> impl Strategy<Value = Fingerprint> {
    (proptest::sample::select(fingerprints()), text())
        .prop_map(|(fingerprint, value)| Fingerprint { value, ..fingerprint })
}

fn any_tuple() -> impl Strategy<Value = IceTuple> {
    (any_ice_protocol(), any_remote(), any_remote()).prop_map(|(protocol, local, remote)| IceTuple {
        protocol,
        local: local.rtp,
        remote: remote.rtp,
    })
}

fn any_method() -> impl Strategy<Value = Method> {
    let codec = (
        any::<u8>(),
        proptest::sample::select([&CodecName::ALL[..], &CodecName::OPAQUE].concat()),
        any::<u32>(),
        flag(),
        flag(),
    )
        .prop_map(|(payload_type, name, clock_rate, pli, fir)| Codec {
            payload_type,
            name,
            clock_rate,
            pli,
            fir,
            nack: false,
            remb: false,
            rtx: None,
        });
    let encoding =
        (option::of(any::<u32>()), option::of(text()), any_profile()).prop_map(|(ssrc, rid, profile)| Encoding {
            ssrc,
            rid,
            profile,
            rtx_ssrc: None,
        });
    prop_oneof![
        2 => proptest::sample::select(vec![Method::Ping, Method::WorkerStats, Method::Shutdown]),
        1 => text().prop_map(|directives| Method::SetLogFilter(LogFilter { directives })),
        1 => (any::<u32>(), any::<u32>(), flag()).prop_map(|(window_us_max, spin_us_max, measure_residence)| {
            Method::SetCoalescing(Coalescing { window_us_max, spin_us_max, measure_residence })
        }),
        1 => number().prop_map(|id| Method::CreateRouter { room: RoomId(id) }),
        1 => number().prop_map(|id| Method::CloseRouter { room: RoomId(id) }),
        1 => (number(), any::<u8>()).prop_map(|(id, pages)| Method::Adopt { room: RoomId(id), pages }),
        1 => proptest::sample::select(vec![Method::UsePollers, Method::Rehearse, Method::RehearsalEnded]),
        1 => (number(), vec(number(), 0..4), vec(number(), 0..4), vec(number(), 0..4)).prop_map(
            |(room, transports, producers, consumers)| Method::TakeUp {
                room: RoomId(room),
                transports: transports.into_iter().map(TransportId).collect(),
                producers: producers.into_iter().map(ProducerId).collect(),
                consumers: consumers.into_iter().map(ConsumerId).collect(),
            }
        ),
        1 => number().prop_map(|id| Method::AdoptionEnded { room: RoomId(id) }),
        1 => number().prop_map(|id| Method::DropWaiting { room: RoomId(id) }),
        1 => vec((any::<std::net::IpAddr>(), option::of(any::<u16>())), 0..4).prop_map(|sources| {
            Method::SetQuarantine(sources.into_iter().map(|(ip, port)| QuarantinedSource { ip, port }).collect())
        }),
        2 => (number(), number(), option::of(any_remote()), flag(), flag(), flag()).prop_map(
            |(room, transport, remote, comedia, rtcp_mux, locks)| {
                let comedia_from = remote.filter(|_| locks).map(|remote| remote.rtp.ip());
                let comedia_policy = if locks { ComediaPolicy::Lock } else { ComediaPolicy::Relearn };
                Method::CreatePlainTransport(CreatePlainTransport {
                    room: RoomId(room), transport: TransportId(transport), remote, comedia, rtcp_mux, comedia_policy,
                    comedia_from,
                })
            }
        ),
        1 => (number(), any_remote())
            .prop_map(|(id, remote)| Method::SetRemote { transport: TransportId(id), remote }),
        1 => (number(), number(), vec(any_ice_protocol(), 0..5), any_ice(), vec(any_tuple(), 0..3)).prop_map(
            |(room, transport, listeners, ice, connected)| {
                Method::CreateWebRtcTransport(CreateWebRtcTransport {
                    room: RoomId(room), transport: TransportId(transport), listeners, ice, connected,
                })
            }
        ),
        1 => (vec(any_ice_protocol(), 0..5), flag())
            .prop_map(|(protocols, connected)| Method::OpenSharedPorts(OpenSharedPorts { protocols, connected })),
        1 => (number(), any_tuple())
            .prop_map(|(id, tuple)| Method::UseConnectedSocket { transport: TransportId(id), tuple }),
        1 => (number(), any_ice())
            .prop_map(|(id, ice)| Method::RestartIce { transport: TransportId(id), ice }),
        1 => (number(), any_ice())
            .prop_map(|(id, ice)| Method::SetRemoteIce { transport: TransportId(id), ice }),
        1 => (number(), any_role(), vec(any_fingerprint(), 0..6)).prop_map(|(id, role, fingerprints)| {
            Method::SetDtlsParameters {
                transport: TransportId(id),
                parameters: DtlsParameters { role, fingerprints },
            }
        }),
        1 => (text(), text()).prop_map(|(certificate_pem, private_key_pem)| {
            Method::UseDtlsCertificate(DtlsCertificate { certificate_pem, private_key_pem })
        }),
        1 => (number(), option::of(number())).prop_map(|(id, bitrate_bps)| Method::SetMaxBitrate {
            transport: TransportId(id),
            bitrate_bps,
        }),
        1 => number().prop_map(|id| Method::CloseTransport { transport: TransportId(id) }),
        3 => (
            (number(), number(), number(), any_kind(), option::of(text())),
            (vec(codec, 0..17), vec(encoding, 0..4), any_extensions(), any_profile(), flag()),
        ).prop_map(
            |((room, transport, producer, kind, mid), (codecs, encodings, header_extensions, preferred_profile, paused))| {
                Method::CreateProducer(CreateProducer {
                    room: RoomId(room), transport: TransportId(transport), producer: ProducerId(producer), kind, mid, codecs,
                    encodings, header_extensions, preferred_profile, paused, reduced_size: true, })
            }
        ),
        2 => (number(), flag())
            .prop_map(|(id, paused)| Method::SetProducerPaused { producer: ProducerId(id), paused }),
        1 => (number(), any_profile())
            .prop_map(|(id, profile)| Method::SetProducerPreferredProfile { producer: ProducerId(id), profile }),
        1 => number().prop_map(|id| Method::CloseProducer { producer: ProducerId(id) }),
        3 => (
            (number(), number(), number(), number(), any::<u32>()),
            (vec(any::<(u8, u8)>(), 0..17), any_extensions(), any_profile(), flag()),
        ).prop_map(
            |((room, transport, producer, consumer, ssrc), (payload_types, header_extensions, preferred_profile, paused))| {
                Method::CreateConsumer(CreateConsumer {
                    room: RoomId(room), transport: TransportId(transport), producer: ProducerId(producer),
                    consumer: ConsumerId(consumer), ssrc, payload_types, header_extensions, preferred_profile, paused, nack: false, rtx: None, cname: "weir".to_owned(), cname_is_made_up: paused, lasting_cname: paused.then(|| "stage".to_owned()), })
            }
        ),
        2 => (number(), flag())
            .prop_map(|(id, paused)| Method::SetConsumerPaused { consumer: ConsumerId(id), paused }),
        1 => (number(), any_profile())
            .prop_map(|(id, profile)| Method::SetConsumerPreferredProfile { consumer: ConsumerId(id), profile }),
        1 => number().prop_map(|id| Method::RequestKeyFrame { consumer: ConsumerId(id) }),
        1 => number().prop_map(|id| Method::CloseConsumer { consumer: ConsumerId(id) }),
        4 => any_scope().prop_map(Method::Stats),
        4 => any_scope().prop_map(Method::Dump),
    ]
}

fn any_scope() -> impl Strategy<Value = Scope> {
    let page = option::of(number()).prop_map(|cursor| Page { cursor });
    prop_oneof![
        (number(), page).prop_map(|(id, page)| Scope::Room { room: RoomId(id), page }),
        number().prop_map(|id| Scope::Transport(TransportId(id))),
        number().prop_map(|id| Scope::Producer(ProducerId(id))),
        number().prop_map(|id| Scope::Consumer(ConsumerId(id))),
    ]
}

/// Any histogram of counted values, in the form the worker sends.
pub(crate) fn any_histogram() -> impl Strategy<Value = Histogram> {
    vec(number(), 0..60).prop_map(|values| {
        let mut counts = Vec::new();
        for value in values {
            let index = Histogram::index_of(value);
            if counts.len() <= index {
                counts.resize(index + 1, 0);
            }
            counts[index] += 1;
        }
        Histogram { counts }
    })
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let worker_stats = (vec(number(), 21), option::of(any_histogram())).prop_map(|(n, residence)| {
        Reply::WorkerStats(Box::new(WorkerStats {
            rooms: n[0],
            transports: n[1],
            producers: n[2],
            consumers: n[3],
            packets_received: n[4],
            bytes_received: n[5],
            packets_sent: n[6],
            bytes_sent: n[7],
            kernel_drops: n[8],
            receive_calls: n[9],
            send_calls: n[10],
            wait_calls: n[11],
            gso_refusals: n[12],
            packets_padded: n[19],
            padding_bytes: n[20],
            log_lines_dropped: n[13],
            turns: n[14],
            coalesced_turns: n[15],
            spun_ns: n[2],
            cpu_ns: n[16],
            resident_bytes: n[17],
            residence,
            unrouted: n[18],
            webrtc_failures: Counts::from([(WebRtcFailureReason::Alert, n[0])]),
            unrouted_reasons: Counts::from([(UnroutedReason::Unproven, n[0])]),
            contained_panics: n[1],
            packets_offered: n[3],
            packets_forwarded: n[4],
            packets_retransmitted: n[5],
            packets_requested: n[6],
            packets_repaired: n[7],
            nacks_received: n[8],
            nacks_sent: n[9],
            plis_received: n[10],
            plis_sent: n[11],
            firs_received: n[12],
            firs_sent: n[13],
            key_frames_received: n[14],
            dropped: Counts::from([(DropReason::Padding, n[15])]),
            not_repaired: Counts::from([(NotRepaired::TooOld, n[16])]),
            transports_unrouted: Counts::from([(UnroutedReason::Stale, n[17])]),
        }))
    });
    prop_oneof![
        Just(Reply::Done),
        flag().prop_map(|source_paused| Reply::ConsumerCreated { source_paused }),
        vec(any_fingerprint(), 0..6).prop_map(|fingerprints| Reply::WebRtcTransportCreated { fingerprints }),
        any_role().prop_map(Reply::DtlsRole),
        worker_stats,
        any_stats_page().prop_map(Reply::Stats),
        any_dump_page().prop_map(Reply::Dump),
        (vec(number(), 0..3), vec((number(), text()), 0..3)).prop_map(|(producers, consumers)| {
            let producers = producers.into_iter().map(ProducerId);
            Reply::TakenUp(NotTakenUp {
                transports: Vec::new(),
                producers: producers.map(|id| (id, WorkerError::UnknownProducer(id))).collect(),
                consumers: consumers
                    .into_iter()
                    .map(|(id, why)| (ConsumerId(id), WorkerError::invalid(why)))
                    .collect(),
            })
        }),
    ]
}

fn any_stats_page() -> impl Strategy<Value = StatsPage> {
    let unrouted = (proptest::sample::select(UnroutedReason::ALL.to_vec()), number());
    let transport =
        (vec(number(), 9), option::of(any_remote()), vec(unrouted, 0..7)).prop_map(|(n, remote, unrouted)| {
            TransportStats {
                transport: TransportId(n[0]),
                remote,
                packets_received: n[1],
                bytes_received: n[2],
                packets_sent: n[3],
                bytes_sent: n[4],
                rtcp_received: n[5],
                rtcp_sent: n[6],
                unrouted: unrouted.into_iter().collect(),
                kernel_drops: n[7],
                backlog_packets: n[8],
                remotes_relearned: n[6],
                ..TransportStats::default()
            }
        });
    let stream =
        (any::<u32>(), any_profile(), flag(), vec(number(), 9)).prop_map(|(ssrc, profile, active, n)| StreamStats {
            ssrc,
            profile,
            active,
            packets: n[0],
            bytes: n[1],
            bitrate: n[2],
            packets_lost: n[3],
            packets_discarded: n[4],
            packets_duplicated: n[5],
            key_frames: n[6],
            packets_paused: n[8],
            packets_not_kept: n[7],
            ..StreamStats::default()
        });
    let producer = (number(), flag(), vec(stream, 0..4)).prop_map(|(id, paused, streams)| ProducerStats {
        producer: ProducerId(id),
        paused,
        streams,
    });
    let dropped = (proptest::sample::select(DropReason::ALL.to_vec()), number());
    let consumer = (
        vec(number(), 7),
        flag(),
        flag(),
        option::of(any_profile()),
        option::of(any_profile()),
        vec(dropped, 0..12),
        option::of(number()),
    )
        .prop_map(
            |(n, paused, source_paused, effective_profile, target_profile, dropped, last_seq)| ConsumerStats {
                consumer: ConsumerId(n[0]),
                paused,
                source_paused,
                effective_profile,
                target_profile,
                packets_in: n[1],
                packets_forwarded: n[2],
                bytes_forwarded: n[3],
                bitrate: n[4],
                dropped: dropped.into_iter().collect(),
                switches: n[5],
                last_seq,
                ..ConsumerStats::default()
            },
        );
    (
        vec(transport, 0..4),
        vec(producer, 0..4),
        vec(consumer, 0..4),
        option::of(number()),
    )
        .prop_map(|(transports, producers, consumers, next)| StatsPage {
            transports,
            producers,
            consumers,
            next,
        })
}

fn any_dump_page() -> impl Strategy<Value = DumpPage> {
    let named = || vec((text(), number().prop_map(ProducerId)), 0..4);
    let transport = (
        number(),
        option::of(any_remote()),
        flag(),
        flag(),
        vec((any::<u32>(), number().prop_map(ProducerId)), 0..4),
        named(),
        named(),
    )
        .prop_map(|(id, remote, comedia, rtcp_mux, ssrcs, mids, rids)| TransportDump {
            transport: TransportId(id),
            remote,
            comedia,
            rtcp_mux,
            ssrcs,
            mids,
            rids,
            mirror: None,
        });
    let producer = (
        number(),
        number(),
        any_kind(),
        flag(),
        any_profile(),
        vec(any_profile(), 0..4),
        vec(number().prop_map(ConsumerId), 0..20),
    )
        .prop_map(
            |(id, transport, kind, paused, preferred_profile, available_profiles, consumers)| ProducerDump {
                producer: ProducerId(id),
                transport: TransportId(transport),
                kind,
                paused,
                preferred_profile,
                available_profiles,
                consumers,
            },
        );
    let consumer = (
        (number(), number(), number(), any::<u32>()),
        (any_profile(), option::of(any_profile()), option::of(any_profile())),
        (flag(), flag(), flag()),
    )
        .prop_map(
            |(
                (id, producer, transport, ssrc),
                (preferred, effective, target),
                (paused, source_paused, sync_required),
            )| {
                ConsumerDump {
                    consumer: ConsumerId(id),
                    producer: ProducerId(producer),
                    transport: TransportId(transport),
                    ssrc,
                    preferred_profile: preferred,
                    effective_profile: effective,
                    target_profile: target,
                    paused,
                    source_paused,
                    sync_required,
                    rtx_ssrc: None,
                }
            },
        );
    (
        vec(transport, 0..3),
        vec(producer, 0..3),
        vec(consumer, 0..3),
        option::of(number()),
    )
        .prop_map(|(transports, producers, consumers, next)| DumpPage {
            transports,
            producers,
            consumers,
            next,
        })
}

fn any_worker_error() -> impl Strategy<Value = WorkerError> {
    prop_oneof![
        proptest::sample::select(worker_errors()),
        text().prop_map(WorkerError::InvalidParameters),
        (text(), any::<u32>()).prop_map(|(noun, limit)| WorkerError::TooMany { noun, limit }),
        (text(), text()).prop_map(|(call, reason)| WorkerError::Os { call, reason }),
        (any::<u32>(), text(), number()).prop_map(|(ssrc, owner, id)| WorkerError::SsrcInUse {
            ssrc,
            owner,
            transport: TransportId(id),
        }),
    ]
}

fn any_ice_state() -> impl Strategy<Value = IceState> {
    proptest::sample::select(vec![
        IceState::New,
        IceState::Connected,
        IceState::Completed,
        IceState::Disconnected,
        IceState::Closed,
    ])
}

fn any_dtls_state() -> impl Strategy<Value = DtlsState> {
    proptest::sample::select(vec![
        DtlsState::New,
        DtlsState::Connecting,
        DtlsState::Connected,
        DtlsState::Failed,
        DtlsState::Closed,
    ])
}

fn any_notification() -> impl Strategy<Value = Notification> {
    prop_oneof![
        (number(), any_remote()).prop_map(|(id, remote)| Notification::RemoteLearned {
            transport: TransportId(id),
            remote,
        }),
        (number(), any_ice_state(), option::of(any_failure())).prop_map(|(id, state, failure)| {
            Notification::IceStateChanged {
                transport: TransportId(id),
                state,
                failure,
            }
        }),
        (number(), any_failure()).prop_map(|(id, failure)| Notification::ChecksRefused {
            transport: TransportId(id),
            failure,
        }),
        (number(), any::<bool>()).prop_map(|(id, active)| Notification::ProducerActivityChanged {
            producer: ProducerId(id),
            active,
        }),
        (number(), option::of(any_tuple())).prop_map(|(id, tuple)| Notification::IceSelectedTupleChanged {
            transport: TransportId(id),
            tuple,
        }),
        (number(), any_tuple()).prop_map(|(id, tuple)| Notification::SocketWanted {
            transport: TransportId(id),
            tuple,
        }),
        (
            number(),
            any_dtls_state(),
            option::of(text()),
            option::of(any_failure())
        )
            .prop_map(
                |(id, state, remote_certificate_pem, failure)| Notification::DtlsStateChanged {
                    transport: TransportId(id),
                    state,
                    remote_certificate_pem,
                    failure,
                }
            ),
        (number(), option::of(any_profile())).prop_map(|(id, profile)| Notification::EffectiveProfileChanged {
            consumer: ConsumerId(id),
            profile,
        }),
        (proptest::sample::select(LOG_LEVELS.to_vec()), text(), text())
            .prop_map(|(level, target, text)| { Notification::Log(LogLine { level, target, text }) }),
        (number(), vec((number(), -127_i8..=0), 0..20)).prop_map(|(room, levels)| Notification::AudioLevels {
            room: RoomId(room),
            levels: levels.into_iter().map(|(id, level)| (ProducerId(id), level)).collect(),
        }),
        number().prop_map(|count| Notification::LogLinesDropped { count }),
        (number(), any::<u32>(), option::of(any::<u32>())).prop_map(|(id, ssrc, previous)| {
            Notification::SsrcChanged {
                producer: ProducerId(id),
                ssrc,
                previous,
            }
        }),
        any_sandbox().prop_map(Notification::Sandboxed),
        (number(), any_tuple()).prop_map(|(id, tuple)| Notification::ConnectionProven {
            transport: TransportId(id),
            tuple,
        }),
        (number(), any_tuple()).prop_map(|(id, tuple)| Notification::SocketClosed {
            transport: TransportId(id),
            tuple,
        }),
    ]
}

fn any_sandbox() -> impl Strategy<Value = Sandbox> {
    let layer = || proptest::sample::select(SandboxLayer::ALL.to_vec());
    let lack = (layer(), text()).prop_map(|(layer, reason)| SandboxLack { layer, reason });
    let numbers = (option::of(any::<u32>()), option::of(any::<u8>()));
    (vec(layer(), 0..8), vec(lack, 0..8), numbers).prop_map(|(holds, lacks, (user, landlock_abi))| Sandbox {
        holds,
        lacks,
        user,
        landlock_abi,
    })
}
