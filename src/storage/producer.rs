//! Registers, fences, lists and forgets the producers of topics.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::{
    Error, Storage, column,
    session::{Parameter, Statements},
};
use crate::model::{
    Claimant, Epoch, Offset, Principal, Producer, ProducerId, Registration, Sequence, SequenceRun,
    TopicId, TopicName,
};

/// A topic's head, with registrations of producers on it.
#[derive(Clone, Debug)]
pub struct Registrations {
    /// The offset that the topic's next message gets.
    pub head: Offset,
    /// The registrations of those of the given producers that have one.
    pub found: Vec<Registration>,
}

/// A producer to be registered.
struct Registering<'a> {
    topic: &'a TopicName,
    producer: &'a ProducerId,
    owner: Option<&'a Claimant>,
    /// The most producers that the topic may have.
    limit: usize,
    /// The statement that registers it.
    insert: &'a str,
    /// When to raise its epoch to one that no earlier registration used.
    condition: &'a str,
}

/// The columns that [`producer`] reads, of a row `p`.
const PRODUCER: &str =
    "p.producer_id, p.created_at, p.updated_at, p.last_offset, p.epoch, p.last_sequence, p.owner";

/// Whether a topic that a statement names has room for the producer `$2`, if `$3` is the most that a
/// topic may have and `$5` the most that the owner `$4` may have. A registered one needs none, so
/// that its refusal says that it is registered.
const HAS_ROOM: &str = "(
    exists (select from trunkline.producer_topic o where o.topic_id = id and o.producer_id = $2)
    or ((select count(*) from trunkline.producer_topic o where o.topic_id = id) < $3
        and ($4::text is null
             or (select count(*) from trunkline.producer_topic o where o.owner = $4) < $5)))";

