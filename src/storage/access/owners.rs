//! Which principal a producer or consumer belongs to.

use crate::{
    model::{Principal, RegistrationId, RegistrationKey},
    storage::{Error, Storage, session::Statements as _},
};

/// Whom a registration belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owned {
    /// There is no such registration.
    NotRegistered,
    /// Nobody.
    ByNobody,
    /// A principal.
    By(Principal),
}

impl Storage {
    /// Whom a registration belongs to.
    pub async fn find_owner(&self, key: &RegistrationKey) -> Result<Owned, Error> {
        let client = self.query().await?;
        let statement = match key.id {
            RegistrationId::Producer(_) => {
                "-- find_producer_owner
                select owner from trunkline.producer_topic join trunkline.topic on id = topic_id
                where name = $1 and producer_id = $2"
            }
            RegistrationId::Consumer(_) => {
                "-- find_consumer_owner
                select owner from trunkline.consumer_topic c join trunkline.topic t
                    on t.id = c.topic_id
                where name = $1 and consumer_id = $2"
            }
        };
        let row = client.query_opt(statement, &[&key.topic.as_str(), &key.id.as_str()]).await?;
        Ok(match row.map(|row| row.get::<_, Option<&str>>(0).map(Principal::stored)) {
            None => Owned::NotRegistered,
            Some(None) => Owned::ByNobody,
            Some(Some(principal)) => Owned::By(principal),
        })
    }

    /// Those of some registrations that belong to a principal, with their places in `keys`. All of
    /// them must be producers, or all consumers.
    pub async fn find_owners(
        &self,
        keys: &[&RegistrationKey],
    ) -> Result<Vec<(usize, Principal)>, Error> {
        let Some(first) = keys.first() else { return Ok(Vec::new()) };
        let client = self.access().await?;
        let statement = match first.id {
            RegistrationId::Producer(_) => {
                "-- find_producer_owners
                select place, owner
                from unnest($1::text[], $2::text[]) with ordinality as key (topic, id, place)
                join trunkline.topic t on t.name = key.topic
                join trunkline.producer_topic p on p.topic_id = t.id and p.producer_id = key.id
                where owner is not null"
            }
            RegistrationId::Consumer(_) => {
                "-- find_consumer_owners
                select place, owner
                from unnest($1::text[], $2::text[]) with ordinality as key (topic, id, place)
                join trunkline.topic t on t.name = key.topic
                join trunkline.consumer_topic c on c.topic_id = t.id and c.consumer_id = key.id
                where owner is not null"
            }
        };
        let topics: Vec<&str> = keys.iter().map(|key| key.topic.as_str()).collect();
        let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        let rows = client.query(statement, &[&topics, &ids]).await?;
        let owned = rows.iter().map(|row| {
            let place: i64 = row.get(0);
            (place as usize - 1, Principal::stored(row.get(1)))
        });
        Ok(owned.collect())
    }

    /// Gives a registration to a principal; false if there is no such registration.
    /// [`Error::OwnerFull`] if the principal has `limit` others, where there is a limit.
    pub async fn assign_owner(
        &self,
        key: &RegistrationKey,
        owner: &Principal,
        limit: Option<usize>,
    ) -> Result<bool, Error> {
        let client = self.query().await?;
        let statement = match key.id {
            RegistrationId::Producer(_) => {
                "-- assign_producer
                update trunkline.producer_topic set owner = $3
                where topic_id = (select id from trunkline.topic where name = $1)
                  and producer_id = $2
                  and ($4::bigint is null or owner = $3
                       or (select count(*) from trunkline.producer_topic where owner = $3) < $4)"
            }
            RegistrationId::Consumer(_) => {
                "-- assign_consumer
                update trunkline.consumer_topic set owner = $3
                where topic_id = (select id from trunkline.topic where name = $1)
                  and consumer_id = $2
                  and ($4::bigint is null or owner = $3
                       or (select count(*) from trunkline.consumer_topic where owner = $3) < $4)"
            }
        };
        let (topic, id) = (key.topic.as_str(), key.id.as_str());
        let most = limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let assigned = client.execute(statement, &[&topic, &id, &owner.as_str(), &most]).await? > 0;
        drop(client);
        if assigned || limit.is_none() {
            return Ok(assigned);
        }
        match self.find_owner(key).await? {
            Owned::NotRegistered => Ok(false),
            Owned::ByNobody | Owned::By(_) => Err(Error::OwnerFull),
        }
    }
}
