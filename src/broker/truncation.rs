//! Truncated logs: logs that lost their end in a fail-over.

pub(crate) mod detect;
