//! Shared subscriptions: many workers share the messages of a consumer, and acknowledge each by itself.
//!
//! A subscription is a consumer whose lease a broker holds, and not a stream: its *owner*. The owner hands
//! messages to workers, knows who has which, and stores what they settle. The consumer's position is the
//! subscription's *floor*: all messages before it are settled.

mod bits;
mod changes;
mod dead_letters;
mod delays;
pub(crate) mod deliveries;
pub(crate) mod describing;
mod exceptions;
mod flags;
mod gathering;
mod handing_out;
mod limits;
mod owner;
mod parked;
mod reads;
pub(crate) mod receivers;
pub(crate) mod request;
mod reservation;
pub(crate) mod room;
mod settled;
pub(crate) mod standing;
mod state;
mod storing;
mod taking_over;
#[cfg(test)]
mod tests;
pub(crate) mod unsent;
mod unstored;
pub(crate) mod worker;
pub(crate) mod writer;
