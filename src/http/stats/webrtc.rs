//! What a worker knows of a WebRTC transport's client, and what strangers cost it, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_channel::message::{self, DtlsState, IceState, IceTuple};

use super::by_reason;
use crate::RtcTuple;

/// ICE, DTLS and SRTP of a transport. Packets that strangers sent are in the transport's `unrouted`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebRtcStats {
    /// How far ICE got.
    pub ice_state: IceState,
    /// Where packets go; `null`: nowhere.
    pub ice_selected_tuple: Option<RtcTuple>,
    /// How far DTLS got.
    pub dtls_state: DtlsState,
    /// How media is protected, as the IANA names it without its `SRTP_`; `null` until it is agreed on.
    pub srtp_profile: Option<String>,
    /// Connectivity checks that counted.
    pub checks: u64,
    /// STUN requests that were refused.
    pub checks_refused: u64,
    /// DTLS datagrams that were looked at.
    pub dtls_datagrams: u64,
    /// Packets that were to be sent and could not be encrypted.
    pub protect_failures: u64,
    /// What failed in ICE and DTLS, by reason; reasons that never happened are left out.
    #[serde(default)]
    pub failures: BTreeMap<String, u64>,
}

impl WebRtcStats {
    /// `shown` gives the selected tuple its announced address.
    pub(super) fn of(stats: message::WebRtcStats, shown: impl FnOnce(IceTuple) -> RtcTuple) -> Self {
        // Each by its name, so that a new one is not forgotten.
        let message::WebRtcStats {
            ice_state,
            selected_tuple,
            dtls_state,
            srtp_profile,
            checks,
            checks_refused,
            dtls_datagrams,
            protect_failures,
            failures,
        } = stats;
        Self {
            ice_state,
            ice_selected_tuple: selected_tuple.map(shown),
            dtls_state,
            srtp_profile,
            checks,
            checks_refused,
            dtls_datagrams,
            protect_failures,
            failures: by_reason(&failures),
        }
    }
}
