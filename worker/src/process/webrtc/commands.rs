//! What the supervisor asks of WebRTC transports.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use weir_channel::id::{RoomId, TransportId};
use weir_channel::message::{
    CONNECTED_MAX, CreateWebRtcTransport, DtlsCertificate, DtlsParameters, DtlsRole, Fingerprint, IceCredentials,
    IceTuple, Method, Reply, WorkerError,
};

use crate::net::clock;
use crate::net::poll::{Interest, Source};
use crate::net::shell::{PollBackend, Shell};
use crate::net::sockets::{IceSockets, os};
use crate::page::layout::Table;
use crate::process::event_loop::EventLoop;
use crate::process::rehearsal::Laid;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::dtls::{self, Certificate, Clock, Context, RemoteParameters, Role};
use crate::webrtc::entropy::SystemEntropy;
use crate::webrtc::ice::Credentials;
use crate::webrtc::succession::{Kept, Legacy};
use crate::webrtc::transport::WebRtcTransport;

use super::echo::EchoRequests;
use super::shared_ports::Registration;
use super::{Counts, ICE_NOTIFICATIONS, IoContext, Refusals, TransportEntry, WebRtc, not_webrtc};

impl<S: Shell> EventLoop<S> {
    pub(in crate::process) fn create_webrtc_transport(
        &mut self,
        now: Time,
        method: &Method,
        request: &CreateWebRtcTransport,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, WorkerError> {
        let laid = self.rehearsal.claim(request.transport);
        let is_rehearsed = laid.is_some();
        let made = self.make_webrtc_transport(now, Some(method), request, descriptors, laid);
        made.inspect_err(|_| {
            if is_rehearsed {
                self.give_up_rehearsed(now, request.transport);
            }
        })
    }

    /// `method`: what it is made with in the relay, unless that has it from a rehearsal.
    pub(in crate::process) fn make_webrtc_transport(
        &mut self,
        now: Time,
        method: Option<&Method>,
        request: &CreateWebRtcTransport,
        mut descriptors: Vec<OwnedFd>,
        laid: Option<Laid>,
    ) -> Result<Reply, WorkerError> {
        let connected = split_connected(request, &mut descriptors)?;
        let is_adopted = self.adoptions.contains(request.room);
        let is_rehearsed = laid.is_some();
        let sockets = match laid {
            _ if request.listeners.is_empty() => self.sockets_on_shared_ports(&descriptors)?,
            Some(Laid::WebRtc(mut laid)) if descriptors.is_empty() => {
                laid.sockets.look_again();
                laid.sockets
            }
            _ if is_adopted => IceSockets::take_over(descriptors, &request.listeners)?,
            _ => IceSockets::adopt(descriptors, &request.listeners)?,
        };
        let credentials = credentials(&request.ice)?;
        let uses_shared_ports = request.listeners.is_empty();
        if uses_shared_ports {
            self.webrtc
                .shared_ports
                .check_ufrag(None, credentials.username_fragment())?;
        }
        let context = self.webrtc.context()?;
        let legacy = self.webrtc_legacy(now, request, &credentials, &context)?;
        let fingerprints = fingerprints(context.certificate());
        let (transport, failures, kept, rest) = match legacy {
            Some(legacy) => {
                let (transport, failures, kept, rest) = legacy.keep(self.relay.page_mut(), request.transport);
                (transport, failures, kept, Some(rest))
            }
            None => {
                let transport = WebRtcTransport::new(credentials, context);
                let kept = Kept::begin(self.relay.page_mut(), request.transport);
                kept.keep(self.relay.page(), &transport, &Counts::default());
                (transport, Counts::default(), kept, None)
            }
        };
        let mut entry = TransportEntry::new(request.transport, transport, kept);
        entry.failures = failures;
        // It is in the page before the relay's own part is: whatever is there of that without it was too much for the page.
        let made = match method {
            Some(method) if !is_rehearsed => {
                let made = self.relay.handle_command(now, method);
                made.map(|_| self.relay.socket_counts_left(now, request.room, request.transport))
            }
            _ => {
                let left = self.relay.take_up_transport(now, request.room, request.transport);
                left.map(|left| left.map(|left| left.counts))
            }
        };
        let counted = made.inspect_err(|_| entry.kept.forget(self.relay.page_mut()))?;
        let index = self.index_of(request.transport)?;
        let registered = self.register_listeners(request.room, index, sockets);
        self.go_on_counting(index, counted);
        if let Err(error) = registered {
            let close = Method::CloseTransport {
                transport: request.transport,
            };
            // It exists, so it can be closed; that closes its sockets too.
            let _ = self.relay.handle_command(now, &close);
            entry.kept.forget(self.relay.page_mut());
            return Err(error);
        }
        self.webrtc.insert(index, entry, uses_shared_ports);
        self.take_over_connected(now, request, index, connected);
        if let Some(rest) = rest {
            let (webrtc, mut io) = self.webrtc_and_io();
            webrtc.go_on(now, &mut io, index, rest);
        }
        Ok(Reply::WebRtcTransportCreated { fingerprints })
    }

    /// What the last worker has left of a transport; `None`: it never had it.
    fn webrtc_legacy(
        &self,
        now: Time,
        request: &CreateWebRtcTransport,
        credentials: &Credentials,
        context: &Arc<Context>,
    ) -> Result<Option<Legacy>, WorkerError> {
        let Some(pages) = self.relay.predecessors(request.room) else {
            return Ok(None);
        };
        let id = request.transport;
        let refused = |reason: &str| WorkerError::InvalidParameters(format!("{id}: {reason}"));
        if !self.adoptions.is_everything_read(request.room) {
            return Err(refused(
                "what its last worker has left cannot be read, and so its keys are gone",
            ));
        }
        for page in pages {
            let legacy = Legacy::read(now, page, id, credentials, context);
            if let Some(legacy) = legacy.map_err(|damaged| refused(&damaged.to_string()))? {
                return Ok(Some(legacy));
            }
            if page.find(Table::Transports, id.0, 0).is_some() {
                return Err(refused("its last worker had no room to leave its keys in"));
            }
        }
        Ok(None)
    }

    /// Puts a new transport's sockets into the table, and watches them.
    fn register_listeners(
        &mut self,
        room: RoomId,
        transport: TransportIx,
        sockets: IceSockets,
    ) -> Result<(), WorkerError> {
        self.egress.sockets.attach_ice(transport, sockets);
        if self.adoptions.hold(room, transport) {
            return Ok(());
        }
        let mut result = Ok(());
        self.egress.sockets.each_listener(transport, |listener, side, socket| {
            let source = Source::Listener {
                transport,
                listener,
                side,
            };
            let added = self.poller.add(socket, source, Interest::Read);
            result = result.clone().and(added.map_err(|errno| os("epoll_ctl", errno)));
        });
        result
    }
}

impl WebRtc {
    /// Shows another certificate on the transports that come.
    pub(in crate::process) fn use_certificate(&mut self, certificate: &DtlsCertificate) -> Result<Reply, WorkerError> {
        let read = Certificate::from_pem(&certificate.certificate_pem, &certificate.private_key_pem);
        let certificate = read.map_err(|error| WorkerError::InvalidParameters(error.to_string()))?;
        self.context = Some(context(certificate, self.settings));
        Ok(Reply::Done)
    }

