//! Which producers may publish to which topics.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::{Error, Storage, session::Statements as _};
use crate::model::{
    Epoch, Offset, PageRequest, Producer, ProducerId, Registration, Sequence, SequenceRun,
    TopicName,
};

impl Storage {
    /// Registers a producer; `None` if there is no such topic, [`Error::Taken`] if it is
    /// registered.
    pub async fn register_producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
    ) -> Result<Option<Producer>, Error> {
        let client = self.query().await?;
        let statement = "-- register_producer
                insert into trunkline.producer_topic (topic_id, producer_id)
                select id, $2 from trunkline.topic where name = $1
                returning producer_id, created_at, updated_at, last_offset, epoch, last_sequence";
        let row = client.query_opt(statement, &[&topic.as_str(), &producer.as_str()]).await?;
        Ok(row.as_ref().map(self::producer))
    }

    /// Registers a producer, or takes its next epoch if it is registered; `None` if there is no
    /// such topic.
    pub async fn fence_producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
    ) -> Result<Option<Producer>, Error> {
        let client = self.query().await?;
        let statement = "-- fence_producer
                insert into trunkline.producer_topic as p (topic_id, producer_id)
                select id, $2 from trunkline.topic where name = $1
                on conflict (topic_id, producer_id) do update set epoch = p.epoch + 1
                returning producer_id, created_at, updated_at, last_offset, epoch, last_sequence";
        let row = client.query_opt(statement, &[&topic.as_str(), &producer.as_str()]).await?;
        Ok(row.as_ref().map(self::producer))
    }

    /// Forgets a producer; false if it was not registered.
    pub async fn unregister_producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
    ) -> Result<bool, Error> {
        let client = self.query().await?;
        let statement = "-- unregister_producer
                delete from trunkline.producer_topic
                using trunkline.topic
                where name = $1 and topic_id = id and producer_id = $2";
        Ok(client.execute(statement, &[&topic.as_str(), &producer.as_str()]).await? == 1)
    }

    /// A producer; `None` if it is not registered.
    pub async fn find_producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
    ) -> Result<Option<Producer>, Error> {
        let client = self.query().await?;
        let statement = "-- find_producer
                select producer_id, p.created_at, p.updated_at, last_offset, epoch, last_sequence
                from trunkline.producer_topic p join trunkline.topic on id = topic_id
                where name = $1 and producer_id = $2";
        let row = client.query_opt(statement, &[&topic.as_str(), &producer.as_str()]).await?;
        Ok(row.as_ref().map(self::producer))
    }

    /// A topic's producers by id: one more than the page holds, if there are so many.
    pub async fn list_producers(
        &self,
        topic: &TopicName,
        page: &PageRequest,
    ) -> Result<Vec<Producer>, Error> {
        let client = self.query().await?;
        let statement = "-- list_producers
                select producer_id, p.created_at, p.updated_at, last_offset, epoch, last_sequence
                from trunkline.producer_topic p join trunkline.topic on id = topic_id
                where name = $1 and producer_id > $2 order by producer_id limit $3";
        let limit = page.size as i64 + 1;
        let rows = client.query(statement, &[&topic.as_str(), &page.after, &limit]).await?;
        Ok(rows.iter().map(producer).collect())
    }

    /// A topic's head, and the registrations of those of `producers` that have one; `None` if
    /// there is no such topic.
    pub async fn find_registrations(
        &self,
        topic: &TopicName,
        producers: &[ProducerId],
    ) -> Result<Option<(Offset, Vec<Registration>)>, Error> {
        let client = self.query().await?;
        let statement = "-- find_registrations
                select next_offset, producer_id, epoch, coalesce(last_sequence + 1, 0),
                       recent_sequences, recent_offsets
                from trunkline.topic
                join trunkline.topic_head h on h.topic_id = id
                left join trunkline.producer_topic p
                    on p.topic_id = id and producer_id = any ($2)
                where name = $1";
        let ids: Vec<&str> = producers.iter().map(ProducerId::as_str).collect();
        let rows = client.query(statement, &[&topic.as_str(), &ids]).await?;
        let Some(any) = rows.first() else { return Ok(None) };
        Ok(Some((Offset(any.get(0)), rows.iter().filter_map(registration).collect())))
    }
}

fn registration(row: &Row) -> Option<Registration> {
    let producer = ProducerId::stored(row.get::<_, Option<&str>>(1)?);
    let sequences = row.get::<_, Option<Vec<i64>>>(4).unwrap_or_default();
    let offsets = row.get::<_, Option<Vec<i64>>>(5).unwrap_or_default();
    let runs = sequences.into_iter().zip(offsets);
    Some(Registration {
        producer,
        epoch: Epoch(row.get(2)),
        next_sequence: Sequence(row.get(3)),
        recent: runs
            .map(|(sequence, offset)| SequenceRun {
                sequence: Sequence(sequence),
                offset: Offset(offset),
            })
            .collect(),
    })
}

fn producer(row: &Row) -> Producer {
    Producer {
        id: ProducerId::stored(row.get(0)),
        created_at: row.get(1),
        last_published_at: row.get::<_, Option<SystemTime>>(2),
        last_offset: row.get::<_, Option<i64>>(3).map(Offset),
        epoch: Epoch(row.get(4)),
        last_sequence: row.get::<_, Option<i64>>(5).map(Sequence),
    }
}
