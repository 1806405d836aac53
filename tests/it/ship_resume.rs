//! `produce --resume` continues where a file was left, however the file changed.

use std::fs;

use crate::support::{Shipper, Trunkline};

#[tokio::test]
async fn an_unfinished_line_waits_for_its_end() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\nuser 42 pa");
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(stderr.contains("not shipped, as its end is missing: line 2 of "), "{stderr}");
    assert_eq!(shipper.stored().await, ["one"]);
    shipper.append("app.log", "id 10 EUR\nthree\n");
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(stderr.contains("1 line published before; 2 messages"), "{stderr}");
    assert_eq!(shipper.stored().await, ["one", "user 42 paid 10 EUR", "three"]);
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(stderr.contains("3 lines published before; no message"), "{stderr}");
    // Without --resume the last line is shipped, as no other run will do it.
    shipper.write("other.log", "a\nb");
    shipper.ship_well(&["other.log"]).await;
    assert_eq!(shipper.stored().await[3..], ["a", "b"]);
}

#[tokio::test]
async fn an_unfinished_line_that_was_shipped_as_final_loses_nothing_when_it_grows() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\nuser 42 pa");
    shipper.ship_well(&["--resume", "--final", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "user 42 pa"]);
    shipper.append("app.log", "id 10 EUR\nthree");
    let stderr = shipper.ship_well(&["--resume", "--final", "app.log"]).await;
    assert!(stderr.contains("line 2 of ") && stderr.contains("before it was finished"), "{stderr}");
    // A line may also get only its newline.
    shipper.append("app.log", "\nfour\n");
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(stderr.contains("up to line 4 of "), "{stderr}");
    assert_eq!(shipper.stored().await, ["one", "user 42 pa", "id 10 EUR", "three", "four"]);
}

#[tokio::test]
async fn a_new_log_after_a_rotation_is_shipped_from_its_start() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "old1\nold2\nold3\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    // The old log is renamed with a line that was not shipped.
    shipper.append("app.log", "old4\n");
    shipper.rename("app.log", "app.log.1");
    shipper.write("app.log", "new1\nnew2\nnew3\nnew4\nnew5\n");
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(
        stderr.contains("is not the file that was shipped before")
            && stderr.contains("up to 5 bytes"),
        "{stderr}"
    );
    let new = ["new1", "new2", "new3", "new4", "new5"];
    assert_eq!(shipper.stored().await[3..], new);
    // The rest of the old log can still be shipped, and nothing is shipped twice.
    shipper.append("app.log", "new6\n");
    shipper.ship_well(&["--resume", "app.log.1", "app.log"]).await;
    assert_eq!(shipper.stored().await[8..], ["old4", "new6"]);
    // Truncated and rewritten in place, longer and shorter than before.
    for content in ["x1\nx2\nx3\nx4\nx5\nx6\nx7\nx8\nx9\nx10\nx11\nx12\n", "y1\n"] {
        let before = shipper.stored().await.len();
        shipper.write("app.log", content);
        let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
        assert!(stderr.contains("has been truncated or replaced"), "{stderr}");
        let lines: Vec<_> = content.lines().collect();
        assert_eq!(shipper.stored().await[before..], lines);
    }
}

#[tokio::test]
async fn a_file_with_the_same_start_and_another_last_line_is_another_file() {
    let shipper = Shipper::start().await;
    let header = format!("{}\n", "time,level,text".repeat(400));
    shipper.write("app.log", format!("{header}a\n"));
    shipper.ship_well(&["--resume", "app.log"]).await;
    shipper.write("app.log", format!("{header}b\nc\n"));
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(stderr.contains("has been truncated or replaced"), "{stderr}");
    assert_eq!(shipper.stored().await[3..], ["b", "c"]);
}

