//! Tokens, grants, quotas and owners: what brokers keep copies of, and what changes it.
//!
//! Changes of tokens, grants and quotas exclude each other, so that limits hold however many are made at the
//! same time.

mod bootstrap;
mod change;
mod grants;
mod owners;
mod quotas;
mod snapshot;
mod tokens;

pub use bootstrap::{FirstAdministrator, Standing};
pub use change::{
    AccessChange, MAX_GRANTS, MAX_GRANTS_OF_PRINCIPAL, MAX_QUOTAS, MAX_TOKENS,
    MAX_TOKENS_OF_PRINCIPAL,
};
pub use owners::Owned;
pub use snapshot::{AccessVersion, OwnersVersion, TokenEnd, ValidToken};
pub use tokens::{NewToken, Rotation};
