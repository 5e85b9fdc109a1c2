//! What a client offers.

use weir_channel::message::{DtlsParameters, DtlsRole, FINGERPRINTS_MAX, Fingerprint};

use super::media::OfferedMedia;
use super::{SdpError, has, malformed, shown, unsupported, value, values};

/// The most bytes in an offer. A browser's with all its codecs has 7,000.
pub const OFFER_BYTES_MAX: usize = 64 * 1024;

/// The most media sections. Browsers offer one for each track and one for data.
const SECTIONS_MAX: usize = 16;

/// The most attributes of the session, and of each section. Browsers have 150.
const ATTRIBUTES_MAX: usize = 1_000;

/// A fingerprint as text is shorter than this: 64 bytes in hexadecimal with colons have 191 characters.
const FINGERPRINT_BYTES_MAX: usize = 256;

/// What a client offers, for one transport: all its sections are in one bundle (RFC 9143).
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    /// The client's ICE credentials.
    pub ice: IceClient,
    /// The client itself answers checks and makes none.
    pub ice_lite: bool,
    /// The client may send candidates later (RFC 8838).
    pub trickle: bool,
    /// The fingerprints of the client's certificate that were made with functions that are known here, and its role:
    /// `client` where it is `active`, `server` where it is `passive`, `auto` where it leaves the choice.
    pub dtls: DtlsParameters,
    /// The media sections, in their order.
    pub media: Vec<OfferedMedia>,
}

/// A client's ICE credentials (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct IceClient {
    /// `a=ice-ufrag`.
    pub username_fragment: String,
    /// `a=ice-pwd`.
    pub password: String,
}

impl std::fmt::Debug for IceClient {
    /// Keeps the password to itself.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceClient")
            .field("username_fragment", &self.username_fragment)
            .finish_non_exhaustive()
    }
}