#[tokio::test]
async fn a_copy_is_refused_until_an_option_says_what_it_is() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\ntwo\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    // The copy is created while the old file still exists, so it has another inode.
    shipper.write("restored.log", "one\ntwo\nthree\n");
    shipper.rename("restored.log", "app.log");
    let stderr = shipper.ship_in_vain(&["--resume", "app.log"]).await;
    assert!(stderr.contains("--same-file") && stderr.contains("--restart"), "{stderr}");
    assert_eq!(shipper.stored().await.len(), 2);
    shipper.ship_well(&["--resume", "--same-file", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "two", "three"]);
    shipper.ship_well(&["--resume", "--restart", "app.log"]).await;
    assert_eq!(shipper.stored().await[3..], ["one", "two", "three"]);
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(stderr.contains("no message was acknowledged"), "{stderr}");
}

#[tokio::test]
async fn a_truncated_log_and_its_copy_are_each_shipped_once_in_any_order() {
    let orders = [
        (["app.log.1", "app.log"], ["old3", "new1", "new2"]),
        (["app.log", "app.log.1"], ["new1", "new2", "old3"]),
    ];
    for ([first, second], shipped) in orders {
        let shipper = Shipper::start().await;
        shipper.write("app.log", "old1\nold2\n");
        shipper.ship_well(&["--resume", "app.log"]).await;
        shipper.append("app.log", "old3\n");
        shipper.copytruncate("new1\nnew2\n");
        let stderr = shipper.ship_in_vain(&["--resume", first, second]).await;
        assert!(
            stderr.contains("app.log.1 begins with the 10 bytes that were shipped"),
            "{stderr}"
        );
        assert_eq!(shipper.stored().await, ["old1", "old2"]);
        shipper.ship_well(&["--resume", "--same-file", first, second]).await;
        assert_eq!(shipper.stored().await[2..], shipped);
        let stderr = shipper.ship_well(&["--resume", first, second]).await;
        assert!(stderr.contains("no message was acknowledged"), "{stderr}");
        // The next copy has the inode of the previous one.
        shipper.copytruncate("newer\n");
        let stderr = shipper.ship_in_vain(&["--resume", "app.log.1"]).await;
        assert!(
            stderr.contains("app.log.1 begins with the 10 bytes that were shipped"),
            "{stderr}"
        );
        shipper.ship_well(&["--resume", "--same-file", first, second]).await;
        assert_eq!(shipper.stored().await[5..], ["newer"]);
    }
}

#[tokio::test]
async fn the_copy_of_a_truncated_log_is_recognised_on_its_own() {
    // With and without new lines, before and after the log itself is shipped.
    for new in ["", "new1\n"] {
        let shipper = Shipper::start().await;
        shipper.write("app.log", "old1\nold2\n");
        shipper.ship_well(&["--resume", "app.log"]).await;
        shipper.append("app.log", "old3\n");
        shipper.copytruncate(new);
        let stderr = shipper.ship_in_vain(&["--resume", "app.log.1"]).await;
        assert!(stderr.contains("--same-file") && stderr.contains("--restart"), "{stderr}");
        let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
        assert!(stderr.contains("has been truncated or replaced"), "{stderr}");
        shipper.append("app.log", "new2\n");
        shipper.ship_well(&["--resume", "app.log"]).await;
        let stderr = shipper.ship_in_vain(&["--resume", "app.log.1"]).await;
        assert!(stderr.contains("--same-file") && stderr.contains("--restart"), "{stderr}");
        shipper.ship_well(&["--resume", "--same-file", "app.log.1"]).await;
        let lines = format!("old1 old2 {new}new2 old3").replace('\n', " ");
        assert_eq!(shipper.stored().await.join(" "), lines);
        let stderr = shipper.ship_well(&["--resume", "app.log.1", "app.log"]).await;
        assert!(stderr.contains("no message was acknowledged"), "{stderr}");
    }
}

#[tokio::test]
async fn a_copy_of_a_log_that_still_exists_is_another_file() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    shipper.write("other.log", "one\ntwo\n");
    let stderr = shipper.ship_well(&["--resume", "other.log"]).await;
    assert!(stderr.contains("which still has them: shipping it from its beginning"), "{stderr}");
    assert_eq!(shipper.stored().await, ["one", "one", "two"]);
}

