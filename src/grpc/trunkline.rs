//! The services of `trunkline.v1`.

pub(crate) mod access;
mod access_requests;
pub(crate) mod consumers;
pub(crate) mod decode;
mod encode;
pub(crate) mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guarded;
mod missing;
pub(crate) mod overview;
mod page_token;
pub(crate) mod producers;
mod publish_stream;
mod sent_events;
mod subscribe_requests;
mod subscribe_stream;
mod subscription_answers;
mod subscription_requests;
pub(crate) mod subscriptions;
pub(crate) mod topics;
