//! The first administrator of a database.

use crate::{
    access::token::{Minted, NoRandom},
    audit,
    model::{Act, AuditEntry, GrantKey, Operation, Origin, Principal, TopicPattern},
    storage::{self, AccessChange, MAX_TOKENS_OF_PRINCIPAL, NewToken, Storage},
};

/// The principal that is created.
const ADMINISTRATOR: &str = "admin";

/// Why no first administrator was created.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// There is one already.
    #[error(
        "create the first administrator: there is one with a valid token already, who can create \
         more tokens with `trunkline token create`"
    )]
    Exists,
    /// The principal has as many tokens or grants as it may.
    #[error(
        "create the first administrator: the limit of {MAX_TOKENS_OF_PRINCIPAL} valid tokens of a \
         principal, or that of all tokens or grants, is reached"
    )]
    Full,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The system has no random numbers.
    #[error("create the first administrator: the system has no random numbers")]
    NoRandom,
}

impl From<NoRandom> for BootstrapError {
    fn from(_: NoRandom) -> Self {
        Self::NoRandom
    }
}

/// Creates the principal `admin`, which may administer everything, and a token for it; returns the
/// token. Refuses if there is an administrator with a valid token.
pub async fn bootstrap(storage: &Storage) -> Result<String, BootstrapError> {
    if storage.has_administrator_with_token().await? {
        return Err(BootstrapError::Exists);
    }
    let principal = Principal::stored(ADMINISTRATOR);
    let key = GrantKey {
        principal: principal.clone(),
        operation: Operation::Admin,
        topics: TopicPattern::stored("*"),
    };
    let AccessChange::Done(_) = storage.add_grant(&key, "").await? else {
        return Err(BootstrapError::Full);
    };
    let minted = Minted::new()?;
    let new = NewToken { id: &minted.id, hash: &minted.hash, valid_for_ms: None, created_by: "" };
    match storage.create_token(&principal, "the first administrator", new).await? {
        AccessChange::Done(_) => {
            let entry = AuditEntry::new(Act::Bootstrap, Origin::default());
            let entry = entry.to("token", &minted.id).with("principal", &principal);
            audit::record(storage, entry).await;
            Ok(minted.text)
        }
        _ => Err(BootstrapError::Full),
    }
}