    pub(in crate::process) fn restart_ice(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        (index, id): (TransportIx, TransportId),
        ice: &IceCredentials,
    ) -> Result<Reply, WorkerError> {
        let credentials = credentials(ice)?;
        let uses_shared_ports = self.entry(index).is_some_and(|entry| entry.registration.is_some());
        if uses_shared_ports {
            self.shared_ports
                .check_ufrag(Some(index), credentials.username_fragment())?;
        }
        let ufrag = credentials.username_fragment().to_owned();
        self.with(now, io, index, |entry, _, _| {
            entry.transport.restart_ice(credentials);
        })
        .ok_or_else(|| not_webrtc(id))?;
        if let Some(Some(entry)) = self.transports.get_mut(index.0 as usize)
            && let Some(registration) = &mut entry.registration
        {
            self.shared_ports.register(index, registration, &ufrag);
        }
        Ok(Reply::Done)
    }

    pub(in crate::process) fn set_remote_ice(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        (index, id): (TransportIx, TransportId),
        ice: &IceCredentials,
    ) -> Result<Reply, WorkerError> {
        let credentials = credentials(ice)?;
        self.with(now, io, index, |entry, output, _| {
            entry.transport.set_remote_ice(now, credentials, output);
        })
        .map(|()| Reply::Done)
        .ok_or_else(|| not_webrtc(id))
    }

