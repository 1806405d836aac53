//! Refuses to serve other hosts without encryption and authentication, unless told to.

use std::net::SocketAddr;

use tracing::warn;

use super::{
    error::Error,
    options::{Auth, HttpAddress, ServeOptions},
};

/// Refuses options with which everyone who reaches the address could use the broker.
pub(super) fn check(options: &ServeOptions) -> Result<(), Error> {
    let http = match options.http.http {
        HttpAddress::On(address) => Some(address),
        HttpAddress::Off => None,
    };
    for address in [Some(options.listen), http].into_iter().flatten() {
        let Some(missing) = missing(options, address) else { continue };
        if !options.insecure {
            return Err(Error::Exposed { address, missing });
        }
        let hint = "give these, or listen on a loopback address; --insecure allows it";
        warn!(listen = %address, missing, hint, "other hosts can use this broker");
    }
    Ok(())
}

/// What the options lack for an address that other hosts can reach.
fn missing(options: &ServeOptions, address: SocketAddr) -> Option<&'static str> {
    if is_loopback(address) {
        return None;
    }
    match (options.tls.tls_cert.is_some(), authenticates(options)) {
        (true, true) => None,
        (true, false) => Some("authentication"),
        (false, true) => Some("encryption"),
        (false, false) => Some("encryption and authentication"),
    }
}

/// Whether every client has to prove who it is.
pub(super) fn authenticates(options: &ServeOptions) -> bool {
    options.auth == Auth::Required || options.tls.requires_client_certificates()
}

/// Whether only this host reaches an address.
pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Serve {
        #[command(flatten)]
        options: ServeOptions,
    }

    fn with(flags: &[&str]) -> ServeOptions {
        Serve::parse_from([&["serve"], flags].concat()).options
    }

    #[test]
    fn an_address_that_others_reach_needs_encryption_and_authentication() {
        let tls = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];
        let ca = ["--tls-client-ca", "ca.pem"];
        let optional = ["--tls-client-auth", "optional"];
        let mutual = [&tls[..], &ca].concat();
        let half = [&mutual[..], &optional].concat();
        for (listen, flags, expected) in [
            ("127.0.0.1:50051", &[][..], None),
            ("127.8.0.1:50051", &[], None),
            ("[::1]:50051", &[], None),
            ("[::ffff:127.0.0.1]:50051", &[], None),
            ("0.0.0.0:50051", &[], Some("encryption and authentication")),
            ("[::]:50051", &[], Some("encryption and authentication")),
            ("10.0.0.1:50051", &tls, Some("authentication")),
            ("10.0.0.1:50051", &half, Some("authentication")),
            ("10.0.0.1:50051", &mutual, None),
            ("10.0.0.1:50051", &[&tls[..], &["--auth", "required"]].concat(), None),
            ("10.0.0.1:50051", &["--auth", "required"], Some("encryption")),
        ] {
            for flag in ["--listen", "--http"] {
                let mut options = with(&[&[flag, listen], flags].concat());
                let address = listen.parse().unwrap();
                assert_eq!(missing(&options, address), expected, "{listen} {flags:?}");
                assert_eq!(check(&options).is_err(), expected.is_some(), "{listen} {flags:?}");
                options.insecure = true;
                assert!(check(&options).is_ok());
            }
        }
    }
}
