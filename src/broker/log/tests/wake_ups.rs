use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    task::Poll,
};

use crate::{
    broker::{
        log::topics::{LogReader, TopicLogs},
        notify::outbox::{Notification, Outbox},
        testing::{
            by_hand::{ByHand, pause},
            log::{Stored, batch},
        },
    },
    model::{Offset, TopicId},
};

const TOPIC: TopicId = TopicId(1);

fn subscribe(logs: &Arc<TopicLogs>, head: i64) -> LogReader {
    logs.subscribe(TOPIC, (Offset(0), Offset(head)), logs.losses().asked())
}

#[test]
fn a_head_that_moves_at_any_step_of_a_stream_is_read_up_to() {
    // From before the reader asks for the topic's ends to when it waits: in some other stream's
    // log, or in none yet.
    for others_read in [false, true] {
        for step in 0..7 {
            let logs = Arc::new(TopicLogs::default());
            let _other = others_read.then(|| subscribe(&logs, 0));
            let (stored, position) = (RefCell::new(Stored::default()), Cell::new(Offset(0)));
            let mut stream = ByHand::new(async {
                let head = stored.borrow().head();
                pause().await;
                let mut log = logs.subscribe(TOPIC, (Offset(0), head), logs.losses().asked());
                let mut behind = true;
                loop {
                    let known = *log.head.borrow_and_update();
                    if std::mem::take(&mut behind) || position.get() < known {
                        pause().await;
                        let read = stored.borrow().read(position.get(), 1_000);
                        pause().await;
                        position.set(read.head);
                    }
                    pause().await;
                    let beats = tokio::select! {
                        biased;
                        // The wait is given up, and begun anew, whatever has come meanwhile.
                        () = pause() => true,
                        _ = log.head.changed() => false,
                    };
                    if beats {
                        let _ = log.head.changed().await;
                    }
                }
            });
            for now in 0..14 {
                if now == step {
                    let end = stored.borrow_mut().store(&[1, 1]).end();
                    logs.head_moved(TOPIC, end);
                }
                assert!(stream.run().is_pending());
            }
            // Whoever misses its head is woken by the next one only.
            assert_eq!(position.get(), Offset(2), "step {step}, others read: {others_read}");
        }
    }
}

#[test]
fn a_reader_that_a_stored_batch_wakes_finds_it() {
    let logs = Arc::new(TopicLogs::default());
    let mut log = subscribe(&logs, 0);
    let mut stream = ByHand::new(async {
        log.head.borrow_and_update();
        log.head.changed().await.unwrap();
        log.recent(Offset(0), 1).len()
    });
    assert!(stream.run().is_pending());
    logs.batch_stored(TOPIC, batch(Offset(0), &[1, 1]));
    assert_eq!(stream.run(), Poll::Ready(1));
}

#[test]
fn who_waited_for_another_reader_finds_what_that_one_read() {
    let logs = Arc::new(TopicLogs::default());
    let (one, other) = (subscribe(&logs, 2), subscribe(&logs, 2));
    let mut reads = ByHand::new(async {
        let alone = one.begin_read(Offset(0)).await;
        assert!(alone.is_some());
        pause().await;
        one.share(&[Arc::new(batch(Offset(0), &[1, 1]))]);
        pause().await;
    });
    let mut waits = ByHand::new(async {
        let alone = other.begin_read(Offset(0)).await;
        (alone.is_some(), other.recent(Offset(0), 1).len())
    });
    for _ in 0..2 {
        assert!(reads.run().is_pending() && waits.run().is_pending());
    }
    assert!(reads.run().is_ready());
    assert_eq!(waits.run(), Poll::Ready((false, 1)));
}

#[test]
fn who_waited_for_a_reader_that_went_without_a_result_goes_on() {
    for reader_has_run in [false, true] {
        let logs = Arc::new(TopicLogs::default());
        let (one, other) = (subscribe(&logs, 2), subscribe(&logs, 2));
        let mut reads = ByHand::new(async {
            let _alone = one.begin_read(Offset(0)).await;
            std::future::pending::<()>().await;
        });
        let mut waits = ByHand::new(async { other.begin_read(Offset(0)).await.is_some() });
        assert!(reads.run().is_pending() && waits.run().is_pending());
        if reader_has_run {
            assert!(reads.run().is_pending());
        }
        drop(reads);
        assert_eq!(waits.run(), Poll::Ready(false));
    }
}

#[test]
fn the_end_of_a_topic_is_heard_of_whenever_it_comes() {
    for step in 0..3 {
        let logs = Arc::new(TopicLogs::default());
        let log = subscribe(&logs, 0);
        let mut stream = ByHand::new(async {
            pause().await;
            log.gone().cancelled().await;
        });
        let mut ended = false;
        for now in 0..4 {
            if now == step {
                logs.topic_deleted(TOPIC);
            }
            ended = ended || stream.run().is_ready();
        }
        assert!(ended, "at step {step}");
    }
}

#[test]
fn what_is_to_be_told_is_sent_whenever_it_comes() {
    for step in 0..6 {
        let hints = Outbox::default();
        let sent = RefCell::new(Vec::new());
        let mut sender = ByHand::new(async {
            loop {
                hints.some().await;
                // What comes in these milliseconds goes along.
                pause().await;
                let texts = hints.take("me");
                pause().await;
                sent.borrow_mut().extend(texts);
            }
        });
        hints.head_moved(TopicId(1), Offset(1));
        for now in 0..12 {
            if now == step {
                hints.head_moved(TopicId(2), Offset(2));
            }
            assert!(sender.run().is_pending());
        }
        let sent = sent.borrow();
        let words = sent.iter().flat_map(|text| text.split(' ').skip(1));
        let mut told: Vec<_> = words.filter_map(Notification::parse).collect();
        told.sort_by_key(|hint| matches!(hint, Notification::Head(TopicId(2), _)));
        let head = |topic| Notification::Head(TopicId(topic), Offset(i64::from(topic)));
        assert_eq!(told, [head(1), head(2)], "at step {step}");
    }
}
