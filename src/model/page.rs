//! Pages of a list, with tokens that only the list that gave them takes.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::InvalidInput;

const DEFAULT_PAGE_SIZE: usize = 100;
const MAX_PAGE_SIZE: usize = 1_000;

/// Which page of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// How many entries at the most.
    pub size: usize,
    /// The last name of the page before; empty for the first page, as no name is empty.
    pub after: String,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// The last name on this page, if there may be a next one.
    pub last: Option<String>,
}

impl PageRequest {
    /// Checks a client's size and token; `list` names the list, so that a token of another list
    /// is refused.
    pub fn parse(list: &str, page_size: i32, page_token: &str) -> Result<Self, InvalidInput> {
        let size = match usize::try_from(page_size) {
            Err(_) => return Err(InvalidInput::new("page_size", "must not be negative")),
            Ok(0) => DEFAULT_PAGE_SIZE,
            Ok(size) => size.min(MAX_PAGE_SIZE),
        };
        if page_token.is_empty() {
            return Ok(Self { size, after: String::new() });
        }
        let after = URL_SAFE_NO_PAD
            .decode(page_token)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| text.strip_prefix(&token_prefix(list)).map(str::to_owned))
            .filter(|name| !name.contains('\0'))
            .ok_or_else(|| InvalidInput::new("page_token", "was not given by this list"))?;
        Ok(Self { size, after })
    }
}

impl<T> Page<T> {
    /// Makes a page of up to `size` entries out of the `size + 1` that were asked of the database.
    pub(crate) fn of(mut entries: Vec<T>, size: usize, name: impl Fn(&T) -> &str) -> Self {
        let more = entries.len() > size;
        entries.truncate(size);
        let last = entries.last().filter(|_| more).map(|entry| name(entry).to_owned());
        Self { entries, last }
    }

    /// The token of the next page; empty on the last one.
    pub fn next_token(&self, list: &str) -> String {
        self.last.as_ref().map_or_else(String::new, |last| {
            URL_SAFE_NO_PAD.encode(format!("{}{last}", token_prefix(list)))
        })
    }
}

fn token_prefix(list: &str) -> String {
    format!("1 {list} ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_the_next_page_of_its_own_list_only() {
        let page = Page::of(vec!["a", "b", "c"], 2, |name| name);
        assert_eq!(page.entries, ["a", "b"]);
        let token = page.next_token("topics");
        assert_eq!(PageRequest::parse("topics", 2, &token).unwrap().after, "b");
        assert!(PageRequest::parse("producers of x", 2, &token).is_err());
        assert!(PageRequest::parse("topics", 2, "no token").is_err());
        assert_eq!(Page::of(vec!["a"], 2, |name| name).next_token("topics"), "");
    }

    #[test]
    fn sizes_have_a_default_and_a_most() {
        let size = |asked| PageRequest::parse("topics", asked, "").map(|page| page.size);
        assert_eq!((size(0), size(7), size(5_000)), (Ok(100), Ok(7), Ok(1_000)));
        assert_eq!(size(-1).unwrap_err().field, "page_size");
    }
}