impl Storage {
    /// Registers a producer, which belongs to `owner`; `None` if there is no such topic,
    /// [`Error::Taken`] if it is registered, [`Error::Full`] if the topic has `limit` others,
    /// [`Error::OwnerFull`] if the owner has as many as it may.
    pub async fn register_producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
        owner: Option<&Claimant>,
        limit: usize,
    ) -> Result<Option<Producer>, Error> {
        let insert = format!(
            "-- register_producer
            insert into trunkline.producer_topic (topic_id, producer_id, owner)
            select id, $2, $4 from trunkline.topic where name = $1 and {HAS_ROOM}"
        );
        let was_forgotten = "exists (
            select from trunkline.forgotten_producer f
            where f.topic = $1 and f.producer_id = $2)";
        self.register(Registering {
            topic,
            producer,
            owner,
            limit,
            insert: &insert,
            condition: was_forgotten,
        })
        .await
    }

    /// Registers a producer, which belongs to `owner`, or takes its next epoch if it is registered;
    /// `None` if there is no such topic. [`Error::Taken`] if it belongs to another owner than the
    /// given one, [`Error::Full`] if it is not registered and the topic has `limit` others,
    /// [`Error::OwnerFull`] if it is not and the owner has as many as it may.
    pub async fn fence_producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
        owner: Option<&Claimant>,
        limit: usize,
    ) -> Result<Option<Producer>, Error> {
        let insert = format!(
            "-- fence_producer
            insert into trunkline.producer_topic as p (topic_id, producer_id, epoch, owner)
            select id, $2, 0, $4 from trunkline.topic where name = $1 and {HAS_ROOM}
            on conflict (topic_id, producer_id) do update set epoch = p.epoch + 1
                where $4::text is null or p.owner = $4"
        );
        self.register(Registering {
            topic,
            producer,
            owner,
            limit,
            insert: &insert,
            condition: "true",
        })
        .await
    }

    /// Runs an insert, and raises the epoch where its condition holds to one that no earlier
    /// registration used.
    async fn register(&self, registering: Registering<'_>) -> Result<Option<Producer>, Error> {
        let Registering { topic, producer, owner, limit, insert, condition } = registering;
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                let names: [&dyn Parameter; 2] = [&topic.as_str(), &producer.as_str()];
                let ((owner, owner_limit), limit) = (column::claimant(owner), limit as i64);
                let values: [&dyn Parameter; 5] =
                    [names[0], names[1], &limit, &owner, &owner_limit];
                if transaction.execute(insert, &values).await? == 0 {
                    let find = "-- why_not_registered
                        select exists (select from trunkline.producer_topic
                                       where topic_id = id and producer_id = $2),
                               (select count(*) from trunkline.producer_topic
                                where topic_id = id) >= $3
                        from trunkline.topic where name = $1";
                    return match transaction.query_opt(find, &values[..3]).await? {
                        // Only a fence finds a registration and leaves it as it is.
                        Some(row) if row.get(0) => Err(Error::Taken),
                        Some(row) if row.get(1) || owner.is_none() => Err(Error::Full),
                        Some(_) => Err(Error::OwnerFull),
                        None => Ok(None),
                    };
                }
                // A statement of its own, so that it sees the fence as it is now: the insert may
                // have waited for a transaction that forgot an earlier registration of the ID, and
                // raised the fence.
                let begin = format!(
                    "-- begin_producer_epochs
                    update trunkline.producer_topic p
                    set epoch = case when {condition} then greatest(epoch, producer_epoch)
                                     else epoch end
                    from trunkline.fence, trunkline.topic t
                    where t.name = $1 and p.topic_id = t.id and p.producer_id = $2
                    returning {PRODUCER}"
                );
                let row = transaction.query_opt(&begin, &names).await?;
                Ok(row.as_ref().map(self::producer))
            })
            .await
    }

    /// Forgets a producer, of `owner` or of everyone; false if there is none.
    pub async fn unregister_producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
        owner: Option<&Principal>,
    ) -> Result<bool, Error> {
        let client = self.query().await?;
        let statement = &forget_producers(
            "unregister_producer",
            "topic_id = (select id from trunkline.topic where name = $1) and producer_id = $2
               and ($3::text is null or owner = $3)",
        );
        let owner = owner.map(Principal::as_str);
        let forgotten =
            client.query(statement, &[&topic.as_str(), &producer.as_str(), &owner]).await?;
        Ok(!forgotten.is_empty())
    }

    /// A producer, if it is registered.
    pub async fn find_producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
    ) -> Result<Option<Producer>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- find_producer
                select {PRODUCER}
                from trunkline.producer_topic p join trunkline.topic on id = topic_id
                where name = $1 and producer_id = $2"
        );
        let row = client.query_opt(statement, &[&topic.as_str(), &producer.as_str()]).await?;
        Ok(row.as_ref().map(self::producer))
    }

    /// The first `limit` producers of a topic, sorted by ID, whose IDs come after `after`: those of
    /// an owner, or of everyone.
    pub async fn list_producers(
        &self,
        topic: TopicId,
        owner: Option<&Principal>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Producer>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- list_producers
                select {PRODUCER}
                from trunkline.producer_topic p
                where topic_id = $1 and producer_id > $2 and ($4::text is null or owner = $4)
                order by producer_id limit $3"
        );
        let owner = owner.map(Principal::as_str);
        let values: [&dyn Parameter; 4] = [&topic.0, &after, &(limit as i64), &owner];
        let rows = client.query(statement, &values).await?;
        Ok(rows.iter().map(producer).collect())
    }

    /// A topic's head, and the registrations of those of `producers` that have one; `None` if
    /// there is no such topic.
    pub async fn find_registrations(
        &self,
        topic: &TopicName,
        producers: &[ProducerId],
    ) -> Result<Option<Registrations>, Error> {
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
        let head = Offset(any.get(0));
        Ok(Some(Registrations { head, found: rows.iter().filter_map(registration).collect() }))
    }
}

/// Forgets all producers of a topic.
pub(super) async fn forget_producers_of(
    client: &impl Statements,
    topic: TopicId,
) -> Result<(), Error> {
    let statement = &forget_producers("delete_topic_producers", "topic_id = $1");
    client.query(statement, &[&topic.0]).await?;
    Ok(())
}

/// A statement that deletes registrations. For those that used epochs or sequences, it raises the
/// fence above their epochs, and remembers their names for a week: an old instance must not pass
/// for one of a later registration.
fn forget_producers(name: &str, which: &str) -> String {
    format!(
        "-- {name}
        with forgotten as (
            delete from trunkline.producer_topic where {which}
            returning topic_id, producer_id, epoch, epoch > 0 or last_sequence is not null as fences
        ), raised as (
            update trunkline.fence set producer_epoch = highest + 1
            from (select max(epoch) as highest from forgotten where fences) forgotten
            where producer_epoch <= highest
        ), named as (
            select name as topic, producer_id
            from forgotten join trunkline.topic on id = topic_id
            where fences
        ), remembered as (
            insert into trunkline.forgotten_producer (topic, producer_id)
            select topic, producer_id from named
            on conflict (topic, producer_id) do update set forgotten_at = now()
        ), outdated as (
            delete from trunkline.forgotten_producer f
            where forgotten_at < now() - interval '7 days'
              and not exists (select from named
                              where named.topic = f.topic and named.producer_id = f.producer_id)
        )
        select 1 from forgotten"
    )
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
        owner: row.get::<_, Option<&str>>(6).map(Principal::stored),
    }
}
