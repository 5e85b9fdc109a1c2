//! What is known of a WebRTC transport.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use weir_channel::message::{
    DtlsParameters, DtlsRole, DtlsState, Fingerprint, IceCredentials, IceState, IceTuple, WebRtcFailure, Zoned,
};
use weir_worker::webrtc::ice::Preferences;

use super::ice::{IceCandidate, candidates};
use crate::server::model::address::{ListenAddress, Tuple};
use crate::server::model::lock;
use crate::server::model::settings::Settings;

/// What a transport has when it is one for WebRTC.
#[derive(Debug)]
pub(crate) struct WebRtcNode {
    pub(crate) candidates: Vec<IceCandidate>,
    first_address: SocketAddr,
    /// Each with its announced address.
    listeners: Vec<(ListenAddress, IpAddr)>,
    pub(crate) state: Mutex<WebRtcState>,
}

#[derive(Debug)]
pub(crate) struct WebRtcState {
    pub(crate) ice: IceCredentials,
    pub(crate) ice_state: IceState,
    pub(crate) selected_tuple: Option<IceTuple>,
    pub(crate) dtls: DtlsParameters,
    /// What the application has said of the client's ICE since it was restarted.
    pub(crate) remote_ice: Option<IceCredentials>,
    /// What the application has said of the client.
    pub(crate) remote_dtls: Option<DtlsParameters>,
    pub(crate) dtls_state: DtlsState,
    pub(crate) remote_certificate_pem: Option<String>,
    pub(crate) failure: Option<WebRtcFailure>,
}

impl WebRtcState {
    /// Keeps what failed last.
    fn fail(&mut self, failure: Option<&WebRtcFailure>) {
        if failure.is_some() {
            self.failure = failure.cloned();
        }
    }
}

impl WebRtcNode {
    pub(crate) fn new(
        settings: &Settings,
        first_address: SocketAddr,
        addresses: &[ListenAddress],
        ice: IceCredentials,
        preferences: Preferences,
    ) -> Self {
        let announced = |listener: ListenAddress| (listener, settings.announced(listener.address.ip()));
        Self {
            candidates: candidates(settings, addresses.iter().copied(), preferences),
            first_address,
            listeners: addresses.iter().copied().map(announced).collect(),
            state: Mutex::new(WebRtcState {
                ice,
                ice_state: IceState::New,
                selected_tuple: None,
                dtls: DtlsParameters {
                    role: DtlsRole::Auto,
                    fingerprints: Vec::new(),
                },
                remote_ice: None,
                remote_dtls: None,
                dtls_state: DtlsState::New,
                remote_certificate_pem: None,
                failure: None,
            }),
        }
    }

    /// The transport as a pair of addresses: what is selected, else the first it listens on.
    pub(super) fn tuple(&self) -> Tuple {
        let selected = lock(&self.state).selected_tuple;
        let local = selected.map_or(self.first_address, |tuple| tuple.local);
        Tuple {
            local_ip: self.announced(local),
            bound_ip: local.ip(),
            local_port: local.port(),
            remote: selected.map(|tuple| tuple.remote),
            zone: Tuple::zone_of(local),
        }
    }

    /// The address it is bound to that can send to another.
    pub(super) fn local_ip_towards(&self, remote: IpAddr) -> Option<Zoned> {
        let mut ips = self.listeners.iter().map(|(listener, _)| Zoned::from(listener.address));
        ips.find(|own| own.ip.is_ipv4() == remote.is_ipv4())
    }

    fn announced(&self, local: SocketAddr) -> IpAddr {
        let known = self
            .listeners
            .iter()
            .find(|(listener, _)| listener.address.ip() == local.ip());
        known.map_or(local.ip(), |(_, announced)| *announced)
    }

    /// A tuple that the worker tells of, as the client knows it: with the announced address.
    pub(crate) fn shown(&self, tuple: IceTuple) -> IceTuple {
        IceTuple {
            local: SocketAddr::new(self.announced(tuple.local), tuple.local.port()),
            ..tuple
        }
    }

    /// The worker has made it. Only [`State`](super::super::state::State) tells, under its lock; the same holds for what
    /// follows.
    pub(crate) fn opened(&self, fingerprints: Vec<Fingerprint>) {
        lock(&self.state).dtls.fingerprints = fingerprints;
    }

    pub(crate) fn restarted(&self, ice: IceCredentials) {
        let mut state = lock(&self.state);
        state.ice = ice;
        state.remote_ice = None;
    }

    pub(crate) fn reached_with(&self, ice: IceCredentials) {
        lock(&self.state).remote_ice = Some(ice);
    }

    pub(crate) fn client_known(&self, client: DtlsParameters, role: DtlsRole) {
        let mut state = lock(&self.state);
        state.remote_dtls = Some(client);
        state.dtls.role = role;
    }

    /// Returns whether that is news, as do the next two.
    pub(crate) fn set_ice_state(&self, ice: IceState, failure: Option<&WebRtcFailure>) -> bool {
        let mut state = lock(&self.state);
        state.fail(failure);
        std::mem::replace(&mut state.ice_state, ice) != ice
    }

    pub(crate) fn select(&self, tuple: Option<IceTuple>) -> bool {
        std::mem::replace(&mut lock(&self.state).selected_tuple, tuple) != tuple
    }

    pub(crate) fn set_dtls_state(
        &self,
        dtls: DtlsState,
        certificate_pem: Option<String>,
        failure: Option<&WebRtcFailure>,
    ) -> bool {
        let mut state = lock(&self.state);
        state.fail(failure);
        if certificate_pem.is_some() {
            state.remote_certificate_pem = certificate_pem;
        }
        std::mem::replace(&mut state.dtls_state, dtls) != dtls
    }

    pub(crate) fn checks_refused(&self, failure: &WebRtcFailure) {
        lock(&self.state).fail(Some(failure));
    }

    pub(super) fn closed(&self) {
        let mut state = lock(&self.state);
        state.ice_state = IceState::Closed;
        state.dtls_state = DtlsState::Closed;
        state.selected_tuple = None;
    }
}
