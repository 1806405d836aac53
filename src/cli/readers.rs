//! How many consumers topics have, and how far the one behind most is.

use std::collections::HashMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    pages::{CALLS_AT_A_TIME, PAGE_SIZE, for_each_page, is_of_deleted_topic},
};
use crate::{
    client::Client,
    proto::{ConsumerOrder, GetOverviewRequest, ListConsumersRequest, Topic},
};

/// The most topics whose consumers are counted one topic after the other, which is exact. For more
/// topics, an overview is asked for, which is up to a second old.
const MAX_EXACT: usize = 100;

/// The most consumers of an overview.
const OVERVIEW_CONSUMERS: i32 = 1_000;

/// The consumers of a topic, as far as the caller may know of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Readers {
    /// The number of consumers, if it is known.
    consumers: Option<u64>,
    /// The most messages that one of them has left; none if there is no consumer.
    greatest_lag: Option<i64>,
}

impl Readers {
    fn add(&mut self, lag: i64) {
        self.consumers = self.consumers.map(|count| count + 1);
        self.greatest_lag = self.greatest_lag.max(Some(lag));
    }

    /// The number of consumers and the greatest lag, for people.
    pub(super) fn cells(self) -> [String; 2] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            or_dash(self.consumers.map(|count| count.to_string())),
            or_dash(self.greatest_lag.map(|lag| lag.to_string())),
        ]
    }

    /// Adds both to the description of a topic for programs.
    pub(super) fn add_to(self, object: &mut Value) {
        object["consumers"] = json!(self.consumers);
        object["greatest_lag"] = json!(self.greatest_lag);
    }
}

/// The consumers of one topic.
pub(super) async fn of_topic(client: &Client, topic: &str) -> Result<Readers, Failure> {
    let mut readers = Readers { consumers: Some(0), greatest_lag: None };
    let listed = for_each_page(async |page_token| {
        let topic = topic.to_owned();
        let request = ListConsumersRequest { topic, page_size: PAGE_SIZE, page_token };
        let page = client.consumers().list_consumers(request).await?.into_inner();
        page.consumers.iter().for_each(|consumer| readers.add(consumer.lag));
        Ok(page.next_page_token)
    })
    .await;
    match listed {
        Err(failure) if is_of_deleted_topic(&failure) => Ok(Readers::default()),
        listed => listed.map(|()| readers),
    }
}

/// The consumers of each of these topics, with a bounded number of calls.
pub(super) async fn of_topics(client: &Client, topics: &[Topic]) -> Result<Vec<Readers>, Failure> {
    if topics.len() <= MAX_EXACT {
        let readers = topics.iter().map(|topic| of_topic(client, &topic.name));
        return stream::iter(readers).buffered(CALLS_AT_A_TIME).try_collect().await;
    }
    of_overview(client, topics).await
}

async fn of_overview(client: &Client, topics: &[Topic]) -> Result<Vec<Readers>, Failure> {
    let request = GetOverviewRequest {
        max_topics: 1,
        consumer_order: ConsumerOrder::Lag.into(),
        max_consumers: OVERVIEW_CONSUMERS,
        ..Default::default()
    };
    let overview = client.overview().get_overview(request).await?.into_inner();
    let is_whole =
        !overview.incomplete && overview.consumer_count == overview.consumers.len() as i64;
    let nobody = Readers { consumers: is_whole.then_some(0), greatest_lag: None };
    let mut by_topic: HashMap<&str, Readers> = HashMap::new();
    for consumer in &overview.consumers {
        by_topic.entry(&consumer.topic).or_insert(nobody).add(consumer.lag);
    }
    let readers = topics.iter().map(|topic| by_topic.get(&*topic.name).copied());
    Ok(readers.map(|readers| readers.unwrap_or(nobody)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_a_dash_and_null() {
        let mut known = Readers { consumers: Some(0), greatest_lag: None };
        assert_eq!(known.cells(), ["0", "-"]);
        known.add(5);
        known.add(3);
        assert_eq!(known.cells(), ["2", "5"]);
        let mut unknown = Readers::default();
        assert_eq!(unknown.cells(), ["-", "-"]);
        unknown.add(7);
        assert_eq!(unknown.cells(), ["-", "7"]);
        let mut object = json!({});
        unknown.add_to(&mut object);
        assert_eq!(object, json!({ "consumers": null, "greatest_lag": 7 }));
    }
}
