//! Page tokens. A token is accepted only by the list that gave it, and not after the list's topic was
//! deleted and created again. It holds nothing that its receiver may not see: names of the list, and
//! when the topic was created.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::model::{InvalidInput, Page, PageRequest, TopicMark, TopicName};

/// The longest token. The longest that a list gives has some 740 bytes.
const MAX_TOKEN_BYTES: usize = 1_024;

/// Stands for the topic in the token of a list that belongs to none.
const NO_TOPIC: &str = "-";

/// Checks a client's page size and token. `list` names the list, so that the token of another list
/// is refused. Every list is ordered by names. Other text may be something that the database cannot
/// compare with them.
pub(super) fn decode(
    list: &str,
    page_size: i32,
    page_token: &str,
) -> Result<PageRequest, InvalidInput> {
    decode_names(list, page_size, page_token, |name| TopicName::parse(name).is_ok())
}

/// As [`decode`], for a list whose entries have names of another kind.
pub(super) fn decode_names(
    list: &str,
    page_size: i32,
    page_token: &str,
    is_name: impl FnOnce(&str) -> bool,
) -> Result<PageRequest, InvalidInput> {
    let size = usize::try_from(page_size)
        .map_err(|_| InvalidInput::new("page_size", "must not be negative"))?;
    if page_token.is_empty() {
        return Ok(PageRequest::first(size));
    }
    if page_token.len() > MAX_TOKEN_BYTES {
        let (actual, limit) = (page_token.len(), MAX_TOKEN_BYTES);
        return Err(InvalidInput::over_limit("page_token", actual, limit, "bytes"));
    }
    let (of, after) = parse(list, page_token)
        .filter(|(_, after)| is_name(after))
        .ok_or_else(|| InvalidInput::new("page_token", "was not given by this list"))?;
    Ok(PageRequest { after, of, ..PageRequest::first(size) })
}

/// The topic that a list belongs to, and the last name of the page before.
fn parse(list: &str, page_token: &str) -> Option<(Option<TopicMark>, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(page_token).ok()?).ok()?;
    let (of, after) = text.strip_prefix(&prefix(list))?.split_once(' ')?;
    let of = match of {
        NO_TOPIC => None,
        id => Some(TopicMark(id.parse().ok()?)),
    };
    Some((of, after.to_owned()))
}

/// The token of the next page; empty on the last page.
pub(super) fn encode<T>(list: &str, page: &Page<T>) -> String {
    let of = page.of.map_or_else(|| NO_TOPIC.to_owned(), |TopicMark(id)| id.to_string());
    page.last.as_ref().map_or_else(String::new, |last| {
        URL_SAFE_NO_PAD.encode(format!("{}{of} {last}", prefix(list)))
    })
}

fn prefix(list: &str) -> String {
    format!("3 {list} ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(last: &str, of: Option<TopicMark>) -> Page<()> {
        Page { entries: vec![()], last: Some(last.to_owned()), of }
    }

    #[test]
    fn a_token_leads_only_to_the_next_page_of_its_own_list() {
        let token = encode("topics", &page("b", None));
        assert_eq!(decode("topics", 2, &token).unwrap().after, "b");
        assert!(decode("producers of x", 2, &token).is_err());
        assert!(decode("topics", 2, "no token").is_err());
        for no_name in ["\0", "\u{20ac}", ""] {
            assert!(decode("topics", 2, &encode("topics", &page(no_name, None))).is_err());
        }
        assert_eq!(encode("topics", &Page { last: None, ..page("b", None) }), "");
    }

    #[test]
    fn a_token_names_the_topic_of_its_list() {
        let list = "producers of x";
        let next = decode(list, 1, &encode(list, &page("a", Some(TopicMark(7))))).unwrap();
        assert_eq!((next.after.as_str(), next.of), ("a", Some(TopicMark(7))));
    }

    #[test]
    fn the_longest_names_fit_in_a_token_and_a_longer_token_is_not_decoded() {
        let list = format!("producers of {}", "x".repeat(255));
        let token = encode(&list, &page(&"y".repeat(255), Some(TopicMark(i64::MAX))));
        assert!(decode(&list, 1, &token).is_ok());
        let refused = decode(&list, 1, &"A".repeat(1_025)).unwrap_err();
        assert_eq!((refused.field.as_str(), refused.limit), ("page_token", Some(1_024)));
    }

    #[test]
    fn page_sizes_have_a_default_and_a_maximum() {
        let size = |page_size| decode("topics", page_size, "").map(|page| page.size);
        assert_eq!((size(0), size(7), size(5_000)), (Ok(100), Ok(7), Ok(1_000)));
        assert_eq!(size(-1).unwrap_err().field, "page_size");
    }
}
