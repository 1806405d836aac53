//! Who may do what: principals, operations, and the topics that a grant covers.

use std::{fmt, sync::Arc, time::SystemTime};

use super::{
    invalid::InvalidValue,
    name::{ConsumerId, ProducerId, TopicName},
};

/// The name of somebody who calls: a program, a team, a person.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(Arc<str>);

/// What a grant permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Create, change, trim and delete topics, and take care of everyone's registrations.
    Admin,
    /// Register producers of one's own, and publish as them.
    Publish,
    /// Register consumers of one's own, and receive, commit and seek as them.
    Consume,
    /// Read without a consumer.
    Read,
}

/// The topics that a grant covers: a name, or a prefix that ends in `*`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPattern(Arc<str>);

/// What identifies a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantKey {
    /// Who has it.
    pub principal: Principal,
    /// What it permits.
    pub operation: Operation,
    /// Where.
    pub topics: TopicPattern,
}

/// A permission of a principal, for an operation on topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who has it.
    pub principal: Principal,
    /// What it permits.
    pub operation: Operation,
    /// Where.
    pub topics: TopicPattern,
    /// When it was added.
    pub created_at: SystemTime,
    /// The principal that added it; empty if the broker did not authenticate.
    pub created_by: String,
}

impl GrantKey {
    /// The grant of a name, as it is displayed; `None` if it is not the name of one.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split(' ');
        let key = Self {
            principal: Principal::parse(parts.next()?).ok()?,
            operation: Operation::parse(parts.next()?)?,
            topics: TopicPattern::parse(parts.next()?).ok()?,
        };
        parts.next().is_none().then_some(key)
    }
}

/// A name that no other grant has.
impl fmt::Display for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.principal, self.operation, self.topics)
    }
}

impl Grant {
    /// What identifies it.
    pub fn key(&self) -> GrantKey {
        let Self { principal, operation, topics, .. } = self;
        let (principal, topics) = (principal.clone(), topics.clone());
        GrantKey { principal, operation: *operation, topics }
    }
}

/// What is known of a token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The part of the token that may be shown.
    pub id: String,
    /// Who the token stands for.
    pub principal: Principal,
    /// What the token is for.
    pub description: String,
    /// When it was created.
    pub created_at: SystemTime,
    /// When it expires, if it does.
    pub expires_at: Option<SystemTime>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<SystemTime>,
    /// When it was last used, to the minute, if it ever was.
    pub last_used_at: Option<SystemTime>,
    /// The principal that created it; empty if the broker did not authenticate.
    pub created_by: String,
}

/// A producer or consumer of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrationKey {
    /// The topic.
    pub topic: TopicName,
    /// What is registered there.
    pub id: RegistrationId,
}

/// The id of a producer or a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RegistrationId {
    /// A producer.
    Producer(ProducerId),
    /// A consumer.
    Consumer(ConsumerId),
}

/// Which topics a list shows: those with one of the names, or with one of the prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicFilter {
    /// Names of topics.
    pub names: Vec<String>,
    /// Prefixes of names.
    pub prefixes: Vec<String>,
}

impl Principal {
    /// The name, which this shares.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The most characters of a principal.
    pub const MAX_CHARS: usize = 128;

    /// Checks a principal that a client gave.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text.len() > Self::MAX_CHARS {
            let is_ascii = text.is_ascii();
            let actual = if is_ascii { text.len() } else { text.chars().count() };
            if actual > Self::MAX_CHARS {
                return Err(InvalidValue::over_limit(actual, Self::MAX_CHARS, "characters"));
            }
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@+".contains(&byte);
        let starts = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        if !starts || !text.bytes().all(fits) {
            return Err(InvalidValue::new(
                "must be 1 to 128 characters out of A-Z a-z 0-9 . _ - : / @ +, of which the first \
                 is a letter or a digit",
            ));
        }
        Ok(Self(text.into()))
    }

    /// Accepts a principal that comes from the database, where only checked ones are stored.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The principal as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Operation {
    /// All operations, in the order of lists.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Consume, Self::Publish, Self::Read];

    /// The operation's name, as it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Publish => "publish",
            Self::Consume => "consume",
            Self::Read => "read",
        }
    }

    /// The operation of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == name)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TopicPattern {
    /// Checks what a client gave.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text.strip_suffix('*') {
            Some("") => {}
            // A prefix has the characters of a name, but may be `.` or `..`, which no topic is
            // called.
            Some("." | "..") => {}
            Some(prefix) => drop(TopicName::parse(prefix)?),
            None => drop(TopicName::parse(text)?),
        }
        Ok(Self(text.into()))
    }

    /// Accepts a pattern that comes from the database, where only checked ones are stored.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The prefix that the topics have; `None` if the pattern is a name.
    pub fn prefix(&self) -> Option<&str> {
        self.0.strip_suffix('*')
    }

    /// Whether it means all topics.
    pub fn is_all(&self) -> bool {
        &*self.0 == "*"
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl GrantKey {
    /// Its parts as texts, in the order of lists.
    pub fn texts(&self) -> [&str; 3] {
        [self.principal.as_str(), self.operation.as_str(), self.topics.as_str()]
    }
}

impl RegistrationKey {
    /// A producer of a topic.
    pub fn producer(topic: &TopicName, id: &ProducerId) -> Self {
        Self { topic: topic.clone(), id: RegistrationId::Producer(id.clone()) }
    }

    /// A consumer of a topic.
    pub fn consumer(topic: &TopicName, id: &ConsumerId) -> Self {
        Self { topic: topic.clone(), id: RegistrationId::Consumer(id.clone()) }
    }
}

impl RegistrationId {
    /// What it is an id of.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Producer(_) => "producer",
            Self::Consumer(_) => "consumer",
        }
    }

    /// Whether it is a producer that no client registers: the one with which a role of PostgreSQL publishes from
    /// SQL, or the one with which brokers move messages to dead-letter topics.
    pub fn is_reserved(&self) -> bool {
        matches!(self, Self::Producer(producer) if producer.as_str().starts_with("sql.")
            || *producer == ProducerId::dead_letters())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Producer(id) => id.as_str(),
            Self::Consumer(id) => id.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_1_to_128_characters_and_begins_with_a_letter_or_a_digit() {
        for good in ["a", "team/orders", "ann@example.com", "spiffe:x+1", "0._-", &"x".repeat(128)]
        {
            assert_eq!(Principal::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "/a", "a b", "ü", "a\n", "a*", "a\0"] {
            assert!(Principal::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Principal::parse(&"x".repeat(129)).unwrap_err().limit, Some(128));
        assert_eq!(Principal::parse(&"ü".repeat(129)).unwrap_err().limit, Some(128));
    }

    #[test]
    fn topics_are_a_name_or_a_prefix_that_ends_in_an_asterisk() {
        let parse = |text: &str| TopicPattern::parse(text).unwrap();
        assert_eq!(parse("orders").prefix(), None);
        assert_eq!(parse("orders.*").prefix(), Some("orders."));
        assert_eq!(parse(".*").prefix(), Some("."));
        assert!(parse("*").is_all() && !parse("o*").is_all());
        for bad in ["", ".", "a*b", "**", "a b*", "ü*"] {
            assert!(TopicPattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_operation_has_one_name() {
        for operation in Operation::ALL {
            assert_eq!(Operation::parse(operation.as_str()), Some(operation));
        }
        assert_eq!(Operation::parse("ADMIN"), None);
    }
}
