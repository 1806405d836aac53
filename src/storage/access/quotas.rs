//! Sets, removes and lists quotas.

use tokio_postgres::Row;

use super::change::{AccessChange, MAX_QUOTAS, exclude_other_changes};
use crate::{
    model::{Limit, Quota, QuotaHolder, QuotaKey},
    storage::{
        Error, Storage,
        session::{Parameter, Statements as _},
    },
};

/// The columns that [`quota`] reads.
const QUOTA: &str = "principal, limit_name, value, changed_at, changed_by";

impl Storage {
    /// Sets a quota, in place of the one that exists if there is one.
    pub async fn set_quota(
        &self,
        key: &QuotaKey,
        value: u64,
        changed_by: &str,
    ) -> Result<AccessChange<Quota>, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                exclude_other_changes(transaction).await?;
                let [holder, limit] = key.texts();
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                let values: [&dyn Parameter; 4] = [&holder, &limit, &value, &changed_by];
                let update = format!(
                    "-- change_quota
                    update trunkline.access_quota
                    set value = $3, changed_at = now(), changed_by = $4
                    where principal = $1 and limit_name = $2
                    returning {QUOTA}"
                );
                if let Some(changed) = transaction.query_opt(&update, &values).await? {
                    return Ok(AccessChange::Done(quota(&changed)?));
                }
                let count = "-- count_quotas\nselect count(*) from trunkline.access_quota";
                let count: i64 = transaction.query_one(count, &[]).await?.get(0);
                if count >= MAX_QUOTAS as i64 {
                    return Ok(AccessChange::Full { of_principal: false });
                }
                let insert = format!(
                    "-- add_quota
                    insert into trunkline.access_quota (principal, limit_name, value, changed_by)
                    values ($1, $2, $3, $4)
                    returning {QUOTA}"
                );
                Ok(AccessChange::Done(quota(&transaction.query_one(&insert, &values).await?)?))
            })
            .await
    }

    /// Removes a quota; false if there is no such quota.
    pub async fn remove_quota(&self, key: &QuotaKey) -> Result<bool, Error> {
        let client = self.query().await?;
        let statement = "-- remove_quota
            delete from trunkline.access_quota where principal = $1 and limit_name = $2";
        let [holder, limit] = key.texts();
        Ok(client.execute(statement, &[&holder, &limit]).await? > 0)
    }

    /// The first `limit` quotas, of one holder or of all, sorted by holder and by the limits' names,
    /// that come after `after`.
    pub async fn list_quotas(
        &self,
        holder: Option<&QuotaHolder>,
        after: Option<&QuotaKey>,
        limit: usize,
    ) -> Result<Vec<Quota>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- list_quotas
            select {QUOTA} from trunkline.access_quota
            where (principal, limit_name) > ($1, $2) and ($3::text is null or principal = $3)
            order by principal, limit_name limit $4"
        );
        // No quota has an empty holder.
        let [after_holder, limit_name] = after.map_or([""; 2], QuotaKey::texts);
        let holder = holder.map(QuotaHolder::as_str);
        let values: [&dyn Parameter; 4] = [&after_holder, &limit_name, &holder, &(limit as i64)];
        client.query(statement, &values).await?.iter().map(quota).collect()
    }

    /// All quotas: whose, of what, and how much.
    pub async fn load_quotas(&self) -> Result<Vec<(QuotaKey, u64)>, Error> {
        let client = self.access().await?;
        let statement = "-- load_quotas
            select principal, limit_name, value from trunkline.access_quota order by principal";
        client.query(statement, &[]).await?.iter().map(value).collect()
    }
}

fn quota(row: &Row) -> Result<Quota, Error> {
    let (key, value) = value(row)?;
    Ok(Quota { key, value, changed_at: row.get(3), changed_by: row.get(4) })
}

fn value(row: &Row) -> Result<(QuotaKey, u64), Error> {
    let limit = Limit::parse(row.get(1)).ok_or_else(|| Error::unexpected("an unknown limit"))?;
    let key = QuotaKey { holder: QuotaHolder::stored(row.get(0)), limit };
    Ok((key, row.get::<_, i64>(2).unsigned_abs()))
}
