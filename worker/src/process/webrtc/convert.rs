//! The channel's words for what sans-IO transports say.

use weir_channel::message::{DtlsState, IceProtocol, IceState, IceTuple};

use crate::webrtc::dtls;
use crate::webrtc::ice::{self, Protocol, Tuple};

pub(super) fn ice_tuple(tuple: &Tuple) -> IceTuple {
    IceTuple {
        protocol: match tuple.protocol {
            Protocol::Udp => IceProtocol::Udp,
            Protocol::Tcp => IceProtocol::Tcp,
        },
        local: tuple.local,
        remote: tuple.remote,
    }
}

pub(super) fn ice_state(state: ice::State) -> IceState {
    match state {
        ice::State::New => IceState::New,
        ice::State::Connected => IceState::Connected,
        ice::State::Completed => IceState::Completed,
        ice::State::Disconnected => IceState::Disconnected,
        ice::State::Closed => IceState::Closed,
    }
}

pub(super) fn dtls_state(state: dtls::State) -> DtlsState {
    match state {
        dtls::State::New => DtlsState::New,
        dtls::State::Connecting => DtlsState::Connecting,
        dtls::State::Connected => DtlsState::Connected,
        dtls::State::Failed => DtlsState::Failed,
        dtls::State::Closed => DtlsState::Closed,
    }
}
