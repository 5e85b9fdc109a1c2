//! What a request says of where it comes from: the page whose script sent it, the host that it is meant for, and proxies.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};

/// Whether a request comes from no page, or from one that may.
pub(super) fn is_from(headers: &HeaderMap, origins: &[String]) -> bool {
    let mut said = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = said.next() else {
        return true;
    };
    let permitted = |own: &String| own == "*" || own.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
    said.next().is_none() && (origins.iter().any(permitted) || is_own(origin.as_bytes(), headers))
}

/// Whether the origin is that of the server itself, as the client calls it (RFC 6454 §6.1: scheme, host, port).
fn is_own(origin: &[u8], headers: &HeaderMap) -> bool {
    let place = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
    let own = headers.get(header::HOST).filter(|_| host(headers).is_some());
    place
        .zip(own)
        .is_some_and(|(place, own)| place.eq_ignore_ascii_case(own.as_bytes()))
}

/// The headers by which proxies say for whom they ask (RFC 7239, and those from before it).
const OF_PROXIES: [&str; 6] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Whether a request names this machine as only itself can, and was not passed on by a proxy. A page that has its own name
/// resolve to a loopback address (DNS rebinding) says its own name.
pub(super) fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let local = match host(headers) {
        Some(Host::Localhost) => true,
        Some(Host::Address(address)) => address.to_canonical().is_loopback(),
        None => false,
    };
    local && !OF_PROXIES.iter().any(|name| headers.contains_key(*name))
}

/// A host that nobody else can have point here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Host {
    Localhost,
    Address(IpAddr),
}

/// For which host a request is meant, unless that is a name in the DNS.
fn host(headers: &HeaderMap) -> Option<Host> {
    let mut given = headers.get_all(header::HOST).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return None;
    };
    let authority: Authority = value.to_str().ok()?.parse().ok()?;
    let host = authority.host();
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Host::Localhost);
    }
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    address.unwrap_or(host).parse().ok().map(Host::Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_are_kept_out() {
        let check = |origin: Option<&str>, origins: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
            assert_eq!(is_from(&headers, &origins), expected, "{origin:?} {origins:?}");
        };
        check(None, &[], true);
        check(Some("https://app.example"), &[], false);
        check(Some("https://app.example"), &["https://app.example"], true);
        check(Some("https://app.example:8443"), &["https://app.example"], false);
        check(Some("null"), &["https://app.example"], false);
        check(Some("https://anything"), &["*"], true);
    }

    #[test]
    fn pages_of_the_server_itself_are_let_in_if_its_address_is_its_own() {
        let check = |origin: &str, host: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(is_from(&headers, &[]), expected, "{origin} {host}");
        };
        check("http://localhost:8080", "localhost:8080", true);
        check("http://127.0.0.1:8080", "127.0.0.1:8080", true);
        check("https://[2001:db8::1]", "[2001:db8::1]", true);
        check("http://localhost:3000", "localhost:8080", false);
        check("http://localhost:8080", "127.0.0.1:8080", false);
        // Whoever owns the name decides where it leads.
        check("http://evil.example:8080", "evil.example:8080", false);
        check("ftp://127.0.0.1", "127.0.0.1", false);
        check("null", "null", false);
        let mut twice = HeaderMap::new();
        twice.insert(header::ORIGIN, "http://127.0.0.1".parse().unwrap());
        twice.append(header::HOST, "127.0.0.1".parse().unwrap());
        twice.append(header::HOST, "127.0.0.1".parse().unwrap());
        assert!(!is_from(&twice, &[]));
    }

    #[test]
    fn this_machine_is_known_by_what_only_it_can_be_called() {
        let check = |host: Option<&str>, other: Option<&'static str>, expected: bool| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            if let Some(other) = other {
                headers.insert(other, "anything".parse().unwrap());
            }
            assert_eq!(is_of_this_machine(&headers), expected, "{host:?} {other:?}");
        };
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.8.8.8",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
        ] {
            check(Some(host), None, true);
            check(Some(host), Some("accept"), true);
            for proxy in OF_PROXIES {
                check(Some(host), Some(proxy), false);
            }
        }
        for host in [
            "",
            "evil.example:8080",
            "localhost.evil.example",
            "192.0.2.1",
            "[::]",
            "127.0.0.1.example",
            "::1",
        ] {
            check(Some(host), None, false);
        }
        check(None, None, false);
        let mut twice = HeaderMap::new();
        twice.append(header::HOST, "localhost".parse().unwrap());
        twice.append(header::HOST, "evil.example".parse().unwrap());
        assert!(!is_of_this_machine(&twice));
    }
}
