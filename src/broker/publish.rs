//! Publishing: from a request to its receipt.

pub(crate) mod flush;
pub(crate) mod group_commit;
pub(crate) mod locked_topics;
pub(crate) mod pending;
pub(crate) mod queue;
pub(crate) mod request;
#[cfg(test)]
mod tests;
pub(crate) mod writer;
