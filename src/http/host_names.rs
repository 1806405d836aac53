//! The names that a host is called by.

use std::net::IpAddr;

/// The names that this host is called by, besides `localhost` and its loopback addresses.
#[derive(Clone, Debug, Default)]
pub struct HostNames {
    /// The names.
    pub names: Vec<String>,
    /// Whether any address will do too.
    pub any_address: bool,
}

impl HostNames {
    pub(super) fn contain(&self, host: &str) -> bool {
        let address =
            host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host.eq_ignore_ascii_case("localhost")
            || address
                .parse::<IpAddr>()
                .is_ok_and(|address| self.any_address || address.to_canonical().is_loopback())
            || self.names.iter().any(|name| host.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_accepted() {
        let names = vec!["broker.internal".to_owned()];
        let names = HostNames { names, any_address: false };
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.0.1", "[::1]", "broker.internal"]
        {
            assert!(names.contain(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "[fe80::1]", "", "::"] {
            assert!(!names.contain(host), "{host}");
        }
        let names = HostNames { names: Vec::new(), any_address: true };
        assert!(names.contain("10.0.0.1") && names.contain("[fe80::1]"));
        assert!(!names.contain("evil.example"));
    }
}
