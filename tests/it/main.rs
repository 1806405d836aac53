//! Tests against a real server and a real PostgreSQL, each with a database of its own.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

mod admin;
mod command;
mod commit;
mod consume;
mod database_faults;
mod drain;
mod embedded;
mod end_to_end;
mod exactly_once;
mod layers;
mod promises;
mod publish;
mod pull;
mod reflection;
mod schema;
mod several_brokers;
