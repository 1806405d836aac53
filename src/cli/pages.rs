//! Lists that the broker answers page by page.

use super::failure::Failure;

/// The most entries of a page.
pub(super) const PAGE_SIZE: i32 = 1_000;

/// How many calls a list makes at a time.
pub(super) const CALLS_AT_A_TIME: usize = 16;

/// Calls `list` for each page: it takes the page's token and returns that of the next page.
pub(super) async fn for_each_page(
    mut list: impl AsyncFnMut(String) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let mut token = String::new();
    loop {
        token = list(token).await?;
        // The last page names no next one.
        if token.is_empty() {
            return Ok(());
        }
    }
}

/// Whether the list of a topic's entries failed because the topic was deleted since it was found. The
/// token of a page is invalid if the topic was created again.
pub(super) fn is_of_deleted_topic(failure: &Failure) -> bool {
    matches!(failure.reason(), Some("TOPIC_NOT_FOUND" | "INVALID_FIELD"))
}
