//! Offers the nearest existing name when a topic, a consumer or a producer does not exist.

use std::{future::Future, time::Duration};

use super::{
    failure::{Failure, Unknown},
    pages::PAGE_SIZE,
};
use crate::{
    client::Client,
    proto::{
        ListConsumersRequest, ListProducersRequest, ListSubscriptionsRequest, ListTopicsRequest,
    },
};

/// How long looking for a name may delay an error.
const DEADLINE: Duration = Duration::from_secs(1);

/// The same failure; if it is about a name that does not exist, with one that resembles it.
pub(super) async fn suggest(client: &Client, failure: Failure) -> Failure {
    let Some(unknown) = failure.unknown() else { return failure };
    let wanted = unknown.name().to_owned();
    match soon(names(client, unknown)).await {
        Some(names) => match nearest(&wanted, names.iter().map(String::as_str)) {
            Some(name) => failure.after(&format!("did you mean {name}?")),
            None => failure,
        },
        None => failure,
    }
}

async fn soon<T>(names: impl Future<Output = Result<T, Failure>>) -> Option<T> {
    tokio::time::timeout(DEADLINE, names).await.ok()?.ok()
}

/// The names that exist in place of an unknown one: a page of them, which has only what the caller may
/// see.
pub(super) async fn names(client: &Client, unknown: Unknown) -> Result<Vec<String>, Failure> {
    Ok(match unknown {
        Unknown::Topic(_) => {
            let request = ListTopicsRequest { page_size: PAGE_SIZE, ..Default::default() };
            let page = client.topics().list_topics(request).await?.into_inner();
            page.topics.into_iter().map(|topic| topic.name).collect()
        }
        Unknown::Consumer { topic, .. } => {
            let request =
                ListConsumersRequest { topic, page_size: PAGE_SIZE, ..Default::default() };
            let page = client.consumers().list_consumers(request).await?.into_inner();
            page.consumers.into_iter().map(|consumer| consumer.consumer_id).collect()
        }
        Unknown::Subscription { topic, .. } => {
            let request =
                ListSubscriptionsRequest { topic, page_size: PAGE_SIZE, ..Default::default() };
            let page = client.subscriptions().list_subscriptions(request).await?.into_inner();
            page.subscriptions.into_iter().map(|it| it.subscription_id).collect()
        }
        Unknown::Producer { topic, .. } => {
            let request =
                ListProducersRequest { topic, page_size: PAGE_SIZE, ..Default::default() };
            let page = client.producers().list_producers(request).await?.into_inner();
            page.producers.into_iter().map(|producer| producer.producer_id).collect()
        }
    })
}

/// The name that differs from the wanted one by the fewest letters: by one at most, or by a third of
/// them.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wanted.chars().count() / 3).max(1);
    let distances = names.map(|name| (strsim::damerau_levenshtein(wanted, name), name));
    let (_, name) = distances.filter(|(distance, _)| *distance <= limit).min()?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_resembles_the_wanted_one_is_offered() {
        let nearest = |wanted| nearest(wanted, ["orders", "order-items", "bills", "a"].into_iter());
        assert_eq!(nearest("ordrs"), Some("orders"));
        assert_eq!(nearest("odrers"), Some("orders"));
        assert_eq!(nearest("order_items"), Some("order-items"));
        assert_eq!(nearest("Bills"), Some("bills"));
        assert_eq!(nearest("payments"), None);
        assert_eq!(nearest("b"), Some("a"));
        assert_eq!(nearest("zz"), None);
    }
}
