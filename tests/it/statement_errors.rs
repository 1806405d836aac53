//! Statements that PostgreSQL fails while they store a flush: only the request that causes the
//! error is refused, whatever the error is.

use std::sync::Arc;

use trunkline::{
    broker::{Answers, Broker, Error, Publish, Receipt},
    model::{Epoch, Message, NewMessages, Offset, ProducerId, Sequence, TopicName},
    storage::Storage,
};

use crate::support::{LIMITS, PRODUCER, TestBroker, soon, until};

type Answer = Result<Receipt, Error>;

/// Fails a batch that holds a payload like `raise P0001`, with that SQLSTATE.
const TRIGGER: &str = "
    create function fail() returns trigger language plpgsql as $$
    declare
        told text;
    begin
        select convert_from(payload, 'utf8') into told
        from unnest(new.payloads) payload where convert_from(payload, 'utf8') like 'raise %' limit 1;
        if found then
            raise exception 'an operator''s trigger says no' using errcode = split_part(told, ' ', 2);
        end if;
        return new;
    end $$;
    create trigger fail before insert on trunkline.batch for each row execute function fail();";

/// Fails the first three batches, as a fault of the server's own does that passes.
const FAULT: &str = "
    create sequence tries;
    create function fault() returns trigger language plpgsql as $$
    begin
        if nextval('tries') <= 3 then
            raise exception 'new multixact has more than one updating member'
                using errcode = 'XX000';
        end if;
        return new;
    end $$;
    create trigger fault before insert on trunkline.batch for each row
        when (new.payloads <> array['held'::bytea]) execute function fault();";

fn publish(topic: &str, producer: &str, sequence: Option<i64>, payloads: &[&str]) -> Publish {
    let messages = payloads.iter().map(|payload| Message {
        payload: payload.as_bytes().to_vec().into(),
        ..Message::default()
    });
    Publish {
        topic: TopicName::parse(topic).unwrap(),
        producer: ProducerId::parse(producer).unwrap(),
        epoch: Epoch(0),
        sequence: sequence.map(Sequence),
        expected_head: None,
        messages: NewMessages::parse(messages.collect()).unwrap(),
    }
}

/// A broker with one writer, so that what waits for it shares a flush.
struct OneWriter {
    served: TestBroker,
    broker: Arc<Broker>,
}

impl OneWriter {
    async fn start() -> Self {
        let served = TestBroker::start().await;
        for topic in ["audit", "bills", "first", "orders"] {
            served.topic(topic).await;
        }
        for producer in ["a", "b"] {
            served.producer("orders", producer).await;
        }
        let storage = Storage::open(&served.database.url, None, LIMITS).await.unwrap();
        Self { served, broker: Broker::start(storage, 1).await.unwrap() }
    }

    async fn execute(&self, sql: &str) {
        self.served.sql().await.batch_execute(sql).await.unwrap();
    }

    /// Has requests share a flush: they wait while the writer waits for a lock.
    async fn publish_together(&self, publishes: Vec<Publish>) -> Vec<Vec<Answer>> {
        let mut sql = self.served.sql().await;
        let lock = sql.transaction().await.unwrap();
        let head = "select from trunkline.topic_head h join trunkline.topic on id = topic_id
            where name = 'first' for update of h";
        lock.query(head, &[]).await.unwrap();
        let first = self.enqueue(publish("first", PRODUCER, None, &["held"])).await;
        until("the writer waits", async || self.served.waiting_for_locks().await == 1).await;
        let mut answers = Vec::new();
        for publish in publishes {
            answers.push(self.enqueue(publish).await);
        }
        lock.rollback().await.unwrap();
        assert!(soon("the first answer", first.wait()).await[0].is_ok());
        let mut all = Vec::new();
        for answers in answers {
            all.push(soon("the answers", answers.wait()).await);
        }
        all
    }

    async fn enqueue(&self, publish: Publish) -> Answers {
        self.broker.publisher.enqueue(publish).await.unwrap()
    }

