//! Moves messages that were published from SQL out of the outbox and into the log.

use std::time::Duration;

use tokio_postgres::Row;

use super::{
    Error, Storage,
    session::{Parameter, Statements as _},
};
use crate::model::{Offset, TopicId};

/// How many messages one call moves, and up to how many bytes of them.
const MAX_MESSAGES: i32 = 10_000;
const MAX_BYTES: i64 = 4 * 1024 * 1024;

/// How long a move waits for the head of each topic that another session has locked.
const HEAD_WAIT: Duration = Duration::from_millis(50);

/// Whether the noted pass is one of this server, and was not restored from a dump.
pub(super) const IS_OF_THIS_SERVER: &str =
    "mod(noted_in::text::numeric, 4294967296) = xmin::text::numeric";

/// Long enough for a vacuum of a large outbox, but a connection that hangs is given up eventually.
const VACUUM_TIMEOUT: Duration = Duration::from_secs(600);

/// What was visible of the outbox at a moment. A pass covers that, in as many moves as it takes.
#[derive(Clone, Debug)]
pub struct Pass {
    snapshot: String,
    /// The newest id that had been given out by then.
    newest_id: i64,
    /// The number of the next transaction.
    next_transaction: i64,
}

/// Which messages to move.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Those of these topics; of all if it is empty.
    pub only: Vec<TopicId>,
    /// Not those of these topics.
    pub skipped: Vec<TopicId>,
}

/// How far a pass has come.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The pass.
    pub pass: Pass,
    /// The last id that was moved, or left because its topic is locked.
    last_id: i64,
}

/// What one call moved.
#[derive(Debug)]
pub struct Moved {
    /// How far the pass has come.
    pub progress: Progress,
    /// Whether the pass is over.
    pub is_complete: bool,
    /// How many messages it moved.
    pub messages: usize,
    /// How many messages it dropped, as their topics were deleted.
    pub dropped: usize,
    /// The topics it moved messages to, with their heads.
    pub heads: Vec<(TopicId, Offset)>,
    /// The topics whose messages it left.
    pub blocked: Vec<Left>,
}

/// A topic whose messages were left in the outbox.
#[derive(Debug)]
pub struct Left {
    /// The topic.
    pub topic: TopicId,
    /// Why they cannot be stored; `None` if another session has locked what they need.
    pub problem: Option<String>,
}

impl Storage {
    /// Moves messages of committed transactions into the log, each in one transaction with its removal
    /// from the outbox. `since` is the last pass that is over, `progress` that of the present one, if
    /// it has begun. `None` if another broker is at it.
    pub async fn move_outbox(
        &self,
        since: Option<&Pass>,
        progress: Option<&Progress>,
        scope: &Scope,
    ) -> Result<Option<Moved>, Error> {
        let mut client = self.query().await?;
        client.limit_lock_wait(HEAD_WAIT);
        let statement = "-- move_outbox
            select is_alone, snapshot, newest_id, next_transaction, coalesce(last_id, 0), is_complete,
                   moved, dropped, topics, heads, blocked, problems
            from trunkline.move_outbox($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                                       $11)";
        let numbers = |topics: &[TopicId]| topics.iter().map(|topic| topic.0).collect::<Vec<_>>();
        let (only, skipped) = (numbers(&scope.only), numbers(&scope.skipped));
        let parameters: [&dyn Parameter; 11] = [
            &since.map(|pass| pass.snapshot.as_str()),
            &since.map(|pass| pass.newest_id),
            &since.map(|pass| pass.next_transaction),
            &progress.map(|progress| progress.pass.snapshot.as_str()),
            &progress.map(|progress| progress.pass.newest_id),
            &progress.map(|progress| progress.pass.next_transaction),
            &progress.map(|progress| progress.last_id),
            &MAX_MESSAGES,
            &MAX_BYTES,
            &only,
            &skipped,
        ];
        let row = client.query_one(statement, &parameters).await?;
        Ok(row.get::<_, bool>(0).then(|| moved(&row)))
    }

    /// The last pass that was noted, and is over: by this broker or another one. `None` if none was
    /// since the database was restored.
    pub async fn find_outbox_pass(&self) -> Result<Option<Pass>, Error> {
        let statement = format!(
            "-- find_outbox_pass
            select snapshot, newest_id, next_transaction
            from trunkline.outbox_pass where {IS_OF_THIS_SERVER}"
        );
        let row = self.query().await?.query_opt(&statement, &[]).await?;
        Ok(row.map(|row| Pass {
            snapshot: row.get(0),
            newest_id: row.get(1),
            next_transaction: row.get(2),
        }))
    }

    /// How many rows of the outbox were moved and wait for a vacuum, by the server's statistics.
    pub async fn count_dead_outbox_rows(&self) -> Result<i64, Error> {
        let statement = "-- count_dead_outbox_rows
            select pg_stat_get_dead_tuples('trunkline.outbox'::regclass)";
        Ok(self.query().await?.query_one(statement, &[]).await?.get(0))
    }

    /// Whether transactions may be prepared on this server. Publishers then wake nobody: a transaction
    /// that notifies cannot be prepared.
    pub async fn prepares_transactions(&self) -> Result<bool, Error> {
        let statement = "-- find_whether_transactions_are_prepared
            select current_setting('max_prepared_transactions') <> '0'";
        Ok(self.query().await?.query_one(statement, &[]).await?.get(0))
    }

    /// Frees the space of messages that were moved, for new ones.
    pub async fn vacuum_outbox(&self) -> Result<(), Error> {
        self.vacuum("outbox", "vacuum_outbox", VACUUM_TIMEOUT).await
    }
}

fn moved(row: &Row) -> Moved {
    let topics = |column| row.get::<_, Vec<i32>>(column).into_iter().map(TopicId);
    let heads = row.get::<_, Vec<i64>>(9).into_iter().map(Offset);
    let pass = Pass { snapshot: row.get(1), newest_id: row.get(2), next_transaction: row.get(3) };
    Moved {
        progress: Progress { pass, last_id: row.get(4) },
        is_complete: row.get(5),
        messages: row.get::<_, i32>(6) as usize,
        dropped: row.get::<_, i32>(7) as usize,
        heads: topics(8).zip(heads).collect(),
        blocked: topics(10)
            .zip(row.get::<_, Vec<String>>(11))
            .map(|(topic, problem)| Left {
                topic,
                problem: Some(problem).filter(|it| !it.is_empty()),
            })
            .collect(),
    }
}
