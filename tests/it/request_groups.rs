//! Requests of a stream that are stored together as a group are still answered one by one.

use trunkline::{
    broker::{Broker, Error, Publish, Quotas, Receipt},
    model::{Message, Offset},
    storage::Storage,
};

use crate::support::{LIMITS, PRODUCER, TestBroker, one_writer::publish_of, soon};

fn publish(producer: &str, sequence: i64, count: usize) -> Publish {
    publish_of("orders", producer, Some(sequence), vec![Message::default(); count])
}

/// Requests of these counts of messages, whose sequences follow one another.
fn group<const N: usize>(producer: &str, first: i64, counts: [usize; N]) -> Publish {
    let mut sequence = first;
    let mut requests = counts.map(|count| {
        sequence += count as i64;
        publish(producer, sequence - count as i64, count)
    });
    let mut group = requests[0].clone();
    for request in &mut requests[1..] {
        assert!(group.append(request.clone()).is_none(), "the request continues the group");
    }
    group
}

async fn answers(broker: &Broker, group: Publish) -> Vec<Result<Receipt, Error>> {
    soon("the answers", broker.publisher.enqueue(group, None, None).await.unwrap().wait()).await
}

#[tokio::test]
async fn a_group_is_stored_in_one_batch_or_checked_request_by_request() {
    let served = TestBroker::start().await;
    served.topic("orders").await;
    let storage = Storage::open(&served.database.url, None, LIMITS).await.unwrap();
    let broker = Broker::start(storage, LIMITS.writers, Quotas::default()).await.unwrap();
    let receipt = |first, count, duplicate| Receipt { first: Offset(first), count, duplicate };

    let stored = answers(&broker, group(PRODUCER, 0, [2, 1, 3])).await;
    let stored: Vec<_> = stored.into_iter().map(Result::unwrap).collect();
    assert_eq!(stored, [receipt(0, 2, false), receipt(2, 1, false), receipt(3, 3, false)]);
    let rows = served.sql().await.query("select count from trunkline.batch", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>(), [6]);

    // The first two requests are repetitions, the others are new.
    let repeated = answers(&broker, group(PRODUCER, 2, [1, 3, 1, 2])).await;
    let repeated: Vec<_> = repeated.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        repeated,
        [receipt(2, 1, true), receipt(3, 3, true), receipt(6, 1, false), receipt(7, 2, false)]
    );

    let refused = answers(&broker, group("stranger", 0, [1, 2])).await;
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|one| matches!(one, Err(Error::ProducerNotRegistered { .. }))));
    let gap = answers(&broker, group(PRODUCER, 50, [1, 1])).await;
    assert_eq!(gap.len(), 2);
    assert!(gap.iter().all(|one| matches!(one, Err(Error::SequenceGap { .. }))));
    broker.drain();
    broker.stop().await;
}
