//! `produce --resume`: each line of a file once, whatever becomes of the file and of the run.

use std::fs;

use crate::support::{Shipper, Trunkline, soon, until};

#[tokio::test]
async fn a_half_written_line_waits_for_its_end() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\nuser 42 pa");
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(told.contains("not shipped, as its end is missing: line 2 of "), "{told}");
    assert_eq!(shipper.stored().await, ["one"]);
    shipper.append("app.log", "id 10 EUR\nthree\n");
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(told.contains("1 lines were published before; 2 messages"), "{told}");
    assert_eq!(shipper.stored().await, ["one", "user 42 paid 10 EUR", "three"]);
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(told.contains("3 lines were published before; no message"), "{told}");
    // Without --resume nothing is to come.
    shipper.write("other.log", "a\nb");
    shipper.ship_well(&["other.log"]).await;
    assert_eq!(shipper.stored().await[3..], ["a", "b"]);
}

#[tokio::test]
async fn an_unfinished_line_that_was_final_loses_nothing_when_it_goes_on() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\nuser 42 pa");
    shipper.ship_well(&["--resume", "--final", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "user 42 pa"]);
    shipper.append("app.log", "id 10 EUR\nthree");
    let told = shipper.ship_well(&["--resume", "--final", "app.log"]).await;
    assert!(told.contains("line 2 of ") && told.contains("before it was finished"), "{told}");
    // It may also just get its end.
    shipper.append("app.log", "\nfour\n");
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(told.contains("up to line 4 of "), "{told}");
    assert_eq!(shipper.stored().await, ["one", "user 42 pa", "id 10 EUR", "three", "four"]);
}

#[tokio::test]
async fn a_rotated_log_is_shipped_from_its_beginning() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "old1\nold2\nold3\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    // Renamed, with a line that was not shipped.
    shipper.append("app.log", "old4\n");
    shipper.rename("app.log", "app.log.1");
    shipper.write("app.log", "new1\nnew2\nnew3\nnew4\nnew5\n");
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(
        told.contains("is not the file that was shipped before") && told.contains("up to 5 bytes"),
        "{told}"
    );
    let new = ["new1", "new2", "new3", "new4", "new5"];
    assert_eq!(shipper.stored().await[3..], new);
    // The rest can be had, and nothing comes twice.
    shipper.append("app.log", "new6\n");
    shipper.ship_well(&["--resume", "app.log.1", "app.log"]).await;
    assert_eq!(shipper.stored().await[8..], ["old4", "new6"]);
    // Cut off and written anew in its place, longer and shorter than it was.
    for content in ["x1\nx2\nx3\nx4\nx5\nx6\nx7\nx8\nx9\nx10\nx11\nx12\n", "y1\n"] {
        let before = shipper.stored().await.len();
        shipper.write("app.log", content);
        let told = shipper.ship_well(&["--resume", "app.log"]).await;
        assert!(told.contains("has been truncated or replaced"), "{told}");
        let lines: Vec<_> = content.lines().collect();
        assert_eq!(shipper.stored().await[before..], lines);
    }
}

#[tokio::test]
async fn a_file_with_the_same_beginning_and_another_line_before_the_place_is_another_one() {
    let shipper = Shipper::start().await;
    let header = format!("{}\n", "time,level,text".repeat(400));
    shipper.write("app.log", format!("{header}a\n"));
    shipper.ship_well(&["--resume", "app.log"]).await;
    shipper.write("app.log", format!("{header}b\nc\n"));
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(told.contains("has been truncated or replaced"), "{told}");
    assert_eq!(shipper.stored().await[3..], ["b", "c"]);
}

#[tokio::test]
async fn a_copy_is_neither_skipped_nor_stored_twice_by_itself() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\ntwo\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    // The old file is there as long as the new one is made: it gets another inode.
    shipper.write("restored.log", "one\ntwo\nthree\n");
    shipper.rename("restored.log", "app.log");
    let told = shipper.ship_badly(&["--resume", "app.log"]).await;
    assert!(told.contains("--same-file") && told.contains("--restart"), "{told}");
    assert_eq!(shipper.stored().await.len(), 2);
    shipper.ship_well(&["--resume", "--same-file", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "two", "three"]);
    shipper.ship_well(&["--resume", "--restart", "app.log"]).await;
    assert_eq!(shipper.stored().await[3..], ["one", "two", "three"]);
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(told.contains("no message was acknowledged"), "{told}");
}

