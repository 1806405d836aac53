//! Who calls.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;

use crate::{
    access::{
        error::Error,
        rights::Rights,
        rules::Rule,
        snapshot::{KnownToken, Snapshot},
        state::State,
    },
    model::{Operation, Principal, RegistrationKey, TopicName},
    storage::Owned,
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
    pub(crate) proof: Proof,
    pub(crate) rule: Rule,
    /// What the call is checked against.
    pub(crate) snapshot: Arc<Snapshot>,
}

/// How a caller has proved who it is.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    /// A token of this broker's.
    Token(Arc<KnownToken>),
    /// A token of an identity provider.
    Jwt { valid_until: Instant, expires_at: SystemTime },
    /// The certificate of its connection.
    Certificate,
}

impl Proof {
    /// When it expires, if it does.
    pub(crate) fn valid_until(&self) -> Option<Instant> {
        match self {
            Self::Token(token) => token.valid_until,
            Self::Jwt { valid_until, .. } => Some(*valid_until),
            Self::Certificate => None,
        }
    }

    /// Refuses a proof that has expired or was revoked, as far as is known here.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Token(token) => token.check(),
            Self::Jwt { valid_until, .. } if *valid_until <= Instant::now() => {
                Err(Error::TokenExpired)
            }
            Self::Jwt { .. } | Self::Certificate => Ok(()),
        }
    }
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
            Self::Known(Known { proof: Proof::Token(token), .. }) => Some(&token.id),
            Self::Known(_) => None,
        }
    }

    /// When a token of an identity provider expires, if the caller presented one.
    pub fn jwt_expires_at(&self) -> Option<SystemTime> {
        match self {
            Self::Known(Known { proof: Proof::Jwt { expires_at, .. }, .. }) => Some(*expires_at),
            _ => None,
        }
    }

    /// Whether the caller has any right on a topic.
    pub fn knows(&self, topic: &str) -> bool {
        match self {
            Self::Everyone => true,
            Self::Known(known) => known.rights().know(topic),
        }
    }

    /// Whether the caller may see all producers and consumers of a topic, and not only its own.
    pub fn sees_registrations(&self, topic: &str) -> bool {
        match self {
            Self::Everyone => true,
            Self::Known(known) => {
                known.rights().permit_any(&[Operation::Read, Operation::Admin], topic)
            }
        }
    }

    /// Whether there may be topics that the caller does not know.
    pub fn is_restricted(&self) -> bool {
        match self {
            Self::Everyone => false,
            Self::Known(known) => known.rights().known_topics().is_some(),
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
    /// Continues with a newer snapshot, if the caller's proof is still valid by it.
    pub(crate) fn renew(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), Error> {
        if Arc::ptr_eq(&self.snapshot, snapshot) {
            return self.proof.check();
        }
        match &self.proof {
            Proof::Token(token) => self.proof = Proof::Token(snapshot.check_again(token)?.clone()),
            proof => proof.check()?,
        }
        self.snapshot = snapshot.clone();
        Ok(())
    }

    pub(crate) fn rights(&self) -> &Rights {
        self.snapshot.rights(&self.principal)
    }

    /// Refuses a registration that is not the caller's, or that it may not use, unless its call is
    /// permitted for everyone's. Returns false if it does not exist: the call must not act then, as
    /// somebody else may register it meanwhile.
    pub(crate) async fn check_registration(
        &self,
        state: &State,
        key: &RegistrationKey,
    ) -> Result<bool, Error> {
        let (own, any, hides) = match self.rule {
            Rule::Registration { own, any } => (own, any, false),
            Rule::Description { own, any } => (own, any, true),
            _ => return Err(self.not_granted(&[Operation::Admin], "*")),
        };
        let rights = self.rights();
        if rights.permit_any(any, key.topic.as_str()) {
            return Ok(true);
        }
        self.permit_any_by(rights, own, &key.topic)?;
        let version = self.snapshot.version.owners;
        let owned = state.owners.find(&state.storage, key, version).await;
        match owned.map_err(Error::of_read)? {
            Owned::NotRegistered => Ok(false),
            Owned::By(owner) if owner == self.principal => Ok(true),
            _ if hides => Err(Error::RegistrationHidden(key.clone())),
            Owned::By(_) => Err(Error::NotOwner(key.clone())),
            Owned::ByNobody => Err(Error::NoOwner(key.clone())),
        }
    }

    /// Whether any of the operations is permitted.
    pub(crate) fn may(&self, operations: &[Operation], topic: &TopicName) -> bool {
        self.rights().permit_any(operations, topic.as_str())
    }

    /// Refuses a caller without any of the operations. If it has no right on the topic at all, the
    /// topic does not exist for it.
    pub(crate) fn permit_any(
        &self,
        operations: &[Operation],
        topic: &TopicName,
    ) -> Result<(), Error> {
        self.permit_any_by(self.rights(), operations, topic)
    }

    fn permit_any_by(
        &self,
        rights: &Rights,
        operations: &[Operation],
        topic: &TopicName,
    ) -> Result<(), Error> {
        if rights.permit_any(operations, topic.as_str()) {
            return Ok(());
        }
        match rights.know(topic.as_str()) {
            true => Err(self.not_granted(operations, topic.as_str())),
            false => Err(Error::TopicHidden { topic: topic.clone() }),
        }
    }

    /// The caller lacks one of the operations; the first one is named.
    pub(crate) fn not_granted(&self, operations: &[Operation], topic: &str) -> Error {
        Error::NotGranted {
            principal: self.principal.clone(),
            operation: operations.first().copied().unwrap_or(Operation::Admin),
            topic: topic.to_owned(),
        }
    }
}
