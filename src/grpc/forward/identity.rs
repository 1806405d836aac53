//! By what other brokers know this one: a certificate and a secret, drawn at the start.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use uuid::Uuid;

use crate::{broker::Broker, model::Endpoint};

/// The name in the certificates that brokers present each other.
pub(super) const CERTIFICATE_NAME: &str = "trunkline-broker";

/// By what other brokers know this one, and where they reach it.
pub struct ForwardIdentity {
    pub(super) endpoint: Arc<Endpoint>,
    /// The certificate, and its key, in DER.
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl ForwardIdentity {
    /// Draws a certificate and a secret for a port. Without a host, others reach it by the address from which
    /// the database sees this broker.
    pub fn draw(host: Option<String>, port: u16) -> Result<Self, rcgen::Error> {
        let drawn = generate_simple_self_signed([CERTIFICATE_NAME.to_owned()])?;
        let CertifiedKey { cert, signing_key } = drawn;
        let endpoint = Endpoint {
            broker: Uuid::new_v4().as_u64_pair().0.cast_signed(),
            host: host.unwrap_or_default(),
            port,
            certificate: cert.pem(),
            // 244 random bits.
            secret: [Uuid::new_v4(), Uuid::new_v4()].map(|it| it.simple().to_string()).concat(),
        };
        Ok(Self {
            endpoint: Arc::new(endpoint),
            certificate: cert.der().to_vec(),
            key: signing_key.serialize_der(),
        })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.endpoint.port
    }

    /// Has a broker tell others where they reach it.
    pub fn announce(&self, broker: &Broker) {
        broker.subscriptions.take_forwarded_at(self.endpoint.clone());
    }
}
