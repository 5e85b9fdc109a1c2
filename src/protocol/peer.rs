//! What a peer's client asks and tells.

use std::sync::MutexGuard;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::ProtocolError;
use super::client_ids::{ClientId, ClientIds};
use super::dtls;
use super::message::{
    ClientNotification, CreateProducer, CreateTransport, EnableConsumer, OfThing, PeerRequest, PlainRtpParameters,
    TransportOptions,
};
use crate::server::{Consumable, STATS_INTERVAL_MAX, STATS_INTERVAL_MIN, known_parameters, lock};
use crate::{
    Consumer, ConsumerId, EnableOptions, Error, IpFamily, MediaKind, Peer, PlainTransportOptions, Producer,
    ProducerOptions, Remote, RtpParameters, Side, Transport, WebRtcTransportOptions, Zoned,
};

impl Peer {
    /// Answers a request of the peer's client: `createTransport`, `restartTransport`, `createProducer` or `enableConsumer`.
    ///
    /// Requests take effect in the order in which their answers are first awaited.
    ///
    /// # Errors
    /// What the client is to be told instead.
    pub async fn receive_request(&self, request: Value) -> Result<Value, ProtocolError> {
        self.check_open()?;
        match PeerRequest::parse(request)? {
            PeerRequest::CreateTransport(request) => self.create_transport(request).await,
            PeerRequest::RestartTransport(request) => {
                let webrtc = self
                    .transport_of(request.id)?
                    .webrtc()
                    .ok_or_else(|| ProtocolError::error("a plain RTP transport has no ICE to restart"))?;
                Ok(json!({ "iceParameters": webrtc.restart_ice().await? }))
            }
            PeerRequest::CreateProducer(request) => self.create_producer(request).await,
            PeerRequest::EnableConsumer(request) => self.enable_consumer(request).await,
        }
    }

    /// Does as the peer's client tells: that it leaves, that something is paused, resumed or closed, and so on.
    ///
    /// # Errors
    /// Why nothing was done. The client expects no answer, so this is for the log.
    pub async fn receive_notification(&self, notification: Value) -> Result<(), ProtocolError> {
        self.check_open()?;
        match ClientNotification::parse(notification)? {
            ClientNotification::Leave(leave) => self.leave(leave.app_data).await?,
            ClientNotification::UpdateTransport(update) => {
                let transport = self.transport_of(update.id)?;
                match transport.webrtc() {
                    Some(webrtc) => {
                        let said = update.dtls_parameters.as_ref().unwrap_or(&Value::Null);
                        webrtc.set_remote_dtls_parameters(dtls::parse(said)?).await?;
                    }
                    None => {
                        let plain = update.plain_rtp_parameters.as_ref();
                        let remote = plain.map(|plain| self.remote_of(plain)).transpose()?.flatten();
                        let remote = remote.ok_or_else(|| {
                            ProtocolError::type_error("plainRtpParameters must have the ip and port to send to")
                        })?;
                        transport.set_remote(remote).await?;
                    }
                }
            }
            ClientNotification::CloseTransport(of) => {
                self.transport_of(of.id)?.close_by(Side::Remote, of.app_data).await?;
            }
            ClientNotification::PauseProducer(of) => {
                self.producer_of(of.id)?.pause_by(Side::Remote, of.app_data).await?;
            }
            ClientNotification::ResumeProducer(of) => {
                self.producer_of(of.id)?.resume_by(Side::Remote, of.app_data).await?;
            }
            // Closed already, perhaps, while the client said so.
            ClientNotification::CloseProducer(of) => {
                if let Ok(producer) = self.producer_of(of.id) {
                    producer.close_by(Side::Remote, of.app_data).await?;
                }
            }
            ClientNotification::PauseConsumer(of) => {
                self.consumer_of(of.id)?.pause_by(Side::Remote, of.app_data).await?;
            }
            ClientNotification::ResumeConsumer(of) => {
                self.consumer_of(of.id)?.resume_by(Side::Remote, of.app_data).await?;
            }
            ClientNotification::SetConsumerPreferredProfile(preference) => {
                let consumer = self.consumer_of(preference.id)?;
                consumer
                    .set_preferred_profile_by(Side::Remote, preference.profile)
                    .await?;
            }
            ClientNotification::EnableTransportStats(of) => {
                self.transport_of(of.id)?
                    .enable_stats_by(Side::Remote, interval_of(&of))?;
            }
            ClientNotification::EnableProducerStats(of) => {
                self.producer_of(of.id)?
                    .enable_stats_by(Side::Remote, interval_of(&of))?;
            }
            ClientNotification::EnableConsumerStats(of) => {
                self.consumer_of(of.id)?
                    .enable_stats_by(Side::Remote, interval_of(&of))?;
            }
            ClientNotification::DisableTransportStats(of) => {
                self.transport_of(of.id)?.disable_stats_by(Side::Remote)?;
            }
            ClientNotification::DisableProducerStats(of) => {
                self.producer_of(of.id)?.disable_stats_by(Side::Remote)?;
            }
            ClientNotification::DisableConsumerStats(of) => {
                self.consumer_of(of.id)?.disable_stats_by(Side::Remote)?;
            }
        }
        Ok(())
    }

