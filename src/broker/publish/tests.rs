//! Property tests of publishes: through flushes and group commits into a log, and their answers.

mod database;
mod requests;
mod serial;
mod values;
mod writer;

use std::collections::{HashMap, HashSet};

use futures::FutureExt as _;
use proptest::collection::vec;

use crate::broker::{
    error::Error,
    publish::{
        request::{Publish, Receipt},
        tests::{
            database::{Database, LogEntry, Mishap, mishap},
            requests::{Act, Clients, Enqueued, act, ids, large_act, plain},
            serial::{Answer, Serial},
            values::{CURSE, POISON, is_cursed},
            writer::{Driver, FlushStats},
        },
    },
    testing::check,
};

#[test]
fn each_request_is_answered_as_if_it_had_been_sent_alone() {
    check(192, vec(act(), 1..60), |acts| {
        let mut driver = Driver::new(Vec::new());
        let answered = run(acts, &mut driver);
        check_logs(&driver.database(), &answered);
        // Whatever it was flushed with, and whatever was refused beside it.
        let mut serial = Serial::default();
        for (publish, answer) in &answered {
            let verdict = serial.judge(publish);
            assert!(verdict.allows(answer), "{publish:?}: {verdict:?}, but {answer:?}");
        }
        for flush in &driver.flushes {
            check_cost(flush);
        }
    });
}

#[test]
fn nothing_that_is_stored_suffers_from_failures_or_from_what_others_do_meanwhile() {
    check(128, (vec(act(), 1..60), vec(mishap(), 0..40)), |(acts, mishaps)| {
        let lost = mishaps.iter().any(|mishap| matches!(mishap, Mishap::Lost { .. }));
        let faults = mishaps.iter().filter(|mishap| matches!(mishap, Mishap::Fault)).count();
        // A writer waits for up to three faults to pass before it fails a publish.
        let all_pass = faults <= 3;
        let mut driver = Driver::new(mishaps);
        let answered = run(acts, &mut driver);
        check_logs(&driver.database(), &answered);
        assert!(lost || !answered.iter().any(|(_, answer)| is_unknown(answer)));
        let innocent = answered.iter().filter(|(publish, _)| !is_culprit(publish));
        let fail = |(_, answer): &(Publish, Answer)| matches!(answer, Err(Error::Internal(_)));
        assert!(!all_pass || !innocent.clone().any(fail), "{answered:?}");
    });
}

#[test]
fn a_flush_keeps_to_its_limits_unless_it_is_a_single_request_group() {
    check(32, vec(large_act(), 1..30), |acts| {
        let mut driver = Driver::new(Vec::new());
        let answered = run(acts, &mut driver);
        check_logs(&driver.database(), &answered);
        for flush in &driver.flushes {
            let is_within_limits = flush.messages <= 8_192 && flush.bytes <= 2 * 1024 * 1024;
            assert!(flush.publishes == 1 || is_within_limits, "{flush:?}");
        }
    });
}

