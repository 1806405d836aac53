//! What a broker measures of itself, as text for Prometheus.
//!
//! The layers that measure something hold the instruments of this one. Whoever serves the text
//! registers all of them. Nothing is measured per message: counters grow once for each batch, frame,
//! call or statement.

mod broker;
mod buckets;
mod calls;
mod database;
mod leases;
mod publishing;
mod relay;
mod subscriptions;
mod text;
mod traces;
mod traffic;

pub use broker::BrokerMetrics;
pub use calls::{CallMetrics, CallTimer};
pub use database::{DatabaseMetrics, SessionMetrics, StatementTimer};
pub use leases::LeaseMetrics;
pub use publishing::{PublishMetrics, PublishTimer};
pub use relay::RelayMetrics;
pub use subscriptions::{SubscriptionCounts, SubscriptionMetrics};
pub use text::{Collection, Instruments, Metrics, Samples};
pub use traces::TraceMetrics;
pub use traffic::{TopicTraffic, Traffic};
