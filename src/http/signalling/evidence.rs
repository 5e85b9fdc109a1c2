//! What shows that a client is the one that had a name before (pure): the secrets that it was given then.
//!
//! One is the session's token, which a client can keep and say. The other needs nothing of the application: a cookie, which a
//! browser keeps and sends by itself (RFC 6455 §4.1), also after the page that was told the token is gone.

use axum::http::{HeaderMap, HeaderValue, header};

use super::secret;

/// The cookie's name.
const COOKIE: &str = "weir-client";

/// The cookie's name for pages of `https`. Browsers take one of such a name only from the host itself and over TLS
/// (draft-ietf-httpbis-rfc6265bis §4.1.3.2), so neither a sibling domain nor somebody on the network can plant one whose secret
/// they know.
const SECURE_COOKIE: &str = "__Host-weir-client";

/// Whether a request is one of a page of `https`.
fn is_of_secure_page(headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    origin.is_some_and(|origin| origin.starts_with(b"https://"))
}

/// Characters of a secret, all of them lower-case hexadecimal digits.
const SECRET_LEN: usize = 32;

/// The secret that a browser keeps.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BrowserSecret(String);

impl BrowserSecret {
    /// A new one. Without a source of randomness there is none.
    pub(super) fn new() -> Option<Self> {
        secret().ok().map(Self)
    }

    /// The one that a request brings, if it is one of ours.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let ours = match is_of_secure_page(headers) {
            true => SECURE_COOKIE,
            false => COOKIE,
        };
        let lines = headers.get_all(header::COOKIE).iter();
        let mut pairs = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'));
        pairs.find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            let is_secret =
                value.len() == SECRET_LEN && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (name == ours && is_secret).then(|| Self(value.to_owned()))
        })
    }

    /// The header that gives it to a browser (RFC 6265 §4.1), until that is closed. `headers` are those of its request.
    ///
    /// Without a path in it, it is for the connections of the same room, also behind a proxy that puts something in front of
    /// the path. One that cannot be planted is for the whole host, as its name demands. A page of `https` may be another
    /// site's: its browser keeps the cookie for that site alone.
    pub(super) fn cookie(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let (name, scope) = match is_of_secure_page(headers) {
            true => (SECURE_COOKIE, "Path=/; Secure; SameSite=None; Partitioned"),
            false => (COOKIE, "SameSite=Strict"),
        };
        HeaderValue::try_from(format!("{name}={}; HttpOnly; {scope}", self.0)).ok()
    }
}

/// What a client has to show when it joins.
#[derive(Clone, Default)]
pub(super) struct Evidence {
    pub(super) browser: Option<BrowserSecret>,
    pub(super) token: Option<String>,
}

impl Evidence {
    /// Whether it is the client that `other` is the evidence of: one secret is the same.
    pub(super) fn proves(&self, other: &Self) -> bool {
        (self.browser.is_some() && self.browser == other.browser) || (self.token.is_some() && self.token == other.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cookies: &[&str], origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::COOKIE, cookie.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    const SECRET: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn a_browser_brings_its_secret_among_other_cookies() {
        let ours = format!("{COOKIE}={SECRET}");
        let among = format!("session=abc; {ours}; theme=dark");
        let rows: [(&[&str], bool); 9] = [
            (&[], false),
            (&[&ours], true),
            (&[&among], true),
            (&["a=b", &ours], true),
            (&["weir-client=short"], false),
            (&["weir-client"], false),
            (&[&ours.to_uppercase()], false),
            (&[&format!("{ours}0")], false),
            (&[&format!("x{ours}")], false),
        ];
        for (cookies, found) in rows {
            let secret = BrowserSecret::of(&request(cookies, None));
            assert_eq!(
                secret.map(|secret| secret.0),
                found.then(|| SECRET.to_owned()),
                "{cookies:?}"
            );
        }
    }

    #[test]
    fn what_a_browser_is_given_it_brings_back() {
        let secret = BrowserSecret::new().unwrap();
        for (origin, scope) in [
            (None, "SameSite=Strict"),
            (Some("http://localhost:3000"), "SameSite=Strict"),
            (
                Some("https://app.example"),
                "Path=/; Secure; SameSite=None; Partitioned",
            ),
        ] {
            let cookie = secret.cookie(&request(&[], origin)).unwrap();
            let (pair, attributes) = cookie.to_str().unwrap().split_once("; ").unwrap();
            assert_eq!(attributes, format!("HttpOnly; {scope}"));
            assert!(BrowserSecret::of(&request(&[pair], origin)).is_some_and(|back| back == secret));
        }
    }

    #[test]
    fn a_page_of_https_is_known_by_the_cookie_that_nobody_can_plant_alone() {
        let (plain, secure) = (format!("{COOKIE}={SECRET}"), format!("{SECURE_COOKIE}={SECRET}"));
        for (cookie, origin, is_known) in [
            (&plain, Some("https://app.example"), false),
            (&secure, Some("https://app.example"), true),
            (&secure, Some("http://app.example"), false),
            (&plain, Some("http://app.example"), true),
            (&plain, None, true),
        ] {
            let secret = BrowserSecret::of(&request(&[cookie], origin));
            assert_eq!(secret.is_some(), is_known, "{cookie} {origin:?}");
        }
        let both = format!("{COOKIE}={}; {secure}", "f".repeat(SECRET_LEN));
        let secret = BrowserSecret::of(&request(&[&both], Some("https://app.example")));
        assert_eq!(secret.map(|secret| secret.0).as_deref(), Some(SECRET));
    }

    #[test]
    fn nothing_proves_nothing() {
        let browser = |secret: &str| Some(BrowserSecret(secret.to_owned()));
        let evidence = |browser, token: Option<&str>| Evidence {
            browser,
            token: token.map(str::to_owned),
        };
        let had = evidence(browser(SECRET), Some("token"));
        for (shown, proven) in [
            (evidence(None, None), false),
            (evidence(browser("other"), None), false),
            (evidence(browser("other"), Some("other")), false),
            (evidence(browser(SECRET), None), true),
            (evidence(browser(SECRET), Some("other")), true),
            (evidence(browser("other"), Some("token")), true),
        ] {
            assert_eq!(shown.proves(&had), proven);
        }
        assert!(!evidence(None, None).proves(&evidence(None, None)));
    }
}
