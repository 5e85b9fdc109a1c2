//! What a worker knows of a WebRTC transport's client, and what strangers cost it, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_channel::message::{self, DtlsState, IceState, IceTuple};

use super::by_reason;
use crate::RtcTuple;

/// The counters of ICE, DTLS and SRTP of a transport. Packets from unknown senders are in the transport's `unrouted`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebRtcStats {
    /// The state of ICE.
    pub ice_state: IceState,
    /// The addresses that are used; `null` if there are none.
    pub ice_selected_tuple: Option<RtcTuple>,
    /// The state of DTLS.
    pub dtls_state: DtlsState,
    /// The SRTP profile, with its IANA name without the prefix `SRTP_`; `null` until it is negotiated.
    pub srtp_profile: Option<String>,
    /// Valid connectivity checks.
    pub checks: u64,
    /// STUN requests that were refused.
    pub checks_refused: u64,
    /// DTLS datagrams that were processed.
    pub dtls_datagrams: u64,
    /// Packets that could not be encrypted, and were not sent.
    pub protect_failures: u64,
    /// Failures in ICE and DTLS, by reason. Reasons with a count of 0 are left out.
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
