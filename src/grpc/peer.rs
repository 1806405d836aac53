//! Which client calls, described for people, and who its certificate says that it is.

use tonic::Request;

use crate::access::PeerIdentity;

/// The address that a request came from, and the first name in its client's certificate.
pub(super) fn of<T>(request: &Request<T>) -> String {
    let address =
        request.remote_addr().map_or_else(|| "a client".to_owned(), |address| address.to_string());
    let identity = request.extensions().get::<PeerIdentity>();
    match identity.and_then(|PeerIdentity(names)| names.first()) {
        Some(name) => format!("{address} ({name})"),
        None => address,
    }
}
