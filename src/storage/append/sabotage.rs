//! Publishes incorrectly, on purpose.

use crate::{
    model::TopicName,
    storage::{
        error::Error,
        session::{Session, Statements},
        timeout::ANSWER_TIMEOUT,
    },
};

/// Changes the statement that appends, so that it stores at an offset that was taken in a
/// transaction of its own, as from a sequence: other batches may be stored, and read, in between.
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

/// Appends a batch in a transaction whose next statement may fail.
pub(super) async fn append_in_a_transaction<T>(
    session: &Session,
    append: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    session.run_alone("begin", ANSWER_TIMEOUT).await?;
    let appended = append.await;
    if appended.is_ok() {
        fail_now_and_then(session).await;
    }
    session.run_alone("commit", ANSWER_TIMEOUT).await?;
    appended
}

/// Runs a statement that a test may cancel, and ignores its error.
pub(super) async fn fail_now_and_then(client: &impl Statements) {
    let _ = client.query_one("select pg_sleep(0.005)::text", &[]).await;
}
