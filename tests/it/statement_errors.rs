//! PostgreSQL errors while a flush is stored: only the request that causes the error is refused,
//! whatever the error is.

use futures::future::join_all;
use tonic::Code;
use trunkline::{
    broker::{Error, Publish, Receipt},
    model::{Message, Offset, Sequence},
};

use crate::support::{
    PRODUCER, TestBroker, assert_refused,
    one_writer::{OneWriter, publish_of},
};

type Answer = Result<Receipt, Error>;

/// Fails a batch that has a payload such as `raise P0001`, with that SQLSTATE.
const TRIGGER: &str = "
    create function fail() returns trigger language plpgsql as $$
    declare
        bad text;
    begin
        select convert_from(payload, 'utf8') into bad
        from unnest(new.payloads) payload where convert_from(payload, 'utf8') like 'raise %' limit 1;
        if found then
            raise exception 'an operator''s trigger says no' using errcode = split_part(bad, ' ', 2);
        end if;
        return new;
    end $$;
    create trigger fail before insert on trunkline.batch for each row execute function fail();";

/// Fails the first three batches, like a transient internal error of the server.
const FAULT: &str = "
    create sequence public.tries;
    create function fault() returns trigger language plpgsql as $$
    begin
        if nextval('public.tries') <= 3 then
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
    publish_of(topic, producer, sequence, messages.collect())
}

/// A broker with one writer, and the producers `a` and `b` of `orders`.
async fn start() -> OneWriter {
    let one = OneWriter::start_beside(TestBroker::start().await).await;
    for producer in ["a", "b"] {
        one.served.producer("orders", producer).await;
    }
    one
}

async fn execute(one: &OneWriter, sql: &str) {
    one.served.sql().await.batch_execute(sql).await.unwrap();
}

/// The payloads of a topic, in order.
async fn stored(one: &OneWriter, topic: &str) -> Vec<String> {
    let stored = "select convert_from(payload, 'utf8') from trunkline.message where topic = $1
        order by \"offset\"";
    let rows = one.served.sql().await.query(stored, &[&topic]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn receipt(answer: &Answer) -> (i64, usize) {
    let Receipt { first: Offset(first), count, duplicate } = *answer.as_ref().unwrap();
    assert!(!duplicate, "{answer:?}");
    (first, count)
}

#[tokio::test]
async fn an_error_of_one_request_affects_no_other_in_its_flush() {
    // In this order: a trigger's exception; a violated check, not-null, unique and foreign-key
    // constraint; a missing privilege and table; a data exception; two internal errors.
    let errors =
        ["P0001", "23514", "23502", "23505", "23503", "42501", "42P01", "2200H", "XX000", "XX001"];
    for error in errors {
        let one = start().await;
        execute(&one, TRIGGER).await;
        let bad = format!("raise {error}");
        let mut group = publish("orders", "b", None, &["b0"]);
        for payloads in [["b1", "b2"], [&bad, "b3"], ["b4", "b5"]] {
            assert!(group.append(publish("orders", "b", None, &payloads)).is_none());
        }
        let answers = one
            .publish_together(vec![
                publish("orders", "a", Some(0), &["a0"]),
                publish("bills", PRODUCER, None, &["bill", &bad]),
                publish("orders", "a", Some(1), &[&bad]),
                group,
                // Its sequence follows the refused one.
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
        assert_eq!(stored(&one, "orders").await, ["a0", "b0", "b1", "b2", "b4", "b5"], "{error}");
        assert_eq!(stored(&one, "bills").await, ["paid"], "{error}");
        one.stop().await;
    }
}

#[tokio::test]
async fn a_flush_of_one_topic_is_also_split() {
    let one = start().await;
    let check = "alter table trunkline.batch add check (not 'bad'::bytea = any (payloads))";
    execute(&one, check).await;
    let publishes = (0..60).map(|number| {
        let payload = if [7, 8, 41].contains(&number) { "bad" } else { "good" };
        publish("orders", "a", None, &[payload])
    });
    let answers = one.publish_together(publishes.collect()).await;
    for (number, answer) in answers.iter().enumerate() {
        match [7, 8, 41].contains(&number) {
            true => assert!(matches!(answer[0], Err(Error::Internal(_))), "{number}: {answer:?}"),
            false => drop(receipt(&answer[0])),
        }
    }
    assert_eq!(stored(&one, "orders").await, ["good"; 57]);
    one.stop().await;
}

#[tokio::test]
async fn a_transient_error_of_the_server_is_invisible_to_clients() {
    for topics in [&["orders"][..], &["audit", "bills", "orders"]] {
        let one = start().await;
        execute(&one, FAULT).await;
        let publishes = topics.iter().map(|topic| publish(topic, PRODUCER, None, &["x"]));
        let answers = one.publish_together(publishes.collect()).await;
        for (topic, answer) in topics.iter().zip(&answers) {
            assert_eq!(receipt(&answer[0]), (0, 1), "{topic}");
            assert_eq!(stored(&one, topic).await, ["x"], "{topic}");
        }
        one.stop().await;
    }
}

/// A flush with an unknown outcome is not retried, as it could be stored twice.
#[tokio::test]
async fn a_flush_whose_connection_is_lost_is_not_split() {
    let one = start().await;
    execute(
        &one,
        "create sequence public.tries;
         create function lose() returns trigger language plpgsql as $$
         begin
             perform nextval('public.tries'), pg_terminate_backend(pg_backend_pid());
             return new;
         end $$;
         create trigger lose before insert on trunkline.batch for each row
             when (new.payloads <> array['held'::bytea]) execute function lose();",
    )
    .await;
    let topics = ["audit", "bills", "orders", "orders"];
    let publishes = topics.map(|topic| publish(topic, PRODUCER, None, &["x"]));
    let answers = one.publish_together(publishes.into()).await;
    assert!(
        answers.iter().all(|answer| matches!(answer[0], Err(Error::OutcomeUnknown(_)))),
        "{answers:?}"
    );
    let sql = one.served.sql().await;
    let tries = sql.query_one("select last_value from public.tries", &[]).await.unwrap();
    assert_eq!(tries.get::<_, i64>(0), 1);
    one.stop().await;
}

#[tokio::test]
async fn an_error_of_one_consumer_reaches_no_other_whose_position_is_stored_with_it() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b"]).await;
    let mut streams = Vec::new();
    for consumer in ["bad", "first", "second", "third"] {
        broker.consumer("orders", consumer).await;
        let mut stream = broker.consume_manually("orders", consumer).await;
        stream.messages(2).await;
        streams.push(stream);
    }
    let fail = "
        create function fail() returns trigger language plpgsql as $$
        begin
            raise exception 'an operator''s trigger says no';
        end $$;
        create trigger fail before update of position on trunkline.consumer_topic
            for each row when (new.consumer_id = 'bad') execute function fail();";
    broker.sql().await.batch_execute(fail).await.unwrap();
    let (bad, good) = streams.split_first().unwrap();
    // Of so many at once, some share a statement.
    for round in 0..20 {
        let good = join_all(good.iter().map(|stream| stream.commit(1 + round % 2)));
        let (refused, stored) = tokio::join!(bad.commit(1), good);
        assert_refused(refused, Code::Internal, "INTERNAL");
        for stored in stored {
            match stored {
                Ok(position) => assert_eq!(position, 1 + round % 2),
                // Every other round goes back.
                behind => {
                    assert_refused(behind, Code::OutOfRange, "COMMIT_BEHIND");
                    assert!(round > 1);
                }
            }
        }
    }
    assert_eq!(broker.position("orders", "bad").await, 0);
    assert_eq!(broker.position("orders", "third").await, 2);
}
