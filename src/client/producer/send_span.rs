//! The span of sending a message. Without the feature `otel`, there never is one.

#[cfg(feature = "otel")]
pub(super) use crate::client::trace::SendSpan;

/// The span of sending a message, which this build does not have.
#[cfg(not(feature = "otel"))]
#[derive(Debug)]
pub(super) enum SendSpan {}

#[cfg(not(feature = "otel"))]
impl SendSpan {
    pub(super) fn start(_: &str, _: &mut crate::proto::NewMessage) -> Option<Self> {
        None
    }

    pub(super) fn end(self, _: Result<i64, &crate::client::error::Error>) {
        match self {}
    }
}
