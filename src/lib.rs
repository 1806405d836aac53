//! Trunkline: a streaming message broker that lives in PostgreSQL.
//!
//! Programs that publish and consume need only the feature `client`, which leaves out the broker and
//! its dependencies:
//!
//! ```toml
//! trunkline = { path = "../trunkline", default-features = false, features = ["client"] }
//! ```
#![cfg_attr(feature = "client", doc = "", doc = "Begin at [`client`].")]

#[cfg(all(feature = "sabotage", not(debug_assertions)))]
compile_error!("the feature sabotage breaks promises on purpose: it is for debug builds only");

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
pub mod broker;
#[cfg(feature = "server")]
pub mod certificates;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod embedded;
#[cfg(feature = "server")]
pub mod grpc;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod model;
pub mod proto;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod storage;
#[cfg(any(feature = "otel", feature = "server"))]
pub mod trace_context;
#[cfg(feature = "server")]
pub mod traces;
