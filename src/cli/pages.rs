//! Lists that the broker answers page by page.

use super::failure::Failure;

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
