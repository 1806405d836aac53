//! Changes of how a subscription delivers, while its owner changes.

use trunkline::proto;

use crate::support::{
    soon, until,
    worker::{at_once, with_jobs},
};

#[tokio::test]
async fn a_change_that_finds_another_epoch_begins_anew() {
    let (broker, mut worker) = with_jobs(1, at_once()).await;
    let mut stream = worker.stream().await;
    stream.works(1).await;
    // As a seek does, which has not committed yet.
    let sql = broker.sql().await;
    let next_epoch = "begin; update trunkline.consumer_topic
        set epoch = epoch + 1, seek_epoch = epoch + 1";
    sql.batch_execute(next_epoch).await.unwrap();
    let policy = proto::DeliveryPolicy { max_deliveries: 7, ..at_once() };
    let update = worker.update(policy, &["max_deliveries"]);
    let begin = async {
        until("the change waits", async || broker.waiting_for_locks().await > 0).await;
        sql.batch_execute("commit").await.unwrap();
    };
    let (updated, ()) = soon("the change", async { tokio::join!(update, begin) }).await;
    assert_eq!(updated.unwrap().policy.unwrap().max_deliveries, 7);
    // The owner of the next epoch knows it as well.
    let mut attached = worker.try_stream(worker.open()).await.unwrap();
    let proto::subscribe_response::Event::Attached(attached) = attached.event().await else {
        panic!("attached expected");
    };
    assert_eq!(attached.policy.unwrap().max_deliveries, 7);
}