/// What logrotate's `copytruncate` does; then the program goes on to write.
fn copytruncate(shipper: &Shipper, new: &str) {
    fs::copy(shipper.path("app.log"), shipper.path("app.log.1")).unwrap();
    shipper.write("app.log", new);
}

#[tokio::test]
async fn a_truncated_log_and_its_copy_are_shipped_once_in_any_order() {
    let orders = [
        (["app.log.1", "app.log"], ["old3", "new1", "new2"]),
        (["app.log", "app.log.1"], ["new1", "new2", "old3"]),
    ];
    for ([first, second], shipped) in orders {
        let shipper = Shipper::start().await;
        shipper.write("app.log", "old1\nold2\n");
        shipper.ship_well(&["--resume", "app.log"]).await;
        shipper.append("app.log", "old3\n");
        copytruncate(&shipper, "new1\nnew2\n");
        let told = shipper.ship_badly(&["--resume", first, second]).await;
        assert!(told.contains("app.log.1 begins with the 10 bytes that were shipped"), "{told}");
        assert_eq!(shipper.stored().await, ["old1", "old2"]);
        shipper.ship_well(&["--resume", "--same-file", first, second]).await;
        assert_eq!(shipper.stored().await[2..], shipped);
        let told = shipper.ship_well(&["--resume", first, second]).await;
        assert!(told.contains("no message was acknowledged"), "{told}");
        // The next copy is given the inode of the one before.
        copytruncate(&shipper, "newer\n");
        let told = shipper.ship_badly(&["--resume", "app.log.1"]).await;
        assert!(told.contains("app.log.1 begins with the 10 bytes that were shipped"), "{told}");
        shipper.ship_well(&["--resume", "--same-file", first, second]).await;
        assert_eq!(shipper.stored().await[5..], ["newer"]);
    }
}

#[tokio::test]
async fn the_copy_of_a_truncated_log_is_known_by_itself() {
    // With new lines or without, before and after the log itself is shipped on.
    for new in ["", "new1\n"] {
        let shipper = Shipper::start().await;
        shipper.write("app.log", "old1\nold2\n");
        shipper.ship_well(&["--resume", "app.log"]).await;
        shipper.append("app.log", "old3\n");
        copytruncate(&shipper, new);
        let told = shipper.ship_badly(&["--resume", "app.log.1"]).await;
        assert!(told.contains("--same-file") && told.contains("--restart"), "{told}");
        let told = shipper.ship_well(&["--resume", "app.log"]).await;
        assert!(told.contains("has been truncated or replaced"), "{told}");
        shipper.append("app.log", "new2\n");
        shipper.ship_well(&["--resume", "app.log"]).await;
        let told = shipper.ship_badly(&["--resume", "app.log.1"]).await;
        assert!(told.contains("--same-file") && told.contains("--restart"), "{told}");
        shipper.ship_well(&["--resume", "--same-file", "app.log.1"]).await;
        let lines = format!("old1 old2 {new}new2 old3").replace('\n', " ");
        assert_eq!(shipper.stored().await.join(" "), lines);
        let told = shipper.ship_well(&["--resume", "app.log.1", "app.log"]).await;
        assert!(told.contains("no message was acknowledged"), "{told}");
    }
}

#[tokio::test]
async fn a_copy_of_a_log_that_is_there_still_is_a_file_of_its_own() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    shipper.write("other.log", "one\ntwo\n");
    let told = shipper.ship_well(&["--resume", "other.log"]).await;
    assert!(told.contains("which still has them: shipping it from its beginning"), "{told}");
    assert_eq!(shipper.stored().await, ["one", "one", "two"]);
}

#[tokio::test]
async fn several_files_go_on_where_each_was_left() {
    let shipper = Shipper::start().await;
    shipper.write("a.log", "a1\na2\n");
    shipper.write("b.log", "b1\n");
    shipper.ship_well(&["--resume", "a.log", "b.log"]).await;
    shipper.append("a.log", "a3\n");
    shipper.append("b.log", "b2\n");
    shipper.write("c.log", "c1\n");
    shipper.ship_well(&["--resume", "b.log", "c.log", "a.log"]).await;
    assert_eq!(shipper.stored().await, ["a1", "a2", "b1", "b2", "c1", "a3"]);
    let twice = shipper.ship(&["--resume", "a.log", "a.log"]).await;
    assert_eq!(twice.code(), 2, "{twice:?}");
    let mixed = shipper.ship(&["--resume", "a.log", "-"]).await;
    assert_eq!(mixed.code(), 2, "{mixed:?}");
}

