//! Truncation: a log that lost its end, although its messages had been acknowledged.
//!
//! PostgreSQL loses nothing by itself. A standby that replicates asynchronously and is promoted, or
//! a restored backup, lacks the newest messages: a topic's head is lower than it was, and the
//! database reuses those offsets for other messages. The broker cannot undo that, but it must not
//! go unnoticed.
//!
//! Each broker remembers how far each log reached and its last batch
//! ([`crate::broker::log::seen`]). It finds a truncation ([`detect`]) when the database answers
//! with a lower head, stores a message at an offset that was used before, or no longer has that
//! last batch. It then logs an error, and returns `MESSAGES_LOST` once to every consumer that was
//! registered at that time ([`notices`]).

pub(crate) mod detect;
pub(crate) mod notices;
