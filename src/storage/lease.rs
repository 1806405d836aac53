//! The session that holds a broker's advisory locks: the leases of its streams.
//!
//! All of a broker's leases live and die with this one direct session. The server lets a session
//! take a lock again that it holds already, so the caller must make sure that only one stream asks.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use tokio_postgres::{Client, Statement, types::ToSql};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Error, Server, Storage,
    connector::Driver,
    error::describe,
    session::{Statements as _, prepare_session},
    timeout::{SESSION_TIMEOUT, WRITER_LOCK_TIMEOUT},
};
use crate::model::{ConsumerKey, Epoch, Offset, TopicId};

/// The advisory lock under which one broker at a time removes expired messages: any constant that
/// nothing else uses. Its key is one number, like that of the migrations' lock.
const RETENTION_LOCK: i64 = 0x7472_756e_6b72_6574;

/// The advisory lock under which one broker at a time moves messages out of the outbox.
const RELAY_LOCK: i64 = 0x7472_756e_6b72_656c;

/// The name of the session, in `pg_stat_activity` and in the log.
const NAME: &str = "trunkline lease";

/// The outcome of beginning an epoch.
#[derive(Clone, Copy, Debug)]
pub enum EpochStart {
    /// The epoch has begun, which fences all earlier ones.
    Epoch {
        /// The number of this acquisition.
        epoch: Epoch,
        /// The offset that the consumer gets next.
        position: Offset,
        /// The epoch that the last seek began; 0 if there was none.
        seek_epoch: Epoch,
    },
    /// Another stream is taking the lease over.
    Claimed,
    /// Another session of the database holds the consumer's row.
    RowLocked,
    /// The consumer is no longer registered.
    Gone,
}

/// The outcome of claiming a lease.
#[derive(Clone, Debug)]
pub enum Claim {
    /// The claim stands.
    Stands,
    /// Another stream has claimed the lease since.
    Superseded {
        /// The name that this stream goes by as a holder.
        by: String,
    },
    /// The consumer is no longer registered.
    Gone,
}

/// What is stored about a consumer whose lease was changed from outside.
#[derive(Clone, Debug)]
pub struct LeaseChange {
    /// The epoch. Higher than the lease's after a seek, a take-over or a pull.
    pub epoch: Epoch,
    /// The stored position.
    pub position: Offset,
    /// Whether another stream has begun to take the lease over, whatever became of that.
    pub taken: bool,
    /// The name that this stream goes by as a holder.
    pub taker: String,
}

/// Identifies a stream that is taking a lease over.
#[derive(Clone, Debug)]
pub struct ClaimToken(String);

impl ClaimToken {
    /// Makes a unique token.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }
}

/// The session that holds a broker's leases.
pub struct LeaseSession {
    client: Client,
    server: Server,
    try_lock: Statement,
    unlock: Statement,
    begin_epoch: Statement,
    find_changes: Statement,
    lock_role: Statement,
    /// Whether the session holds the right to remove expired messages.
    removes_expired: AtomicBool,
    /// Whether the session holds the right to move messages out of the outbox.
    relays: AtomicBool,
    closed: CancellationToken,
    _close: DropGuard,
}

impl Storage {
    /// Claims a lease for a stream that takes it over: this ends the holder's epoch, and keeps
    /// everyone else from beginning one. A new claim (`anew`) supersedes all earlier ones. Without
    /// `anew` it repeats the claim, which is needed every second or so until the lease is acquired.
    pub async fn claim_lease(
        &self,
        key: ConsumerKey,
        ClaimToken(token): &ClaimToken,
        holder: &str,
        anew: bool,
    ) -> Result<Claim, Error> {
        let client = self.query().await?;
        let statement = "-- claim_lease
                with claimed as (
                    update trunkline.consumer_topic
                    set epoch = case when claimed_by = $3 then epoch else epoch + 1 end,
                        claim_epoch = case when claimed_by = $3 then claim_epoch else epoch + 1 end,
                        claimed_by = $3, claimant = $4, claimed_at = now()
                    where topic_id = $1 and id = $2 and ($5 or claimed_by = $3)
                    returning claimant
                )
                select claimed.claimant is not null,
                       coalesce(case when c.claimed_by is not null then c.claimant end, c.holder)
                from trunkline.consumer_topic c left join claimed on true
                where topic_id = $1 and id = $2";
        let row = client
            .query_opt(statement, &[&key.topic.0, &key.consumer, token, &holder, &anew])
            .await?;
        Ok(match row {
            Some(row) if row.get(0) => Claim::Stands,
            Some(row) => Claim::Superseded { by: row.get(1) },
            None => Claim::Gone,
        })
    }

