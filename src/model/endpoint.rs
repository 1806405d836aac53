//! Where a broker takes calls that other brokers forward to it.

use std::fmt;

/// Where a broker takes calls that other brokers forward to it, and what proves who is who.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The number of the broker, drawn when it starts.
    pub broker: i64,
    /// The address or name of its host. Empty for the address from which the database sees it.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The certificate that it presents, in PEM.
    pub certificate: String,
    /// What others show it.
    pub secret: String,
}

/// Without the secret.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { broker, host, port, .. } = self;
        f.debug_struct("Endpoint")
            .field("broker", broker)
            .field("host", host)
            .field("port", port)
            .finish_non_exhaustive()
    }
}