#[test]
fn a_flood_of_refused_requests_costs_a_bounded_number_of_statements() {
    // Each bad request has a character of its own that cannot be stored; or one that all share; or
    // a value that is refused though its characters can be stored; or a value that fails its
    // statement.
    let unstorable = |index: usize| char::from_u32(0x4e00 + index as u32).unwrap().to_string();
    let floods: [&dyn Fn(usize) -> String; 4] =
        [&unstorable, &|_| unstorable(0), &|_| POISON.to_owned(), &|_| CURSE.to_owned()];
    for (kind, header) in floods.into_iter().enumerate() {
        let mut driver = Driver::new(Vec::new());
        let mut answers = Vec::new();
        for index in 0..4_000 {
            let good = index % 40 == 0;
            let (topic, header) = match (good, index % 80 == 0) {
                (true, true) => (1, None),
                (true, false) => (0, None),
                _ => (0, Some(header(index))),
            };
            let publish = plain(topic, index, header.as_deref());
            answers.push((good, topic, driver.enqueue(publish)));
        }
        driver.write_all();
        let [flush] = &driver.flushes[..] else { panic!("one flush: {:?}", driver.flushes) };
        assert!(flush.refused <= 160 && driver.questions() <= 160 * 32, "{flush:?}");
        for (good, topic, answer) in answers {
            let answer = answer.wait().now_or_never().expect("all are answered").remove(0);
            match (good, kind, &answer) {
                (true, 0 | 1, Ok(_)) | (false, 0 | 1, Err(Error::Invalid(_))) => {}
                (true, 2 | 3, Ok(_)) => {}
                (false, 2, Err(Error::Invalid(_))) | (false, 3, Err(Error::Internal(_))) => {}
                // Some are sent back for a retry.
                (false, 0 | 2 | 3, Err(Error::DatabaseUnavailable(_))) => {}
                // Good ones are sent back only if they share a topic with the bad ones.
                (true, 2 | 3, Err(Error::DatabaseUnavailable(_))) if topic == 0 => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(driver.all_room_is_returned());
    }
}

/// Checks how many transactions a flush took: one for the whole flush; two more for a topic with
/// publishes that do not fit, of which the first finds these and the second stores the others; and
/// for a bad message as many refused ones as it takes to halve the flush down to it.
fn check_cost(flush: &FlushStats) {
    let halvings = flush.messages.max(2).ilog2() as usize + 1;
    assert!(flush.refused <= flush.bad * (2 * halvings + 2), "{flush:?}");
    assert!(flush.transactions <= 1 + 2 * flush.topics + 4 * flush.refused, "{flush:?}");
}

/// Lets clients publish and the writer write. Returns every request with its one answer, in the
/// order in which they were enqueued.
fn run(acts: Vec<Act>, driver: &mut Driver) -> Vec<(Publish, Answer)> {
    let mut clients = Clients::default();
    for act in acts {
        clients.act(act, driver);
    }
    clients.enqueue_group(driver);
    driver.write_all();
    let mut answered = Vec::new();
    for Enqueued { requests, answers } in clients.enqueued {
        let answers = answers.wait().now_or_never().expect("all are answered");
        assert_eq!(answers.len(), requests.len(), "one answer to each request");
        answered.extend(requests.into_iter().zip(answers));
    }
    assert!(driver.all_room_is_returned());
    answered
}

fn is_culprit(publish: &Publish) -> bool {
    publish.messages.as_slice().iter().any(is_cursed)
}

fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Err(Error::OutcomeUnknown(_)))
}

/// Checks the logs: acknowledged messages are stored once, where their receipts say; refused ones
/// are not stored; each log is dense, and in the order in which publishes were enqueued.
fn check_logs(database: &Database, answered: &[(Publish, Answer)]) {
    let unknown = answered.iter().filter(|(_, answer)| is_unknown(answer));
    let unknown: HashSet<_> = unknown.flat_map(|(publish, _)| ids(publish)).collect();
    let mut by_topic: HashMap<_, Vec<_>> = HashMap::new();
    for (publish, answer) in answered {
        by_topic.entry(&publish.topic).or_default().push((publish, answer));
    }
    for (topic, answered) in by_topic {
        let log = database.log(topic);
        let is_dense = (0..database.head(topic).0).eq(log.iter().map(|entry| entry.offset.0));
        assert!(is_dense, "offsets from 0 to the head");
        let others = database.stored_by_others(topic);
        let own = || log.iter().filter(|entry| !others.contains(&entry.offset));
        let stored: HashSet<_> = own().map(|entry| &entry.id).collect();
        assert_eq!(stored.len(), own().count(), "nothing is stored twice");
        let mut acknowledged = Vec::new();
        for (publish, answer) in answered {
            let Ok(Receipt { first, count, duplicate }) = answer else { continue };
            assert_eq!(*count, publish.messages.count());
            for (index, id) in ids(publish).enumerate() {
                let (offset, producer) = (first.after(index), publish.producer.clone());
                let entry = LogEntry { offset, producer, id };
                let found = &log[offset.0 as usize];
                // A producer that reuses a sequence gets the offset of its first use.
                let is_reuse = *duplicate && !stored.contains(&entry.id);
                let is_expected = *found == entry || (is_reuse && found.producer == entry.producer);
                assert!(is_expected, "{entry:?}");
                acknowledged.extend((!duplicate).then_some(entry));
            }
        }
        let is_known = |entry: &&LogEntry| !unknown.contains(&entry.id);
        assert!(own().filter(is_known).eq(acknowledged.iter().filter(is_known)), "in order");
    }
}