    /// Withdraws a claim that was not used, so that others need not wait for it to expire.
    pub async fn withdraw_claim(
        &self,
        key: ConsumerKey,
        ClaimToken(token): &ClaimToken,
    ) -> Result<(), Error> {
        let client = self.query().await?;
        let statement = "-- withdraw_claim
                update trunkline.consumer_topic set claimed_by = null, claimed_at = null
                where topic_id = $1 and id = $2 and claimed_by = $3";
        client.execute(statement, &[&key.topic.0, &key.consumer, token]).await?;
        Ok(())
    }

    /// Opens the session that will hold this broker's leases. Gives up after 5 s.
    pub async fn open_lease_session(&self) -> Result<LeaseSession, Error> {
        let requested_at = Instant::now();
        // Has a shorter limit of its own, so that its error says which server did not answer.
        let (client, connection) = self.direct.open(NAME).await?;
        let prepared = Box::pin(self.prepare_lease_session(client, connection, requested_at));
        let prepared = tokio::time::timeout_at(requested_at + SESSION_TIMEOUT, prepared).await;
        prepared.unwrap_or_else(|_| {
            Err(Error::Unavailable(format!("no session was set up in {SESSION_TIMEOUT:?}")))
        })
    }

    async fn prepare_lease_session(
        &self,
        client: Client,
        connection: Driver,
        requested_at: Instant,
    ) -> Result<LeaseSession, Error> {
        let closed = CancellationToken::new();
        let (driver_closed, close) = (closed.clone(), closed.clone().drop_guard());
        // Ends when `close` is called, or the session is dropped, even while it is being opened.
        // Then the connection ends, and with it the server ends the session and frees its locks.
        tokio::spawn(async move {
            let _closed = driver_closed.clone().drop_guard();
            tokio::select! {
                outcome = connection => {
                    if let Err(error) = outcome {
                        let error = describe(&error);
                        tracing::warn!(session = NAME, error, "lost a database session");
                    }
                }
                () = driver_closed.cancelled() => {}
            }
        });
        // No statement of this session waits for a row lock: all leases of the broker share it.
        prepare_session(&client, WRITER_LOCK_TIMEOUT).await?;
        Ok(LeaseSession {
            server: self.direct.primary.follow(&client, requested_at.into_std()).await?,
            try_lock: client.prepare("-- try_lock\nselect pg_try_advisory_lock($1, $2)").await?,
            unlock: client.prepare("-- unlock\nselect pg_advisory_unlock($1, $2)").await?,
            begin_epoch: client
                .prepare(
                    "-- begin_epoch
                    with free as materialized (
                        select topic_id, id from trunkline.consumer_topic
                        where topic_id = $1 and id = $2 for no key update skip locked
                    ), begun as (
                        update trunkline.consumer_topic c
                        set epoch = epoch + 1, holder = $3, updated_at = now(),
                            claimed_by = null, claimed_at = null
                        from free
                        where c.topic_id = free.topic_id and c.id = free.id
                          and (claimed_by is null or claimed_by = $4
                               or claimed_at < now() - interval '5 seconds')
                        returning epoch, position, seek_epoch
                    )
                    select begun.epoch, begun.position, begun.seek_epoch,
                           exists (select from free)
                    from trunkline.consumer_topic left join begun on true
                    where topic_id = $1 and id = $2",
                )
                .await?,
            find_changes: client
                .prepare(
                    "-- find_changes
                    select held.topic_id, held.id, c.epoch, c.position,
                           c.claim_epoch > held.epoch, coalesce(c.claimant, c.holder)
                    from unnest($1::integer[], $2::integer[], $3::bigint[], $4::bigint[])
                        as held (topic_id, id, epoch, position)
                    left join trunkline.consumer_topic c
                        on c.topic_id = held.topic_id and c.id = held.id
                    where c.epoch is distinct from held.epoch or c.position > held.position",
                )
                .await?,
            lock_role: client.prepare("-- lock_role\nselect pg_try_advisory_lock($1)").await?,
            removes_expired: AtomicBool::new(false),
            relays: AtomicBool::new(false),
            client,
            _close: close,
            closed,
        })
    }
}

