//! Topics' logs as the readers of this broker share them: heads, recent batches, cursors, and what
//! is known of each log.

pub(crate) mod cache;
pub(crate) mod cursor;
pub(crate) mod messages;
pub(crate) mod seen;
#[cfg(test)]
mod tests;
pub(crate) mod topics;
