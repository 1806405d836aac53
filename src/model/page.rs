//! Pages of a list, bounded by number and by bytes.

use std::{borrow::Cow, time::SystemTime};

use super::{
    access::{Grant, Token},
    quota::Quota,
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
    pub of: Option<TopicMark>,
}

/// Tells a topic apart from others that had or will have its name: the microseconds from 1970 to its
/// creation. Whoever may list what is on a topic may also see when it was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicMark(pub i64);

impl TopicMark {
    /// The mark of a topic that was created at this time.
    pub(crate) fn of(created_at: SystemTime) -> Self {
        let since_1970 = created_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// The last name on this page, if there is a next one.
    pub last: Option<String>,
    /// The topic that the list belongs to, if it is a topic's list.
    pub of: Option<TopicMark>,
}

/// An entry of a list.
pub trait Entry {
    /// The name that orders the list.
    fn name(&self) -> Cow<'_, str>;
    /// Its approximate size in bytes, without small fields.
    fn bytes(&self) -> usize;
}

impl PageRequest {
    /// The first page, of at most `size` entries; 0 stands for the default.
    pub(crate) fn first(size: usize) -> Self {
        let size = if size == 0 { DEFAULT_PAGE_SIZE } else { size.min(MAX_PAGE_SIZE) };
        Self { size, after: String::new(), of: None }
    }

    /// Whether the page before this one may have been of this topic's list. It was not if the topic was
    /// deleted since, and another of its name was created.
    pub(crate) fn may_continue(&self, topic: TopicMark) -> bool {
        self.of.is_none_or(|of| of == topic)
    }
}

impl<T: Entry> Page<T> {
    /// Makes a page of up to `size` entries out of those found. If the list continues after the page,
    /// there must be more of them than fit.
    pub(crate) fn of(mut found: Vec<T>, size: usize, of: Option<TopicMark>) -> Self {
        let count = entries_that_fit(&found).min(size);
        let more = found.len() > count;
        found.truncate(count);
        let last = found.last().filter(|_| more).map(|entry| entry.name().into_owned());
        Self { entries: found, last, of }
    }

    /// Whether there are more entries than fit on a page of this size.
    pub(crate) fn is_filled_by(found: &[T], size: usize) -> bool {
        found.len() > size || entries_that_fit(found) < found.len()
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

impl Entry for Topic {
    fn name(&self) -> Cow<'_, str> {
        self.name.as_str().into()
    }

    fn bytes(&self) -> usize {
        self.name.as_str().len() + self.description.len() + self.labels.bytes()
    }
}

impl Entry for Producer {
    fn name(&self) -> Cow<'_, str> {
        self.id.as_str().into()
    }

    fn bytes(&self) -> usize {
        self.id.as_str().len()
    }
}

impl Entry for Consumer {
    fn name(&self) -> Cow<'_, str> {
        self.id.as_str().into()
    }

    fn bytes(&self) -> usize {
        self.id.as_str().len() + self.holder.as_ref().map_or(0, String::len)
    }
}

impl Entry for Token {
    fn name(&self) -> Cow<'_, str> {
        self.id.as_str().into()
    }

    fn bytes(&self) -> usize {
        self.id.len() + self.principal.as_str().len() + self.description.len()
    }
}

impl Entry for Grant {
    fn name(&self) -> Cow<'_, str> {
        self.key().to_string().into()
    }

    fn bytes(&self) -> usize {
        let Self { principal, topics, created_by, .. } = self;
        principal.as_str().len() + topics.as_str().len() + created_by.len()
    }
}

impl Entry for Quota {
    fn name(&self) -> Cow<'_, str> {
        self.key.to_string().into()
    }

    fn bytes(&self) -> usize {
        let [holder, limit] = self.key.texts();
        holder.len() + limit.len() + self.changed_by.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry with a name and a size.
    struct Named(&'static str, usize);

    impl Entry for Named {
        fn name(&self) -> Cow<'_, str> {
            self.0.into()
        }

        fn bytes(&self) -> usize {
            self.1
        }
    }

    fn names(page: &Page<Named>) -> Vec<&str> {
        page.entries.iter().map(|entry| entry.0).collect()
    }

    #[test]
    fn a_list_does_not_continue_after_its_topic_was_created_again() {
        let first = PageRequest::first(1);
        let next = PageRequest { after: "a".to_owned(), of: Some(TopicMark(7)), ..first.clone() };
        assert!(next.may_continue(TopicMark(7)) && first.may_continue(TopicMark(8)));
        assert!(!next.may_continue(TopicMark(8)));
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
}
