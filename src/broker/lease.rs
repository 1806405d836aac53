//! Leases: the right to advance a consumer, which one stream at a time has across all brokers.

pub(crate) mod acquisition;
pub(crate) mod queue;
pub(crate) mod registry;
pub(crate) mod session;
pub(crate) mod state;
#[cfg(test)]
mod tests;
