//! Trunkline: a streaming message broker that lives in PostgreSQL.

pub mod broker;
pub mod cli;
pub mod client;
pub mod embedded;
pub mod grpc;
pub mod model;
pub mod proto;
pub mod server;
pub mod storage;
