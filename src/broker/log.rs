//! The logs of topics, as this broker's readers share them: heads, cached batches, cursors, and how
//! far each log was seen to reach.

pub(crate) mod cache;
pub(crate) mod cursor;
pub(crate) mod messages;
pub(crate) mod reads;
pub(crate) mod seen;
#[cfg(test)]
mod tests;
pub(crate) mod topics;
