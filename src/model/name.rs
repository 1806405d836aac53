//! Names that clients choose.

use std::{fmt, sync::Arc};

use super::invalid::InvalidValue;

const MAX_NAME_BYTES: usize = 255;

/// Checks a name: 1 to 255 characters of `A-Za-z0-9._-`, and neither `.` nor `..`.
fn parse(text: &str) -> Result<Arc<str>, InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::new("must not be empty"));
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(InvalidValue::over_limit(text.len(), MAX_NAME_BYTES, "bytes"));
    }
    if let Some(bad) =
        text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        let problem = format!("holds {bad:?}, and only A-Z a-z 0-9 . _ - are allowed");
        return Err(InvalidValue::new(problem));
    }
    if text == "." || text == ".." {
        return Err(InvalidValue::new("must not be \".\" or \"..\""));
    }
    Ok(text.into())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks a name that a client gave.
            pub fn parse(text: &str) -> Result<Self, InvalidValue> {
                parse(text).map(Self)
            }

            /// Accepts a name that comes from the database, where only checked names are stored.
            pub(crate) fn stored(text: &str) -> Self {
                Self(text.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $type {
            type Error = InvalidValue;

            fn try_from(text: &str) -> Result<Self, InvalidValue> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// The name of a topic, unique in the database.
    TopicName
}
name! {
    /// The id of a producer, unique within its topic.
    ProducerId
}
name! {
    /// The id of a consumer, unique within its topic.
    ConsumerId
}

impl ProducerId {
    /// A new id for a producer that chose none.
    pub fn generate() -> Self {
        Self(format!("producer-{}", uuid::Uuid::new_v4().simple()).into())
    }

    /// The producer of all messages that brokers move to dead-letter topics. It is registered nowhere, and no
    /// principal can register it.
    pub fn dead_letters() -> Self {
        Self("trunkline.dead-letters".into())
    }
}

impl ConsumerId {
    /// A new id for a consumer that chose none.
    pub fn generate() -> Self {
        Self(format!("consumer-{}", uuid::Uuid::new_v4().simple()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_1_to_255_letters_digits_dots_underscores_and_dashes() {
        for good in ["a", "orders", "A-z_0.9", "...", &"x".repeat(255)] {
            assert_eq!(TopicName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a b", "a/b", "ü", "a\0", "a\n", &"x".repeat(256)] {
            let refusal = TopicName::parse(bad).unwrap_err();
            assert_eq!(refusal.in_field("topic").field, "topic", "{bad:?}");
        }
        assert_eq!(ProducerId::parse(&"x".repeat(256)).unwrap_err().limit, Some(255));
    }

    #[test]
    fn a_generated_id_is_a_valid_and_unique_name() {
        let id = ProducerId::generate();
        assert_eq!(ProducerId::parse(id.as_str()).unwrap(), id);
        assert_ne!(ConsumerId::generate(), ConsumerId::generate());
    }
}
