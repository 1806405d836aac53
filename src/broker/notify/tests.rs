//! Property tests of the notifications that a broker sends to the others.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
};

use proptest::{collection::vec, prelude::*};

use crate::{
    broker::{
        notify::outbox::{LeaseScope, Notification, Outbox},
        testing::{
            by_hand::{ByHand, pause},
            check,
        },
    },
    model::{ConsumerKey, Offset, TopicId},
};

#[derive(Clone, Debug)]
enum Act {
    MoveHead(TopicId),
    Release(ConsumerKey),
    Change(LeaseScope),
    Send,
}

fn act() -> impl Strategy<Value = Act> {
    let topic = || any::<i32>().prop_map(|number| TopicId(number.rem_euclid(50) * 40_000_000));
    let key =
        || (topic(), any::<i32>()).prop_map(|(topic, consumer)| ConsumerKey { topic, consumer });
    let scope =
        prop_oneof![key().prop_map(LeaseScope::Consumer), topic().prop_map(LeaseScope::Topic)];
    prop_oneof![
        8 => topic().prop_map(Act::MoveHead),
        8 => key().prop_map(Act::Release),
        4 => scope.prop_map(Act::Change),
        1 => Just(Act::Send),
    ]
}

/// What must be sent.
#[derive(Default)]
struct Expected {
    heads: HashMap<TopicId, Offset>,
    released: Vec<ConsumerKey>,
    changed: HashSet<LeaseScope>,
}

impl Expected {
    /// Removes a notification that was sent.
    fn remove(&mut self, notification: Notification) {
        match notification {
            Notification::HeadMoved(topic, head) => {
                assert_eq!(self.heads.remove(&topic), Some(head), "the last head, once")
            }
            Notification::LeaseReleased(key) => {
                let index = self.released.iter().position(|released| *released == key);
                self.released.swap_remove(index.expect("sent once"));
            }
            Notification::LeaseChanged(scope) => {
                assert!(self.changed.remove(&scope), "sent once");
            }
            Notification::PublishedFromSql(_) | Notification::OutboxFilled => {
                panic!("only SQL functions send {notification:?}");
            }
        }
    }
}

#[test]
fn each_notification_is_sent_once_in_payloads_that_postgresql_accepts() {
    check(128, vec(act(), 1..200), |acts| {
        let (outbox, mut expected) = (Outbox::default(), Expected::default());
        let mut head = Offset(i64::MAX - 1_000);
        for act in acts.into_iter().chain([Act::Send]) {
            match act {
                Act::MoveHead(topic) => {
                    head = head.after(1);
                    outbox.head_moved(topic, head);
                    expected.heads.insert(topic, head);
                }
                Act::Release(key) => {
                    outbox.lease_released(key);
                    expected.released.push(key);
                }
                Act::Change(scope) => {
                    outbox.lease_changed(scope);
                    expected.changed.insert(scope);
                }
                Act::Send => {
                    let broker = "0123456789abcdef0123456789abcdef";
                    for payload in outbox.take(broker) {
                        assert!(payload.len() < 8_000, "{} bytes", payload.len());
                        let mut words = payload.split(' ');
                        assert_eq!(words.next(), Some(broker));
                        words.for_each(|word| {
                            expected.remove(Notification::parse(word).expect("a notification"))
                        });
                    }
                    let Expected { heads, released, changed } = &expected;
                    assert!(heads.is_empty() && released.is_empty() && changed.is_empty());
                }
            }
        }
    });
}

#[test]
fn a_notification_is_sent_whenever_it_is_added() {
    for step in 0..6 {
        let outbox = Outbox::default();
        let sent = RefCell::new(Vec::new());
        let mut sender = ByHand::new(async {
            loop {
                outbox.wait().await;
                // Notifications of these milliseconds are sent along.
                pause().await;
                let payloads = outbox.take("me");
                pause().await;
                sent.borrow_mut().extend(payloads);
            }
        });
        outbox.head_moved(TopicId(1), Offset(1));
        for now in 0..12 {
            if now == step {
                outbox.head_moved(TopicId(2), Offset(2));
            }
            assert!(sender.run().is_pending());
        }
        let sent = sent.borrow();
        let words = sent.iter().flat_map(|payload| payload.split(' ').skip(1));
        let mut received: Vec<_> = words.filter_map(Notification::parse).collect();
        received.sort_by_key(|notification| {
            matches!(notification, Notification::HeadMoved(TopicId(2), _))
        });
        let head = |topic| Notification::HeadMoved(TopicId(topic), Offset(i64::from(topic)));
        assert_eq!(received, [head(1), head(2)], "step {step}");
    }
}
