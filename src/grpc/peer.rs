//! Which client calls, described for people: by its address and certificate in the log, and without
//! them for other clients.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use tonic::Request;

use crate::{
    access::{Caller, PeerIdentity},
    grpc::connection,
    model::Principal,
};

/// The address that a request came from, and its principal or, without one, the first name in its
/// client's certificate.
pub(super) fn of<T>(request: &Request<T>) -> String {
    let address = connection::client(request.extensions());
    let address = address.map_or_else(|| "a client".to_owned(), |address| address.to_string());
    let principal = request.extensions().get::<Caller>().and_then(Caller::principal);
    let identity = connection::identity(request.extensions());
    let certified = || identity.and_then(|PeerIdentity(names)| names.first().map(String::as_str));
    match principal.map(Principal::as_str).or_else(certified) {
        Some(name) => format!("{address} ({name})"),
        None => address,
    }
}

/// Makes the names of connections. Its keys are drawn when the process starts, so that nobody can
/// compute an address from a name.
static NAMES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The name of the connection that a request came over. It tells other clients neither the client's
/// address nor the broker's host, and says whether two streams share a connection or a broker.
pub(super) fn opaque<T>(request: &Request<T>) -> String {
    let name = |of: &str| NAMES.hash_one(of) as u32;
    format!("connection {:08x} of broker {:08x}", name(&self::of(request)), name("broker"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::connection::Connection;

    #[test]
    fn a_connection_has_one_name_that_does_not_contain_its_address() {
        let from = |address: &str| {
            let mut request = Request::new(());
            request.extensions_mut().insert(Connection::new(address.parse().ok(), None));
            opaque(&request)
        };
        let (first, other) = ("192.0.2.7:4711", "192.0.2.7:4712");
        assert_eq!(from(first), from(first));
        assert_ne!(from(first), from(other));
        assert_eq!(from(first).len(), "connection 01234567 of broker 01234567".len());
        assert!(!from(first).contains("192") && from(first).starts_with("connection "));
    }
}
