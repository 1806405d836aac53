//! What changes of tokens, grants and quotas have in common: limits, and that they exclude each other.

use crate::storage::{
    Error,
    session::{Statements as _, Transaction},
};

/// The most valid tokens of all principals.
pub const MAX_TOKENS: usize = 10_000;
/// The most valid tokens of a principal.
pub const MAX_TOKENS_OF_PRINCIPAL: usize = 64;
/// The most grants of all principals.
pub const MAX_GRANTS: usize = 100_000;
/// The most grants of a principal.
pub const MAX_GRANTS_OF_PRINCIPAL: usize = 1_000;
/// The most quotas.
pub const MAX_QUOTAS: usize = 100_000;

/// The outcome of a change.
#[derive(Clone, Debug)]
pub enum AccessChange<T> {
    /// It was made.
    Done(T),
    /// What it refers to does not exist; nothing was changed.
    NotFound,
    /// As many exist as may: of the principal, or of all; nothing was changed.
    Full {
        /// Whether the principal has as many as it may.
        of_principal: bool,
    },
    /// No administrator would be left; nothing was changed.
    LastAdministrator,
}

impl<T> AccessChange<T> {
    /// Why another one may not be made, if there are as many as may be.
    pub(super) fn when_full(of_principal: i64, of_all: i64, limits: [usize; 2]) -> Option<Self> {
        let reached = |count: i64, limit: usize| count >= limit as i64;
        if reached(of_principal, limits[0]) {
            return Some(Self::Full { of_principal: true });
        }
        reached(of_all, limits[1]).then_some(Self::Full { of_principal: false })
    }
}

/// Waits for other changes to end, and keeps new ones out until the transaction's end.
pub(super) async fn exclude_other_changes(transaction: &Transaction<'_>) -> Result<(), Error> {
    // A lock that roles which only read cannot take.
    let lock = "-- lock_access\nlock table trunkline.access_grant in share row exclusive mode";
    transaction.execute(lock, &[]).await?;
    Ok(())
}
