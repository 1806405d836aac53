//! Where brokers take calls that others forward to them, and which broker owns a subscription.

use super::{
    Error, Storage,
    session::{Parameter, Statements as _},
};
use crate::model::{ConsumerKey, Endpoint, Epoch};

impl Storage {
    /// Records that a broker owns a subscription in this epoch, and where it takes calls. Forgets brokers
    /// that own nothing and have not begun to own anything for a day.
    pub async fn claim_subscription(
        &self,
        key: ConsumerKey,
        epoch: Epoch,
        endpoint: Option<&Endpoint>,
    ) -> Result<(), Error> {
        let client = self.query().await?;
        let Some(Endpoint { broker, host, port, certificate, secret }) = endpoint else {
            let statement = "-- claim_subscription_silently
                with owned as materialized (
                    select topic_id, id from trunkline.consumer_topic
                    where topic_id = $1 and id = $2 and epoch = $3 for share
                )
                update trunkline.subscription s set broker = null
                from owned
                where s.topic_id = owned.topic_id and s.id = owned.id and s.broker is not null";
            client.execute(statement, &[&key.topic.0, &key.consumer, &epoch.0]).await?;
            return Ok(());
        };
        let statement = "-- claim_subscription
            with old as (
                delete from trunkline.broker b
                where b.id <> $4 and b.claimed_at < now() - interval '1 day'
                  and not exists (select from trunkline.subscription s where s.broker = b.id)
            ), known as (
                insert into trunkline.broker (id, host, port, certificate, secret)
                values ($4, coalesce(nullif($5, ''), host(inet_client_addr()), '127.0.0.1'), $6, $7, $8)
                on conflict (id) do update set claimed_at = now()
            ), owned as materialized (
                select topic_id, id from trunkline.consumer_topic
                where topic_id = $1 and id = $2 and epoch = $3 for share
            )
            update trunkline.subscription s set broker = $4
            from owned where s.topic_id = owned.topic_id and s.id = owned.id";
        let port = i32::from(*port);
        let parameters: [&dyn Parameter; 8] =
            [&key.topic.0, &key.consumer, &epoch.0, broker, host, &port, certificate, secret];
        client.execute(statement, &parameters).await?;
        Ok(())
    }

    /// Where the broker takes calls that was the last one to own a subscription; `None` if it takes none, or no
    /// broker has owned it.
    pub async fn find_endpoint(&self, key: ConsumerKey) -> Result<Option<Endpoint>, Error> {
        let client = self.query().await?;
        let statement = "-- find_endpoint
            select b.id, host, port, certificate, secret
            from trunkline.subscription s join trunkline.broker b on b.id = s.broker
            where s.topic_id = $1 and s.id = $2";
        let row = client.query_opt(statement, &[&key.topic.0, &key.consumer]).await?;
        Ok(row.map(|row| Endpoint {
            broker: row.get(0),
            host: row.get(1),
            // The column holds nothing else.
            port: u16::try_from(row.get::<_, i32>(2)).unwrap_or_default(),
            certificate: row.get(3),
            secret: row.get(4),
        }))
    }
}