#[tokio::test]
async fn without_a_state_the_last_message_is_compared() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\ntwo\n");
    // As it was before there were states.
    shipper.ship_well(&["app.log"]).await;
    shipper.append("app.log", "three\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "two", "three"]);
    // A state that is lost.
    shipper.write("other.log", "one\ntwo\nTHREE\nfour\n");
    let told = shipper.ship_badly(&["--resume", "--state", "new.json", "other.log"]).await;
    assert!(told.contains("line 3 of ") && told.contains("\"three\", at offset 2"), "{told}");
    shipper.write("short.log", "one\ntwo\n");
    let told = shipper.ship_badly(&["--resume", "--state", "new.json", "short.log"]).await;
    assert!(told.contains("there are 2 lines, and this producer has published 3"), "{told}");
    assert!(!shipper.path("new.json").exists(), "a refused run leaves no state");
    shipper.append("app.log", "four\n");
    shipper.ship_well(&["--resume", "--state", "new.json", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "two", "three", "four"]);
    // The message is gone.
    let trim = ["--endpoint", &shipper.broker.endpoint, "topic", "trim", "app", "--before", "4"];
    Trunkline::run(&trim).await.assert().success();
    let told = shipper.ship_badly(&["--resume", "--state", "newer.json", "app.log"]).await;
    assert!(told.contains("the last message is no longer kept"), "{told}");
    shipper.ship_well(&["--resume", "--state", "newer.json", "--restart", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn a_stream_is_compared_as_well() {
    let shipper = Shipper::start().await;
    let ship = async |input: &str| shipper.ship_input(&["--resume"], input).await;
    ship("one\ntwo").await.assert().success();
    ship("one\ntwo\nthree\n").await.assert().success();
    assert_eq!(shipper.stored().await, ["one", "two", "three"]);
    let other = ship("1\n2\n3\n4\n").await;
    assert_eq!(other.code(), 1, "{other:?}");
    assert!(other.stderr.contains("line 3 of - (\"3\") is not the last message"), "{other:?}");
    assert_eq!(shipper.stored().await.len(), 3);
}

#[tokio::test]
async fn a_topic_that_was_made_anew_gets_all_again() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\ntwo\n");
    let resume = ["--resume", "--state", "state.json", "app.log"];
    shipper.ship_well(&resume).await;
    let delete = ["--endpoint", &shipper.broker.endpoint, "topic", "delete", "app"];
    Trunkline::run(&delete).await.assert().success();
    let told = shipper.ship_well(&resume).await;
    assert!(told.contains("was registered again"), "{told}");
    assert_eq!(shipper.stored().await, ["one", "two"]);
    // The state of another producer is not taken for this one's.
    let other = shipper.arguments(&resume).join(" ").replace("--producer h", "--producer i");
    let other = Trunkline::run(&other.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(other.code(), 1, "{other:?}");
    assert!(other.stderr.contains("is the state of producer h on topic app"), "{other:?}");
}

#[tokio::test]
async fn messages_that_the_database_lost_are_shipped_again() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\ntwo\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    shipper.append("app.log", "three\nfour\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    // A standby was promoted that had the first three.
    let sql = shipper.broker.sql().await;
    sql.batch_execute(
        "update trunkline.producer_topic set last_sequence = 2, last_offset = 2, \
         recent_sequences = '{}', recent_offsets = '{}'",
    )
    .await
    .unwrap();
    shipper.append("app.log", "five\n");
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(told.contains("lost 1 messages"), "{told}");
    assert_eq!(shipper.stored().await[4..], ["four", "five"]);
}

#[tokio::test]
async fn what_others_publish_as_the_same_producer_moves_no_place() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    shipper.ship_input(&[], "by hand\n").await.assert().success();
    shipper.append("app.log", "two\n");
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(told.contains("1 messages were published as producer h without --resume"), "{told}");
    assert_eq!(shipper.stored().await, ["one", "by hand", "two"]);
}

#[tokio::test]
async fn of_two_runs_at_a_time_the_second_one_is_refused() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\n");
    shipper.ship_well(&["--resume", "--state", "state.json", "app.log"]).await;
    let lock = fs::File::open(shipper.path("state.json.lock")).unwrap();
    lock.lock().unwrap();
    let told = shipper.ship_badly(&["--resume", "--state", "state.json", "app.log"]).await;
    assert!(told.contains("another produce --resume of this producer is running"), "{told}");
}

/// However often it is killed, and wherever: with bad lines in between, and over two files.
#[tokio::test]
async fn a_run_that_is_killed_stores_each_line_once() {
    const LINES: usize = 60_000;
    let shipper = Shipper::start().await;
    let mut kept = Vec::new();
    for name in ["a.log", "b.log"] {
        let mut content = String::new();
        for number in 0..LINES {
            let key = if number % 7 == 3 { "bad" } else { "k:" };
            content.push_str(&format!("{key}{name} {number}\n"));
            kept.extend((number % 7 != 3).then(|| format!("{name} {number}")));
        }
        shipper.write(name, content);
    }
    let mut words = vec!["--resume", "--key-separator", ":", "--on-bad-line", "skip"];
    words.extend(["--batch", "50", "a.log", "b.log"]);
    let arguments = shipper.arguments(&words);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    for part in 1..10 {
        let mut run = Trunkline::spawn(&arguments);
        let enough = kept.len() * part / 10;
        until("enough is stored", async || {
            usize::try_from(shipper.broker.stored().await).unwrap() > enough
        })
        .await;
        run.kill().await;
    }
    let last = soon("the last run", Trunkline::run(&arguments)).await;
    assert_eq!(last.code(), 0, "{last:?}");
    let stored = shipper.stored().await;
    assert_eq!(stored.len(), kept.len());
    assert!(stored == kept, "the lines are stored once, in order");
}

/// What is under way when a run is killed is told apart from what is not, also once the log has been
/// rotated.
#[tokio::test]
async fn a_log_that_is_rotated_after_a_kill_is_shipped_once() {
    let shipper = Shipper::start().await;
    let lines = |name: &str| (0..40_000).map(|number| format!("{name} {number}")).collect();
    let (old, new): (Vec<String>, Vec<String>) = (lines("old"), lines("new"));
    shipper.write("app.log", old.join("\n") + "\n");
    let arguments = shipper.arguments(&["--resume", "--batch", "20", "app.log"]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut run = Trunkline::spawn(&arguments);
    until("something is stored", async || shipper.broker.stored().await > 0).await;
    run.kill().await;
    let stored = shipper.stored().await.len();
    assert!(stored < old.len(), "it was killed on its way");
    shipper.rename("app.log", "app.log.1");
    shipper.write("app.log", new.join("\n") + "\n");
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(told.contains("app.log.1, and up to "), "{told}");
    shipper.ship_well(&["--resume", "app.log.1", "app.log"]).await;
    let all = shipper.stored().await;
    assert!(all[..stored] == old[..stored]);
    assert!(all[stored..stored + new.len()] == new);
    assert!(all[stored + new.len()..] == old[stored..]);
}

/// The copy has what a killed run had stored, however little of it was written down.
#[tokio::test]
async fn a_log_that_is_truncated_after_a_kill_is_shipped_once() {
    let shipper = Shipper::start().await;
    let old: Vec<_> = (0..40_000).map(|number| format!("old {number}")).collect();
    shipper.write("app.log", old.join("\n") + "\n");
    let arguments = shipper.arguments(&["--resume", "--batch", "20", "app.log"]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut run = Trunkline::spawn(&arguments);
    until("something is stored", async || shipper.broker.stored().await > 0).await;
    run.kill().await;
    let stored = shipper.stored().await.len();
    assert!(stored < old.len(), "it was killed on its way");
    copytruncate(&shipper, "new\n");
    let told = shipper.ship_badly(&["--resume", "app.log.1"]).await;
    assert!(told.contains("--same-file continues after them"), "{told}");
    shipper.ship_well(&["--resume", "app.log"]).await;
    shipper.ship_well(&["--resume", "--same-file", "app.log", "app.log.1"]).await;
    let all = shipper.stored().await;
    assert!(all[..stored] == old[..stored]);
    assert_eq!(all[stored], "new");
    assert!(all[stored + 1..] == old[stored..]);
}
