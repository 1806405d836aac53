//! What the catalogue tells of topics, producers and consumers.

use std::time::SystemTime;

use super::{ConsumerId, ConsumerKey, Epoch, Labels, Offset, ProducerId, TopicName};

/// A topic as it stands.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Free text for people.
    pub description: String,
    /// Names and values for tools.
    pub labels: Labels,
    /// When it was created.
    pub created_at: SystemTime,
    /// When description or labels last changed.
    pub updated_at: SystemTime,
    /// Offset of the oldest message kept; the head if there is none.
    pub first_offset: Offset,
    /// The offset that the next message gets.
    pub head: Offset,
    /// When the newest message was stored, if there was one.
    pub last_published_at: Option<SystemTime>,
}

/// Changes to a topic: what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct TopicChanges {
    /// The new description.
    pub description: Option<String>,
    /// The new labels, in place of all labels of before.
    pub labels: Option<Labels>,
}

/// A producer on its topic.
#[derive(Clone, Debug)]
pub struct Producer {
    /// Its id.
    pub id: ProducerId,
    /// When it was registered.
    pub created_at: SystemTime,
    /// When it last published, if it did.
    pub last_published_at: Option<SystemTime>,
    /// Offset of the last message it published, if it did.
    pub last_offset: Option<Offset>,
}

/// A consumer on its topic.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its id.
    pub id: ConsumerId,
    /// The database's numbers for it.
    pub key: ConsumerKey,
    /// The offset that it gets next.
    pub position: Offset,
    /// The offset that the topic's next message gets.
    pub head: Offset,
    /// The number of the lease's last acquisition.
    pub epoch: Epoch,
    /// Who holds the lease now, if anybody does.
    pub holder: Option<String>,
    /// When it was registered.
    pub created_at: SystemTime,
    /// When the position last moved or the lease last changed hands.
    pub updated_at: SystemTime,
}
