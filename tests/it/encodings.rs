//! Databases that are not UTF-8 refuse exactly the fields that they cannot store.

use std::{collections::BTreeMap, sync::Arc};

use nix::sys::signal::Signal;
use tonic::{Code, Status};
use trunkline::{
    broker::{Error, Publish, Receipt},
    model::{Labels, Message, Offset, Sequence},
    proto::{self, PublishStreamRequest, publish_stream_response::Result as Answer},
};

use crate::support::{
    PRODUCER, PublishStream, TestBroker, TestDatabase, Trunkline, assert_field, assert_refused,
    message,
    one_writer::{OneWriter, publish_of},
    soon,
    worker::{TestWorker, at_once, reject},
};

/// LATIN1 and EUC_JP both lack the euro sign; LATIN1 has the u umlaut, and EUC_JP has kana.
const NOT_STORABLE: &str = "3 \u{20ac}";

async fn start_on(encoding: &str) -> TestBroker {
    TestBroker::start_on(Arc::new(TestDatabase::create_encoded(encoding).await)).await
}

fn labels(name: &str, value: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

fn with_header(text: &str) -> proto::NewMessage {
    proto::NewMessage { headers: labels("price", text), ..message("x") }
}

/// A publish with one message for each header; an empty text means no header.
fn publish(topic: &str, producer: &str, sequence: Option<i64>, headers: &[&str]) -> Publish {
    let message = |header: &&str| Message {
        payload: "x".into(),
        headers: match *header {
            "" => Labels::default(),
            text => Labels::parse(labels("price", text)).unwrap(),
        },
        ..Message::default()
    };
    publish_of(topic, producer, sequence, headers.iter().map(message).collect())
}

fn field(outcome: &Result<Receipt, Error>) -> &str {
    match outcome {
        Err(Error::Invalid(invalid)) => &invalid.field,
        other => panic!("a refusal of a field expected, not {other:?}"),
    }
}

async fn start_one_writer(encoding: &str) -> OneWriter {
    OneWriter::start_beside(start_on(encoding).await).await
}

/// The producer of each of a topic's messages.
async fn stored_producers(one: &OneWriter, topic: &str) -> Vec<String> {
    let stored = "select producer_id from trunkline.message where topic = $1 order by \"offset\"";
    let rows = one.served.sql().await.query(stored, &[&topic]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn requests_that_share_a_flush_with_refused_ones_are_stored_in_order() {
    let one = start_one_writer("LATIN1").await;
    for producer in ["a", "b", "c", "d"] {
        one.served.producer("orders", producer).await;
    }
    let mut run = publish("orders", "c", None, &["gr\u{fc}n"]);
    for header in ["", NOT_STORABLE, ""] {
        assert!(run.append(publish("orders", "c", None, &["", header])).is_none());
    }
    let answers = one
        .publish_together(vec![
            publish("orders", "a", Some(0), &[""]),
            publish("bills", PRODUCER, None, &["", NOT_STORABLE]),
            publish("orders", "b", None, &["", "", NOT_STORABLE]),
            publish("orders", "a", Some(1), &[NOT_STORABLE]),
            run,
            // Its sequence follows the refused one.
            publish("orders", "a", Some(2), &[""]),
            publish("audit", PRODUCER, None, &["\u{fc}"]),
            publish("bills", PRODUCER, None, &[""]),
            publish("orders", "d", Some(0), &["", "\u{4e00}"]),
            publish("orders", "b", None, &[""]),
        ])
        .await;
    let receipt = |first, count| Receipt { first: Offset(first), count, duplicate: false };
    let stored = |answer: &Result<Receipt, Error>| *answer.as_ref().unwrap();

    assert_eq!(stored(&answers[0][0]), receipt(0, 1));
    assert_eq!(field(&answers[1][0]), "messages[1].headers");
    assert_eq!(field(&answers[2][0]), "messages[2].headers");
    assert_eq!(field(&answers[3][0]), "messages[0].headers");
    let text = answers[3][0].as_ref().unwrap_err().to_string();
    for part in ["'\u{20ac}'", "U+20AC", "LATIN1"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(stored(&answers[4][0]), receipt(1, 1));
    assert_eq!(stored(&answers[4][1]), receipt(2, 2));
    assert_eq!(field(&answers[4][2]), "messages[1].headers");
    assert_eq!(stored(&answers[4][3]), receipt(4, 2));
    assert!(
        matches!(answers[5][0], Err(Error::SequenceGap { expected: Sequence(1), .. })),
        "{:?}",
        answers[5]
    );
    assert_eq!(stored(&answers[6][0]), receipt(0, 1));
    assert_eq!(stored(&answers[7][0]), receipt(0, 1));
    assert_eq!(field(&answers[8][0]), "messages[1].headers");
    assert_eq!(stored(&answers[9][0]), receipt(6, 1));
    assert_eq!(stored_producers(&one, "orders").await, ["a", "c", "c", "c", "c", "c", "b"]);
    // The refused requests are removed before the rest is stored, which is one batch, not many.
    assert_eq!(one.served.batches().await, 4);

    // The refused sequence can be used again.
    let again = one.enqueue(publish("orders", "a", Some(1), &["", ""])).await;
    assert_eq!(stored(&soon("an answer", again.wait()).await[0]), receipt(7, 2));
    one.stop().await;
}

#[tokio::test]
async fn a_request_that_the_database_refuses_for_another_reason_is_found_by_halving() {
    let one = start_one_writer("UTF8").await;
    let sql = one.served.sql().await;
    sql.batch_execute(
        "create function refuse() returns trigger language plpgsql as $$
         begin
             if new.headers::text like '%poison%' then
                 raise exception 'no' using errcode = '22023';
             end if;
             return new;
         end $$;
         create trigger refuse before insert on trunkline.batch
             for each row execute function refuse();",
    )
    .await
    .unwrap();
    for number in 0..60 {
        one.served.producer("orders", &format!("p{number}")).await;
    }
    let poisoned = [7, 8, 41];
    let mut runs: Vec<Publish> = (0..60)
        .map(|number| {
            let header = if poisoned.contains(&number) { "poison" } else { NOT_STORABLE };
            publish("orders", &format!("p{number}"), Some(0), &["", header])
        })
        .collect();
    runs.push(publish("bills", PRODUCER, None, &[""]));
    let answers = one.publish_together(runs).await;
    for (number, answer) in answers.iter().enumerate() {
        match poisoned.contains(&number) {
            true => assert_eq!(field(&answer[0]), "messages"),
            false => assert!(answer[0].is_ok(), "{number}: {answer:?}"),
        }
    }
    let good = (0..60).filter(|number| !poisoned.contains(number));
    let good: Vec<_> = good.flat_map(|number| vec![format!("p{number}"); 2]).collect();
    assert_eq!(stored_producers(&one, "orders").await, good);
    one.stop().await;
}

#[tokio::test]
async fn producers_with_bad_headers_do_not_affect_others() {
    const ROUNDS: usize = 40;
    let broker = Arc::new(start_on("LATIN1").await);
    for topic in ["bills", "orders"] {
        broker.topic(topic).await;
    }
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..8 {
        let topic = if number % 2 == 0 { "orders" } else { "bills" };
        let text = if number < 4 { NOT_STORABLE.to_owned() } else { "gr\u{fc}n".to_owned() };
        let broker = broker.clone();
        calls.spawn(async move {
            for round in 0..ROUNDS {
                // One producer sends another bad character each time.
                let other = char::from_u32(0x4e00 + (number * ROUNDS + round) as u32).unwrap();
                let text = if number == 1 { format!("{other}") } else { text.clone() };
                let request = proto::PublishRequest {
                    topic: topic.to_owned(),
                    producer_id: PRODUCER.to_owned(),
                    messages: vec![message("plain"), with_header(&text)],
                    ..Default::default()
                };
                let outcome = broker.producers().publish(request).await;
                match number < 4 {
                    true => assert_field(outcome, "messages[1].headers", None),
                    false => assert_eq!(outcome.unwrap().into_inner().count, 2),
                }
            }
        });
    }
    let mut stream = PublishStream::open(&broker).await;
    for round in 0..ROUNDS {
        let text = if round % 3 == 1 { NOT_STORABLE } else { "\u{fc}" };
        let (topic, producer_id) = ("orders".to_owned(), PRODUCER.to_owned());
        let messages = vec![with_header(text)];
        let request = PublishStreamRequest { topic, producer_id, messages, ..Default::default() };
        stream.send(request).await;
    }
    for round in 0..ROUNDS {
        match stream.answer().await {
            Answer::Receipt(receipt) => assert!(round % 3 != 1 && receipt.count == 1),
            Answer::Refusal(refusal) => {
                assert_eq!(round % 3, 1, "{refusal:?}");
                assert_eq!(refusal.code, Code::InvalidArgument as i32);
                assert_eq!(refusal.reason, "INVALID_FIELD");
                assert_eq!(refusal.metadata["field"], "messages[0].headers");
            }
        }
    }
    while let Some(call) = soon("the end of a call", calls.join_next()).await {
        call.unwrap();
    }
    let streamed = (0..ROUNDS).filter(|round| round % 3 != 1).count();
    assert_eq!(broker.stored().await, (4 * ROUNDS * 2 + streamed) as i64);
}

#[tokio::test]
async fn descriptions_labels_and_client_names_are_refused_by_field() {
    for (encoding, storable) in [("LATIN1", "gr\u{fc}n"), ("EUC_JP", "\u{304b}\u{306a}")] {
        let broker = start_on(encoding).await;
        let create = async |description: &str, labels: BTreeMap<String, String>| {
            let (topic, description) = ("orders".to_owned(), description.to_owned());
            let request =
                proto::CreateTopicRequest { topic, description, labels, ..Default::default() };
            broker.topics().create_topic(request).await
        };
        assert_field(create(NOT_STORABLE, BTreeMap::new()).await, "description", None);
        assert_field(create(storable, labels("price", NOT_STORABLE)).await, "labels", None);
        assert_field(create(storable, labels(NOT_STORABLE, "price")).await, "labels", None);
        create(storable, labels(storable, storable)).await.unwrap();
        let topic = broker.get_topic("orders").await;
        assert_eq!(
            (topic.description.as_str(), topic.labels),
            (storable, labels(storable, storable))
        );

        let update = async |description: &str, labels: BTreeMap<String, String>| {
            let (topic, description) = ("orders".to_owned(), description.to_owned());
            let request =
                proto::UpdateTopicRequest { topic, description, labels, ..Default::default() };
            broker.topics().update_topic(request).await
        };
        assert_field(update(NOT_STORABLE, BTreeMap::new()).await, "description", None);
        assert_field(update("", labels("price", NOT_STORABLE)).await, "labels", None);
        update("plain", labels("price", storable)).await.unwrap();

        broker.consumer("orders", "billing").await;
        for on_busy in [proto::OnBusy::Wait, proto::OnBusy::Fail, proto::OnBusy::TakeOver] {
            let named = |name: &str| proto::ConsumeRequest {
                client_name: name.to_owned(),
                on_busy: on_busy.into(),
                ..TestBroker::request("orders", "billing")
            };
            let mut refused = broker.open(named(NOT_STORABLE)).await;
            assert_field(Err::<(), Status>(refused.ended().await), "client_name", None);
            let mut stream = broker.open(named(storable)).await;
            stream.attached().await;
            let holder = broker.get_consumer("orders", "billing").await.holder;
            assert_eq!(holder.as_str(), storable);
            drop(stream);
            broker.all_leases_are_free().await;
        }
    }
}

#[tokio::test]
async fn filters_are_refused_by_field_and_reasons_are_stored_as_far_as_possible() {
    let broker = start_on("LATIN1").await;
    broker.topic("jobs").await;
    let filtered = |text: &str| proto::DeliveryPolicy {
        filter: format!("headers.price = \"{text}\""),
        ..Default::default()
    };
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    let request = proto::CreateSubscriptionRequest {
        topic: "jobs".to_owned(),
        policy: Some(filtered(NOT_STORABLE)),
        ..Default::default()
    };
    let refusal = worker.service().create_subscription(request).await;
    assert_field(refusal, "policy.filter", None);
    let mut worker = TestWorker::subscribe(&broker, "jobs", "pool", at_once()).await;
    let refusal = worker.update(filtered(NOT_STORABLE), &["filter"]).await;
    assert_field(refusal, "policy.filter", None);
    broker.publish("jobs", ["one"]).await;
    let work = worker.receive(1).await;
    broker.publish("jobs", ["two"]).await;
    let other = worker.receive(1).await;
    // A refusal would leave the worker with a message that it cannot get rid of.
    assert_eq!(worker.settle(&work, reject(&format!("costs {NOT_STORABLE}"))).await, 1);
    assert_eq!(worker.settle(&other, reject("gr\u{fc}n")).await, 1);
    let reasons = "select reason from trunkline.subscription_message order by \"offset\"";
    let rows = broker.sql().await.query(reasons, &[]).await.unwrap();
    let reasons: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(reasons, ["costs 3 ?", "gr\u{fc}n"]);
}

#[tokio::test]
async fn a_database_without_an_encoding_stores_everything() {
    let broker = start_on("SQL_ASCII").await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let request = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![with_header(NOT_STORABLE)],
        ..Default::default()
    };
    broker.producers().publish(request).await.unwrap();
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.messages(1).await[0].headers, labels("price", NOT_STORABLE));

    // Text that is not UTF-8 was not stored by a broker, so reading it is an internal error.
    let sql = broker.sql().await;
    sql.batch_execute(
        "update trunkline.topic set description = convert_from('\\xfc', 'SQL_ASCII')",
    )
    .await
    .unwrap();
    let request = proto::GetTopicRequest { topic: "orders".to_owned() };
    assert_refused(broker.topics().get_topic(request).await, Code::Internal, "INTERNAL");
}

#[tokio::test]
async fn an_encoding_other_than_utf8_is_logged_at_the_start() {
    for (encoding, warning) in [
        ("LATIN1", Some("with characters that it lacks are refused")),
        ("SQL_ASCII", Some("it stores text unchecked")),
        ("UTF8", None),
    ] {
        let database = TestDatabase::create_encoded(encoding).await;
        let listen = ["--listen", "127.0.0.1:0", "--database-url", &database.url];
        let (mut broker, _) = Trunkline::serve(&listen).await;
        broker.signal(Signal::SIGTERM);
        let mut lines = Vec::new();
        while let Some(line) = soon("a line", broker.stderr.next_line()).await.unwrap() {
            lines.push(line);
        }
        let about: Vec<_> = lines.iter().filter(|line| line.contains("encoding is not")).collect();
        match warning {
            Some(warning) => {
                assert!(about.len() == 1, "{lines:?}");
                assert!(about[0].contains(warning) && about[0].contains(encoding), "{about:?}");
                assert!(about[0].contains("WARN"), "{about:?}");
            }
            None => assert!(about.is_empty(), "{about:?}"),
        }
        assert!(soon("the end", broker.wait()).await.success());
    }
}
