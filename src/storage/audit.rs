//! The audit: rows are added and read, and never changed.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio_postgres::Row;

use super::{
    Error, Storage,
    session::{Parameter, Statements as _},
};
use crate::model::{AuditEntry, AuditFilter, AuditPlace, AuditRecord, Principal, TopicName};

/// Later than any record.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_800);

impl Storage {
    /// Adds records, all or none.
    pub async fn record(&self, entries: &[AuditEntry]) -> Result<(), Error> {
        let client = self.query().await?;
        let statement = "-- record_audit
            insert into trunkline.audit (act, outcome, principal, token_id, address, method, topic,
                subject, reason, details, count)
            select act, outcome, principal, token_id, address, method, topic,
                subject, reason, details::jsonb, count
            from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[])
                as entry (act, outcome, principal, token_id, address, method, topic,
                    subject, reason, details, count)";
        let text = |value: fn(&AuditEntry) -> &str| entries.iter().map(value).collect::<Vec<_>>();
        let option = |value: fn(&AuditEntry) -> Option<&str>| -> Vec<Option<&str>> {
            entries.iter().map(value).collect()
        };
        let details = entries.iter().map(|entry| serde_json::to_string(&entry.details));
        let details: Vec<String> = details.collect::<Result<_, _>>().map_err(Error::unexpected)?;
        let counts: Vec<i64> = entries.iter().map(|entry| entry.count as i64).collect();
        let values: [&dyn Parameter; 11] = [
            &text(|entry| entry.act.name()),
            &text(|entry| entry.outcome.name()),
            &option(|entry| entry.origin.principal.as_ref().map(Principal::as_str)),
            &option(|entry| entry.origin.token_id.as_deref()),
            &option(|entry| entry.origin.address.as_deref()),
            &text(|entry| entry.method),
            &option(|entry| entry.topic.as_deref()),
            &option(|entry| entry.subject.as_deref()),
            &option(|entry| entry.reason),
            &details,
            &counts,
        ];
        client.execute(statement, &values).await?;
        Ok(())
    }

    /// The newest `limit` records, newest first, of those that come before `before`.
    pub async fn list_audit(
        &self,
        filter: &AuditFilter,
        before: Option<AuditPlace>,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, Error> {
        let client = self.query().await?;
        // A text for each kind of filter, so that each has a plan that uses its index.
        let mut conditions = String::new();
        let principal = filter.principal.as_ref().map(Principal::as_str);
        let topic = filter.topic.as_ref().map(TopicName::as_str);
        let since = filter.since.unwrap_or(SystemTime::UNIX_EPOCH);
        let (at, id) = match before {
            Some(AuditPlace { micros, id }) => {
                (Duration::from_micros(u64::try_from(micros).unwrap_or(0)).min(END_OF_TIME), id)
            }
            None => (END_OF_TIME, i64::MAX),
        };
        let (at, limit) = (SystemTime::UNIX_EPOCH + at, limit as i64);
        let mut values: Vec<&dyn Parameter> = vec![&since, &at, &id, &limit];
        for (column, value) in [("principal", &principal), ("topic", &topic)] {
            if value.is_some() {
                values.push(value);
                conditions.push_str(&format!(" and {column} = ${}", values.len()));
            }
        }
        let statement = format!(
            "-- list_audit
            select id, at, act, outcome, coalesce(principal, ''), coalesce(token_id, ''),
                   coalesce(address, ''), method, coalesce(topic, ''), coalesce(subject, ''),
                   coalesce(reason, ''), details::text, count
            from trunkline.audit
            where at >= $1 and (at, id) < ($2, $3){conditions}
            order by at desc, id desc limit $4"
        );
        client.query(&statement, &values).await?.iter().map(record).collect()
    }
}

fn record(row: &Row) -> Result<AuditRecord, Error> {
    let details: BTreeMap<String, String> =
        serde_json::from_str(row.get(11)).map_err(Error::unexpected)?;
    Ok(AuditRecord {
        id: row.get(0),
        at: row.get(1),
        act: row.get(2),
        outcome: row.get(3),
        principal: row.get(4),
        token_id: row.get(5),
        address: row.get(6),
        method: row.get(7),
        topic: row.get(8),
        subject: row.get(9),
        reason: row.get(10),
        details,
        count: u64::try_from(row.get::<_, i64>(12)).unwrap_or(0),
    })
}