    fn check_open(&self) -> Result<(), ProtocolError> {
        match self.closed() {
            true => Err(ProtocolError::invalid_state("Peer closed")),
            false => Ok(()),
        }
    }

    async fn create_transport(&self, request: CreateTransport) -> Result<Value, ProtocolError> {
        let number = self
            .client_ids()
            .transports
            .reserve(request.id, |id| self.transport(id).is_some())
            .ok_or_else(|| ProtocolError::error("a Transport with same transportId already exists"))?;
        // Gives the number back when the request fails, and also when nobody awaits its end.
        let reserved = Reserved {
            peer: self,
            number,
            release: |ids, number| ids.transports.release(number),
        };
        let (transport, answer) = match &request.plain_rtp_parameters {
            Some(plain) => self.create_plain(&request, plain).await?,
            None => self.create_webrtc(&request).await?,
        };
        self.client_ids().transports.made(reserved.number, transport.id());
        Ok(answer)
    }

    async fn create_plain(
        &self,
        request: &CreateTransport,
        plain: &PlainRtpParameters,
    ) -> Result<(Transport, Value), ProtocolError> {
        let remote = self.remote_of(plain)?;
        let options = PlainTransportOptions {
            remote,
            // As v2, which takes packets from anywhere; but it is the first sender's for good.
            comedia: remote.is_none(),
            comedia_from: match remote {
                Some(_) => None,
                None => self.plain_remotes().learned_from()?,
            },
            family: family_of(&request.options, remote.is_none()),
            app_data: request.app_data.clone(),
            ..PlainTransportOptions::default()
        };
        let transport = self.create_plain_transport(options, request.direction).await?;
        let tuple = transport.tuple();
        let answer = json!({ "plainRtpParameters": { "ip": tuple.local_ip, "port": tuple.local_port } });
        Ok((transport, answer))
    }

    async fn create_webrtc(&self, request: &CreateTransport) -> Result<(Transport, Value), ProtocolError> {
        let said = request.dtls_parameters.as_ref();
        let dtls_parameters = said.map(dtls::parse).transpose()?;
        let asked = &request.options;
        let options = WebRtcTransportOptions {
            udp: asked.udp.unwrap_or(true),
            tcp: asked.tcp.unwrap_or(true),
            prefer_ipv4: asked.prefer_ipv4,
            prefer_ipv6: asked.prefer_ipv6,
            prefer_udp: asked.prefer_udp,
            prefer_tcp: asked.prefer_tcp,
            app_data: request.app_data.clone(),
        };
        let transport = self.create_webrtc_transport(options, request.direction).await?;
        if let Some(parameters) = dtls_parameters
            && let Err(error) = transport.set_remote_dtls_parameters(parameters).await
        {
            // What the client asked for as one thing is had as one thing. That it cannot be closed either, its worker's
            // end will mend.
            let _ = transport.close_by(Side::Remote, Value::Null).await;
            return Err(error.into());
        }
        let answer = json!({
            "iceParameters": transport.ice_parameters(),
            "iceCandidates": transport.ice_candidates(),
            "dtlsParameters": transport.dtls_local_parameters(),
        });
        Ok((transport.into(), answer))
    }

    async fn create_producer(&self, request: CreateProducer) -> Result<Value, ProtocolError> {
        let kind = request.kind.as_str().unwrap_or("undefined");
        // In any case, as in MIME types (RFC 6838 §4.2).
        let kind = kind.to_ascii_lowercase().parse::<MediaKind>().map_err(|_| {
            let shown: String = kind.chars().take(32).collect();
            ProtocolError::type_error(format!("unsupported kind: {shown}"))
        })?;
        if self.spy() {
            return Err(ProtocolError::error("spy peers cannot create producers"));
        }
        if !self.may_publish() {
            return Err(ProtocolError::error("this peer may not create producers"));
        }
        let wrong = |what: String| ProtocolError::error(format!("wrong RTP parameters: Error: {what}"));
        let rtp_parameters: RtpParameters = serde_path_to_error::deserialize(known_parameters(request.rtp_parameters))
            .map_err(|error| wrong(format!("{}: {}", error.path(), error.inner())))?;
        let consumable = Consumable::derive(kind, &rtp_parameters, self.room().rtp_capabilities()).map_err(wrong)?;
        let transport = self.transport_named(&request.transport_id)?;
        let number = self
            .client_ids()
            .producers
            .reserve(request.id, |id| self.producer(id).is_some())
            .ok_or_else(|| ProtocolError::error("a Producer with same producerId already exists"))?;
        let reserved = Reserved {
            peer: self,
            number,
            release: |ids, number| ids.producers.release(number),
        };
        let options = ProducerOptions {
            // The client's own pause: what is made on a peer's transport is made by its client.
            paused: request.paused,
            app_data: request.app_data,
            ..ProducerOptions::new(kind, rtp_parameters)
        };
        let others = self.room().peer_count().saturating_sub(1);
        lock(&self.client_state().fan_out)
            .take(others, Instant::now())
            .map_err(|wait| {
                ProtocolError::error(format!(
                    "too many Producers in too short a time: each makes {others} Consumers here; wait for {} ms",
                    wait.as_millis()
                ))
            })?;
        let producer = transport.make_producer(options, Some(consumable)).await?;
        self.client_ids().producers.made(reserved.number, producer.id());
        Ok(Value::Null)
    }

