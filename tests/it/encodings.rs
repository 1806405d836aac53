//! Databases that are not UTF-8: what they cannot store is refused by its field, alone.

use std::{collections::BTreeMap, sync::Arc};

use nix::sys::signal::Signal;
use tonic::{Code, Status};
use trunkline::{
    broker::{Answers, Broker, Error, Publish, Receipt},
    model::{Epoch, Labels, Message, NewMessages, Offset, ProducerId, Sequence, TopicName},
    proto::{self, PublishStreamRequest, publish_stream_response::Result as Answer},
    storage::Storage,
};

use crate::support::{
    LIMITS, PRODUCER, PublishStream, TestBroker, TestDatabase, Trunkline, assert_field,
    assert_refused, message, soon, until,
};

/// LATIN1 and EUC_JP both lack the euro; LATIN1 has the u with dots, and EUC_JP the kana.
const LACKED: &str = "3 \u{20ac}";

async fn start_on(encoding: &str) -> TestBroker {
    TestBroker::start_on(Arc::new(TestDatabase::create_encoded(encoding).await)).await
}

fn labels(name: &str, value: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

fn with_header(text: &str) -> proto::NewMessage {
    proto::NewMessage { headers: labels("price", text), ..message("x") }
}

/// A request with a message for each header; an empty one stands for none.
fn publish(topic: &str, producer: &str, sequence: Option<i64>, headers: &[&str]) -> Publish {
    let message = |header: &&str| Message {
        payload: "x".into(),
        headers: match *header {
            "" => Labels::default(),
            text => Labels::parse("headers", labels("price", text)).unwrap(),
        },
        ..Message::default()
    };
    Publish {
        topic: TopicName::parse(topic).unwrap(),
        producer: ProducerId::parse(producer).unwrap(),
        epoch: Epoch(0),
        sequence: sequence.map(Sequence),
        expected_head: None,
        messages: NewMessages::parse(headers.iter().map(message).collect()).unwrap(),
    }
}

fn field(outcome: &Result<Receipt, Error>) -> &str {
    match outcome {
        Err(Error::Invalid(invalid)) => &invalid.field,
        other => panic!("not a refusal of a field: {other:?}"),
    }
}

/// A broker with one writer, so that what waits for it shares a flush.
struct OneWriter {
    served: TestBroker,
    broker: Arc<Broker>,
}

impl OneWriter {
    async fn start(encoding: &str) -> Self {
        let served = start_on(encoding).await;
        for topic in ["audit", "bills", "first", "orders"] {
            served.topic(topic).await;
        }
        let storage = Storage::open(&served.database.url, None, LIMITS).await.unwrap();
        Self { served, broker: Broker::start(storage, 1).await.unwrap() }
    }

    /// Has requests share a flush: they wait while the writer waits for a lock.
    async fn publish_together(&self, runs: Vec<Publish>) -> Vec<Vec<Result<Receipt, Error>>> {
        let mut sql = self.served.sql().await;
        let lock = sql.transaction().await.unwrap();
        let head = "select from trunkline.topic_head h join trunkline.topic on id = topic_id
            where name = 'first' for update of h";
        lock.query(head, &[]).await.unwrap();
        let first = self.enqueue(publish("first", PRODUCER, None, &[""])).await;
        until("the writer waits", async || self.served.waiting_for_locks().await == 1).await;
        let mut answers = Vec::new();
        for run in runs {
            answers.push(self.enqueue(run).await);
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

    /// The producers of a topic's batches, message by message.
    async fn stored(&self, topic: &str) -> Vec<String> {
        let stored = "select producer_id from trunkline.message where topic = $1
            order by \"offset\"";
        let rows = self.served.sql().await.query(stored, &[&topic]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn stop(self) {
        self.broker.drain();
        self.broker.stop().await;
    }
}

#[tokio::test]
async fn what_shares_a_flush_with_refused_requests_is_stored_in_its_order() {
    let one = OneWriter::start("LATIN1").await;
    for producer in ["a", "b", "c", "d"] {
        one.served.producer("orders", producer).await;
    }
    let mut run = publish("orders", "c", None, &["gr\u{fc}n"]);
    for header in ["", LACKED, ""] {
        run.append(publish("orders", "c", None, &["", header])).unwrap();
    }
    let answers = one
        .publish_together(vec![
            publish("orders", "a", Some(0), &[""]),
            publish("bills", PRODUCER, None, &["", LACKED]),
            publish("orders", "b", None, &["", "", LACKED]),
            publish("orders", "a", Some(1), &[LACKED]),
            run,
            // It counts on from what was refused.
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
    for told in ["'\u{20ac}'", "U+20AC", "LATIN1"] {
        assert!(text.contains(told), "{text}");
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
    assert_eq!(one.stored("orders").await, ["a", "c", "c", "c", "c", "c", "b"]);
    // What was refused is taken out before the rest is stored: it is one batch, not many.
    assert_eq!(one.served.batches().await, 4);

    // The refused sequence is free for what can be stored.
    let again = one.enqueue(publish("orders", "a", Some(1), &["", ""])).await;
    assert_eq!(stored(&soon("an answer", again.wait()).await[0]), receipt(7, 2));
    one.stop().await;
}

#[tokio::test]
async fn whatever_else_the_database_refuses_is_found_by_halving() {
    let one = OneWriter::start("UTF8").await;
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
            let header = if poisoned.contains(&number) { "poison" } else { LACKED };
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
    assert_eq!(one.stored("orders").await, good);
    one.stop().await;
}

#[tokio::test]
async fn producers_with_bad_headers_harm_no_others() {
    const ROUNDS: usize = 40;
    let broker = Arc::new(start_on("LATIN1").await);
    for topic in ["bills", "orders"] {
        broker.topic(topic).await;
    }
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..8 {
        let topic = if number % 2 == 0 { "orders" } else { "bills" };
        let text = if number < 4 { LACKED.to_owned() } else { "gr\u{fc}n".to_owned() };
        let broker = broker.clone();
        calls.spawn(async move {
            for round in 0..ROUNDS {
                // Some send another bad character each time.
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
        let text = if round % 3 == 1 { LACKED } else { "\u{fc}" };
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
    while let Some(call) = soon("a call's end", calls.join_next()).await {
        call.unwrap();
    }
    let streamed = (0..ROUNDS).filter(|round| round % 3 != 1).count();
    assert_eq!(broker.stored().await, (4 * ROUNDS * 2 + streamed) as i64);
}

#[tokio::test]
async fn descriptions_labels_and_client_names_are_refused_by_their_field() {
    for (encoding, had) in [("LATIN1", "gr\u{fc}n"), ("EUC_JP", "\u{304b}\u{306a}")] {
        let broker = start_on(encoding).await;
        let create = async |description: &str, labels: BTreeMap<String, String>| {
            let (topic, description) = ("orders".to_owned(), description.to_owned());
            let request =
                proto::CreateTopicRequest { topic, description, labels, ..Default::default() };
            broker.topics().create_topic(request).await
        };
        assert_field(create(LACKED, BTreeMap::new()).await, "description", None);
        assert_field(create(had, labels("price", LACKED)).await, "labels", None);
        assert_field(create(had, labels(LACKED, "price")).await, "labels", None);
        create(had, labels(had, had)).await.unwrap();
        let topic = broker.get_topic("orders").await;
        assert_eq!((topic.description.as_str(), topic.labels), (had, labels(had, had)));

        let update = async |description: &str, labels: BTreeMap<String, String>| {
            let (topic, description) = ("orders".to_owned(), description.to_owned());
            let request =
                proto::UpdateTopicRequest { topic, description, labels, ..Default::default() };
            broker.topics().update_topic(request).await
        };
        assert_field(update(LACKED, BTreeMap::new()).await, "description", None);
        assert_field(update("", labels("price", LACKED)).await, "labels", None);
        update("plain", labels("price", had)).await.unwrap();

        broker.consumer("orders", "billing").await;
        for on_busy in [proto::OnBusy::Wait, proto::OnBusy::Fail, proto::OnBusy::TakeOver] {
            let named = |name: &str| proto::ConsumeRequest {
                client_name: name.to_owned(),
                on_busy: on_busy.into(),
                ..TestBroker::request("orders", "billing")
            };
            let mut refused = broker.open(named(LACKED)).await;
            assert_field(Err::<(), Status>(refused.ended().await), "client_name", None);
            let mut stream = broker.open(named(had)).await;
            stream.attached().await;
            let holder = broker.get_consumer("orders", "billing").await.holder;
            assert_eq!(holder.as_str(), had);
            drop(stream);
            broker.no_lock_is_left().await;
        }
    }
}

#[tokio::test]
async fn a_database_without_an_encoding_stores_everything() {
    let broker = start_on("SQL_ASCII").await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let request = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![with_header(LACKED)],
        ..Default::default()
    };
    broker.producers().publish(request).await.unwrap();
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.messages(1).await[0].headers, labels("price", LACKED));

    // What is not UTF-8 was stored by somebody else, and no client of the broker's is to blame.
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
async fn an_encoding_that_lacks_characters_is_told_at_the_start() {
    for (encoding, told) in [
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
        match told {
            Some(told) => {
                assert!(about.len() == 1, "{lines:?}");
                assert!(about[0].contains(told) && about[0].contains(encoding), "{about:?}");
                assert!(about[0].contains("WARN"), "{about:?}");
            }
            None => assert!(about.is_empty(), "{about:?}"),
        }
        assert!(soon("the end", broker.wait()).await.success());
    }
}
