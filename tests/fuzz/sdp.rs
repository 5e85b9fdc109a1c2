//! The bodies of the fuzz targets for SDP: offers, each of which is answered with all that it offers, and fragments. The library takes
//! this file in when it is tested or fuzzed.

use crate::sdp::{Answer, AnsweredMedia, AnsweredStream, FRAGMENT_BYTES_MAX, Fragment, OFFER_BYTES_MAX, Offer};
use crate::{DtlsParameters, DtlsRole, Fingerprint, FingerprintAlgorithm, IceParameters};

/// Reads an offer and, if it is one, answers it. The answer must be SDP with the offer's sections.
pub fn offer(data: &[u8]) {
    let Ok(offer) = Offer::parse(data) else {
        return;
    };
    assert!(data.len() <= OFFER_BYTES_MAX && !offer.media.is_empty());
    let take = |section: &crate::sdp::OfferedMedia| {
        let rtp = section.rtp.as_ref().filter(|rtp| !rtp.codecs.is_empty())?;
        Some(AnsweredMedia {
            direction: rtp.direction,
            codecs: rtp.codecs.clone(),
            header_extensions: rtp.header_extensions.clone(),
            layers: rtp.layers.clone(),
            stream: Some(AnsweredStream {
                ssrc: 1,
                rtx_ssrc: Some(2),
                cname: rtp.cname.clone().unwrap_or_default(),
                stream_id: "stream".to_owned(),
                track_id: "track".to_owned(),
            }),
        })
    };
    let answer = Answer {
        session: 1,
        ice: IceParameters {
            username_fragment: "ufrag".to_owned(),
            password: "password".to_owned(),
            ice_lite: true,
        },
        candidates: &[],
        dtls: DtlsParameters {
            role: DtlsRole::Server,
            fingerprints: vec![Fingerprint {
                algorithm: FingerprintAlgorithm::Sha256,
                value: "AB".to_owned(),
            }],
        },
        media: offer.media.iter().map(take).collect(),
    };
    let text = answer.write(&offer);
    assert!(text.split_inclusive('\n').all(|line| line.ends_with("\r\n")), "{text}");
    let read = sdp_types::Session::parse(text.as_bytes()).expect("an answer is SDP");
    assert_eq!(read.medias.len(), offer.media.len());
    for (section, offered) in read.medias.iter().zip(&offer.media) {
        let mid = section.get_first_attribute_value("mid").flatten();
        assert_eq!(mid, offered.mid.as_deref());
    }
}

/// Reads a fragment.
pub fn fragment(data: &[u8]) {
    if let Ok(fragment) = Fragment::parse(data) {
        assert!(data.len() <= FRAGMENT_BYTES_MAX);
        let _ = fragment.ice();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        // The library has this file by `#[path]`, which proptest's own place for seeds cannot follow.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes(data: Vec<u8>) {
            super::offer(&data);
            super::fragment(&data);
        }

        #[test]
        fn real_offers_with_damage(
            at in any::<prop::sample::Index>(),
            length in 0..40_usize,
            instead in "[ -~\r\n\u{0}]{0,20}",
            twice: bool,
        ) {
            const OFFERS: [&str; 3] = [
                include_str!("../data/whip/whip-chromium-simulcast.sdp"),
                include_str!("../data/whip/whip-ffmpeg-8.1.2.sdp"),
                include_str!("../data/whip/whip-obs-shape-3-layers-a.sdp"),
            ];
            for whole in OFFERS {
                let mut bytes = whole.as_bytes().to_vec();
                for _ in 0..=usize::from(twice) {
                    let from = at.index(bytes.len());
                    let to = (from + length).min(bytes.len());
                    bytes.splice(from..to, instead.bytes());
                }
                super::offer(&bytes);
                super::fragment(&bytes);
            }
        }
    }
}
