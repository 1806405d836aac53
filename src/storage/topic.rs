//! The catalogue of topics.

use std::time::Duration;

use tokio_postgres::Row;

use super::{
    Error, Storage, column,
    consumer::forget_consumers_of,
    producer::forget_producers_of,
    session::{Parameter, Statements as _},
};
use crate::model::{
    Claimant, Labels, Offset, Retention, Topic, TopicChanges, TopicFilter, TopicId, TopicMark,
    TopicName,
};

/// The columns that [`topic`] reads.
const TOPIC: &str = "name, description, labels::text, created_at, updated_at,
    first_offset, next_offset, last_published_at, bytes,
    retention_age_ms, retention_bytes, retention_messages, keep_unread";

impl Storage {
    /// Creates an empty topic, for a creator if there is one; [`Error::Taken`] if the name is taken,
    /// [`Error::Full`] if there are `limit` topics, [`Error::OwnerFull`] if the creator has as many
    /// as it may.
    pub async fn create_topic(
        &self,
        name: &TopicName,
        description: &str,
        labels: &Labels,
        retention: &Retention,
        creator: Option<&Claimant>,
        limit: usize,
    ) -> Result<Topic, Error> {
        let client = self.query().await?;
        // A name that is taken must not use up a number: there are 2^31 of them.
        let statement = &format!(
            "-- create_topic
                with created as (
                    insert into trunkline.topic (name, description, labels, retention_age_ms,
                        retention_bytes, retention_messages, keep_unread, created_by)
                    select $1, $2, $3::text::jsonb, $4, $5, $6, $7, $9
                    where not exists (select from trunkline.topic where name = $1)
                      and (select count(*) from trunkline.topic) < $8
                      and ($9::text is null
                           or (select count(*) from trunkline.topic where created_by = $9) < $10)
                    returning *
                ), head as (
                    insert into trunkline.topic_head (topic_id) select id from created
                    returning *
                )
                select {TOPIC} from created, head"
        );
        let labels = column::labels_to_json(labels)?;
        let Retention { max_age, max_bytes, max_messages, keep_unread } = retention;
        let age = max_age.map(Retention::stored_age);
        let (name, limit) = (name.as_str(), limit as i64);
        let (owner, owner_limit) = column::claimant(creator);
        let arguments: [&dyn Parameter; 10] = [
            &name,
            &description,
            &labels,
            &age,
            max_bytes,
            max_messages,
            keep_unread,
            &limit,
            &owner,
            &owner_limit,
        ];
        if let Some(created) = client.query_opt(statement, &arguments).await? {
            return topic(&created);
        }
        let why = "-- why_not_created
            select exists (select from trunkline.topic where name = $1),
                   (select count(*) from trunkline.topic) >= $2";
        let row = client.query_one(why, &[&name, &limit]).await?;
        Err(match (row.get(0), row.get(1), owner) {
            (true, _, _) => Error::Taken,
            (false, false, Some(_)) => Error::OwnerFull,
            (false, _, _) => Error::Full,
        })
    }