impl IceClient {
    /// Checks both (RFC 8839 §5.4: letters, digits, `+` and `/`; some clients use more of what can be seen).
    pub(super) fn new(username_fragment: &str, password: &str) -> Result<Self, SdpError> {
        let is_right = |text: &str, least: usize| {
            (least..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !is_right(username_fragment, 4) {
            return malformed("a=ice-ufrag needs 4 to 256 visible characters (RFC 8839 §5.4)");
        }
        if !is_right(password, 22) {
            return malformed("a=ice-pwd needs 22 to 256 visible characters (RFC 8839 §5.4)");
        }
        Ok(Self {
            username_fragment: username_fragment.to_owned(),
            password: password.to_owned(),
        })
    }
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// [`SdpError::Malformed`] when it is not SDP, lacks what every client of WebRTC says, or says more than
    /// [`OFFER_BYTES_MAX`] bytes; [`SdpError::Unsupported`] when its sections need more than one transport.
    pub fn parse(bytes: &[u8]) -> Result<Self, SdpError> {
        if bytes.len() > OFFER_BYTES_MAX {
            return malformed(format!("an offer can have at most {OFFER_BYTES_MAX} bytes"));
        }
        let session = sdp_types::Session::parse(bytes)
            .map_err(|error| SdpError::Malformed(format!("the body is not SDP (RFC 8866): {error}")))?;
        let count = session.medias.len();
        if count == 0 || count > SECTIONS_MAX {
            return malformed(format!(
                "an offer needs 1 to {SECTIONS_MAX} media sections (m=), not {count}"
            ));
        }
        let lists = session.medias.iter().map(|media| &media.attributes);
        if lists
            .chain([&session.attributes])
            .any(|list| list.len() > ATTRIBUTES_MAX)
        {
            return malformed(format!("a section can have at most {ATTRIBUTES_MAX} attributes"));
        }
        let media: Vec<OfferedMedia> = session
            .medias
            .iter()
            .map(|media| OfferedMedia::read(media, &session.attributes))
            .collect::<Result<_, _>>()?;
        check_mids(&media)?;
        check_bundle(&session, &media)?;
        let transport = Transport::of(&session)?;
        let ice_options = values(&session.attributes, "ice-options").chain(
            session
                .medias
                .iter()
                .flat_map(|media| values(&media.attributes, "ice-options")),
        );
        Ok(Self {
            ice: IceClient::new(transport.username_fragment, transport.password)?,
            ice_lite: has(&session.attributes, "ice-lite"),
            trickle: ice_options
                .flat_map(|options| options.split([' ', ',']))
                .any(|option| option == "trickle"),
            dtls: transport.dtls()?,
            media,
        })
    }
}

/// Sections are told apart by their ids (RFC 5888 §4).
fn check_mids(media: &[OfferedMedia]) -> Result<(), SdpError> {
    for (index, section) in media.iter().enumerate() {
        let Some(mid) = &section.mid else { continue };
        if media[..index].iter().any(|other| other.mid.as_ref() == Some(mid)) {
            return malformed(format!("two media sections have a=mid:{}", shown(mid)));
        }
    }
    Ok(())
}

/// All sections that are not refused already are in one bundle, or there is only one.
fn check_bundle(session: &sdp_types::Session, media: &[OfferedMedia]) -> Result<(), SdpError> {
    if media.len() == 1 {
        return Ok(());
    }
    let groups = values(&session.attributes, "group");
    let bundled: Vec<&str> = groups
        .filter_map(|group| group.strip_prefix("BUNDLE"))
        .flat_map(str::split_ascii_whitespace)
        .collect();
    let outside = media.iter().find(|section| {
        let mid = section.mid.as_deref();
        !section.is_off && !mid.is_some_and(|mid| bundled.contains(&mid))
    });
    match outside {
        None => Ok(()),
        Some(section) => unsupported(format!(
            "all media must share one transport: put every section into a=group:BUNDLE (the one with a=mid:{} is not in it)",
            shown(section.mid.as_deref().unwrap_or("?"))
        )),
    }
}

/// What the sections of a bundle have in common: what the first section that says it says, else what the session says.
struct Transport<'a> {
    username_fragment: &'a str,
    password: &'a str,
    setup: Option<&'a str>,
    fingerprints: Vec<&'a str>,
}

impl<'a> Transport<'a> {
    fn of(session: &'a sdp_types::Session) -> Result<Self, SdpError> {
        let sections = session.medias.iter().map(|media| &media.attributes);
        let find = |name: &'static str| {
            let mut lists = sections.clone().chain([&session.attributes]);
            lists.find_map(|list| value(list, name).filter(|value| !value.is_empty()))
        };
        let needed = |name: &'static str| {
            find(name).ok_or_else(|| {
                SdpError::Malformed(format!(
                    "the offer has no a={name}; it must be one of WebRTC, with ICE and DTLS"
                ))
            })
        };
        let (username_fragment, password) = (needed("ice-ufrag")?, needed("ice-pwd")?);
        needed("fingerprint")?;
        let mut lists = sections.clone().chain([&session.attributes]);
        let fingerprints = lists.find(|list| has(list, "fingerprint"));
        Ok(Self {
            username_fragment,
            password,
            setup: find("setup"),
            fingerprints: fingerprints
                .into_iter()
                .flat_map(|list| values(list, "fingerprint"))
                .collect(),
        })
    }

    fn dtls(&self) -> Result<DtlsParameters, SdpError> {
        // RFC 8842 §5.1: an offerer says actpass; some say what they are.
        let role = match self.setup {
            None | Some("actpass") => DtlsRole::Auto,
            Some("active") => DtlsRole::Client,
            Some("passive") => DtlsRole::Server,
            Some(other) => return malformed(format!("a=setup:{} is not actpass, active or passive", shown(other))),
        };
        let mut fingerprints: Vec<Fingerprint> = Vec::new();
        for text in &self.fingerprints {
            let Some((algorithm, value)) = text.split_once(' ').filter(|_| text.len() <= FINGERPRINT_BYTES_MAX) else {
                return malformed(format!(
                    "a=fingerprint needs the name of a hash function and a value, not {:?}",
                    shown(text)
                ));
            };
            // Others are for those who know them (RFC 8122 §5).
            let Ok(algorithm) = algorithm.to_ascii_lowercase().parse() else {
                continue;
            };
            let fingerprint = Fingerprint {
                algorithm,
                value: value.trim().to_owned(),
            };
            if !fingerprints.contains(&fingerprint) {
                fingerprints.push(fingerprint);
            }
        }
        if fingerprints.is_empty() || fingerprints.len() > FINGERPRINTS_MAX {
            return unsupported(format!(
                "1 to {FINGERPRINTS_MAX} fingerprints made with sha-256, sha-384 or sha-512 are needed, not {}",
                fingerprints.len()
            ));
        }
        Ok(DtlsParameters { role, fingerprints })
    }
}
