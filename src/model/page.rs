//! Pages of a list, bounded by number and by bytes. A page token is accepted only by the list that
//! gave it, and not after the list's topic was deleted and created again.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    invalid::InvalidInput,
    name::TopicName,
    position::TopicId,
    record::{Consumer, Producer, Topic},
};

const DEFAULT_PAGE_SIZE: usize = 100;
const MAX_PAGE_SIZE: usize = 1_000;

/// A page ends before the entry that would exceed this, as gRPC clients decode 4 MiB by default.
const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// The page of a list that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The most entries on it.
    pub size: usize,
    /// The last name on the previous page; empty for the first page, as no name is empty.
    pub after: String,
    /// The topic that the previous page's list belonged to, if it was a topic's list.
    pub of: Option<TopicId>,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// The last name on this page, if there is a next one.
    pub last: Option<String>,
    /// The topic that the list belongs to, if it is a topic's list.
    pub of: Option<TopicId>,
}

/// An entry of a list.
pub trait Entry {
    /// The name that orders the list.
    fn name(&self) -> &str;
    /// Its approximate size in bytes, without small fields.
    fn bytes(&self) -> usize;
}

impl PageRequest {
    /// Checks a client's page size and token. `list` names the list, so that the token of another list
    /// is refused.
    pub fn parse(list: &str, page_size: i32, page_token: &str) -> Result<Self, InvalidInput> {
        let size = match usize::try_from(page_size) {
            Err(_) => return Err(InvalidInput::new("page_size", "must not be negative")),
            Ok(0) => DEFAULT_PAGE_SIZE,
            Ok(size) => size.min(MAX_PAGE_SIZE),
        };
        if page_token.is_empty() {
            return Ok(Self { size, after: String::new(), of: None });
        }
        let (of, after) = URL_SAFE_NO_PAD
            .decode(page_token)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| text.strip_prefix(&token_prefix(list)).map(str::to_owned))
            .and_then(|rest| {
                let (of, after) = rest.split_once(' ')?;
                // Every list is ordered by names. Other text may be something that the database cannot
                // compare with them.
                TopicName::parse(after).ok()?;
                let of = match of {
                    NO_TOPIC => None,
                    id => Some(TopicId(id.parse().ok()?)),
                };
                Some((of, after.to_owned()))
            })
            .ok_or_else(|| InvalidInput::new("page_token", "was not given by this list"))?;
        Ok(Self { size, after, of })
    }

    /// Refuses the token of a list whose topic was deleted, if this is another topic of that name.
    pub(crate) fn check_topic(&self, topic: TopicId) -> Result<(), InvalidInput> {
        match self.of {
            Some(of) if of != topic => {
                let problem = "was given before the topic was deleted and created again";
                Err(InvalidInput::new("page_token", problem))
            }
            _ => Ok(()),
        }
    }
}

impl<T: Entry> Page<T> {
    /// Makes a page of up to `size` entries out of those found. If the list continues after the page,
    /// there must be more of them than fit.
    pub(crate) fn of(mut found: Vec<T>, size: usize, of: Option<TopicId>) -> Self {
        let count = entries_that_fit(&found).min(size);
        let more = found.len() > count;
        found.truncate(count);
        let last = found.last().filter(|_| more).map(|entry| entry.name().to_owned());
        Self { entries: found, last, of }
    }

    /// Whether there are more entries than fit on a page of this size.
    pub(crate) fn is_filled_by(found: &[T], size: usize) -> bool {
        found.len() > size || entries_that_fit(found) < found.len()
    }
}

impl<T> Page<T> {
    /// The token of the next page; empty on the last page.
    pub fn next_token(&self, list: &str) -> String {
        let of = self.of.map_or_else(|| NO_TOPIC.to_owned(), |TopicId(id)| id.to_string());
        self.last.as_ref().map_or_else(String::new, |last| {
            URL_SAFE_NO_PAD.encode(format!("{}{of} {last}", token_prefix(list)))
        })
    }
}

/// How many of the first entries fit on a page by their bytes; at least one.
fn entries_that_fit(found: &[impl Entry]) -> usize {
    let mut bytes = 0;
    let fit = found.iter().take_while(|entry| {
        bytes += entry.bytes();
        bytes <= MAX_PAGE_BYTES
    });
    fit.count().max(1)
}

