//! Publishing as it must not be done.

use std::time::Duration;

use super::{Appended, append_batch};
use crate::{
    model::{Draft, TopicName},
    storage::{
        Error,
        session::{Session, Statements},
    },
};

/// The statement that appends, at an offset that is taken in a transaction of its own, as from a
/// sequence: others may store, and be read, in between.
pub(super) async fn at_an_offset_taken_before(
    client: &impl Statements,
    statement: &str,
    topic: &TopicName,
    count: i32,
) -> Result<String, Error> {
    let take = "update trunkline.topic_head set next_offset = next_offset + $2::integer
        where topic_id = (select id from trunkline.topic where name = $1)
        returning next_offset - $2::integer";
    let Some(taken) = client.query_opt(take, &[&topic.as_str(), &count]).await? else {
        return Ok(statement.to_owned());
    };
    let taken = format!("{}::bigint", taken.get::<_, i64>(0));
    Ok(statement
        .replace("set next_offset = next_offset + $12::integer,", "set")
        .replace("next_offset - $12::integer", &taken))
}

/// Appends a batch and has another statement fail now and then, as any may.
pub(super) async fn append_in_a_transaction(
    session: &Session,
    topic: &TopicName,
    draft: &Draft,
) -> Result<Option<Appended>, Error> {
    session.run_alone("begin", Duration::MAX).await?;
    let appended = append_batch(session, topic, draft).await;
    if appended.is_ok() {
        fail_now_and_then(session).await;
    }
    session.run_alone("commit", Duration::MAX).await?;
    appended
}

/// Runs a statement that somebody may cancel, and passes over its error.
pub(super) async fn fail_now_and_then(client: &impl Statements) {
    let _ = client.query_one("select pg_sleep(0.005)::text", &[]).await;
}