    /// A topic by its name, if it exists.
    pub async fn find_topic(&self, name: &TopicName) -> Result<Option<Topic>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- find_topic
                select {TOPIC}
                from trunkline.topic join trunkline.topic_head on topic_id = id
                where name = $1"
        );
        client.query_opt(statement, &[&name.as_str()]).await?.as_ref().map(topic).transpose()
    }

    /// A topic's id, and what tells it apart from others of its name; `None` if there is no such
    /// topic.
    pub async fn find_topic_identity(
        &self,
        name: &TopicName,
    ) -> Result<Option<(TopicId, TopicMark)>, Error> {
        let client = self.query().await?;
        let statement = "-- find_topic_identity
                select id, created_at from trunkline.topic where name = $1";
        let row = client.query_opt(statement, &[&name.as_str()]).await?;
        Ok(row.map(|row| (TopicId(row.get(0)), TopicMark::of(row.get(1)))))
    }

    /// The first `limit` topics, sorted by name, whose names come after `after`.
    pub async fn list_topics(&self, after: &str, limit: usize) -> Result<Vec<Topic>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- list_topics
                select {TOPIC}
                from trunkline.topic join trunkline.topic_head on topic_id = id
                where name > $1 order by name limit $2"
        );
        let rows = client.query(statement, &[&after, &(limit as i64)]).await?;
        rows.iter().map(topic).collect()
    }

    /// As [`Self::list_topics`], without the topics that `filter` leaves out.
    pub async fn list_topics_of(
        &self,
        filter: &TopicFilter,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Topic>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- list_topics_of
                select {TOPIC}
                from trunkline.topic join trunkline.topic_head on topic_id = id
                where name > $1
                  and (name = any ($3)
                       or exists (select from unnest($4::text[]) as prefix
                                  where starts_with(name, prefix)))
                order by name limit $2"
        );
        let names: Vec<&str> = filter.names.iter().map(String::as_str).collect();
        let prefixes: Vec<&str> = filter.prefixes.iter().map(String::as_str).collect();
        let values: [&dyn Parameter; 4] = [&after, &(limit as i64), &names, &prefixes];
        client.query(statement, &values).await?.iter().map(topic).collect()
    }

    /// Changes a topic; `None` if there is no such topic.
    pub async fn update_topic(
        &self,
        name: &TopicName,
        changes: &TopicChanges,
    ) -> Result<Option<Topic>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- update_topic
                update trunkline.topic
                set description = coalesce($2, description),
                    labels = coalesce($3::text::jsonb, labels),
                    retention_age_ms = case when $4 then $5 else retention_age_ms end,
                    retention_bytes = case when $6 then $7 else retention_bytes end,
                    retention_messages = case when $8 then $9 else retention_messages end,
                    keep_unread = coalesce($10, keep_unread),
                    updated_at = now()
                from trunkline.topic_head
                where name = $1 and topic_id = id
                returning {TOPIC}"
        );
        let TopicChanges { description, labels, max_age, max_bytes, max_messages, keep_unread } =
            changes;
        let labels = labels.as_ref().map(column::labels_to_json).transpose()?;
        let age = max_age.flatten().map(Retention::stored_age);
        let arguments: [&dyn Parameter; 10] = [
            &name.as_str(),
            description,
            &labels,
            &max_age.is_some(),
            &age,
            &max_bytes.is_some(),
            &max_bytes.flatten(),
            &max_messages.is_some(),
            &max_messages.flatten(),
            keep_unread,
        ];
        let row = client.query_opt(statement, &arguments).await?;
        row.as_ref().map(topic).transpose()
    }

    /// Deletes a topic with its registrations and positions; `None` if there is no such topic. This
    /// hides its messages, which are deleted later in small steps.
    ///
    /// Deletes the head's row first: this waits for a publish that holds it, and a publish that
    /// waits for it then finds the topic gone.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<Option<TopicId>, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                let head = transaction
                    .query_opt(
                        "-- delete_topic_head
                        delete from trunkline.topic_head
                        using trunkline.topic where name = $1 and topic_id = id
                        returning topic_id",
                        &[&name.as_str()],
                    )
                    .await?;
                let Some(head) = head else { return Ok(None) };
                let id: i32 = head.get(0);
                // Waits for registrations under way, which hold the topic's row, and deletes them
                // too.
                let lock = "-- lock_topic\nselect from trunkline.topic where id = $1 for update";
                transaction.query_opt(lock, &[&id]).await?;
                let bury =
                    "-- bury_topic\ninsert into trunkline.deleted_topic (topic_id) values ($1)";
                transaction.execute(bury, &[&id]).await?;
                // Locks all registrations before the fence: a statement that forgets one of them
                // also locks its row first, and the fence after that.
                let lock = "-- lock_topic_consumers
                    select from trunkline.consumer_topic where topic_id = $1
                    order by consumer_id for update";
                transaction.query(lock, &[&id]).await?;
                forget_producers_of(transaction, TopicId(id)).await?;
                forget_consumers_of(transaction, TopicId(id)).await?;
                let delete = "-- delete_topic\ndelete from trunkline.topic where id = $1";
                transaction.execute(delete, &[&id]).await?;
                Ok(Some(TopicId(id)))
            })
            .await
    }
}

fn topic(row: &Row) -> Result<Topic, Error> {
    Ok(Topic {
        name: TopicName::stored(row.get(0)),
        description: row.get(1),
        labels: column::labels_from_json(row.get(2))?,
        created_at: row.get(3),
        updated_at: row.get(4),
        first_offset: Offset(row.get(5)),
        head: Offset(row.get(6)),
        last_published_at: row.get(7),
        bytes: row.get(8),
        retention: Retention {
            max_age: row.get::<_, Option<i64>>(9).map(|ms| Duration::from_millis(ms as u64)),
            max_bytes: row.get(10),
            max_messages: row.get(11),
            keep_unread: row.get(12),
        },
    })
}
