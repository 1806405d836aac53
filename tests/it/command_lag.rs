//! `trunkline lag`: who is behind. `consumer lag` is the same command.

use std::{fs::File, io::Read as _};

use nix::{
    pty::{OpenptyResult, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use trunkline::proto::assign_owner_request::Registration;

use crate::support::{Finished, TestBroker, Trunkline, shop::Shop, soon, until};

/// The cells of each row, without the header.
#[track_caller]
fn rows(finished: &Finished) -> Vec<Vec<&str>> {
    assert_eq!(finished.code(), 0, "{finished:?}");
    let mut rows = finished.stdout.lines().map(cells);
    let header = rows.next().unwrap_or_else(|| panic!("a table expected: {finished:?}"));
    assert_eq!(header, ["TOPIC", "CONSUMER", "LAG", "BEHIND", "HOLDER"]);
    rows.collect()
}

/// The cells of a line. A time may contain single blanks.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// The topic and the consumer of each row.
#[track_caller]
fn names(finished: &Finished) -> Vec<String> {
    rows(finished).iter().map(|row| format!("{}/{}", row[0], row[1])).collect()
}

#[track_caller]
fn objects(finished: &Finished) -> Vec<Value> {
    assert_eq!(finished.code(), 0, "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// A broker with these lags: 3 of `orders/billing`, 2 of `bills/audit`, `bills/mail` and
/// `orders/audit`, 0 of `orders/done`. The topic `empty` has the consumer `idle`.
async fn with_lags() -> TestBroker {
    let broker = TestBroker::start().await;
    for topic in ["orders", "bills", "empty"] {
        broker.topic(topic).await;
    }
    for (topic, id) in [
        ("orders", "done"),
        ("orders", "billing"),
        ("orders", "audit"),
        ("bills", "mail"),
        ("bills", "audit"),
        ("empty", "idle"),
    ] {
        broker.consumer(topic, id).await;
    }
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.publish("bills", ["d", "e"]).await;
    broker.pull("orders", "done", 3).await.unwrap();
    broker.pull("orders", "audit", 1).await.unwrap();
    broker
}

/// All who are behind, in the order of the list.
const BEHIND: [&str; 4] = ["orders/billing", "bills/audit", "bills/mail", "orders/audit"];

#[tokio::test]
async fn the_consumers_of_all_topics_are_listed_by_lag_then_topic_then_id() {
    let broker = with_lags().await;
    let listed = broker.run(&["consumer", "lag"]).await;
    assert_eq!(names(&listed), BEHIND);
    assert_eq!(listed.stderr, "");
    let lags: Vec<_> = rows(&listed).iter().map(|row| row[2].to_owned()).collect();
    assert_eq!(lags, ["3", "2", "2", "2"]);

    let all = broker.run(&["consumer", "lag", "--all"]).await;
    assert_eq!(names(&all)[..4], BEHIND);
    let caught_up = [["empty", "idle", "0", "0s", "-"], ["orders", "done", "0", "0s", "-"]];
    assert_eq!((&rows(&all)[4..], &*all.stderr), (&caught_up.map(Vec::from)[..], ""));
}

#[tokio::test]
async fn a_list_that_the_limit_cuts_says_so_in_one_line() {
    let broker = with_lags().await;
    let listed = broker.run(&["consumer", "lag", "--limit", "2"]).await;
    assert_eq!(names(&listed), BEHIND[..2]);
    let notice = "trunkline: showing 2 of 4 consumers that are behind: --limit shows more\n";
    assert_eq!(listed.stderr, notice);
    let listed = broker.run(&["consumer", "lag", "--limit", "2", "-o", "json"]).await;
    assert_eq!((objects(&listed).len(), &*listed.stderr), (2, notice));
    let listed = broker.run(&["consumer", "lag", "--limit", "4"]).await;
    assert_eq!((names(&listed).len(), &*listed.stderr), (4, ""));
    let all = broker.run(&["consumer", "lag", "--all", "--limit", "5"]).await;
    assert_eq!(names(&all)[4], "empty/idle");
    assert!(all.stderr.contains("5 of 6 consumers, 4 of which are behind"), "{all:?}");
    let refused = broker.run(&["consumer", "lag", "--limit", "0"]).await;
    assert_eq!((refused.code(), &*refused.stdout), (2, ""), "{refused:?}");
    assert!(refused.stderr.contains("--limit"), "{refused:?}");
}

#[tokio::test]
async fn only_topics_that_are_named_are_listed_and_they_must_exist() {
    let broker = with_lags().await;
    let listed = broker.run(&["consumer", "lag", "bills"]).await;
    assert_eq!(names(&listed), ["bills/audit", "bills/mail"]);
    let listed = broker.run(&["consumer", "lag", "bills", "orders", "bills"]).await;
    assert_eq!(names(&listed), BEHIND);
    let refused = broker.run(&["consumer", "lag", "bills", "nope"]).await;
    assert_eq!((refused.code(), &*refused.stdout), (1, ""), "{refused:?}");
    assert!(refused.stderr.contains("topic nope does not exist (TOPIC_NOT_FOUND)"), "{refused:?}");
    let refused = broker.run(&["consumer", "lag", "a b"]).await;
    assert_eq!((refused.code(), &*refused.stdout), (1, ""), "{refused:?}");
    assert!(refused.stderr.contains("topic: holds ' '"), "{refused:?}");
}

#[tokio::test]
async fn nobody_is_behind_in_one_line_and_with_success() {
    let broker = TestBroker::start().await;
    let nobody = async |arguments: &[&str], stdout: &str, notice: &str| {
        let finished = broker.run(&[&["consumer", "lag"], arguments].concat()).await;
        let expected = (0, stdout, format!("trunkline: {notice}\n"));
        assert_eq!((finished.code(), &*finished.stdout, finished.stderr.clone()), expected);
    };
    nobody(&[], "", "no consumer is behind").await;
    nobody(&["--all"], "", "there are no consumers").await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    nobody(&[], "", "no consumer is behind").await;
    nobody(&["orders", "-o", "json"], "[]\n", "no consumer is behind").await;
    let all = broker.run(&["consumer", "lag", "--all"]).await;
    assert_eq!((names(&all), &*all.stderr), (vec!["orders/billing".to_owned()], ""));
}

#[tokio::test]
async fn the_list_has_a_short_name() {
    let broker = with_lags().await;
    for arguments in [&[][..], &["orders"], &["--all", "--limit", "2"]] {
        let short = broker.run(&[&["lag"], arguments].concat()).await;
        let long = broker.run(&[&["consumer", "lag"], arguments].concat()).await;
        let count = |finished: &Finished| rows(finished).len();
        assert_eq!((names(&short), count(&short)), (names(&long), count(&long)));
        assert_eq!(short.stderr, long.stderr);
    }
    let refused = broker.run(&["lag", "--watch", "orders"]).await;
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.stderr.contains("after the topics"), "{refused:?}");
}

#[tokio::test]
async fn watching_prints_one_list_after_the_other_until_it_is_interrupted() {
    let broker = with_lags().await;
    let watch = |arguments: &[&str]| {
        let watch = ["--endpoint", &broker.endpoint, "lag", "bills", "--watch", "1s"];
        Trunkline::spawn(&[&watch[..], arguments].concat())
    };
    let mut watching = watch(&[]);
    assert_eq!(next_list(&mut watching).await, ["audit", "mail"]);
    broker.pull("bills", "audit", 2).await.unwrap();
    while next_list(&mut watching).await != ["mail"] {}
    watching.signal(Signal::SIGINT);
    assert_eq!(watching.wait().await.code(), Some(130));

    let mut watching = watch(&["-o", "json"]);
    for _ in 0..2 {
        let list: Vec<Value> = serde_json::from_str(&watching.line().await).unwrap();
        assert_eq!((list.len(), &list[0]["consumer_id"]), (1, &json!("mail")));
    }
}

/// The consumers of the next list, which ends with an empty line.
async fn next_list(watching: &mut Trunkline) -> Vec<String> {
    assert!(watching.line().await.starts_with("TOPIC"));
    let mut consumers = Vec::new();
    loop {
        match watching.line().await.as_str() {
            "" => return consumers,
            line => consumers.push(cells(line)[1].to_owned()),
        }
    }
}

#[tokio::test]
async fn watching_replaces_the_list_on_a_terminal() {
    let broker = with_lags().await;
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let arguments = ["--endpoint", &broker.endpoint, "lag", "--watch", "1s"];
    let mut command = Trunkline::command(&arguments);
    let mut child = command.stdout(slave).spawn().unwrap();
    drop(command);
    let reading = tokio::task::spawn_blocking(move || {
        let (mut master, mut shown) = (File::from(master), String::new());
        let mut bytes = [0; 4096];
        while shown.matches("\u{1b}[1;1H").count() < 3 {
            let count = master.read(&mut bytes).unwrap();
            shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        shown
    });
    let shown = soon("three lists", reading).await.unwrap();
    assert!(shown.matches("billing").count() >= 2, "{shown}");
    // What an earlier list has left is cleared.
    assert!(shown.contains("\u{1b}[K") && shown.contains("\u{1b}[J"), "{shown}");
    let id = Pid::from_raw(child.id().unwrap() as i32);
    kill(id, Signal::SIGINT).unwrap();
    assert_eq!(soon("the end", child.wait()).await.unwrap().code(), Some(130));
}

/// A page holds at most 1,000 consumers.
#[tokio::test]
async fn the_consumers_on_all_pages_are_ranked() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b"]).await;
    let sql = broker.sql().await;
    let insert = "insert into trunkline.consumer_topic (topic_id, consumer_id, position)
        select id, lpad(n::text, 4, '0'), case n when 1001 then 0 else 1 end
        from trunkline.topic, generate_series(1, 1001) n";
    sql.batch_execute(insert).await.unwrap();
    let listed = broker.run(&["consumer", "lag"]).await;
    assert_eq!((names(&listed).len(), &*names(&listed)[0]), (20, "orders/1001"));
    assert_eq!(names(&listed)[1], "orders/0001");
    assert!(listed.stderr.contains("20 of 1001 consumers"), "{listed:?}");
}

#[tokio::test]
async fn the_time_is_the_age_of_the_message_at_the_position() {
    let publishing = TestBroker::start().await;
    publishing.topic("orders").await;
    for id in ["first", "second", "third", "fourth"] {
        publishing.consumer("orders", id).await;
    }
    for message in ["a", "b", "c", "d"] {
        publishing.publish("orders", [message]).await;
    }
    for (id, read) in [("second", 1), ("third", 2), ("fourth", 3)] {
        publishing.pull("orders", id, read).await.unwrap();
    }
    // The last message is of a clock that is ahead.
    let set = "update trunkline.batch set published_at = now() + interval '1 second'
        * (array[-183840, -12600, -60, 3600])[base_offset + 1]";
    publishing.sql().await.batch_execute(set).await.unwrap();
    // The broker that published knows when its last batch was stored: it would take the log for a
    // truncated one.
    let broker = publishing.start_another().await;
    publishing.stop().await;

    let listed = broker.run(&["consumer", "lag"]).await;
    let times: Vec<_> = rows(&listed).iter().map(|row| row[3].to_owned()).collect();
    assert!(times[0].starts_with("2days 3h 4m"), "{times:?}");
    assert!(times[1].starts_with("3h 30m"), "{times:?}");
    assert!(times[2].starts_with("1m") && !times[2].contains("ms"), "{times:?}");
    assert_eq!(times[3], "0s");
    let objects = objects(&broker.run(&["consumer", "lag", "-o", "json"]).await);
    let seconds: Vec<_> =
        objects.iter().map(|object| object["behind_seconds"].as_f64().unwrap()).collect();
    assert!((183_840.0..183_900.0).contains(&seconds[0]), "{seconds:?}");
    assert!((12_600.0..12_660.0).contains(&seconds[1]), "{seconds:?}");
    assert!((60.0..120.0).contains(&seconds[2]), "{seconds:?}");
    assert_eq!(seconds[3], 0.0);

    // What is removed leaves nobody to tell the time.
    broker.trim("orders", 1).await;
    let listed = broker.run(&["consumer", "lag"]).await;
    let rows = rows(&listed);
    // The first two have the same messages left.
    assert_eq!(rows[0], ["orders", "first", "3", "-", "-"]);
    assert_eq!((&rows[1][1..3], &rows[1][3][..6]), (&["second", "3"][..], "3h 30m"));
}

#[tokio::test]
async fn objects_have_the_fields_of_other_lists() {
    let broker = TestBroker::with_five_messages().await;
    broker.consumer("orders", "mail").await;
    let mut stream = broker.take_over("orders", "billing", "ann").await;
    stream.messages(5).await;
    broker.trim("orders", 2).await;
    let listed = broker.run(&["consumer", "lag", "-o", "json"]).await;
    let object = |id: &str, holder: Value| {
        json!({
            "topic": "orders", "consumer_id": id, "lag": 3, "behind_seconds": null,
            "holder": holder,
        })
    };
    assert_eq!(objects(&listed), [object("billing", "ann".into()), object("mail", Value::Null)]);
    let listed = broker.run(&["consumer", "lag"]).await;
    let expected =
        [["orders", "billing", "3", "-", "ann"], ["orders", "mail", "3", "-", "-"]].map(Vec::from);
    assert_eq!(rows(&listed), expected);
}

#[tokio::test]
async fn a_caller_without_the_right_to_read_sees_its_lag_but_no_time() {
    let Shop { broker, root, shop, .. } = Shop::open().await;
    root.register_consumer("orders", "till").await.unwrap();
    root.assign("orders", Registration::ConsumerId("till".to_owned()), "shop").await.unwrap();
    root.create_topic("secret").await.unwrap();
    root.register_consumer("secret", "spy").await.unwrap();
    shop.publish("orders", "web", "a").await.unwrap();
    let lag = async |token: &str, arguments: &[&str]| {
        let arguments =
            [&["--endpoint", &broker.endpoint, "consumer", "lag", "--all"], arguments].concat();
        let mut command = Trunkline::command(&arguments);
        command.env("TRUNKLINE_TOKEN", token);
        Trunkline::finish(command).await
    };
    let token = root.create_token("shop").await;
    // It may publish, so it sees its own consumers.
    assert_eq!(rows(&lag(&token, &[]).await), [["orders", "till", "1", "-", "-"]]);
    let refused = lag(&token, &["secret"]).await;
    assert_eq!((refused.code(), &*refused.stdout), (1, ""), "{refused:?}");
    assert!(refused.stderr.contains("TOPIC_NOT_FOUND"), "{refused:?}");
    let listed = lag(&broker.root, &[]).await;
    assert_eq!(names(&listed), ["orders/billing", "orders/till", "secret/spy"]);
    assert!(rows(&listed)[1][3].ends_with('s'), "{listed:?}");
}

/// Runs the command, and deletes a topic while the first 16 calls of a kind wait for the table that
/// their statement reads.
async fn lag_during_deletion(
    broker: &TestBroker,
    table: &str,
    statement: &str,
    topic: &str,
) -> Finished {
    let locking = broker.sql().await;
    let lock = format!("begin; lock table trunkline.{table}");
    locking.batch_execute(&lock).await.unwrap();
    let deleting = async {
        let sql = broker.sql().await;
        until("a call waits for the table", async || {
            let count = "select count(*) from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'
                  and starts_with(query, $1)";
            sql.query_one(count, &[&statement]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
        let is_of_topic =
            format!("topic_id = (select id from trunkline.topic where name = '{topic}')");
        let delete = format!(
            "delete from trunkline.consumer_topic where {is_of_topic};
             delete from trunkline.producer_topic where {is_of_topic};
             delete from trunkline.topic_head where {is_of_topic};
             delete from trunkline.topic where name = '{topic}';
             commit"
        );
        locking.batch_execute(&delete).await.unwrap();
    };
    let (finished, ()) =
        soon("both", async { tokio::join!(broker.run(&["consumer", "lag"]), deleting) }).await;
    finished
}

#[tokio::test]
async fn a_topic_that_is_deleted_meanwhile_is_skipped() {
    let broker = TestBroker::start().await;
    let topics: Vec<_> = (1..=18).map(|number| format!("topic-{number:02}")).collect();
    for topic in &topics {
        broker.topic(topic).await;
        broker.consumer(topic, "c").await;
        broker.publish(topic, ["a"]).await;
    }
    let expected = |count: usize| -> Vec<String> {
        topics[..count].iter().map(|topic| format!("{topic}/c")).collect()
    };
    // The 18th list of consumers begins when one of the first 16 has ended.
    let table = ("consumer_topic", "-- list_consumers\n");
    let listed = lag_during_deletion(&broker, table.0, table.1, "topic-18").await;
    assert_eq!((names(&listed), &*listed.stderr), (expected(17), ""));
    // The same holds for the 17th read.
    let table = ("batch", "-- read_batches\n");
    let listed = lag_during_deletion(&broker, table.0, table.1, "topic-17").await;
    assert_eq!((names(&listed), &*listed.stderr), (expected(16), ""));
}
