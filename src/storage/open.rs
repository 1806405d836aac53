//! Opens a database: proves that it can be trusted, and brings its schema up to date.

use std::sync::Arc;

use super::{
    Error, SchemaVersion, Storage,
    connector::Connector,
    primary::Primary,
    probe, schema,
    session::{self, Limits, Pools, RowLocks, SessionShares, SessionSource},
    text,
    timeout::SESSION_TIMEOUT,
};

impl Storage {
    /// Connects to the database at `url` and brings its schema up to date. If `url` leads to a
    /// pooler, `direct_url` must lead straight to the same database.
    pub async fn open(url: &str, direct_url: Option<&str>, limits: Limits) -> Result<Self, Error> {
        let connector = Connector::new(url)?;
        let (direct, pooler) = match direct_url {
            Some(direct_url) => (Connector::new(direct_url)?, Some(connector)),
            None => (connector, None),
        };
        let connector = with_settings(direct).await?;
        let primary = Arc::new(Primary::new(connector.clone()));
        let direct =
            SessionSource { connector, primary, opened: Arc::default(), metrics: Arc::default() };
        let pools = match &pooler {
            Some(pooler) => Pools::of_pooler(&direct.through(pooler.clone()), limits)?,
            None => Pools::direct(&direct, limits)?,
        };
        probe::in_time(probe::prove_that_sessions_last(&direct.connector)).await?;
        if pooler.is_some() {
            let proof = probe::prove_that_databases_are_one(&direct.connector, &pools.query);
            probe::in_time(proof).await?;
        }
        let proof = probe::prove_that_sessions_are_set_up(&direct.connector, &pools.query);
        probe::in_time(proof).await?;
        schema::migrate(&direct.connector).await?;
        if pooler.is_some() {
            probe::in_time(schema::require_use_of_pooled_sessions(&pools.query)).await?;
        }
        let notifies = probe::in_time(probe::find_whether_notifications_arrive(&direct)).await?;
        let encoding = probe::in_time(text::find_encoding(&pools.query)).await?;
        let sessions = pools.query.max_size();
        let (row_locks, shares) =
            (RowLocks::new(sessions), SessionShares::new(sessions, SESSION_TIMEOUT));
        Ok(Self { direct, pools, shares, row_locks, notifies, encoding })
    }
}

/// Brings the schema of the database at `url` up to date. The URL must lead straight to PostgreSQL.
pub async fn migrate(url: &str) -> Result<SchemaVersion, Error> {
    let connector = with_settings(Connector::new(url)?).await?;
    probe::in_time(probe::prove_that_sessions_last(&connector)).await?;
    schema::migrate(&connector).await
}

/// Connects to find out which settings may be part of a request for a session.
async fn with_settings(direct: Connector) -> Result<Connector, Error> {
    let options = session::startup_options(direct.config().get_options());
    let connected = probe::in_time(direct.clone().with_startup_options(options)).await;
    connected.map_err(|error| schema::explain_refusal(error, direct.config()))
}
