//! Which producers may publish to which topics.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::{Error, Storage};
use crate::model::{Offset, PageRequest, Producer, ProducerId, TopicName};

impl Storage {
    /// Registers a producer; `None` if there is no such topic, [`Error::Taken`] if it is
    /// registered.
    pub async fn register_producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
    ) -> Result<Option<Producer>, Error> {
        let client = self.query().await?;
        let statement = client
            .prepare_cached(
                "-- register_producer
                insert into trunkline.producer_topic (topic_id, producer_id)
                select id, $2 from trunkline.topic where name = $1
                returning producer_id, created_at, updated_at, last_offset",
            )
            .await?;
        let row = client.query_opt(&statement, &[&topic.as_str(), &producer.as_str()]).await?;
        Ok(row.as_ref().map(self::producer))
    }

    /// Forgets a producer; false if it was not registered.
    pub async fn unregister_producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
    ) -> Result<bool, Error> {
        let client = self.query().await?;
        let statement = client
            .prepare_cached(
                "-- unregister_producer
                delete from trunkline.producer_topic
                using trunkline.topic
                where name = $1 and topic_id = id and producer_id = $2",
            )
            .await?;
        Ok(client.execute(&statement, &[&topic.as_str(), &producer.as_str()]).await? == 1)
    }

    /// A topic's producers by id: one more than the page holds, if there are so many.
    pub async fn list_producers(
        &self,
        topic: &TopicName,
        page: &PageRequest,
    ) -> Result<Vec<Producer>, Error> {
        let client = self.query().await?;
        let statement = client
            .prepare_cached(
                "-- list_producers
                select producer_id, p.created_at, p.updated_at, last_offset
                from trunkline.producer_topic p join trunkline.topic on id = topic_id
                where name = $1 and producer_id > $2 order by producer_id limit $3",
            )
            .await?;
        let limit = page.size as i64 + 1;
        let rows = client.query(&statement, &[&topic.as_str(), &page.after, &limit]).await?;
        Ok(rows.iter().map(producer).collect())
    }

    /// Those of `producers` that are registered on a topic; `None` if there is no such topic.
    pub async fn find_registered(
        &self,
        topic: &TopicName,
        producers: &[ProducerId],
    ) -> Result<Option<Vec<ProducerId>>, Error> {
        let client = self.query().await?;
        let statement = client
            .prepare_cached(
                "-- find_registered
                select array(
                    select producer_id from trunkline.producer_topic
                    where topic_id = id and producer_id = any ($2))
                from trunkline.topic where name = $1",
            )
            .await?;
        let ids: Vec<&str> = producers.iter().map(ProducerId::as_str).collect();
        let row = client.query_opt(&statement, &[&topic.as_str(), &ids]).await?;
        Ok(row.map(|row| row.get::<_, Vec<&str>>(0).into_iter().map(ProducerId::stored).collect()))
    }
}

fn producer(row: &Row) -> Producer {
    Producer {
        id: ProducerId::stored(row.get(0)),
        created_at: row.get(1),
        last_published_at: row.get::<_, Option<SystemTime>>(2),
        last_offset: row.get::<_, Option<i64>>(3).map(Offset),
    }
}
