//! A producer that publishes within transactions of its own, with SQL.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::{Instant, timeout};
use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use super::{FINAL_RETRIES, TIMEOUT, World, pause};
use crate::{
    history::{Stage, Values, What},
    postgres::connect,
    values,
};

/// How it publishes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Direct,
    AtCommit,
    Later,
}

/// A producer whose transactions have one to five messages. Some are rolled back, as a whole or to a
/// savepoint.
pub struct SqlProducer {
    pub topic: Arc<str>,
    pub name: Arc<str>,
    pub way: Way,
}

/// A published message: its operation, and its offset if that is known.
type Sent = (u64, i64, Option<i64>);

impl SqlProducer {
    /// Publishes until writing stops.
    pub async fn run(self, world: Arc<World>) {
        let mut rng = world.rng(&self.name);
        let (mut next, mut read_to) = (0, 0);
        while !world.stop_writing.is_cancelled() {
            let Ok(sql) = connect(&world.sql_url()).await else {
                pause(&mut rng, 50, 200).await;
                continue;
            };
            while !world.stop_writing.is_cancelled() {
                let Some(committed) = self.transact(&world, &sql, &mut next, &mut rng).await else {
                    break;
                };
                if !self.settle(&world, committed, &mut read_to).await {
                    return;
                }
                pause(&mut rng, 5, 40 * world.slowdown).await;
            }
        }
    }

    /// Runs a transaction; returns what it committed, or `None` if the session is of no more use.
    async fn transact(
        &self,
        world: &World,
        sql: &Client,
        next: &mut i64,
        rng: &mut Rng,
    ) -> Option<Vec<Sent>> {
        run(sql, "begin").await.ok()?;
        let (mut kept, mut undone) = (Vec::new(), Vec::new());
        let outcome = async {
            for _ in 0..rng.u8(1..=5) {
                let is_undone = rng.u8(..5) == 0;
                if is_undone {
                    run(sql, "savepoint one").await?;
                }
                let sent = if is_undone { &mut undone } else { &mut kept };
                sent.push(self.publish(world, sql, next).await?);
                if is_undone {
                    run(sql, "rollback to one").await?;
                }
            }
            Ok::<_, String>(())
        };
        let outcome = outcome.await;
        let fail = |sent: Vec<Sent>, message: &str| {
            sent.into_iter()
                .for_each(|(op, ..)| self.write(world, op, Stage::Fail, refused(message)));
        };
        fail(undone, "undone by a savepoint");
        if let Err(problem) = outcome {
            // The commit is never sent.
            fail(kept, &problem);
            return None;
        }
        if rng.u8(..5) == 0 {
            let ended = run(sql, "rollback").await;
            fail(kept, "rolled back");
            return ended.ok().map(|()| Vec::new());
        }
        match run(sql, "commit").await {
            Ok(()) => Some(kept),
            Err(problem) => {
                for (op, ..) in kept {
                    self.write(world, op, Stage::Info, refused(&problem));
                }
                None
            }
        }
    }

    async fn publish(&self, world: &World, sql: &Client, next: &mut i64) -> Result<Sent, String> {
        let number = *next;
        *next += 1;
        let values = Values { producer: self.name.clone(), first: number, count: 1 };
        let invocation = What::Publish { topic: self.topic.clone(), values, sequence: None };
        let op = world.history.invoke(&self.name, invocation);
        let message = values::message(&self.name, number);
        let function = match self.way {
            Way::Direct => "publish",
            Way::AtCommit => "publish_at_commit",
            Way::Later => "publish_later",
        };
        let statement =
            format!("select trunkline.{function}($1, $2::bytea, $3::bytea, producer => $4)");
        let (payload, key) = (&message.payload[..], message.key.as_deref());
        // Not prepared under a name, which a pooler would not keep.
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&&*self.topic, Type::TEXT),
            (&payload, Type::BYTEA),
            (&key, Type::BYTEA),
            (&&*self.name, Type::TEXT),
        ];
        let row = match timeout(TIMEOUT, sql.query_typed(&statement, &parameters)).await {
            Ok(Ok(mut rows)) => rows.remove(0),
            failed => {
                let problem = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "no answer".to_owned(),
                };
                self.write(world, op, Stage::Fail, refused(&problem));
                return Err(problem);
            }
        };
        Ok((op, number, (self.way == Way::Direct).then(|| row.get(0))))
    }

    /// Writes at which offsets committed messages are stored, once they are; false if they never are.
    async fn settle(&self, world: &World, committed: Vec<Sent>, read_to: &mut i64) -> bool {
        let mut waiting = HashMap::new();
        for (op, number, offset) in committed {
            match offset {
                Some(first_offset) => self.published(world, op, first_offset),
                None => drop(waiting.insert(format!("{}/{number}", self.name), op)),
            }
        }
        let mut give_up_at = None;
        while !waiting.is_empty() {
            if let Ok(found) = self.find(world, *read_to).await {
                for (key, offset) in found {
                    *read_to = offset + 1;
                    if let Some(op) = waiting.remove(&key) {
                        self.published(world, op, offset);
                    }
                }
            }
            if world.stop_writing.is_cancelled() {
                let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + FINAL_RETRIES);
                if give_up_at < Instant::now() {
                    world.alarm(format!(
                        "{} committed {waiting:?}, which are not stored",
                        self.name
                    ));
                    return false;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// The keys and offsets of this producer's messages from an offset on.
    async fn find(&self, world: &World, from: i64) -> Result<Vec<(String, i64)>, String> {
        let url = world.database.borrow().clone();
        let sql = connect(&url).await.map_err(|error| error.to_string())?;
        let read = "select key_text, \"offset\" from trunkline.read($1, $2, null)
            where producer_id = $3 order by \"offset\"";
        let parameters: [&(dyn ToSql + Sync); 3] = [&&*self.topic, &from, &&*self.name];
        match timeout(TIMEOUT, sql.query(read, &parameters)).await {
            Ok(Ok(rows)) => Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    fn published(&self, world: &World, op: u64, first_offset: i64) {
        self.write(world, op, Stage::Ok, What::Published { first_offset, duplicate: false });
    }

    fn write(&self, world: &World, op: u64, stage: Stage, what: What) {
        world.history.write(&self.name, op, stage, what);
    }
}

async fn run(sql: &Client, statement: &str) -> Result<(), String> {
    match timeout(TIMEOUT, sql.batch_execute(statement)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// What the client's side reports.
fn refused(message: &str) -> What {
    What::Refused { code: "LIBRARY".to_owned(), reason: String::new(), message: message.to_owned() }
}