/// Stands for the topic in the token of a list that belongs to none.
const NO_TOPIC: &str = "-";

fn token_prefix(list: &str) -> String {
    format!("2 {list} ")
}

impl Entry for Topic {
    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn bytes(&self) -> usize {
        self.name.as_str().len() + self.description.len() + self.labels.bytes()
    }
}

impl Entry for Producer {
    fn name(&self) -> &str {
        self.id.as_str()
    }

    fn bytes(&self) -> usize {
        self.id.as_str().len()
    }
}

impl Entry for Consumer {
    fn name(&self) -> &str {
        self.id.as_str()
    }

    fn bytes(&self) -> usize {
        self.id.as_str().len() + self.holder.as_ref().map_or(0, String::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry with a name and a size.
    struct Named(&'static str, usize);

    impl Entry for Named {
        fn name(&self) -> &str {
            self.0
        }

        fn bytes(&self) -> usize {
            self.1
        }
    }

    fn names(page: &Page<Named>) -> Vec<&str> {
        page.entries.iter().map(Entry::name).collect()
    }

    #[test]
    fn a_token_leads_only_to_the_next_page_of_its_own_list() {
        let page = Page::of(vec![Named("a", 1), Named("b", 1), Named("c", 1)], 2, None);
        assert_eq!(names(&page), ["a", "b"]);
        let token = page.next_token("topics");
        assert_eq!(PageRequest::parse("topics", 2, &token).unwrap().after, "b");
        assert!(PageRequest::parse("producers of x", 2, &token).is_err());
        assert!(PageRequest::parse("topics", 2, "no token").is_err());
        for no_name in ["\0", "\u{20ac}", ""] {
            let forged = Page::of(vec![Named(no_name, 1), Named("z", 1)], 1, None);
            assert!(PageRequest::parse("topics", 2, &forged.next_token("topics")).is_err());
        }
        assert_eq!(Page::of(vec![Named("a", 1)], 2, None).next_token("topics"), "");
    }

    #[test]
    fn a_token_is_refused_after_the_topic_was_created_again() {
        let page = Page::of(vec![Named("a", 1), Named("b", 1)], 1, Some(TopicId(7)));
        let next = PageRequest::parse("producers of x", 1, &page.next_token("producers of x"));
        let next = next.unwrap();
        assert_eq!((next.after.as_str(), next.of), ("a", Some(TopicId(7))));
        assert_eq!(next.check_topic(TopicId(7)), Ok(()));
        assert_eq!(next.check_topic(TopicId(8)).unwrap_err().field, "page_token");
        let first = PageRequest::parse("producers of x", 1, "").unwrap();
        assert_eq!(first.check_topic(TopicId(8)), Ok(()));
    }

    #[test]
    fn a_page_ends_before_the_entry_that_would_exceed_its_bytes() {
        let found = |sizes: [usize; 3]| {
            ["a", "b", "c"].into_iter().zip(sizes).map(|(name, size)| Named(name, size)).collect()
        };
        let half = MAX_PAGE_BYTES / 2;
        for (sizes, expected, last) in [
            ([half, half, 1], vec!["a", "b"], Some("b")),
            ([half, half + 1, 1], vec!["a"], Some("a")),
            ([2 * half + 1, 1, 1], vec!["a"], Some("a")),
            ([half, half, 0], vec!["a", "b", "c"], None),
        ] {
            let entries: Vec<Named> = found(sizes);
            assert_eq!(Page::is_filled_by(&entries, 3), last.is_some(), "{sizes:?}");
            let page = Page::of(entries, 3, None);
            assert_eq!((names(&page), page.last.as_deref()), (expected, last), "{sizes:?}");
        }
    }

    #[test]
    fn page_sizes_have_a_default_and_a_maximum() {
        let size = |asked| PageRequest::parse("topics", asked, "").map(|page| page.size);
        assert_eq!((size(0), size(7), size(5_000)), (Ok(100), Ok(7), Ok(1_000)));
        assert_eq!(size(-1).unwrap_err().field, "page_size");
    }
}
