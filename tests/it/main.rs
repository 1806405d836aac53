//! Tests against a real server and a real PostgreSQL, each with a database of its own.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

mod admin;
mod bench;
mod bench_pressure;
mod bounded_reads;
mod causes;
mod client_connection;
mod client_consumer;
mod client_library;
mod client_producer;
mod command;
mod command_client;
mod commit;
mod connecting;
mod consume;
mod database_faults;
mod deadlines;
mod deletion;
mod drain;
mod embedded;
mod empty_values;
mod encodings;
mod end_to_end;
mod exactly_once;
mod flow;
mod ignored;
mod layers;
mod loss;
mod poolers;
mod promises;
mod publish;
mod pull;
mod readme;
mod reflection;
mod registered_anew;
mod retention;
mod roles;
mod runs;
mod schema;
mod seek;
mod session_settings;
mod several_brokers;
mod ship_bad_lines;
mod ship_json;
mod ship_resume;
mod sql_views;
mod take_over;
mod terminal;
mod three_brokers;
mod times;
mod written_out;
