use clap::Args;

use super::http::HttpAddress;

/// The port for other brokers.
#[derive(Args, Clone, Debug)]
pub struct ForwardOptions {
    /// Address for other brokers, as HOST:PORT, which forward calls of workers to this one. They find it
    /// in the database, and need the database's tables to use it [default: the host of --listen, and a
    /// free port]. `off` takes no such calls: workers must then find the broker that has their
    /// subscription.
    #[arg(long, env = "TRUNKLINE_FORWARD_LISTEN", value_name = "ADDR")]
    pub forward_listen: Option<HttpAddress>,

    /// Name or address of this host for other brokers [default: that of --forward-listen or, if it
    /// listens on all addresses, the one from which the database sees this broker].
    #[arg(long, env = "TRUNKLINE_FORWARD_HOST", value_name = "HOST", value_parser = host)]
    pub forward_host: Option<String>,
}

fn host(text: &str) -> Result<String, String> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    match !text.is_empty() && text.chars().all(is_known) {
        true => Ok(text.to_owned()),
        false => Err("must be a name or an address, without a port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for good in ["broker-1", "broker.example.org", "10.0.0.1", "fd00::1"] {
            assert_eq!(host(good).as_deref(), Ok(good));
        }
        for bad in ["", "a b", "[fd00::1]", "broker/1", "https://broker"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
