//! The addresses of pages.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a name may hold unchanged in a path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text as a part of a path, or a value of a query.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, IN_PATH).to_string()
}

pub(super) fn topic(name: &str) -> String {
    format!("/topics/{}", encode(name))
}

pub(super) fn consumer(topic: &str, id: &str) -> String {
    format!("{}/consumers/{}", self::topic(topic), encode(id))
}

pub(super) fn subscription(topic: &str, id: &str) -> String {
    format!("{}/subscriptions/{}", self::topic(topic), encode(id))
}

pub(super) fn message(topic: &str, offset: i64) -> String {
    format!("{}/messages/{offset}", self::topic(topic))
}
