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
            log::{StoredLog, batch},
        },
    },
    model::{LogEnds, Offset, TopicId},
};

const TOPIC: TopicId = TopicId(1);

fn join(logs: &Arc<TopicLogs>, head: i64) -> LogReader {
    logs.begin().join(TOPIC, LogEnds { start: Offset(0), head: Offset(head) })
}

#[test]
fn a_stream_reads_up_to_a_head_that_moves_at_any_of_its_steps() {
    // From before the reader asks for the ends of the log until it waits, with and without another
    // reader of the log.
    for has_other in [false, true] {
        for step in 0..7 {
            let logs = Arc::new(TopicLogs::default());
            let _other = has_other.then(|| join(&logs, 0));
            let (stored, position) = (RefCell::new(StoredLog::default()), Cell::new(Offset(0)));
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
                    let is_interrupted = tokio::select! {
                        biased;
                        // The wait is abandoned and begun again, whatever has come meanwhile.
                        () = pause() => true,
                        _ = log.head.changed() => false,
                    };
                    if is_interrupted {
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
            // A stream that missed the head would wait for the next one.
            assert_eq!(position.get(), Offset(2), "step {step}, other reader: {has_other}");
        }
    }
}

#[test]
fn a_reader_that_a_stored_batch_wakes_finds_the_batch() {
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
fn a_reader_that_waited_for_another_finds_what_that_one_read() {
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _clock = clock.enter();
    let logs = Arc::new(TopicLogs::default());
    let (one, other) = (join(&logs, 2), join(&logs, 2));
    let mut reading = ByHand::new(async {
        let permit = one.begin_read(Offset(0)).await;
        assert!(permit.is_some());
        pause().await;
        one.share(&[Arc::new(batch(Offset(0), &[1, 1]))]);
        pause().await;
    });
    let mut waiting = ByHand::new(async {
        let permit = other.begin_read(Offset(0)).await;
        (permit.is_some(), other.cached(Offset(0), 1).len())
    });
    for _ in 0..2 {
        assert!(reading.run().is_pending() && waiting.run().is_pending());
    }
    assert!(reading.run().is_ready());
    assert_eq!(waiting.run(), Poll::Ready((false, 1)));
}

#[test]
fn a_reader_that_waited_for_another_goes_on_if_that_one_leaves_without_a_result() {
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _clock = clock.enter();
    for reader_has_run in [false, true] {
        let logs = Arc::new(TopicLogs::default());
        let (one, other) = (join(&logs, 2), join(&logs, 2));
        let mut reading = ByHand::new(async {
            let _permit = one.begin_read(Offset(0)).await;
            std::future::pending::<()>().await;
        });
        let mut waiting = ByHand::new(async { other.begin_read(Offset(0)).await.is_some() });
        assert!(reading.run().is_pending() && waiting.run().is_pending());
        if reader_has_run {
            assert!(reading.run().is_pending());
        }
        drop(reading);
        assert_eq!(waiting.run(), Poll::Ready(false));
    }
}

#[test]
fn a_deletion_is_noticed_whenever_it_comes() {
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
        assert!(ended, "step {step}");
    }
}
