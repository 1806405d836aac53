//! Publishes on their way through runs, flushes and groups to a log, and the answers back.

mod database;
mod requests;
mod serial;
mod writer;

use std::collections::{HashMap, HashSet};

use futures::FutureExt as _;
use proptest::collection::vec;

use self::{
    database::{Database, Mishap, mishap},
    requests::{Act, Clients, act, ids, large_act},
    serial::Serial,
    writer::Driver,
};
use super::check;
use crate::broker::{Error, Publish, Receipt};

type Answer = Result<Receipt, Error>;

#[test]
fn each_request_is_answered_as_if_it_had_come_alone() {
    check(192, vec(act(), 1..60), |acts| {
        let mut driver = Driver::new(Vec::new());
        let answered = run(acts, &mut driver);
        check_logs(&driver.database, &answered);
        // Whatever was refused beside it, and whatever it was written with.
        let mut serial = Serial::default();
        for (publish, answer) in &answered {
            let verdict = serial.judge(publish);
            assert!(verdict.allows(answer), "{publish:?}: {verdict:?}, but {answer:?}");
        }
        // The first round finds out who does not fit; the others fit then.
        assert!(driver.most_rounds <= 2, "{} rounds", driver.most_rounds);
    });
}

#[test]
fn what_others_do_meanwhile_and_what_fails_harms_nothing_that_is_stored() {
    check(128, (vec(act(), 1..60), vec(mishap(), 0..40)), |(acts, mishaps)| {
        let lost = mishaps.iter().any(|mishap| matches!(mishap, Mishap::Lost { .. }));
        let mut driver = Driver::new(mishaps);
        let answered = run(acts, &mut driver);
        check_logs(&driver.database, &answered);
        assert!(lost || !answered.iter().any(|(_, answer)| is_unknown(answer)));
    });
}

#[test]
fn a_flush_keeps_to_its_limits_unless_one_run_alone_is_larger() {
    check(32, vec(large_act(), 1..30), |acts| {
        let mut driver = Driver::new(Vec::new());
        let answered = run(acts, &mut driver);
        check_logs(&driver.database, &answered);
        for (runs, messages, bytes) in &driver.flushes {
            let within = *messages <= 8_192 && *bytes <= 2 * 1024 * 1024;
            assert!(*runs == 1 || within, "{runs} runs, {messages} messages, {bytes} bytes");
        }
    });
}

/// Lets clients publish and the writer write; returns every request with its one answer, in the
/// order in which they were taken in.
fn run(acts: Vec<Act>, driver: &mut Driver) -> Vec<(Publish, Answer)> {
    let mut clients = Clients::default();
    for act in acts {
        clients.act(act, driver);
    }
    clients.close_run(driver);
    driver.write_all();
    let mut answered = Vec::new();
    for (requests, answers) in clients.runs {
        let answers = answers.wait().now_or_never().expect("all are answered");
        assert_eq!(answers.len(), requests.len(), "one answer to each request");
        answered.extend(requests.into_iter().zip(answers));
    }
    assert!(driver.all_room_is_given_back());
    answered
}

fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Err(Error::OutcomeUnknown))
}

/// What was acknowledged is stored once, where its receipt says; what was refused is not; each log
/// is dense, and in the order in which publishes were taken in.
fn check_logs(database: &Database, answered: &[(Publish, Answer)]) {
    let unknown = answered.iter().filter(|(_, answer)| is_unknown(answer));
    let unknown: HashSet<_> = unknown.flat_map(|(publish, _)| ids(publish)).collect();
    let mut by_topic: HashMap<_, Vec<_>> = HashMap::new();
    for (publish, answer) in answered {
        by_topic.entry(&publish.topic).or_default().push((publish, answer));
    }
    for (topic, answered) in by_topic {
        let log = database.log(topic);
        let dense = (0..database.head(topic).0).eq(log.iter().map(|(offset, ..)| offset.0));
        assert!(dense, "offsets from 0 to the head");
        let others = database.stored_by_others(topic);
        let own = || log.iter().filter(|(offset, ..)| !others.contains(offset));
        let stored: HashSet<_> = own().map(|(.., id)| id).collect();
        assert_eq!(stored.len(), own().count(), "nothing is stored twice");
        let mut acknowledged = Vec::new();
        for (publish, answer) in answered {
            let Ok(Receipt { first, count, duplicate }) = answer else { continue };
            assert_eq!(*count, publish.messages.count());
            for (index, id) in ids(publish).enumerate() {
                let entry = (first.after(index), publish.producer.clone(), id);
                let found = &log[entry.0.0 as usize];
                // Whoever uses a sequence again is told of what it was used for first.
                let used_again = *duplicate && !stored.contains(&entry.2);
                assert!(*found == entry || (used_again && found.1 == entry.1), "{entry:?}");
                acknowledged.extend((!duplicate).then_some(entry));
            }
        }
        let known = |(.., id): &&(_, _, _)| !unknown.contains(id);
        assert!(own().filter(known).eq(acknowledged.iter().filter(known)), "in their order");
    }
}
