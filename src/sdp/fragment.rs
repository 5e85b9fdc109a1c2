//! Fragments of SDP (`application/trickle-ice-sdpfrag`, RFC 8840): candidates that come later, and new ICE credentials.

use super::offer::IceClient;
use super::{SdpError, malformed, shown};
use crate::{IceCandidate, IceParameters};

/// The most bytes in a fragment. Twenty candidates have 2,000.
pub const FRAGMENT_BYTES_MAX: usize = 16 * 1024;

/// What a client says in a fragment. Its candidates are passed over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    /// The credentials that it is about; the password may be left out by who only trickles.
    pub username_fragment: Option<String>,
    /// The password of the credentials.
    password: Option<String>,
    /// The number of candidates in it.
    pub candidates: usize,
    /// No more candidates will come.
    pub is_last: bool,
}

impl Fragment {
    /// Reads a fragment.
    ///
    /// # Errors
    /// [`SdpError::Malformed`] when it is none, contradicts itself, or has more than [`FRAGMENT_BYTES_MAX`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, SdpError> {
        if bytes.len() > FRAGMENT_BYTES_MAX {
            return malformed(format!("a fragment can have at most {FRAGMENT_BYTES_MAX} bytes"));
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return malformed("the fragment is not text in UTF-8");
        };
        let mut fragment = Self::default();
        for line in text.split('\n').map(|line| line.trim_end_matches('\r')) {
            if line.is_empty() {
                continue;
            }
            let is_line = line.as_bytes()[0].is_ascii_lowercase() && line.as_bytes().get(1) == Some(&b'=');
            if !is_line {
                return malformed(format!(
                    "{:?} is not a line of a fragment of SDP (RFC 8840 §9); they are like `a=ice-ufrag:…`",
                    shown(line)
                ));
            }
            let Some(attribute) = line.strip_prefix("a=") else {
                continue;
            };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            match name {
                "ice-ufrag" => set(&mut fragment.username_fragment, name, value)?,
                "ice-pwd" => set(&mut fragment.password, name, value)?,
                "candidate" => fragment.candidates += 1,
                "end-of-candidates" => fragment.is_last = true,
                _ => {}
            }
        }
        if fragment.username_fragment.is_none() && fragment.candidates == 0 && !fragment.is_last {
            return malformed("the fragment has neither a=ice-ufrag nor a candidate");
        }
        Ok(fragment)
    }

    /// The credentials in it, for who restarts ICE.
    ///
    /// # Errors
    /// [`SdpError::Malformed`] when one of the two is not there or not right.
    pub fn ice(&self) -> Result<IceClient, SdpError> {
        match (&self.username_fragment, &self.password) {
            (Some(username_fragment), Some(password)) => IceClient::new(username_fragment, password),
            _ => malformed("new ICE credentials need both a=ice-ufrag and a=ice-pwd"),
        }
    }

    /// What a client is told when ICE has restarted: the server's new credentials and, because some clients can read no more than one,
    /// the first of its candidates.
    pub fn restarted(ice: &IceParameters, candidates: &[IceCandidate], mid: Option<&str>) -> String {
        use std::fmt::Write;

        let mut text = String::new();
        if ice.ice_lite {
            text += "a=ice-lite\r\n";
        }
        // A String takes everything.
        let _ = write!(
            text,
            "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
            ice.username_fragment, ice.password
        );
        if let Some((first, mid)) = super::answer::in_order(candidates).first().zip(mid) {
            let _ = write!(
                text,
                "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\na=candidate:{}\r\na=end-of-candidates\r\n",
                super::answer::candidate(1, first)
            );
        }
        text
    }
}

/// Sections may repeat what the session says.
fn set(own: &mut Option<String>, name: &str, value: &str) -> Result<(), SdpError> {
    let value = value.trim();
    if own.as_ref().is_some_and(|own| own != value) {
        return malformed(format!(
            "the fragment has two values for a={name}; all media share one transport"
        ));
    }
    *own = Some(value.to_owned());
    Ok(())
}
