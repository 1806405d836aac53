//! The consumers of each topic, and who holds their leases.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::{
    Error, Storage,
    session::{Parameter, Statements as _},
};
use crate::model::{
    Consumer, ConsumerId, ConsumerKey, Epoch, Offset, PageRequest, TopicId, TopicName,
};

/// What [`consumer`] reads. A holder is shown only while the advisory lock is held: a broker that
/// was killed had no time to erase its name.
const CONSUMER: &str = "
    select consumer_id, c.topic_id, c.id, position, next_offset, epoch,
           case when exists (
               select from pg_locks
               where locktype = 'advisory' and granted and objsubid = 2
                 and database = (select oid from pg_database where datname = current_database())
                 and classid = c.topic_id::oid and objid = c.id::oid
           ) then holder end,
           c.created_at, c.updated_at, first_offset
    from trunkline.topic t
    join trunkline.topic_head h on h.topic_id = t.id
    join trunkline.consumer_topic c on c.topic_id = t.id";

impl Storage {
    /// The numbers of the consumers registered on a topic.
    pub async fn find_consumer_numbers(&self, topic: TopicId) -> Result<Vec<i32>, Error> {
        let client = self.query().await?;
        let statement = "-- find_consumer_numbers
            select id from trunkline.consumer_topic where topic_id = $1";
        let rows = client.query(statement, &[&topic.0]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Registers a consumer at a position; false if the log, or the topic, has gone from there by
    /// now. [`Error::Taken`] if it is registered.
    pub async fn register_consumer(
        &self,
        topic: TopicId,
        consumer: &ConsumerId,
        position: Offset,
    ) -> Result<bool, Error> {
        let client = self.query().await?;
        // The head is locked against retention, which asks for the positions under its lock, and
        // not against publishes.
        let statement = "-- register_consumer
                insert into trunkline.consumer_topic (topic_id, consumer_id, position)
                select topic_id, $2, $3::bigint from trunkline.topic_head
                where topic_id = $1 and first_offset <= $3::bigint
                for key share";
        let parameters: [&dyn Parameter; 3] = [&topic.0, &consumer.as_str(), &position.0];
        Ok(client.execute(statement, &parameters).await? == 1)
    }

    /// Forgets a consumer; `None` if it was not registered.
    pub async fn unregister_consumer(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<Option<ConsumerKey>, Error> {
        let client = self.query().await?;
        let statement = "-- unregister_consumer
                delete from trunkline.consumer_topic c
                using trunkline.topic t
                where t.name = $1 and c.topic_id = t.id and consumer_id = $2
                returning c.topic_id, c.id";
        let row = client.query_opt(statement, &[&topic.as_str(), &consumer.as_str()]).await?;
        Ok(row.map(|row| ConsumerKey { topic: TopicId(row.get(0)), consumer: row.get(1) }))
    }

    /// One consumer, if it is registered.
    pub async fn find_consumer(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<Option<Consumer>, Error> {
        let client = self.query().await?;
        let text = format!("-- find_consumer{CONSUMER}\nwhere t.name = $1 and consumer_id = $2");
        let statement = &text;
        let row = client.query_opt(statement, &[&topic.as_str(), &consumer.as_str()]).await?;
        Ok(row.as_ref().map(self::consumer))
    }

    /// A topic's consumers by id: one more than the page holds, if there are so many.
    pub async fn list_consumers(
        &self,
        topic: &TopicName,
        page: &PageRequest,
    ) -> Result<Vec<Consumer>, Error> {
        let client = self.query().await?;
        let text = format!(
            "-- list_consumers{CONSUMER}
            where t.name = $1 and consumer_id > $2 order by consumer_id limit $3"
        );
        let statement = &text;
        let limit = page.size as i64 + 1;
        let rows = client.query(statement, &[&topic.as_str(), &page.after, &limit]).await?;
        Ok(rows.iter().map(consumer).collect())
    }
}

fn consumer(row: &Row) -> Consumer {
    Consumer {
        id: ConsumerId::stored(row.get(0)),
        key: ConsumerKey { topic: TopicId(row.get(1)), consumer: row.get(2) },
        position: Offset(row.get(3)),
        head: Offset(row.get(4)),
        epoch: Epoch(row.get(5)),
        holder: row.get(6),
        first: Offset(row.get(9)),
        created_at: row.get::<_, SystemTime>(7),
        updated_at: row.get::<_, SystemTime>(8),
    }
}