#[tokio::test]
async fn several_files_continue_where_each_was_left() {
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
async fn without_a_state_the_last_message_is_compared_with_the_file() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\ntwo\n");
    // A run without --resume leaves no state.
    shipper.ship_well(&["app.log"]).await;
    shipper.append("app.log", "three\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "two", "three"]);
    // The state is lost.
    shipper.write("other.log", "one\ntwo\nTHREE\nfour\n");
    let stderr = shipper.ship_in_vain(&["--resume", "--state", "new.json", "other.log"]).await;
    assert!(stderr.contains("line 3 of ") && stderr.contains("\"three\", at offset 2"), "{stderr}");
    shipper.write("short.log", "one\ntwo\n");
    let stderr = shipper.ship_in_vain(&["--resume", "--state", "new.json", "short.log"]).await;
    assert!(
        stderr.contains("the input has 2 lines, and this producer has published 3"),
        "{stderr}"
    );
    assert!(!shipper.path("new.json").exists(), "a refused run leaves no state");
    shipper.append("app.log", "four\n");
    shipper.ship_well(&["--resume", "--state", "new.json", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "two", "three", "four"]);
    // The last message is trimmed.
    shipper.broker.trim("app", 4).await;
    let stderr = shipper.ship_in_vain(&["--resume", "--state", "newer.json", "app.log"]).await;
    assert!(stderr.contains("the last message is no longer kept"), "{stderr}");
    shipper.ship_well(&["--resume", "--state", "newer.json", "--restart", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn standard_input_is_compared_with_the_last_message_as_well() {
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
async fn a_recreated_topic_gets_every_line_again() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\ntwo\n");
    let resume = ["--resume", "--state", "state.json", "app.log"];
    shipper.ship_well(&resume).await;
    shipper.broker.delete_topic("app").await;
    let stderr = shipper.ship_well(&resume).await;
    assert!(stderr.contains("was registered again"), "{stderr}");
    assert_eq!(shipper.stored().await, ["one", "two"]);
    // The state of another producer is refused.
    let other = shipper.arguments(&resume).join(" ").replace("--producer h", "--producer i");
    let other = Trunkline::run(&other.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(other.code(), 1, "{other:?}");
    assert!(other.stderr.contains("is the state of producer h on topic app"), "{other:?}");
}

#[tokio::test]
async fn messages_that_a_truncation_lost_are_shipped_again() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\ntwo\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    shipper.append("app.log", "three\nfour\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    // A standby was promoted that had only the first three messages.
    let sql = shipper.broker.sql().await;
    sql.batch_execute(
        "update trunkline.producer_topic set last_sequence = 2, last_offset = 2, \
         recent_sequences = '{}', recent_offsets = '{}'",
    )
    .await
    .unwrap();
    shipper.append("app.log", "five\n");
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(stderr.contains("lost 1 message "), "{stderr}");
    assert_eq!(shipper.stored().await[4..], ["four", "five"]);
}

#[tokio::test]
async fn messages_published_by_the_same_producer_without_resume_move_no_position() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\n");
    shipper.ship_well(&["--resume", "app.log"]).await;
    shipper.ship_input(&[], "by hand\n").await.assert().success();
    shipper.append("app.log", "two\n");
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(
        stderr.contains("found 1 message that producer h published without --resume"),
        "{stderr}"
    );
    assert_eq!(shipper.stored().await, ["one", "by hand", "two"]);
}

#[tokio::test]
async fn a_second_run_at_the_same_time_is_refused() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "one\n");
    shipper.ship_well(&["--resume", "--state", "state.json", "app.log"]).await;
    let lock = fs::File::open(shipper.path("state.json.lock")).unwrap();
    lock.lock().unwrap();
    let stderr = shipper.ship_in_vain(&["--resume", "--state", "state.json", "app.log"]).await;
    assert!(stderr.contains("another produce --resume of this producer is running"), "{stderr}");
}
