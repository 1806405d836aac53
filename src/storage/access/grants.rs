//! Adds, removes and lists grants.

use tokio_postgres::Row;

use super::change::{AccessChange, MAX_GRANTS, MAX_GRANTS_OF_PRINCIPAL, exclude_other_changes};
use crate::{
    model::{Grant, GrantKey, Operation, Principal, TopicPattern},
    storage::{
        Error, Storage,
        session::{Parameter, Statements as _, Transaction},
    },
};

/// The columns that [`grant`] reads.
const GRANT: &str = "principal, operation, topics, created_at, created_by";

impl Storage {
    /// Adds a grant; returns the one that exists if it does.
    pub async fn add_grant(
        &self,
        key: &GrantKey,
        created_by: &str,
    ) -> Result<AccessChange<Grant>, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                exclude_other_changes(transaction).await?;
                insert_grant(transaction, key, created_by).await
            })
            .await
    }

    /// Removes a grant. With `keep_one`, the last administrator's grant stays.
    pub async fn remove_grant(
        &self,
        key: &GrantKey,
        keep_one: bool,
    ) -> Result<AccessChange<()>, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                exclude_other_changes(transaction).await?;
                let [principal, operation, topics] = key.texts();
                if keep_one && key.operation == Operation::Admin && key.topics.is_all() {
                    let find = "-- find_other_administrator
                        select count(*) filter (where principal = $1),
                               count(*) filter (where principal <> $1)
                        from trunkline.access_grant where operation = 'admin' and topics = '*'";
                    let row = transaction.query_one(find, &[&principal]).await?;
                    if (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (1, 0) {
                        return Ok(AccessChange::LastAdministrator);
                    }
                }
                let delete = "-- remove_grant
                    delete from trunkline.access_grant
                    where principal = $1 and operation = $2 and topics = $3";
                let deleted =
                    transaction.execute(delete, &[&principal, &operation, &topics]).await?;
                Ok(match deleted {
                    0 => AccessChange::NotFound,
                    _ => AccessChange::Done(()),
                })
            })
            .await
    }

    /// The first `limit` grants, of one principal or of all, sorted by principal, operation and
    /// topics, that come after `after`.
    pub async fn list_grants(
        &self,
        principal: Option<&Principal>,
        after: Option<&GrantKey>,
        limit: usize,
    ) -> Result<Vec<Grant>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- list_grants
            select {GRANT} from trunkline.access_grant
            where (principal, operation, topics) > ($1, $2, $3)
              and ($4::text is null or principal = $4)
            order by principal, operation, topics limit $5"
        );
        // No grant has an empty principal.
        let [after_principal, operation, topics] = after.map_or([""; 3], GrantKey::texts);
        let principal = principal.map(Principal::as_str);
        let values: [&dyn Parameter; 5] =
            [&after_principal, &operation, &topics, &principal, &(limit as i64)];
        client.query(statement, &values).await?.iter().map(grant).collect()
    }
}

/// Adds a grant, where other changes are excluded; returns the one that exists if it does.
pub(super) async fn insert_grant(
    transaction: &Transaction<'_>,
    key: &GrantKey,
    created_by: &str,
) -> Result<AccessChange<Grant>, Error> {
    let [principal, operation, topics] = key.texts();
    let find = format!(
        "-- find_grant
        select {GRANT} from trunkline.access_grant
        where principal = $1 and operation = $2 and topics = $3"
    );
    if let Some(found) = transaction.query_opt(&find, &[&principal, &operation, &topics]).await? {
        return Ok(AccessChange::Done(grant(&found)?));
    }
    let count = "-- count_grants
        select count(*) filter (where principal = $1), count(*)
        from trunkline.access_grant";
    let row = transaction.query_one(count, &[&principal]).await?;
    let limits = [MAX_GRANTS_OF_PRINCIPAL, MAX_GRANTS];
    if let Some(full) = AccessChange::when_full(row.get(0), row.get(1), limits) {
        return Ok(full);
    }
    let insert = format!(
        "-- add_grant
        insert into trunkline.access_grant (principal, operation, topics, created_by)
        values ($1, $2, $3, $4)
        returning {GRANT}"
    );
    let values: [&dyn Parameter; 4] = [&principal, &operation, &topics, &created_by];
    Ok(AccessChange::Done(grant(&transaction.query_one(&insert, &values).await?)?))
}

fn grant(row: &Row) -> Result<Grant, Error> {
    let operation = Operation::parse(row.get(1));
    Ok(Grant {
        principal: Principal::stored(row.get(0)),
        operation: operation.ok_or_else(|| Error::unexpected("an unknown operation"))?,
        topics: TopicPattern::stored(row.get(2)),
        created_at: row.get(3),
        created_by: row.get(4),
    })
}
