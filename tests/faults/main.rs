//! Faults: brokers and PostgreSQL servers are killed, stopped, starved and cut off while clients
//! work, and what the clients were told is then held against what is stored.
//!
//! Every run writes a history, whatever it does follows from a seed, and ends with the checks C1 to
//! C12 of [`check`]. All traffic stays on the loopback.

#![expect(clippy::unwrap_used, reason = "a run that fails says where")]

mod broker;
mod check;
mod clock;
mod history;
mod network;
mod postgres;
mod proxy;
mod run;
mod support;
mod tmpfs;
mod values;
mod verdict;
mod workload;

mod broker_faults;
mod consumer_faults;
mod database_faults;
mod failover;
mod held_rows;
#[cfg(feature = "sabotage")]
mod negative;
mod network_faults;
mod soak;
