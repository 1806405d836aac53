//! Trunkline: a streaming message broker that lives in PostgreSQL.

pub mod cli;
pub mod client;
pub mod embedded;
pub mod proto;
pub mod server;
