//! Notifications between brokers.

pub(crate) mod listen;
pub(crate) mod outbox;
#[cfg(test)]
mod tests;
