//! Whether a run has healed: everything is delivered, and nothing is left of ended clients.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{LIMIT, LIMITED, Run, panics_of};
use crate::support::holds_within;

impl Run {
    /// Waits until all producers have their answers, all consumers every message, and workers have
    /// settled every message.
    pub(super) async fn all_arrived(&mut self, deadline: Instant) -> Result<(), String> {
        match tokio::time::timeout_at(deadline.into(), panics_of(&mut self.writers)).await {
            Ok(bad) if bad.is_empty() => {}
            Ok(bad) => return Err(bad.join(", ")),
            Err(_) => {
                let count = self.writers.len();
                self.writers.abort_all();
                return Err(format!("{count} producers have no answer"));
            }
        }
        let left = "select exists (select from trunkline.outbox)";
        let behind = "select t.name || '/' || c.consumer_id, c.position, h.next_offset, c.holder
            from trunkline.consumer_topic c
            join trunkline.topic_head h using (topic_id) join trunkline.topic t on t.id = topic_id
            where c.position < h.next_offset";
        let retried =
            "select format('%s/%s is to deliver %s messages again', t.name, c.consumer_id,
                count(*))
            from trunkline.subscription_message m
            join trunkline.consumer_topic c on c.topic_id = m.topic_id and c.id = m.id
            join trunkline.topic t on t.id = m.topic_id
            where m.due is not null group by t.name, c.consumer_id";
        let sql = self.sql().await;
        loop {
            let rows = sql.query(behind, &[]).await.map_err(|error| error.to_string())?;
            let retried = sql.query(retried, &[]).await.map_err(|error| error.to_string())?;
            let left = sql.query_one(left, &[]).await.map_err(|error| error.to_string())?;
            let is_left: bool = left.get(0);
            if rows.is_empty() && retried.is_empty() && !is_left {
                return Ok(());
            }
            if Instant::now() > deadline {
                let behind = rows.iter().map(|row| {
                    let (who, position, head): (String, i64, i64) =
                        (row.get(0), row.get(1), row.get(2));
                    let holder: String = row.get(3);
                    format!("{who} is at {position} of {head} (held by {holder:?})")
                });
                let outbox = is_left.then(|| "the outbox is not empty".to_owned());
                let retried = retried.iter().map(|row| row.get::<_, String>(0));
                return Err(behind.chain(retried).chain(outbox).collect::<Vec<_>>().join(", "));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until retention has removed the messages over the limit.
    pub(super) async fn retention_works(&self) -> Result<(), String> {
        let kept = "select next_offset - first_offset from trunkline.topic_head h
            join trunkline.topic t on t.id = h.topic_id where name = $1";
        let sql = self.sql().await;
        let removes = async || {
            let row = sql.query_one(kept, &[&LIMITED]).await;
            row.is_ok_and(|row| row.get::<_, i64>(0) <= LIMIT)
        };
        match holds_within(Duration::from_secs(5), removes).await {
            true => Ok(()),
            false => Err(format!("{LIMITED} keeps more than {LIMIT} messages")),
        }
    }

    /// What is left of ended clients: locks, transactions, sessions.
    pub(super) async fn leaks(&self) -> Vec<String> {
        let sql = self.sql().await;
        let mut leaks = Vec::new();
        // One broker keeps the lock of the retention, which has one key. A broker keeps the lease
        // of a subscription for a minute after the last call.
        let locks = "select count(*) from pg_locks l
            where locktype = 'advisory' and objsubid = 2 and not exists (
                select from trunkline.subscription s
                where s.topic_id = l.classid::bigint and s.id = l.objid::bigint)";
        let idle = "select count(*) from pg_stat_activity where state like 'idle in transaction%'";
        for (what, count) in [("leases", locks), ("idle transactions", idle)] {
            let none =
                async || sql.query_one(count, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 0);
            if !holds_within(Duration::from_secs(5), none).await {
                leaks.push(format!("{what} are left"));
            }
        }
        let sessions = "select application_name, count(*) from pg_stat_activity
            where application_name like 'trunkline%' group by 1";
        let most = HashMap::from([
            ("trunkline lease", 1),
            ("trunkline listen", 1),
            ("trunkline writer", 2),
            ("trunkline query", 4),
            ("trunkline position", 1),
            ("trunkline access", 1),
        ]);
        let brokers = self.brokers.len() as i64;
        let enough = async || {
            let Ok(rows) = sql.query(sessions, &[]).await else { return false };
            rows.iter().all(|row| {
                let most = most.get(row.get::<_, &str>(0)).copied().unwrap_or(0);
                row.get::<_, i64>(1) <= most * brokers
            })
        };
        // A server needs some time to notice a client that was cut off.
        if !holds_within(Duration::from_secs(25), enough).await {
            let each = "select format('%s of %s: %s for %s, after %s', application_name,
                    client_addr, state, now() - state_change, left(query, 60))
                from pg_stat_activity where application_name like 'trunkline%' order by 1";
            let rows = sql.query(each, &[]).await.unwrap();
            let left: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
            leaks.push(format!("sessions are left:\n    {}", left.join("\n    ")));
        }
        leaks
    }
}
