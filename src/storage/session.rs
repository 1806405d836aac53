//! Sessions with the database: how they are made, set up and pooled, and how statements run on them.

mod pool;
mod run;
mod setup;

pub use pool::Limits;
pub(super) use pool::WRITER_LOCK_TIMEOUT;
pub(super) use run::{Manner, Parameter, Session, Sessions, Statements};
pub(super) use setup::{check, check_lent, options_of_the_start, prepare_session};