    /// The payloads of a topic, in their order.
    async fn stored(&self, topic: &str) -> Vec<String> {
        let stored = "select convert_from(payload, 'utf8') from trunkline.message where topic = $1
            order by \"offset\"";
        let rows = self.served.sql().await.query(stored, &[&topic]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn stop(self) {
        self.broker.drain();
        self.broker.stop().await;
    }
}

fn receipt(answer: &Answer) -> (i64, usize) {
    let Receipt { first: Offset(first), count, duplicate } = *answer.as_ref().unwrap();
    assert!(!duplicate, "{answer:?}");
    (first, count)
}

#[tokio::test]
async fn an_error_of_one_request_reaches_no_other_of_its_flush() {
    // An exception of a trigger, a check, a null, a key that is taken, a row that is gone, a
    // privilege, a table that is missing, a fault of the server's own; a value that is refused.
    let errors =
        ["P0001", "23514", "23502", "23505", "23503", "42501", "42P01", "2200H", "XX000", "XX001"];
    for error in errors {
        let one = OneWriter::start().await;
        one.execute(TRIGGER).await;
        let bad = format!("raise {error}");
        let mut run = publish("orders", "b", None, &["b0"]);
        for payloads in [["b1", "b2"], [&bad, "b3"], ["b4", "b5"]] {
            run.append(publish("orders", "b", None, &payloads)).unwrap();
        }
        let answers = one
            .publish_together(vec![
                publish("orders", "a", Some(0), &["a0"]),
                publish("bills", PRODUCER, None, &["bill", &bad]),
                publish("orders", "a", Some(1), &[&bad]),
                run,
                // It counts on from what was refused.
                publish("orders", "a", Some(2), &["a2"]),
                publish("audit", PRODUCER, None, &["seen"]),
                publish("bills", PRODUCER, None, &["paid"]),
            ])
            .await;
        let refused = |answer: &Answer| matches!(answer, Err(Error::Internal(_)));
        assert_eq!(receipt(&answers[0][0]), (0, 1), "{error}");
        assert!(refused(&answers[1][0]), "{error}: {answers:?}");
        assert!(refused(&answers[2][0]), "{error}: {answers:?}");
        assert_eq!(receipt(&answers[3][0]), (1, 1), "{error}");
        assert_eq!(receipt(&answers[3][1]), (2, 2), "{error}");
        assert!(refused(&answers[3][2]), "{error}: {answers:?}");
        assert_eq!(receipt(&answers[3][3]), (4, 2), "{error}");
        let leaves_a_gap =
            matches!(answers[4][0], Err(Error::SequenceGap { expected: Sequence(1), .. }));
        assert!(leaves_a_gap, "{error}: {answers:?}");
        assert_eq!(receipt(&answers[5][0]), (0, 1), "{error}");
        assert_eq!(receipt(&answers[6][0]), (0, 1), "{error}");
        assert_eq!(one.stored("orders").await, ["a0", "b0", "b1", "b2", "b4", "b5"], "{error}");
        assert_eq!(one.stored("bills").await, ["paid"], "{error}");
        one.stop().await;
    }
}

#[tokio::test]
async fn a_flush_of_one_topic_is_taken_apart_as_well() {
    let one = OneWriter::start().await;
    let check = "alter table trunkline.batch add check (not 'bad'::bytea = any (payloads))";
    one.execute(check).await;
    let runs = (0..60).map(|number| {
        let payload = if [7, 8, 41].contains(&number) { "bad" } else { "good" };
        publish("orders", "a", None, &[payload])
    });
    let answers = one.publish_together(runs.collect()).await;
    for (number, answer) in answers.iter().enumerate() {
        match [7, 8, 41].contains(&number) {
            true => assert!(matches!(answer[0], Err(Error::Internal(_))), "{number}: {answer:?}"),
            false => drop(receipt(&answer[0])),
        }
    }
    assert_eq!(one.stored("orders").await, ["good"; 57]);
    one.stop().await;
}

#[tokio::test]
async fn a_fault_of_the_server_that_passes_is_seen_by_nobody() {
    for topics in [&["orders"][..], &["audit", "bills", "orders"]] {
        let one = OneWriter::start().await;
        one.execute(FAULT).await;
        let runs = topics.iter().map(|topic| publish(topic, PRODUCER, None, &["x"]));
        let answers = one.publish_together(runs.collect()).await;
        for (topic, answer) in topics.iter().zip(&answers) {
            assert_eq!(receipt(&answer[0]), (0, 1), "{topic}");
            assert_eq!(one.stored(topic).await, ["x"], "{topic}");
        }
        one.stop().await;
    }
}

/// What is unknown is not tried again: it could be stored twice.
#[tokio::test]
async fn a_flush_whose_connection_is_lost_is_not_taken_apart() {
    let one = OneWriter::start().await;
    one.execute(
        "create sequence tries;
         create function lose() returns trigger language plpgsql as $$
         begin
             perform nextval('tries'), pg_terminate_backend(pg_backend_pid());
             return new;
         end $$;
         create trigger lose before insert on trunkline.batch for each row
             when (new.payloads <> array['held'::bytea]) execute function lose();",
    )
    .await;
    let runs = ["audit", "bills", "orders", "orders"];
    let runs = runs.map(|topic| publish(topic, PRODUCER, None, &["x"]));
    let answers = one.publish_together(runs.into()).await;
    assert!(
        answers.iter().all(|answer| matches!(answer[0], Err(Error::OutcomeUnknown(_)))),
        "{answers:?}"
    );
    let sql = one.served.sql().await;
    let tries = sql.query_one("select last_value from tries", &[]).await.unwrap();
    assert_eq!(tries.get::<_, i64>(0), 1);
    one.stop().await;
}
