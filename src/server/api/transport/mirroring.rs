//! What a transport does beside its own traffic: copies of its packets to another address, and a limit for its senders.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use weir_channel::message::{Method, Mirror, Zoned};

use super::Transport;
use crate::server::model::address::{check_local, check_sendable};
use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::state::{Command, OnAccept};
use crate::server::model::transport::{MirrorOutlet, Mirroring};
use crate::server::workers::sockets::SENDER_NEED;

/// The lowest limit that senders are told. Below it there is no picture and hardly a sound, so it is more likely a
/// mistake.
const MAX_BITRATE_BPS_MIN: u64 = 10_000;

/// The packets of a transport to copy, and the address to send them to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorOptions {
    /// The address to send copies to.
    #[schemars(with = "String")]
    pub remote_ip: Zoned,
    /// Its port.
    pub remote_port: u16,
    /// The local address to send from, with any free port; the default is the transport's own address, with a port from
    /// the server's range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub local_ip: Option<Zoned>,
    /// RTP that the transport sends.
    #[serde(default = "yes")]
    pub send_rtp: bool,
    /// RTCP that the transport sends.
    #[serde(default = "yes")]
    pub send_rtcp: bool,
    /// RTP that the transport receives.
    #[serde(default = "yes")]
    pub recv_rtp: bool,
    /// RTCP that the transport receives.
    #[serde(default = "yes")]
    pub recv_rtcp: bool,
}

fn yes() -> bool {
    true
}

impl MirrorOptions {
    /// Copies of everything, from the transport's own address.
    pub fn everything_to(remote: SocketAddr) -> Self {
        Self {
            remote_ip: remote.into(),
            remote_port: remote.port(),
            local_ip: None,
            send_rtp: true,
            send_rtcp: true,
            recv_rtp: true,
            recv_rtcp: true,
        }
    }

    fn mirror(&self) -> Mirror {
        Mirror {
            remote: self.remote_ip.at(self.remote_port),
            send_rtp: self.send_rtp,
            send_rtcp: self.send_rtcp,
            recv_rtp: self.recv_rtp,
            recv_rtcp: self.recv_rtcp,
        }
    }
}

impl Transport {
    /// Limits the bitrate of all senders of the transport together (REMB), in bits per second; `None` removes the
    /// limit, and tells the senders so. A sender that has not negotiated REMB is not limited.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when it is below 10,000, [`Error::InvalidState`] when the transport is closed.
    pub async fn set_max_bitrate(&self, bitrate_bps: Option<u64>) -> Result<(), Error> {
        if let Some(bitrate) = bitrate_bps
            && bitrate < MAX_BITRATE_BPS_MIN
        {
            return Err(Error::InvalidParameters(format!(
                "a limit of {bitrate} bit/s is below {MAX_BITRATE_BPS_MIN}; to take the limit away, set none"
            )));
        }
        let transport = self.node.id;
        let method = Method::SetMaxBitrate { transport, bitrate_bps };
        self.call(Command::new(method)).await.map(drop)
    }

    /// The limit its senders are told, in bits per second, if there is one.
    pub fn max_bitrate(&self) -> Option<u64> {
        lock(&self.node.state).max_bitrate_bps
    }

    /// Also sends copies of the transport's packets to another address, unencrypted, until
    /// [`Transport::stop_mirroring`] or the end of the transport. Packets from there are ignored. There is one mirror
    /// at a time.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when nothing can be sent there or nothing would be copied, a conflict when there is a
    /// mirror already, [`Error::PortsExhausted`], [`Error::InvalidState`] when the transport is closed.
    pub async fn start_mirroring(&self, options: MirrorOptions) -> Result<(), Error> {
        self.node.check_open()?;
        let mirror = options.mirror();
        if !(mirror.send_rtp || mirror.send_rtcp || mirror.recv_rtp || mirror.recv_rtcp) {
            return Err(Error::InvalidParameters(
                "nothing would be copied; leave at least one of sendRtp, sendRtcp, recvRtp, recvRtcp on".to_owned(),
            ));
        }
        options.local_ip.map(check_local).transpose()?;
        let own_ip = self.node.local_ip_towards(options.remote_ip.ip);
        check_sendable(mirror.remote, options.local_ip.unwrap_or(own_ip).ip)?;
        let makers = &self.shared.sockets;
        let socket = match options.local_ip {
            Some(ip) => makers.sender_on_any_port(ip, mirror.remote)?,
            None => makers.sender(own_ip, mirror.remote)?,
        };
        let descriptor = makers.made(SENDER_NEED, "duplicating the socket of a mirror", socket.descriptor())?;
        let transport = self.node.id;
        let command = Command {
            method: Method::StartMirroring { transport, mirror },
            on_accept: OnAccept::Mirror(MirrorOutlet {
                local: socket.address(),
                mirror,
                socket: Box::new(socket),
            }),
        };
        let started = self
            .shared
            .call_with_descriptors(self.node.room.worker, vec![descriptor], |_| {
                self.node.check_open()?;
                Ok(Some(command))
            });
        started.await.map(drop)
    }

