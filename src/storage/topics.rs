//! The catalogue of topics.

use tokio_postgres::Row;

use super::{Error, Storage, arrays};
use crate::model::{Labels, Offset, PageRequest, Topic, TopicChanges, TopicName};

impl Storage {
    /// Creates an empty topic; [`Error::Taken`] if there is one of that name.
    pub async fn create_topic(
        &self,
        name: &TopicName,
        description: &str,
        labels: &Labels,
    ) -> Result<Topic, Error> {
        let client = self.query().await?;
        let statement = client
            .prepare_cached(
                "-- create_topic
                with created as (
                    insert into trunkline.topic (name, description, labels)
                    values ($1, $2, $3::text::jsonb)
                    returning *
                ), head as (
                    insert into trunkline.topic_head (topic_id) select id from created
                    returning *
                )
                select name, description, labels::text, created_at, updated_at,
                       first_offset, next_offset, last_published_at
                from created, head",
            )
            .await?;
        let labels = arrays::labels_to_json(labels)?;
        let row = client.query_one(&statement, &[&name.as_str(), &description, &labels]).await?;
        topic(&row)
    }

    /// One topic, if there is one of that name.
    pub async fn find_topic(&self, name: &TopicName) -> Result<Option<Topic>, Error> {
        let client = self.query().await?;
        let statement = client
            .prepare_cached(
                "-- find_topic
                select name, description, labels::text, created_at, updated_at,
                       first_offset, next_offset, last_published_at
                from trunkline.topic join trunkline.topic_head on topic_id = id
                where name = $1",
            )
            .await?;
        client.query_opt(&statement, &[&name.as_str()]).await?.as_ref().map(topic).transpose()
    }

    /// Topics by name: one more than the page holds, if there are so many.
    pub async fn list_topics(&self, page: &PageRequest) -> Result<Vec<Topic>, Error> {
        let client = self.query().await?;
        let statement = client
            .prepare_cached(
                "-- list_topics
                select name, description, labels::text, created_at, updated_at,
                       first_offset, next_offset, last_published_at
                from trunkline.topic join trunkline.topic_head on topic_id = id
                where name > $1 order by name limit $2",
            )
            .await?;
        let rows = client.query(&statement, &[&page.after, &(page.size as i64 + 1)]).await?;
        rows.iter().map(topic).collect()
    }

    /// Changes a topic; `None` if there is none of that name.
    pub async fn update_topic(
        &self,
        name: &TopicName,
        changes: &TopicChanges,
    ) -> Result<Option<Topic>, Error> {
        let client = self.query().await?;
        let statement = client
            .prepare_cached(
                "-- update_topic
                update trunkline.topic
                set description = coalesce($2, description),
                    labels = coalesce($3::text::jsonb, labels),
                    updated_at = now()
                from trunkline.topic_head
                where name = $1 and topic_id = id
                returning name, description, labels::text, created_at, updated_at,
                          first_offset, next_offset, last_published_at",
            )
            .await?;
        let labels = changes.labels.as_ref().map(arrays::labels_to_json).transpose()?;
        let row =
            client.query_opt(&statement, &[&name.as_str(), &changes.description, &labels]).await?;
        row.as_ref().map(topic).transpose()
    }

    /// Deletes a topic with all that belongs to it; false if there is none of that name.
    ///
    /// The head's row goes first: a publish that holds it is waited for, and one that waits for
    /// it then finds the topic gone.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<bool, Error> {
        let mut client = self.query().await?;
        let transaction = client.transaction().await?;
        let head = transaction
            .query_opt(
                "-- delete_topic_head
                delete from trunkline.topic_head
                using trunkline.topic where name = $1 and topic_id = id
                returning topic_id",
                &[&name.as_str()],
            )
            .await?;
        let Some(head) = head else { return Ok(false) };
        let id: i32 = head.get(0);
        for statement in [
            "-- delete_topic_batches\ndelete from trunkline.batch where topic_id = $1",
            "-- delete_topic_producers\ndelete from trunkline.producer_topic where topic_id = $1",
            "-- delete_topic_consumers\ndelete from trunkline.consumer_topic where topic_id = $1",
            "-- delete_topic\ndelete from trunkline.topic where id = $1",
        ] {
            transaction.execute(statement, &[&id]).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}

fn topic(row: &Row) -> Result<Topic, Error> {
    Ok(Topic {
        name: TopicName::stored(row.get(0)),
        description: row.get(1),
        labels: arrays::labels_from_json(row.get(2))?,
        created_at: row.get(3),
        updated_at: row.get(4),
        first_offset: Offset(row.get(5)),
        head: Offset(row.get(6)),
        last_published_at: row.get(7),
    })
}
