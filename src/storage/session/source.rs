//! Where sessions come from.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio_postgres::Client;

use crate::{
    metrics::DatabaseMetrics,
    storage::{
        connector::{Connector, Driver},
        error::Error,
        primary::Primary,
    },
};

/// Opens sessions, and counts them.
#[derive(Clone)]
pub(crate) struct SessionSource {
    pub connector: Connector,
    pub primary: Arc<Primary>,
    /// How many sessions were opened.
    pub opened: Arc<AtomicU64>,
    pub metrics: Arc<DatabaseMetrics>,
}

impl SessionSource {
    /// The same source, but for sessions that another connector opens.
    pub(crate) fn through(&self, connector: Connector) -> Self {
        Self { connector, ..self.clone() }
    }

    /// Opens a session under a name, and counts it before it is used.
    pub(crate) async fn open(&self, name: &str) -> Result<(Client, Driver), Error> {
        let session = self.connector.connect(name).await?;
        self.opened.fetch_add(1, Ordering::Release);
        Ok(session)
    }
}