    /// Stops sending copies. Has no effect without a mirror.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when the transport is closed.
    pub async fn stop_mirroring(&self) -> Result<(), Error> {
        let transport = self.node.id;
        let method = Method::StopMirroring { transport };
        self.call(Command::new(method)).await.map(drop)
    }

    /// The mirror that its packets are copied to, if there is one.
    pub fn mirroring(&self) -> Option<Mirroring> {
        let state = lock(&self.node.state);
        state.mirror.as_ref().map(MirrorOutlet::mirroring)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use serde_json::json;
    use weir_channel::message::{Reply, WorkerError};

    use super::*;
    use crate::server::fake::{Fake, server, settings, soon};
    use crate::server::{PlainTransportOptions, RoomOptions, Server};

    async fn accepted<T>(fake: &mut Fake, call: impl Future<Output = T>) -> (T, Method) {
        soon(async { tokio::join!(call, fake.accept()) }).await
    }

    async fn scene() -> (Server, Fake, Transport) {
        let (server, mut fake) = server(settings()).await;
        let (room, _) = accepted(&mut fake, server.create_room(RoomOptions::default())).await;
        let room = room.unwrap();
        let options = PlainTransportOptions::default();
        let (transport, _) = accepted(&mut fake, room.create_plain_transport(options)).await;
        (server, fake, transport.unwrap())
    }

    fn ports_taken(server: &Server) -> u32 {
        server.shared().sockets.ports_taken()
    }

    fn to(port: u16) -> MirrorOptions {
        MirrorOptions::everything_to(([127, 0, 0, 1], port).into())
    }

    #[expect(clippy::disallowed_methods, reason = "where the copies go")]
    fn listener() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    #[tokio::test]
    async fn a_limit_is_known_when_the_worker_has_accepted_it() {
        let (_server, mut fake, transport) = scene().await;
        let (set, method) = accepted(&mut fake, transport.set_max_bitrate(Some(300_000))).await;
        set.unwrap();
        let bitrate_bps = Some(300_000);
        let transport_id = transport.id();
        assert_eq!(
            method,
            Method::SetMaxBitrate {
                transport: transport_id,
                bitrate_bps
            }
        );
        assert_eq!(transport.max_bitrate(), bitrate_bps);
        let refuse = async {
            let (request, _) = fake.request().await.unwrap();
            let error = WorkerError::InvalidParameters("no".to_owned());
            fake.answer(&request, Err(error)).await;
        };
        let (refused, ()) = soon(async { tokio::join!(transport.set_max_bitrate(None), refuse) }).await;
        assert!(refused.is_err());
        assert_eq!(transport.max_bitrate(), bitrate_bps, "what was refused is not so");
        let (unset, _) = accepted(&mut fake, transport.set_max_bitrate(None)).await;
        unset.unwrap();
        assert_eq!(transport.max_bitrate(), None);
        for bitrate in [0, 9_999] {
            let error = transport.set_max_bitrate(Some(bitrate)).await.unwrap_err();
            assert_eq!(error.code(), "invalidParameters", "{error}");
        }
    }

    #[tokio::test]
    async fn a_mirror_has_a_connected_socket_until_it_stops() {
        let (server, mut fake, transport) = scene().await;
        let there = listener();
        let remote = there.local_addr().unwrap();
        let before = ports_taken(&server);
        let start = transport.start_mirroring(to(remote.port()));
        let answer = async {
            let (request, mut descriptors) = fake.request().await.unwrap();
            assert_eq!(descriptors.len(), 1);
            // What the worker is given sends there, from where it is said to come.
            let socket = UdpSocket::from(descriptors.remove(0));
            socket.send(b"copy").unwrap();
            fake.answer(&request, Ok(Reply::Done)).await;
        };
        soon(async { tokio::join!(start, answer) }).await.0.unwrap();
        let mirroring = transport.mirroring().unwrap();
        assert_eq!(mirroring.remote, remote);
        let mut buffer = [0; 8];
        assert_eq!(there.recv_from(&mut buffer).unwrap(), (4, mirroring.local));
        assert_eq!(ports_taken(&server), before + 1);

        let again = transport.start_mirroring(to(remote.port()));
        let refuse = async {
            let (request, _) = fake.request().await.unwrap();
            fake.answer(&request, Err(WorkerError::Mirrored(transport.id()))).await;
        };
        let (again, ()) = soon(async { tokio::join!(again, refuse) }).await;
        assert_eq!(again.unwrap_err().code(), "conflict");
        assert_eq!(ports_taken(&server), before + 1, "the refused one gives its port back");
        assert_eq!(transport.mirroring(), Some(mirroring));

        let (stopped, _) = accepted(&mut fake, transport.stop_mirroring()).await;
        stopped.unwrap();
        assert_eq!((transport.mirroring(), ports_taken(&server)), (None, before));
    }

    #[tokio::test]
    async fn a_chosen_address_has_a_port_outside_the_range_and_closing_frees_all() {
        let (server, mut fake, transport) = scene().await;
        let options = MirrorOptions {
            local_ip: Some([127, 0, 0, 1].into()),
            recv_rtp: false,
            ..to(9)
        };
        let before = ports_taken(&server);
        let (started, method) = accepted(&mut fake, transport.start_mirroring(options)).await;
        started.unwrap();
        let Method::StartMirroring { mirror, .. } = method else {
            panic!("{method:?}");
        };
        assert!(mirror.send_rtp && mirror.send_rtcp && !mirror.recv_rtp && mirror.recv_rtcp);
        assert_eq!(ports_taken(&server), before);
        let (stopped, _) = accepted(&mut fake, transport.stop_mirroring()).await;
        stopped.unwrap();
        accepted(&mut fake, transport.start_mirroring(to(9))).await.0.unwrap();
        assert_eq!(ports_taken(&server), before + 1);
        accepted(&mut fake, transport.close(json!(null))).await.0.unwrap();
        assert_eq!((transport.mirroring(), ports_taken(&server)), (None, 0));
        for call in [
            transport.start_mirroring(to(9)).await,
            transport.stop_mirroring().await,
            transport.set_max_bitrate(None).await,
        ] {
            assert_eq!(call.unwrap_err().code(), "invalidState");
        }
    }

    #[tokio::test]
    async fn nonsense_is_refused_before_anything_is_made() {
        let (server, _fake, transport) = scene().await;
        let before = ports_taken(&server);
        let nothing = MirrorOptions {
            send_rtp: false,
            send_rtcp: false,
            recv_rtp: false,
            recv_rtcp: false,
            ..to(9)
        };
        let other_family = MirrorOptions::everything_to("[::1]:9".parse().unwrap());
        let wildcard = MirrorOptions {
            local_ip: Some([0, 0, 0, 0].into()),
            ..to(9)
        };
        let everywhere = MirrorOptions::everything_to(([0, 0, 0, 0], 9).into());
        for options in [nothing, other_family, wildcard, everywhere, to(0)] {
            let error = soon(transport.start_mirroring(options)).await.unwrap_err();
            assert_eq!(error.code(), "invalidParameters", "{options:?}: {error}");
        }
        assert_eq!(ports_taken(&server), before);
    }

    #[test]
    fn what_is_not_said_is_copied() {
        let options: MirrorOptions =
            serde_json::from_value(json!({"remoteIp": "127.0.0.1", "remotePort": 9, "recvRtcp": false})).unwrap();
        let expected = MirrorOptions {
            recv_rtcp: false,
            ..to(9)
        };
        assert_eq!(options, expected);
    }
}
