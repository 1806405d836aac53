//! Addresses of brokers as people type them.

use std::net::Ipv6Addr;

use tonic::codegen::http::{
    Uri,
    uri::{PathAndQuery, Scheme},
};

/// The port of a broker unless it is told another.
const DEFAULT_PORT: u16 = 50051;

/// The URI of an address that may lack its scheme and its port; `None` if it is malformed.
pub(crate) fn complete(text: &str, default_scheme: Scheme) -> Option<Uri> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Scheme::try_from(&*scheme.to_ascii_lowercase()).ok()?, rest),
        None => (default_scheme, text),
    };
    if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(with_port(authority)?)
        .path_and_query(PathAndQuery::try_from(if path.is_empty() { "/" } else { path }).ok()?)
        .build()
        .ok()?;
    let host = uri.host().unwrap_or_default();
    let is_number = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_digit());
    // A resolver takes a number for an address, while people mean a port.
    let is_missing = host.is_empty() || host == "[]";
    (!is_missing && !is_number && uri.port_u16().is_some()).then_some(uri)
}

fn with_port(authority: &str) -> Option<String> {
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Some(format!("[{authority}]:{DEFAULT_PORT}"));
    }
    let after_address = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[after_address..].rsplit_once(':') {
        Some((_, port)) => port.parse::<u16>().is_ok().then(|| authority.to_owned()),
        None => Some(format!("{authority}:{DEFAULT_PORT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(text: &str) -> Option<String> {
        complete(text, Scheme::HTTP).map(|uri| uri.to_string())
    }

    #[test]
    fn a_missing_scheme_or_port_is_added() {
        for (typed, uri) in [
            ("127.0.0.1:50052", "http://127.0.0.1:50052/"),
            ("127.0.0.1", "http://127.0.0.1:50051/"),
            ("localhost:50052", "http://localhost:50052/"),
            ("localhost", "http://localhost:50051/"),
            ("[::1]:50052", "http://[::1]:50052/"),
            ("[::1]", "http://[::1]:50051/"),
            ("::1", "http://[::1]:50051/"),
            ("https://broker.example", "https://broker.example:50051/"),
            ("http://broker.example:1/", "http://broker.example:1/"),
            ("HTTPS://broker.example:1/path", "https://broker.example:1/path"),
        ] {
            assert_eq!(completed(typed).as_deref(), Some(uri), "{typed}");
        }
        let uri = complete("localhost", Scheme::HTTPS).unwrap();
        assert_eq!(uri.to_string(), "https://localhost:50051/");
    }

    #[test]
    fn a_malformed_address_is_refused() {
        for bad in [
            "",
            ":50051",
            "50051",
            "http://",
            "http://:1",
            "ftp://a:1",
            "a b",
            "a:",
            "a:b",
            "a:65536",
            "a:1:2",
            "[::1",
            "[]",
            "/path",
        ] {
            assert_eq!(completed(bad), None, "{bad}");
        }
    }
}
