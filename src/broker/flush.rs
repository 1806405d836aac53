//! What a writer writes at once: the waiting publishes, merged by topic.

use std::collections::{HashMap, HashSet};

use super::{
    Error,
    publish::{Queued, Receipt},
};
use crate::model::{Draft, Offset, ProducerId, TopicName};

/// The waiting publishes of one topic, in the order in which they were taken in.
pub(super) struct Group {
    pub topic: TopicName,
    pub members: Vec<Queued>,
}

impl Group {
    /// Groups publishes by topic, and the groups by the topics' names: the order in which all
    /// brokers lock topics.
    pub(super) fn by_topic(queued: impl IntoIterator<Item = Queued>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        let mut index_of: HashMap<TopicName, usize> = HashMap::new();
        for member in queued {
            let topic = &member.publish.topic;
            match index_of.get(topic) {
                Some(&index) => groups[index].members.push(member),
                None => {
                    index_of.insert(topic.clone(), groups.len());
                    groups.push(Self { topic: topic.clone(), members: vec![member] });
                }
            }
        }
        groups.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
        groups
    }

    /// All members' messages, as the one batch they are to become.
    pub(super) fn draft(&self) -> Draft {
        let mut draft = Draft::default();
        draft.payloads.reserve(self.members.iter().map(|m| m.publish.messages.count()).sum());
        for member in &self.members {
            draft.add(&member.publish.producer, &member.publish.messages);
        }
        draft
    }

    /// The members' producers, each once.
    pub(super) fn producers(&self) -> Vec<ProducerId> {
        let unique: HashSet<&ProducerId> =
            self.members.iter().map(|member| &member.publish.producer).collect();
        unique.into_iter().cloned().collect()
    }

    /// Tells every member where its messages were stored.
    pub(super) fn acknowledge(self, base: Offset) {
        let mut first = base;
        for member in self.members {
            let count = member.publish.messages.count();
            // A caller that has gone does not hear it.
            let _ = member.reply.send(Ok(Receipt { first, count }));
            first = first.after(count);
        }
    }

    /// Tells every member that it failed.
    pub(super) fn refuse(self, error: &Error) {
        for member in self.members {
            let _ = member.reply.send(Err(error.clone()));
        }
    }

    /// Refuses the members whose producer is not among `registered`; whether any was refused.
    pub(super) fn refuse_unregistered(&mut self, registered: &[ProducerId]) -> bool {
        let before = self.members.len();
        let (kept, refused) = std::mem::take(&mut self.members)
            .into_iter()
            .partition(|member: &Queued| registered.contains(&member.publish.producer));
        self.members = kept;
        for member in refused {
            let producer = member.publish.producer.clone();
            let error = Error::ProducerNotRegistered { topic: self.topic.clone(), producer };
            let _ = member.reply.send(Err(error));
        }
        self.members.len() < before
    }
}
