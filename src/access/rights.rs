//! What a principal may do where.

use std::collections::HashSet;

use crate::model::{Operation, TopicFilter, TopicPattern};

/// What a principal may do where. Empty without a grant.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    admin: Scope,
    publish: Scope,
    consume: Scope,
    read: Scope,
}

/// The topics of an operation.
#[derive(Debug, Default)]
struct Scope {
    all: bool,
    names: HashSet<String>,
    prefixes: Vec<String>,
}

impl Rights {
    /// Adds a grant.
    pub(crate) fn add(&mut self, operation: Operation, topics: &TopicPattern) {
        let scope = match operation {
            Operation::Admin => &mut self.admin,
            Operation::Publish => &mut self.publish,
            Operation::Consume => &mut self.consume,
            Operation::Read => &mut self.read,
        };
        match topics.prefix() {
            Some("") => scope.all = true,
            Some(prefix) => scope.prefixes.push(prefix.to_owned()),
            None => drop(scope.names.insert(topics.as_str().to_owned())),
        }
    }

    /// Whether an operation is permitted on a topic.
    pub(crate) fn permit(&self, operation: Operation, topic: &str) -> bool {
        match operation {
            Operation::Admin => self.admin.has(topic),
            Operation::Publish => self.publish.has(topic),
            Operation::Consume => self.consume.has(topic),
            // Consuming includes reading.
            Operation::Read => self.read.has(topic) || self.consume.has(topic),
        }
    }

    /// Whether any of some operations is permitted on a topic.
    pub(crate) fn permit_any(&self, operations: &[Operation], topic: &str) -> bool {
        operations.iter().any(|&operation| self.permit(operation, topic))
    }

    /// Whether any of some operations is permitted on all topics.
    pub(crate) fn permit_everywhere(&self, operations: &[Operation]) -> bool {
        operations.iter().any(|operation| match operation {
            Operation::Admin => self.admin.all,
            Operation::Publish => self.publish.all,
            Operation::Consume => self.consume.all,
            // Consuming includes reading.
            Operation::Read => self.read.all || self.consume.all,
        })
    }

    /// Whether any operation is permitted on a topic.
    pub(crate) fn know(&self, topic: &str) -> bool {
        self.scopes().into_iter().any(|scope| scope.has(topic))
    }

    /// Whether they are those of an administrator.
    pub(crate) fn are_of_administrator(&self) -> bool {
        self.admin.all
    }

    /// The topics on which any operation is permitted; `None` if they are all topics.
    pub(crate) fn known_topics(&self) -> Option<TopicFilter> {
        let mut filter = TopicFilter::default();
        for scope in self.scopes() {
            if scope.all {
                return None;
            }
            filter.names.extend(scope.names.iter().cloned());
            filter.prefixes.extend(scope.prefixes.iter().cloned());
        }
        for list in [&mut filter.names, &mut filter.prefixes] {
            list.sort_unstable();
            list.dedup();
        }
        Some(filter)
    }

    fn scopes(&self) -> [&Scope; 4] {
        [&self.admin, &self.publish, &self.consume, &self.read]
    }
}

impl Scope {
    fn has(&self, topic: &str) -> bool {
        self.all
            || self.names.contains(topic)
            || self.prefixes.iter().any(|prefix| topic.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights<const N: usize>(grants: [(Operation, &str); N]) -> Rights {
        let mut rights = Rights::default();
        for (operation, topics) in grants {
            rights.add(operation, &TopicPattern::parse(topics).unwrap());
        }
        rights
    }

    #[test]
    fn a_grant_covers_a_name_a_prefix_or_everything() {
        let rights = rights([
            (Operation::Publish, "orders"),
            (Operation::Publish, "log.*"),
            (Operation::Admin, "*"),
        ]);
        for (topic, may) in
            [("orders", true), ("orders2", false), ("log.a", true), ("log.", true), ("log", false)]
        {
            assert_eq!(rights.permit(Operation::Publish, topic), may, "{topic}");
        }
        assert!(rights.permit(Operation::Admin, "any") && rights.are_of_administrator());
        assert!(!rights.permit(Operation::Consume, "orders"));
    }

    #[test]
    fn consuming_includes_reading_and_nothing_else_includes_anything() {
        for granted in Operation::ALL {
            let rights = rights([(granted, "orders")]);
            for asked in Operation::ALL {
                let includes = (granted, asked) == (Operation::Consume, Operation::Read);
                assert_eq!(rights.permit(asked, "orders"), granted == asked || includes);
            }
            assert!(rights.know("orders") && !rights.know("order"));
        }
        assert!(!Rights::default().know("orders"));
    }

    #[test]
    fn known_topics_are_those_of_any_grant() {
        let all = rights([(Operation::Read, "*"), (Operation::Publish, "a")]);
        assert_eq!(all.known_topics(), None);
        let some =
            rights([(Operation::Read, "a"), (Operation::Publish, "a"), (Operation::Admin, "b*")]);
        let filter = some.known_topics().unwrap();
        assert_eq!((filter.names, filter.prefixes), (vec!["a".to_owned()], vec!["b".to_owned()]));
    }
}
