//! The state behind all routes.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{host_names::HostNames, scrape::Scrape};
use crate::{access::Access, broker::Broker};

/// What all requests share.
pub(super) struct State {
    pub(super) broker: Arc<Broker>,
    pub(super) access: Arc<Access>,
    pub(super) scrape: Scrape,
    /// The metrics that clients may have without having read them to the end.
    pub(super) unread_metrics: Arc<Semaphore>,
    pub(super) host_names: Option<HostNames>,
    pub(super) is_local: bool,
}
