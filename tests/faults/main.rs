//! Fault injection: brokers and PostgreSQL servers are killed, suspended, starved and disconnected
//! while clients work, and what the clients were told is then compared with what is stored.
//!
//! Every run follows from a seed, writes a history, and ends with the checks C1 to C16 of
//! [`check`]. All traffic stays on the loopback interface.

#![expect(clippy::unwrap_used, reason = "a panic shows where a run fails")]

mod abuse;
mod access;
mod broker;
mod check;
mod clock;
mod history;
mod network;
#[path = "../shared/pgbouncer.rs"]
mod pgbouncer;
mod pooler;
mod postgres;
mod proxy;
mod run;
mod support;
mod tmpfs;
mod values;
mod verdict;
mod workload;

mod access_faults;
mod broker_faults;
mod consumer_faults;
mod database_faults;
mod failover;
mod failover_single_topic;
mod held_rows;
#[cfg(feature = "sabotage")]
mod negative;
mod network_faults;
mod soak;
mod sql_faults;
mod worker_faults;
