//! Lists that span all topics.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    failure::Failure,
    pages::{CALLS_AT_A_TIME, PAGE_SIZE, for_each_page, is_of_deleted_topic},
};
use crate::{client::Client, proto::ListTopicsRequest};

/// What `list` finds in each topic that the caller may know of, by the topic's name. A topic that is
/// deleted meanwhile is left out.
pub(super) async fn in_all_topics<T, L>(
    client: &Client,
    list: impl Fn(String) -> L,
) -> Result<Vec<T>, Failure>
where
    L: Future<Output = Result<Vec<T>, Failure>>,
{
    let mut found = Vec::new();
    for_each_page(async |page_token| {
        let request = ListTopicsRequest { page_size: PAGE_SIZE, page_token };
        let page = client.topics().list_topics(request).await?.into_inner();
        let names = page.topics.into_iter().map(|topic| topic.name);
        let mut lists = stream::iter(names.map(&list)).map(skip_deleted).buffered(CALLS_AT_A_TIME);
        while let Some(of_topic) = lists.try_next().await? {
            found.extend(of_topic);
        }
        Ok(page.next_page_token)
    })
    .await?;
    Ok(found)
}

async fn skip_deleted<T>(
    listed: impl Future<Output = Result<Vec<T>, Failure>>,
) -> Result<Vec<T>, Failure> {
    match listed.await {
        Err(failure) if is_of_deleted_topic(&failure) => Ok(Vec::new()),
        listed => listed,
    }
}
