//! Who calls.

use std::sync::Arc;

use crate::{
    access::{
        rights::Rights,
        rules::Rule,
        snapshot::{KnownToken, Snapshot},
    },
    model::Principal,
};

/// The subject alternative names in the certificate that a connection's client has proved to own,
/// as they are written there. An extension of each of the connection's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity(pub Arc<[String]>);

/// Who calls, as far as it is known.
#[derive(Clone, Debug)]
pub enum Caller {
    /// The broker does not authenticate: everyone may do everything.
    Everyone,
    /// A principal.
    Known(Known),
}

/// A principal that calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Known {
    pub(crate) principal: Principal,
    pub(crate) token: Option<Arc<KnownToken>>,
    pub(crate) rule: Rule,
    /// What the call is checked against.
    pub(crate) snapshot: Arc<Snapshot>,
}

impl Caller {
    /// The principal, if it is known.
    pub fn principal(&self) -> Option<&Principal> {
        match self {
            Self::Everyone => None,
            Self::Known(known) => Some(&known.principal),
        }
    }

    /// The principal as text; empty if it is not known.
    pub fn name(&self) -> &str {
        self.principal().map_or("", Principal::as_str)
    }

    /// The id of the token that the caller presented, if it presented one.
    pub fn token_id(&self) -> Option<&str> {
        match self {
            Self::Everyone => None,
            Self::Known(known) => known.token.as_ref().map(|token| &*token.id),
        }
    }

    /// Whether the caller is an administrator.
    pub fn is_administrator(&self) -> bool {
        match self {
            Self::Everyone => true,
            Self::Known(known) => known.rights().are_of_administrator(),
        }
    }
}

impl Known {
    pub(crate) fn rights(&self) -> &Rights {
        self.snapshot.rights(&self.principal)
    }
}