impl LeaseSession {
    /// Takes a consumer's lock if no session holds it.
    pub async fn try_lock(&self, key: ConsumerKey) -> Result<bool, Error> {
        let row = self.client.query_one(&self.try_lock, &[&key.topic.0, &key.consumer]).await?;
        Ok(row.get(0))
    }

    /// Releases a consumer's lock; false if this session did not hold it.
    pub async fn unlock(&self, key: ConsumerKey) -> Result<bool, Error> {
        let row = self.client.query_one(&self.unlock, &[&key.topic.0, &key.consumer]).await?;
        Ok(row.get(0))
    }

    /// Begins a new epoch under the lock, without waiting for the consumer's row. `claim` is that of
    /// a stream that takes the lease over. A claim that was not repeated for 5 s has expired: the
    /// stream that made it is gone.
    pub async fn begin_epoch(
        &self,
        key: ConsumerKey,
        holder: &str,
        claim: Option<&ClaimToken>,
    ) -> Result<EpochStart, Error> {
        let claim = claim.map(|ClaimToken(token)| token);
        let row = self
            .client
            .query_opt(&self.begin_epoch, &[&key.topic.0, &key.consumer, &holder, &claim])
            .await?;
        let Some(row) = row else { return Ok(EpochStart::Gone) };
        Ok(match row.get::<_, Option<i64>>(0) {
            Some(epoch) => EpochStart::Epoch {
                epoch: Epoch(epoch),
                position: Offset(row.get(1)),
                seek_epoch: Epoch(row.get(2)),
            },
            None if row.get(3) => EpochStart::Claimed,
            None => EpochStart::RowLocked,
        })
    }

    /// Finds the leases that were changed from outside: those with another epoch, or with a stored
    /// position beyond the given one. `None` where the consumer is gone.
    ///
    /// Asks over this session, so that an answer proves that the locks are still held.
    pub async fn find_changes(
        &self,
        held: &[(ConsumerKey, Epoch, Offset)],
    ) -> Result<Vec<(ConsumerKey, Option<LeaseChange>)>, Error> {
        let topics: Vec<i32> = held.iter().map(|(key, ..)| key.topic.0).collect();
        let ids: Vec<i32> = held.iter().map(|(key, ..)| key.consumer).collect();
        let epochs: Vec<i64> = held.iter().map(|(_, epoch, _)| epoch.0).collect();
        let positions: Vec<i64> = held.iter().map(|(.., position)| position.0).collect();
        let arguments: [&(dyn ToSql + Sync); 4] = [&topics, &ids, &epochs, &positions];
        let rows = self.client.query(&self.find_changes, &arguments).await?;
        Ok(rows
            .iter()
            .map(|row| {
                let key = ConsumerKey { topic: TopicId(row.get(0)), consumer: row.get(1) };
                let change = row.get::<_, Option<i64>>(2).map(|epoch| LeaseChange {
                    epoch: Epoch(epoch),
                    position: Offset(row.get(3)),
                    taken: row.get(4),
                    taker: row.get(5),
                });
                (key, change)
            })
            .collect())
    }

    /// Takes the right to remove expired messages, which one broker at a time holds for as long as
    /// its session lasts; false if another broker holds it.
    pub async fn lock_retention(&self) -> Result<bool, Error> {
        self.lock_role(RETENTION_LOCK, &self.removes_expired).await
    }

    /// As [`Self::lock_retention`], the right to move messages out of the outbox.
    pub async fn lock_relay(&self) -> Result<bool, Error> {
        self.lock_role(RELAY_LOCK, &self.relays).await
    }

    async fn lock_role(&self, lock: i64, held: &AtomicBool) -> Result<bool, Error> {
        if held.load(Ordering::Acquire) {
            return Ok(true);
        }
        let locked = self.client.query_one(&self.lock_role, &[&lock]).await?.get(0);
        held.store(locked, Ordering::Release);
        Ok(locked)
    }

    /// The server that the session reaches.
    pub fn server(&self) -> Server {
        self.server
    }

    /// Cancelled when the session is over, and its locks are free.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Ends the session and frees all its locks.
    pub fn close(&self) {
        self.closed.cancel();
    }
}
