//! What a broker shows another one to which it forwards calls.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::model::Endpoint;

/// The name of the metadata.
const NAME: &str = "trunkline-forward-secret";

/// Shows the secret.
#[derive(Clone)]
pub(in crate::grpc) struct Show(Option<MetadataValue<Ascii>>);

/// Refuses calls that do not show it.
#[derive(Clone)]
pub(super) struct Require(pub(super) Arc<Endpoint>);

impl Show {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let mut secret: Option<MetadataValue<Ascii>> = endpoint.secret.parse().ok();
        secret.iter_mut().for_each(|secret| secret.set_sensitive(true));
        Self(secret)
    }
}

impl Interceptor for Show {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(secret) = &self.0 {
            request.metadata_mut().insert(NAME, secret.clone());
        }
        Ok(request)
    }
}

impl Interceptor for Require {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let shown = request.metadata().get(NAME).map(MetadataValue::as_bytes);
        let is_right = shown.is_some_and(|shown| bool::from(shown.ct_eq(self.0.secret.as_bytes())));
        match is_right {
            true => Ok(request),
            false => Err(Status::unauthenticated("this port is for other brokers")),
        }
    }
}
