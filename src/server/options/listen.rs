//! Addresses to listen on, as people type them.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};

/// Parses the address of `--listen`.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    parse(text, "127.0.0.1:50051, or :50051 for all IPv4 addresses of this machine")
}

/// Parses `HOST:PORT`, or `:PORT` for all IPv4 addresses of this machine. A host is an address or a
/// name that this machine can resolve. An error quotes the examples.
pub(super) fn parse(text: &str, examples: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let malformed = || format!("must be an address with a port, such as {examples}");
    let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let port = port.parse().map_err(|_| malformed())?;
    match host {
        "" => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
        "localhost" => Ok((Ipv4Addr::LOCALHOST, port).into()),
        host if is_name(host) => resolve(host, port),
        _ => Err(malformed()),
    }
}

fn is_name(host: &str) -> bool {
    let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    host.chars().all(is_known) && host.contains(|c: char| c.is_ascii_alphabetic())
}

/// The first address of a name, IPv4 before IPv6.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let failed = |error: std::io::Error| format!("find the address of {host}: {error}");
    let mut found: Vec<_> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| format!("{host} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name_or_missing() {
        for (typed, address) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            (":50052", "0.0.0.0:50052"),
            ("localhost:50052", "127.0.0.1:50052"),
            ("[::1]:50052", "[::1]:50052"),
        ] {
            assert_eq!(parse_listen(typed), Ok(address.parse().unwrap()), "{typed}");
        }
    }

    #[test]
    fn a_malformed_address_is_refused() {
        for bad in [
            "",
            ":",
            "50051",
            "localhost",
            "a b:1",
            "localhost:",
            "localhost:65536",
            "a:1:2",
            "1:2",
        ] {
            let problem = parse_listen(bad).unwrap_err();
            assert!(problem.contains("such as 127.0.0.1:50051"), "{bad}: {problem}");
        }
    }
}
