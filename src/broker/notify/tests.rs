//! Property tests of what one broker notifies others of.

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
    model::{ConsumerId, ConsumerKey, Offset, TopicId, TopicName},
};

#[derive(Clone, Debug)]
enum Act {
    Head(TopicId),
    Freed(String, String),
    Changed(LeaseScope),
    Send,
}

fn act() -> impl Strategy<Value = Act> {
    let topic = || any::<i32>().prop_map(|number| TopicId(number.rem_euclid(50) * 40_000_000));
    let name = || {
        let length = prop_oneof![1..10usize, 240..=255usize];
        (0..100u8, length).prop_map(|(number, length)| format!("{number:_<length$}"))
    };
    let key = (topic(), any::<i32>()).prop_map(|(topic, consumer)| ConsumerKey { topic, consumer });
    let whose =
        prop_oneof![key.prop_map(LeaseScope::Consumer), topic().prop_map(LeaseScope::Topic)];
    prop_oneof![
        8 => topic().prop_map(Act::Head),
        8 => (name(), name()).prop_map(|(topic, consumer)| Act::Freed(topic, consumer)),
        4 => whose.prop_map(Act::Changed),
        1 => Just(Act::Send),
    ]
}

/// What is to be told.
#[derive(Default)]
struct Waiting {
    heads: HashMap<TopicId, Offset>,
    freed: Vec<(String, String)>,
    changed: HashSet<LeaseScope>,
}

impl Waiting {
    /// Takes away what a text tells.
    fn tell(&mut self, hint: Notification) {
        match hint {
            Notification::HeadMoved(topic, head) => {
                assert_eq!(self.heads.remove(&topic), Some(head), "the last")
            }
            Notification::LeaseReleased(topic, consumer) => {
                let told = (topic.as_str().to_owned(), consumer.as_str().to_owned());
                let place = self.freed.iter().position(|freed| *freed == told);
                self.freed.swap_remove(place.expect("told once"));
            }
            Notification::LeaseChanged(whose) => assert!(self.changed.remove(&whose), "told once"),
        }
    }
}

#[test]
fn what_is_to_be_told_is_told_once_in_texts_that_fit_in_a_notification() {
    check(128, vec(act(), 1..200), |acts| {
        let (hints, mut waiting) = (Outbox::default(), Waiting::default());
        let mut head = Offset(i64::MAX - 1_000);
        for act in acts.into_iter().chain([Act::Send]) {
            match act {
                Act::Head(topic) => {
                    head = head.after(1);
                    hints.head_moved(topic, head);
                    waiting.heads.insert(topic, head);
                }
                Act::Freed(topic, consumer) => {
                    hints.lease_released(TopicName::stored(&topic), ConsumerId::stored(&consumer));
                    waiting.freed.push((topic, consumer));
                }
                Act::Changed(whose) => {
                    hints.lease_changed(whose);
                    waiting.changed.insert(whose);
                }
                Act::Send => {
                    let broker = "0123456789abcdef0123456789abcdef";
                    for text in hints.take(broker) {
                        assert!(text.len() < 8_000, "{} bytes", text.len());
                        let mut words = text.split(' ');
                        assert_eq!(words.next(), Some(broker));
                        words.for_each(|word| {
                            waiting.tell(Notification::parse(word).expect("a hint"))
                        });
                    }
                    let Waiting { heads, freed, changed } = &waiting;
                    assert!(heads.is_empty() && freed.is_empty() && changed.is_empty());
                }
            }
        }
    });
}

#[test]
fn a_notification_is_sent_whenever_it_comes() {
    for step in 0..6 {
        let outbox = Outbox::default();
        let sent = RefCell::new(Vec::new());
        let mut sender = ByHand::new(async {
            loop {
                outbox.some().await;
                // What comes in these milliseconds goes along.
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
        assert_eq!(received, [head(1), head(2)], "at step {step}");
    }
}
