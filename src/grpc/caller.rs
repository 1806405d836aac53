//! The caller of a request, which [`crate::grpc::answer`] has put into its extensions.

use tonic::{Request, Status};

use crate::{
    access::{Access, Caller},
    grpc::status::refuse,
};

/// Who makes a request.
pub(super) fn of<T>(access: &Access, request: &Request<T>) -> Result<Caller, Status> {
    access.caller(request.extensions().get()).map_err(refuse)
}
