//! Sessions with the database: how they are opened, set up and pooled, and how statements run on
//! them.
//!
//! A direct session leads straight to the server and lasts. A pooled session is lent by a pooler
//! for one transaction at a time.

mod check;
mod opener;
mod parameter;
mod pool;
mod row_locks;
mod run;
mod setup;
mod share;
mod source;

pub(super) use check::{check_direct, check_pooled};
pub(super) use parameter::Parameter;
pub use pool::{Limits, PoolState};
pub(super) use pool::{Pools, SessionPool};
pub use row_locks::RowLocks;
pub(super) use run::{Session, Statements, Transaction, within};
pub(super) use setup::{prepare_session, startup_options};
pub use share::SessionShare;
pub(super) use share::SessionShares;
pub(super) use source::SessionSource;
