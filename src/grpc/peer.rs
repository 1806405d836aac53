//! Which client calls, described for people.

use tonic::Request;

/// The address that a request came from.
pub(super) fn of<T>(request: &Request<T>) -> String {
    request.remote_addr().map_or_else(|| "a client".to_owned(), |address| address.to_string())
}
