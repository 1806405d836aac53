//! The services of `trunkline.v1`.

pub(crate) mod access;
mod access_requests;
pub(crate) mod consumers;
pub(crate) mod decode;
mod deliver_at;
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
pub(super) mod sent_events;
pub(super) mod subscribe_requests;
pub(super) mod subscribe_stream;
pub(super) mod subscription_answers;
pub(super) mod subscription_requests;
pub(crate) mod subscriptions;
pub(crate) mod topics;
