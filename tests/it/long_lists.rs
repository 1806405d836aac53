//! Lists of the largest possible entries: every page fits the default limit of clients.

use prost::Message as _;
use trunkline::proto;

use crate::support::TestBroker;

/// The default message size limit of gRPC clients.
const DEFAULT_LIMIT: usize = 4 * 1024 * 1024;

/// The largest page size.
const PAGE_SIZE: i32 = 1_000;

fn longest_name(number: i32) -> String {
    format!("{number:0>255}")
}

#[tokio::test]
async fn a_thousand_topics_with_the_largest_labels_are_each_listed_once() {
    let broker = TestBroker::start().await;
    broker.topic("pattern").await;
    let sql = broker.sql().await;
    // Each has 16 KiB of labels. In half of the topics these are control characters, which take six
    // times as much space in JSON.
    let insert = r#"
        with topic as (
            insert into trunkline.topic (name, description, labels)
            select lpad(n::text, 255, '0'), repeat('d', 1024), jsonb_build_object(
                'label', repeat(case when n % 2 = 0 then 'v' else E'\u0001' end, 16 * 1024 - 5))
            from generate_series(1, 1000) n
            returning id
        )
        insert into trunkline.topic_head (topic_id) select id from topic"#;
    sql.batch_execute(insert).await.unwrap();

    let mut client = broker.topics().max_decoding_message_size(DEFAULT_LIMIT);
    let (mut names, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = proto::ListTopicsRequest { page_size: PAGE_SIZE, page_token };
        let page = client.list_topics(request).await.unwrap().into_inner();
        assert!(page.encoded_len() <= DEFAULT_LIMIT / 2, "{}", page.encoded_len());
        assert!(!page.topics.is_empty());
        names.extend(page.topics.into_iter().map(|topic| topic.name));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected = (1..=1_000).map(longest_name).chain(["pattern".to_owned()]);
    assert_eq!(names, expected.collect::<Vec<_>>());
    assert!(pages > 16, "{pages} pages hold 17 MB");
}

#[tokio::test]
async fn the_largest_pages_of_producers_and_consumers_fit() {
    let broker = TestBroker::start().await;
    let topic = longest_name(0);
    broker.topic(&topic).await;
    for number in 1..=PAGE_SIZE {
        broker.producer(&topic, &longest_name(number)).await;
        broker.consumer(&topic, &longest_name(number)).await;
    }
    let sql = broker.sql().await;
    let hold = "update trunkline.consumer_topic set holder = repeat('h', 255)";
    sql.batch_execute(hold).await.unwrap();

    let (page_size, page_token) = (PAGE_SIZE, String::new());
    let request = proto::ListProducersRequest { topic: topic.clone(), page_size, page_token };
    let mut producers = broker.producers().max_decoding_message_size(DEFAULT_LIMIT);
    let page = producers.list_producers(request).await.unwrap().into_inner();
    assert!(page.encoded_len() <= DEFAULT_LIMIT / 2, "{}", page.encoded_len());
    assert_eq!(page.producers.len(), PAGE_SIZE as usize);

    let (page_size, page_token) = (PAGE_SIZE, String::new());
    let request = proto::ListConsumersRequest { topic, page_size, page_token };
    let page = broker.consumers().list_consumers(request).await.unwrap().into_inner();
    assert!(page.encoded_len() <= DEFAULT_LIMIT / 2, "{}", page.encoded_len());
    assert_eq!(page.consumers.len(), PAGE_SIZE as usize);
}
