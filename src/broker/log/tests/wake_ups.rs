//! Every place where a reader could miss a wake-up, tried at each await.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    task::Poll,
};

use crate::{
    broker::{
        log::topics::{LogReader, TopicLogs},
        testing::{
            by_hand::{ByHand, pause},
            log::{Stored, batch},
        },
    },
    model::{LogEnds, Offset, TopicId},
};

const TOPIC: TopicId = TopicId(1);

fn join(logs: &Arc<TopicLogs>, head: i64) -> LogReader {
    logs.begin().join(TOPIC, LogEnds { start: Offset(0), head: Offset(head) })
}

#[test]
fn a_head_that_moves_at_any_step_of_a_stream_is_read_up_to() {
    // From before the reader asks for the topic's ends to when it waits: in some other stream's
    // log, or in none yet.
    for others_read in [false, true] {
        for step in 0..7 {
            let logs = Arc::new(TopicLogs::default());
            let _other = others_read.then(|| join(&logs, 0));
            let (stored, position) = (RefCell::new(Stored::default()), Cell::new(Offset(0)));
            let mut stream = ByHand::new(async {
                let head = stored.borrow().head();
                pause().await;
                let mut log = logs.begin().join(TOPIC, LogEnds { start: Offset(0), head });
                let mut behind = true;
                loop {
                    let known = *log.head.borrow_and_update();
                    if std::mem::take(&mut behind) || position.get() < known {
                        pause().await;
                        let read = stored.borrow().read(position.get(), 1_000);
                        pause().await;
                        position.set(read.ends.head);
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
    let mut log = join(&logs, 0);
    let mut stream = ByHand::new(async {
        log.head.borrow_and_update();
        log.head.changed().await.unwrap();
        log.cached(Offset(0), 1).len()
    });
    assert!(stream.run().is_pending());
    logs.batch_stored(TOPIC, batch(Offset(0), &[1, 1]));
    assert_eq!(stream.run(), Poll::Ready(1));
}

#[test]
fn who_waited_for_another_reader_finds_what_that_one_read() {
    let logs = Arc::new(TopicLogs::default());
    let (one, other) = (join(&logs, 2), join(&logs, 2));
    let mut reads = ByHand::new(async {
        let alone = one.begin_read(Offset(0)).await;
        assert!(alone.is_some());
        pause().await;
        one.share(&[Arc::new(batch(Offset(0), &[1, 1]))]);
        pause().await;
    });
    let mut waits = ByHand::new(async {
        let alone = other.begin_read(Offset(0)).await;
        (alone.is_some(), other.cached(Offset(0), 1).len())
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
        let (one, other) = (join(&logs, 2), join(&logs, 2));
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
        let log = join(&logs, 0);
        let mut stream = ByHand::new(async {
            pause().await;
            log.deleted().cancelled().await;
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
