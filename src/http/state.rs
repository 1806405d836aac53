//! What the answers to all requests share.

use std::sync::Arc;

use super::{host_names::HostNames, scrape::Scrape};
use crate::{access::Access, broker::Broker};

/// What all requests share.
pub(super) struct State {
    pub(super) broker: Arc<Broker>,
    pub(super) access: Arc<Access>,
    pub(super) scrape: Scrape,
    pub(super) host_names: Option<HostNames>,
    pub(super) is_local: bool,
}