    pub(in crate::process) fn set_dtls_parameters(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        (index, id): (TransportIx, TransportId),
        parameters: &DtlsParameters,
    ) -> Result<Reply, WorkerError> {
        let parameters = remote_parameters(parameters)?;
        let role = self
            .with(now, io, index, |entry, output, _| {
                entry.transport.set_remote_dtls(now, &parameters, output)
            })
            .ok_or_else(|| not_webrtc(id))?;
        match role {
            Ok(Role::Client) => Ok(Reply::DtlsRole(DtlsRole::Client)),
            Ok(Role::Server) => Ok(Reply::DtlsRole(DtlsRole::Server)),
            Err(dtls::RefusedParameters::AlreadySet) => Err(WorkerError::DtlsParametersSet(id)),
            Err(refused) => Err(WorkerError::InvalidParameters(refused.to_string())),
        }
    }

    /// What the transports that come share.
    pub(in crate::process) fn context(&mut self) -> Result<Arc<Context>, WorkerError> {
        if let Some(context) = &self.context {
            return Ok(Arc::clone(context));
        }
        let now = Duration::from_nanos(clock::realtime_ns());
        let certificate = Certificate::generate(&mut SystemEntropy::new(), now).map_err(|error| WorkerError::Os {
            call: "making a certificate".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Arc::clone(self.context.insert(context(certificate, self.settings))))
    }

    fn insert(&mut self, index: TransportIx, mut entry: TransportEntry, uses_shared_ports: bool) {
        let place = index.0 as usize;
        if self.transports.len() <= place {
            self.transports.resize_with(place + 1, || None);
        }
        self.unkept
            .reserve(self.transports.len().saturating_sub(self.unkept.len()));
        entry.registration = uses_shared_ports.then(|| {
            let mut registration = Registration::default();
            let transport = &entry.transport;
            // The later one last.
            for credentials in transport
                .previous_credentials()
                .into_iter()
                .chain([transport.credentials()])
            {
                self.shared_ports
                    .register(index, &mut registration, credentials.username_fragment());
            }
            registration
        });
        self.transports[place] = Some(Box::new(entry));
    }
}

impl TransportEntry {
    fn new(id: TransportId, transport: WebRtcTransport, kept: Kept) -> Self {
        Self {
            id,
            transport,
            kept,
            is_unkept: false,
            inbound: None,
            srtp_profile: None,
            route: None,
            peer: None,
            accept_paused_until: None,
            ice_budget: ICE_NOTIFICATIONS,
            has_unreported_ice: false,
            echo_requests: EchoRequests::default(),
            failures: Counts::default(),
            refusals: Refusals::default(),
            registration: None,
        }
    }
}

/// Takes the sockets that another worker has left connected out of what has come with a request.
fn split_connected(
    request: &CreateWebRtcTransport,
    descriptors: &mut Vec<OwnedFd>,
) -> Result<Vec<(IceTuple, OwnedFd)>, WorkerError> {
    let count = request.connected.len();
    if count > CONNECTED_MAX {
        return Err(WorkerError::invalid(format!(
            "{count} sockets are connected already; a WebRTC transport has at most {CONNECTED_MAX}"
        )));
    }
    match descriptors.len().checked_sub(count) {
        Some(others) => Ok(request
            .connected
            .iter()
            .copied()
            .zip(descriptors.split_off(others))
            .collect()),
        None => Err(WorkerError::descriptors(count, descriptors.len())),
    }
}

fn context(certificate: Certificate, settings: dtls::Settings) -> Arc<Context> {
    let (instant, time) = clock::instant();
    Arc::new(Context::new(certificate, Clock::new(instant, time), settings))
}

fn credentials(ice: &IceCredentials) -> Result<Credentials, WorkerError> {
    Credentials::restore(&ice.username_fragment, &ice.password)
        .map_err(|error| WorkerError::InvalidParameters(error.to_string()))
}

fn remote_parameters(parameters: &DtlsParameters) -> Result<RemoteParameters, WorkerError> {
    let parse = |fingerprint: &Fingerprint| {
        dtls::Fingerprint::parse(fingerprint.algorithm, &fingerprint.value)
            .map_err(|error| WorkerError::InvalidParameters(error.to_string()))
    };
    Ok(RemoteParameters {
        role: parameters.role,
        fingerprints: parameters.fingerprints.iter().map(parse).collect::<Result<_, _>>()?,
    })
}

fn fingerprints(certificate: &Certificate) -> Vec<Fingerprint> {
    certificate
        .fingerprints()
        .iter()
        .map(|fingerprint| Fingerprint {
            algorithm: fingerprint.algorithm(),
            value: fingerprint.to_string(),
        })
        .collect()
}
