//! Checks over a new connection whether logs have lost messages.

use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Error, Storage, session::prepare_session};
use crate::model::{Offset, TopicId, TopicName};

/// How long a check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(4);

/// A check only reads, so it hardly ever waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// The last batch that is known of a log. If it is no longer there, the log has lost messages: any
/// other batch at its offset has another time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastBatch {
    /// The offset of its first message.
    pub base: Offset,
    /// When it was stored.
    pub published_at: SystemTime,
}

/// What a check found of a log.
pub struct FoundLog {
    /// The topic's number.
    pub topic: TopicId,
    /// The topic's name.
    pub name: TopicName,
    /// The offset that the topic's next message gets.
    pub head: Offset,
    /// The last batch that was asked for, if it is missing although nobody removed it.
    pub missing: Option<MissingBatch>,
    /// The numbers of the consumers registered on it.
    pub consumers: Vec<i32>,
}

/// A last batch that is missing.
#[derive(Clone, Copy, Debug)]
pub struct MissingBatch {
    /// The batch.
    pub last_batch: LastBatch,
    /// The first lost offset: the one after the last message that is no newer than the batch.
    pub from: Offset,
}

impl Storage {
    /// Checks logs: one answer for each entry whose topic exists. Uses a connection of its own, as
    /// the sessions of the pools may still reach a server that has been replaced. Gives up after 4
    /// s.
    pub async fn check_logs(
        &self,
        logs: &[(TopicId, Option<LastBatch>)],
    ) -> Result<Vec<FoundLog>, Error> {
        // Boxed, as it holds the future that connects.
        let checked =
            tokio::time::timeout(CHECK_TIMEOUT, Box::pin(self.check_logs_now(logs))).await;
        checked
            .unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer in {CHECK_TIMEOUT:?}"))))
    }

    async fn check_logs_now(
        &self,
        logs: &[(TopicId, Option<LastBatch>)],
    ) -> Result<Vec<FoundLog>, Error> {
        let requested_at = Instant::now();
        let (client, connection) = self.direct.connector.connect("trunkline query").await?;
        // Dropping the client alone would not end the connection while an answer is due.
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        prepare_session(&client, LOCK_TIMEOUT).await?;
        self.direct.primary.follow(&client, requested_at).await?;
        let topics: Vec<i32> = logs.iter().map(|(topic, _)| topic.0).collect();
        let bases: Vec<Option<i64>> =
            logs.iter().map(|(_, last_batch)| last_batch.map(|it| it.base.0)).collect();
        let times: Vec<Option<SystemTime>> =
            logs.iter().map(|(_, last_batch)| last_batch.map(|it| it.published_at)).collect();
        let statement = "-- check_logs
            select id, name, next_offset, base, stored_at,
                   -- From the head back, over what was stored since.
                   case when base >= first_offset and not exists (
                       select from trunkline.batch b
                       where b.topic_id = id and b.base_offset = base
                         and b.published_at = stored_at)
                   then coalesce((
                       select least(base, base_offset + count) from trunkline.batch b
                       where b.topic_id = id and b.published_at <= stored_at
                       order by base_offset desc limit 1), first_offset) end,
                   array(select c.id from trunkline.consumer_topic c where c.topic_id = topic.id)
            from unnest($1, $2, $3) as asked (id, base, stored_at)
            join trunkline.topic using (id)
            join trunkline.topic_head on topic_id = id";
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&topics, Type::INT4_ARRAY),
            (&bases, Type::INT8_ARRAY),
            (&times, Type::TIMESTAMPTZ_ARRAY),
        ];
        let rows = client.query_typed(statement, &parameters).await?;
        let found = |row: &Row| FoundLog {
            topic: TopicId(row.get(0)),
            name: TopicName::stored(row.get::<_, &str>(1)),
            head: Offset(row.get(2)),
            missing: row.get::<_, Option<i64>>(5).map(|from| MissingBatch {
                last_batch: LastBatch { base: Offset(row.get(3)), published_at: row.get(4) },
                from: Offset(from),
            }),
            consumers: row.get(6),
        };
        Ok(rows.iter().map(found).collect())
    }
}
