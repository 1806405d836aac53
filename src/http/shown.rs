//! What metrics show of the database.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::broker::Snapshot;

/// What metrics show of the database: nothing while it does not answer.
pub(super) type Shown = Arc<RwLock<Option<Arc<Snapshot>>>>;