    async fn enable_consumer(&self, request: EnableConsumer) -> Result<Value, ProtocolError> {
        let consumer = self.consumer_of(request.id)?;
        let transport = self.transport_named(&request.transport_id)?;
        let options = EnableOptions {
            paused: request.paused,
            preferred_profile: request.preferred_profile,
        };
        consumer
            .enable(&transport, options)
            .await
            .map_err(|error| match error {
                Error::AlreadyEnabled { .. } => ProtocolError::invalid_state("Consumer already enabled"),
                other => other.into(),
            })?;
        Ok(json!({
            // What the client asked for itself it knows.
            "paused": consumer.source_paused() || consumer.locally_paused(),
            "preferredProfile": consumer.preferred_profile(),
            "effectiveProfile": consumer.effective_profile(),
        }))
    }

    /// Where plain RTP goes; `None` if the client does not say.
    fn remote_of(&self, plain: &PlainRtpParameters) -> Result<Option<Remote>, ProtocolError> {
        match (&plain.ip, plain.port) {
            (None, None) => Ok(None),
            (Some(ip), Some(port)) => {
                let ip: Zoned = ip
                    .parse()
                    .map_err(|_| ProtocolError::type_error("plainRtpParameters.ip must be an IP address"))?;
                self.plain_remotes().check(ip.ip)?;
                let rtp = ip.at(port);
                Ok(Some(Remote { rtp, rtcp: None }))
            }
            _ => Err(ProtocolError::type_error(
                "plainRtpParameters must have both ip and port, or neither",
            )),
        }
    }

    pub(super) fn client_ids(&self) -> MutexGuard<'_, ClientIds> {
        lock(&self.client_state().ids)
    }

    fn transport_numbered(&self, number: ClientId) -> Option<Transport> {
        let id = self.client_ids().transports.thing(number)?;
        self.transport(id)
    }

    fn transport_of(&self, number: ClientId) -> Result<Transport, ProtocolError> {
        self.transport_numbered(number).ok_or_else(|| not_found("Transport"))
    }

    /// The transport on which something is to be made or enabled.
    fn transport_named(&self, number: &Value) -> Result<Transport, ProtocolError> {
        let transport = number
            .as_i64()
            .and_then(|number| self.transport_numbered(ClientId(number)));
        transport.ok_or_else(|| ProtocolError::type_error("Transport not found"))
    }

    fn producer_of(&self, number: ClientId) -> Result<Producer, ProtocolError> {
        let id = self.client_ids().producers.thing(number);
        id.and_then(|id| self.producer(id)).ok_or_else(|| not_found("Producer"))
    }

    /// Consumers have the server's numbers.
    fn consumer_of(&self, number: ClientId) -> Result<Consumer, ProtocolError> {
        let id = u64::try_from(number.0).ok().map(ConsumerId);
        id.and_then(|id| self.consumer(id)).ok_or_else(|| not_found("Consumer"))
    }
}

/// A number that is taken while what it is for is being made.
struct Reserved<'a> {
    peer: &'a Peer,
    number: ClientId,
    release: fn(&mut ClientIds, ClientId),
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        // Does nothing when it has been made.
        (self.release)(&mut self.peer.client_ids(), self.number);
    }
}

/// Between reports of statistics: the least, unless the client says more.
fn interval_of(of: &OfThing) -> Duration {
    // The least is also what comes of something that is not a number.
    let interval_ms = of.interval.unwrap_or_default();
    let (least, most) = (STATS_INTERVAL_MIN.as_secs_f64(), STATS_INTERVAL_MAX.as_secs_f64());
    Duration::from_secs_f64((interval_ms / 1_000.0).max(least).min(most))
}

fn not_found(noun: &str) -> ProtocolError {
    ProtocolError::error(format!("{noun} not found"))
}

/// A remote's family is the transport's.
fn family_of(options: &TransportOptions, ask: bool) -> Option<IpFamily> {
    match (ask, options.prefer_ipv4, options.prefer_ipv6) {
        (true, true, _) => Some(IpFamily::Ipv4),
        (true, false, true) => Some(IpFamily::Ipv6),
        _ => None,
    }
}
