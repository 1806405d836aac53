//! Who is calling: a bearer token.

use std::fmt;

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use super::error::ConnectError;

/// A bearer token that is sent with every call, or none.
#[derive(Clone, Default)]
pub struct Credentials {
    authorization: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    pub(super) fn new(token: Option<&str>) -> Result<Self, ConnectError> {
        Ok(Self { authorization: token.map(authorization).transpose()? })
    }
}

fn authorization(token: &str) -> Result<MetadataValue<Ascii>, ConnectError> {
    let mut value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| {
        let reason = "it holds characters that are not allowed in a header".to_owned();
        ConnectError::Credentials { what: "token", reason }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("token", &self.authorization.is_some()).finish()
    }
}
