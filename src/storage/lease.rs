//! The session that holds a broker's advisory locks: the leases of its streams.
//!
//! All of a broker's leases live and die with this one connection, which is never pooled. A
//! session may take a lock it already has: whoever calls must see to it that it asks once.

use std::time::Duration;

use tokio_postgres::{Client, NoTls, Statement};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Error, Storage, connect::prepare_session};
use crate::model::{ConsumerKey, Epoch, Offset, TopicId};

/// A lease that was acquired.
#[derive(Clone, Copy, Debug)]
pub struct Acquired {
    /// The number of this acquisition.
    pub epoch: Epoch,
    /// The offset that the consumer gets next.
    pub position: Offset,
}

/// The connection that holds a broker's leases.
pub struct LeaseSession {
    client: Client,
    try_lock: Statement,
    unlock: Statement,
    begin_epoch: Statement,
    find_fenced: Statement,
    closed: CancellationToken,
    _close: DropGuard,
}

impl Storage {
    /// Opens the session that is to hold this broker's leases.
    pub async fn open_lease_session(&self) -> Result<LeaseSession, Error> {
        let mut config = self.config.clone();
        let (client, connection) =
            config.application_name("trunkline lease").connect(NoTls).await?;
        let closed = CancellationToken::new();
        let driver_closed = closed.clone();
        // Ends with the client, or when `close` is called: both end the connection, and with it
        // the server ends the session and frees its locks.
        tokio::spawn(async move {
            let _closed = driver_closed.clone().drop_guard();
            tokio::select! {
                outcome = connection => {
                    if let Err(error) = outcome {
                        tracing::warn!(error = super::error::describe(&error), "lost the lease connection");
                    }
                }
                () = driver_closed.cancelled() => {}
            }
        });
        prepare_session(&client, Duration::from_secs(5)).await?;
        Ok(LeaseSession {
            try_lock: client.prepare("-- try_lock\nselect pg_try_advisory_lock($1, $2)").await?,
            unlock: client.prepare("-- unlock\nselect pg_advisory_unlock($1, $2)").await?,
            begin_epoch: client
                .prepare(
                    "-- begin_epoch
                    update trunkline.consumer_topic
                    set epoch = epoch + 1, holder = $3, updated_at = now()
                    where topic_id = $1 and id = $2
                    returning epoch, position",
                )
                .await?,
            find_fenced: client
                .prepare(
                    "-- find_fenced
                    select held.topic_id, held.id
                    from unnest($1::integer[], $2::integer[], $3::bigint[])
                        as held (topic_id, id, epoch)
                    where not exists (
                        select from trunkline.consumer_topic c
                        where c.topic_id = held.topic_id and c.id = held.id
                          and c.epoch = held.epoch)",
                )
                .await?,
            client,
            _close: closed.clone().drop_guard(),
            closed,
        })
    }
}

impl LeaseSession {
    /// Takes a consumer's lock if nobody has it.
    pub async fn try_lock(&self, key: ConsumerKey) -> Result<bool, Error> {
        let row = self.client.query_one(&self.try_lock, &[&key.topic.0, &key.consumer]).await?;
        Ok(row.get(0))
    }

    /// Gives a consumer's lock back; false if it was not held here.
    pub async fn unlock(&self, key: ConsumerKey) -> Result<bool, Error> {
        let row = self.client.query_one(&self.unlock, &[&key.topic.0, &key.consumer]).await?;
        Ok(row.get(0))
    }

    /// Begins a new epoch under the lock, which fences all earlier ones; `None` if the consumer is
    /// not registered any more.
    pub async fn begin_epoch(
        &self,
        key: ConsumerKey,
        holder: &str,
    ) -> Result<Option<Acquired>, Error> {
        let row = self
            .client
            .query_opt(&self.begin_epoch, &[&key.topic.0, &key.consumer, &holder])
            .await?;
        Ok(row.map(|row| Acquired { epoch: Epoch(row.get(0)), position: Offset(row.get(1)) }))
    }

    /// Those of the leases whose epoch is over or whose consumer is gone.
    pub async fn find_fenced(
        &self,
        held: &[(ConsumerKey, Epoch)],
    ) -> Result<Vec<ConsumerKey>, Error> {
        let topics: Vec<i32> = held.iter().map(|(key, _)| key.topic.0).collect();
        let ids: Vec<i32> = held.iter().map(|(key, _)| key.consumer).collect();
        let epochs: Vec<i64> = held.iter().map(|(_, epoch)| epoch.0).collect();
        let rows = self.client.query(&self.find_fenced, &[&topics, &ids, &epochs]).await?;
        Ok(rows
            .iter()
            .map(|row| ConsumerKey { topic: TopicId(row.get(0)), consumer: row.get(1) })
            .collect())
    }

    /// Cancelled when the session is over, and all its locks with it.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Ends the session and frees all its locks.
    pub fn close(&self) {
        self.closed.cancel();
    }
}
