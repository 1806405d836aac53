//! The first administrator of a database.

use crate::{
    access::token::{Minted, NoRandom},
    audit,
    model::{Act, AuditEntry, InvalidInput, Origin, Outcome, Principal},
    storage::{self, FirstAdministrator, MAX_TOKENS_OF_PRINCIPAL, NewToken, Standing, Storage},
};

/// The principal that is created if nobody names one.
pub const FIRST_ADMINISTRATOR: &str = "admin";

/// Why no first administrator was created.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// There is one already.
    #[error(
        "create the first administrator: there is one with a valid token already, who can create \
         more tokens with `trunkline token create`"
    )]
    Exists,
    /// The principal exists and is no administrator: whoever has its tokens would become one.
    #[error(
        "create the first administrator: the principal {principal} has {what} already, and whoever \
         is {principal} would become an administrator; name another principal with --principal, or \
         remove what it has"
    )]
    Taken {
        /// The principal.
        principal: Principal,
        /// What it has.
        what: &'static str,
    },
    /// The principal has as many tokens or grants as it may.
    #[error(
        "create the first administrator: the limit of {MAX_TOKENS_OF_PRINCIPAL} valid tokens of a \
         principal, or that of all tokens or grants, is reached"
    )]
    Full,
    /// The principal's name is malformed.
    #[error("create the first administrator: {0}")]
    Principal(#[from] InvalidInput),
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

/// Gives a principal the right to administer everything, and a token; returns the token. Refuses if
/// there is an administrator with a valid token, or if the principal is known and is no administrator.
pub async fn bootstrap(storage: &Storage, principal: &str) -> Result<String, BootstrapError> {
    let principal =
        Principal::parse(principal).map_err(|invalid| invalid.in_field("--principal"))?;
    let minted = Minted::new()?;
    let new = NewToken { id: &minted.id, hash: &minted.hash, valid_for_ms: None, created_by: "" };
    let entry = AuditEntry::new(Act::Bootstrap, Origin::default());
    let entry = entry.to("token", &minted.id).with("principal", &principal);
    let taken = |what| Err(BootstrapError::Taken { principal: principal.clone(), what });
    match storage.create_first_administrator(&principal, "the first administrator", new).await {
        Ok(FirstAdministrator::Created) => {
            audit::record(storage, entry).await;
            Ok(minted.text)
        }
        Ok(FirstAdministrator::Exists) => Err(BootstrapError::Exists),
        Ok(FirstAdministrator::Taken(Standing { valid_tokens: 1.., .. })) => taken("valid tokens"),
        Ok(FirstAdministrator::Taken(Standing { grants: 1.., .. })) => taken("grants"),
        Ok(FirstAdministrator::Taken(_)) => taken("producers or consumers"),
        Ok(FirstAdministrator::Full) => Err(BootstrapError::Full),
        Err(error) => {
            // The administrator may exist by now, with a token that nobody has seen.
            if let storage::Error::ConnectionLost(_) = error {
                audit::record(storage, AuditEntry { outcome: Outcome::Unknown, ..entry }).await;
            }
            Err(error.into())
        }
    }
}
