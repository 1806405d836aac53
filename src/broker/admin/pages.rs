//! Pages of a topic's lists.

use crate::model::{InvalidInput, PageRequest, TopicMark};

/// Refuses the next page of a list whose topic was deleted, if there is another topic of that name.
pub(super) fn check(page: &PageRequest, topic: TopicMark) -> Result<(), InvalidInput> {
    let problem = "was given before the topic was deleted and created again";
    match page.may_continue(topic) {
        true => Ok(()),
        false => Err(InvalidInput::new("page_token", problem)),
    }
}
