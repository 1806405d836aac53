//! Parked messages of subscriptions, and how subscriptions deliver.

use std::{sync::Arc, time::SystemTime};

use super::{
    Error, Storage,
    consumer::PolicyColumns,
    session::{Parameter, Statements as _},
};
use crate::model::{
    ConsumerKey, DeliveryPolicy, Epoch, Offset, OffsetRange, ParkedMessage, TopicId,
};

impl Storage {
    /// The first `limit` parked messages of a subscription from an offset on, in order. Messages that were
    /// removed from the log are left out.
    pub async fn list_parked(
        &self,
        key: ConsumerKey,
        from: Offset,
        limit: usize,
    ) -> Result<Vec<ParkedMessage>, Error> {
        let client = self.query().await?;
        let statement = "-- list_parked
            select \"offset\", attempts, reason, parked_at
            from trunkline.subscription_message m
            join trunkline.topic_head h using (topic_id)
            where topic_id = $1 and m.id = $2 and \"offset\" >= greatest($3, first_offset)
              and parked_at is not null
            order by \"offset\" limit $4";
        let parameters: [&dyn Parameter; 4] =
            [&key.topic.0, &key.consumer, &from.0, &(limit as i64)];
        let rows = client.query(statement, &parameters).await?;
        let message = |row: &tokio_postgres::Row| ParkedMessage {
            offset: Offset(row.get(0)),
            attempts: row.get::<_, i32>(1).unsigned_abs(),
            reason: Arc::from(row.get::<_, Option<&str>>(2).unwrap_or_default()),
            parked_at: row.get::<_, SystemTime>(3),
        };
        Ok(rows.iter().map(message).collect())
    }

    /// The first `limit` of a subscription's parked messages that lie in any of the ranges, in order.
    pub async fn find_parked(
        &self,
        key: ConsumerKey,
        ranges: &[OffsetRange],
        limit: usize,
    ) -> Result<Vec<Offset>, Error> {
        let client = self.query().await?;
        let statement = "-- find_parked
            select \"offset\"
            from trunkline.topic_head h
            cross join unnest($3::bigint[], $4::bigint[]) as range (first, \"end\")
            cross join lateral (
                select \"offset\" from trunkline.subscription_message m
                where m.topic_id = h.topic_id and m.id = $2
                  and \"offset\" >= greatest(range.first, h.first_offset)
                  and \"offset\" < range.\"end\" and parked_at is not null
                order by \"offset\" limit $5
            ) found
            where h.topic_id = $1
            order by \"offset\" limit $5";
        let firsts: Vec<i64> = ranges.iter().map(|range| range.start.0).collect();
        let ends: Vec<i64> = ranges.iter().map(|range| range.end.0).collect();
        let parameters: [&dyn Parameter; 5] =
            [&key.topic.0, &key.consumer, &firsts, &ends, &(limit as i64)];
        let rows = client.query(statement, &parameters).await?;
        Ok(rows.iter().map(|row| Offset(row.get(0))).collect())
    }

    /// Forgets the parked messages of a topic's subscriptions that were removed from the log.
    pub async fn forget_parked(&self, topic: TopicId) -> Result<(), Error> {
        let client = self.query().await?;
        let statement = "-- forget_parked
            delete from trunkline.subscription_message m
            using trunkline.subscription s, trunkline.topic_head h
            where s.topic_id = $1 and h.topic_id = $1 and m.topic_id = $1 and m.id = s.id
              and m.\"offset\" < h.first_offset and m.parked_at is not null";
        client.execute(statement, &[&topic.0]).await?;
        Ok(())
    }

    /// Changes how a subscription's messages are delivered, as its owner of this epoch. Returns false if the
    /// epoch has ended. Waits for the consumer's row: whoever begins the next epoch reads the policy after that,
    /// and so reads this one.
    pub async fn set_policy(
        &self,
        key: ConsumerKey,
        epoch: Epoch,
        policy: &DeliveryPolicy,
    ) -> Result<bool, Error> {
        let client = self.query().await?;
        let statement = "-- set_policy
            with owned as materialized (
                select topic_id, id from trunkline.consumer_topic
                where topic_id = $1 and id = $2 and epoch = $3
                for share
            )
            update trunkline.subscription s
            set ack_deadline_ms = $4, shortest_backoff_ms = $5, longest_backoff_ms = $6,
                max_deliveries = $7, filter = $8, dead_letter_topic = $9, exactly_once = $10,
                outstanding_messages = $11, outstanding_bytes = $12,
                updated_at = now()
            from owned where s.topic_id = owned.topic_id and s.id = owned.id";
        let columns = PolicyColumns::of(policy);
        let parameters: [&dyn Parameter; 12] = [
            &key.topic.0,
            &key.consumer,
            &epoch.0,
            &columns.ack_deadline_ms,
            &columns.shortest_backoff_ms,
            &columns.longest_backoff_ms,
            &columns.max_deliveries,
            &columns.filter,
            &columns.dead_letter_topic,
            &columns.exactly_once,
            &columns.outstanding_messages,
            &columns.outstanding_bytes,
        ];
        Ok(client.execute(statement, &parameters).await? == 1)
    }
}
