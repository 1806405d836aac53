//! `produce --follow`: which files are followed, to which topics, and how the command ends.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{Shipper, Trunkline, soon, until};

#[tokio::test]
async fn files_that_match_are_picked_up_and_followed() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "a 1\n");
    let mut run = shipper.follow(&["*.log", "named.txt"]);
    run.log_line("no file is").await;
    shipper.has_stored(1).await;
    shipper.log("b.log", "b 1\nb 2\n");
    shipper.has_stored(3).await;
    shipper.log("named.txt", "n 1\n");
    shipper.log("other.txt", "o 1\n");
    shipper.log("a.log", "a 2\n");
    shipper.has_stored(5).await;
    // A file that vanishes is read to its end.
    let mut b = shipper.appender("b.log");
    shipper.remove("b.log");
    std::io::Write::write_all(&mut b, b"b 3\n").unwrap();
    shipper.has_stored(6).await;
    let stderr = run.terminate().await;
    assert!(stderr.contains("6 messages acknowledged"), "{stderr}");
    assert_eq!(shipper.lines_of("a").await, ["1", "2"]);
    assert_eq!(shipper.lines_of("b").await, ["1", "2", "3"]);
    // The next run ships nothing again.
    let stderr = shipper.follow_to_end(&["*.log", "named.txt"]).await;
    assert!(stderr.contains("no message was acknowledged"), "{stderr}");
    assert_eq!(shipper.broker.stored().await, 6);
}

#[tokio::test]
async fn a_restart_continues_where_the_last_run_ended() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "a 1\na 2\nunfinished");
    let stderr = shipper.follow_to_end(&["a.log"]).await;
    assert!(stderr.contains("not shipped, as its end is missing"), "{stderr}");
    shipper.log("a.log", " a 3\na 4\n");
    shipper.log("b.log", "b 1\n");
    shipper.follow_to_end(&["*.log"]).await;
    assert_eq!(shipper.stored().await, ["a 1", "a 2", "unfinished a 3", "a 4", "b 1"]);
    // With another state, it is not known what was shipped.
    let words = ["--follow", "--exit-at-end", "--state", "other.state", "*.log"];
    let stderr = shipper.ship_in_vain(&words).await;
    assert!(stderr.contains("has published 5 messages on topic app before"), "{stderr}");
    assert!(stderr.contains("--restart"), "{stderr}");
    shipper.ship_well(&[&words[..], &["--restart"]].concat()).await;
    assert_eq!(shipper.broker.stored().await, 10);
}

#[tokio::test]
async fn a_second_shipper_with_the_same_state_is_refused() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "a 1\n");
    let run = shipper.follow(&["a.log"]);
    shipper.has_stored(1).await;
    let second = ["--follow", "--exit-at-end", "--state", "follow.state", "a.log"];
    let stderr = shipper.ship_in_vain(&second).await;
    assert!(stderr.contains("another produce --follow of this producer is running"), "{stderr}");
    shipper.log("a.log", "a 2\n");
    shipper.has_stored(2).await;
    run.terminate().await;
}

#[tokio::test]
async fn a_shipper_that_was_fenced_ends() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "a 1\n");
    let mut run = shipper.follow(&["a.log"]);
    shipper.has_stored(1).await;
    shipper.broker.client.producer("app", "h").open().await.unwrap();
    shipper.log("a.log", "a 2\n");
    run.log_line("another instance of this producer has been opened").await;
    assert_eq!(run.wait().await.code(), Some(3));
    shipper.follow_to_end(&["a.log"]).await;
    assert_eq!(shipper.stored().await, ["a 1", "a 2"]);
}

#[tokio::test]
async fn a_topic_is_named_after_each_file() {
    let shipper = Shipper::start().await;
    fs::create_dir(shipper.path("web")).unwrap();
    shipper.log("web/access.log", "GET\n");
    shipper.log("web/error.log", "lost\n");
    let files = shipper.path("web/*.log");
    let ship = async |template: &str, file: &str| {
        let state = shipper.path(&format!("{}.state", template.replace(['{', '}'], "")));
        let words = ["--endpoint", &shipper.broker.endpoint, "produce", "--topic-from", template];
        let more = ["--producer", "h", "--register", "--follow", "--exit-at-end", "--state"];
        let files = [state.to_str().unwrap(), file];
        Trunkline::run(&[&words[..], &more, &files].concat()).await
    };
    let shipped = ship("{directory}.{stem}", files.to_str().unwrap()).await;
    assert_eq!(shipped.code(), 0, "{shipped:?}");
    assert_eq!(shipper.stored_in("web.access").await, ["GET"]);
    assert_eq!(shipper.stored_in("web.error").await, ["lost"]);
    // Each topic continues on its own.
    shipper.log("web/error.log", "found\n");
    ship("{directory}.{stem}", files.to_str().unwrap()).await.assert().success();
    assert_eq!(shipper.stored_in("web.access").await, ["GET"]);
    assert_eq!(shipper.stored_in("web.error").await, ["lost", "found"]);
    for (template, problem) in [
        ("{host}", "no variable {host}"),
        ("logs", "names no variable"),
        ("{stem} {stem}", "contains ' ': a topic's name consists of A-Za-z0-9._-"),
    ] {
        let refused = ship(template, files.to_str().unwrap()).await;
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.stderr.contains(problem), "{refused:?}");
    }
}

#[tokio::test]
async fn a_file_that_makes_no_topic_is_left_out_later() {
    let shipper = Shipper::start().await;
    shipper.log("good.log", "1\n");
    let mut run = shipper.follow_to(&shipper.broker.endpoint, &["--topic-from", "{stem}"]);
    shipper.has_stored(1).await;
    shipper.log("not good.log", "2\n");
    let line = run.log_line("the file is not shipped").await;
    assert!(line.contains("contains ' '"), "{line}");
    shipper.log("later.log", "3\n");
    shipper.has_stored(2).await;
    assert_eq!(shipper.stored_in("later").await, ["3"]);
    run.terminate().await;
}

#[tokio::test]
async fn messages_say_where_they_come_from_if_asked_to() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "one\n");
    shipper.follow_to_end(&["--file-headers", "--header", "env=test", "*.log"]).await;
    let message = shipper.messages("app").await.remove(0);
    let host = nix::unistd::gethostname().unwrap();
    let file = shipper.path("a.log");
    assert_eq!(message.headers["host"], host.to_str().unwrap());
    assert_eq!(message.headers["file"], file.to_str().unwrap());
    assert_eq!((message.headers["env"].as_str(), message.headers.len()), ("test", 3));
}

#[tokio::test]
async fn packed_files_are_shipped_only_when_they_are_asked_for() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "a 1\na 2\n");
    shipper.log("b.log", "b 1\nb 2");
    let packed = std::process::Command::new("gzip").arg(shipper.path("b.log")).status().unwrap();
    assert!(packed.success());
    shipper.follow_to_end(&["*.log*"]).await;
    assert_eq!(shipper.stored().await, ["a 1", "a 2"]);
    // The packed copy of what was shipped is recognised by its content.
    std::process::Command::new("gzip").arg(shipper.path("a.log")).status().unwrap();
    shipper.follow_to_end(&["--gzip", "*.log*"]).await;
    assert_eq!(shipper.stored().await, ["a 1", "a 2", "b 1", "b 2"]);
    shipper.follow_to_end(&["b.log.gz", "a.log.gz"]).await;
    assert_eq!(shipper.broker.stored().await, 4);
}

#[tokio::test]
async fn hang_up_looks_for_files_and_interrupt_ends() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "a 1\n");
    let words = ["--follow", "--poll-interval", "1h", "--state", "state.db", "*.log"];
    let arguments = shipper.arguments(&words);
    let mut run = Trunkline::spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    shipper.has_stored(1).await;
    shipper.log("b.log", "b 1\n");
    run.signal(Signal::SIGHUP);
    run.log_line("looking for files again").await;
    shipper.has_stored(2).await;
    run.signal(Signal::SIGINT);
    assert_eq!(run.wait().await.code(), Some(130));
}

#[tokio::test]
async fn without_a_broker_in_between_no_line_is_lost() {
    let shipper = Shipper::start().await;
    let database = shipper.broker.database.clone();
    let (mut first, endpoint) =
        Trunkline::serve(&["--listen", "127.0.0.1:0", "--database-url", &database.url]).await;
    let address = endpoint.trim_start_matches("http://").to_owned();
    shipper.log("a.log", "a 1\n");
    let run = shipper.follow_to(&endpoint, &["app"]);
    shipper.has_stored(1).await;
    first.kill().await;
    shipper.log("a.log", "a 2\na 3\n");
    shipper.log("b.log", "b 1\n");
    let second = ["--listen", &address, "--database-url", &database.url];
    let (_second, _) = Trunkline::serve(&second).await;
    shipper.has_stored(4).await;
    assert_eq!(shipper.lines_of("a").await, ["1", "2", "3"]);
    soon("the shipper ends", run.terminate()).await;
}

#[tokio::test]
async fn wrong_options_are_usage_errors() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "a 1\n");
    for (words, problem) in [
        (
            &["--follow", "--multiline-start", "(", "a.log"][..],
            "--multiline-start \"(\": unclosed group",
        ),
        (&["--follow", "--poll-interval", "1ms", "a.log"], "--poll-interval must be 10 ms to"),
        (&["--follow", "--resume", "a.log"], "cannot be used with"),
        (&["--follow", "-"], "standard input"),
        (&["--follow"], "names no file"),
        (&["--exit-at-end", "a.log"], "--follow"),
        (&["--follow", "--final", "a.log"], "--exit-at-end"),
        (&["--follow", "--state", "a.log", "a.log"], "--state names the followed file"),
    ] {
        let refused = shipper.ship(words).await;
        assert_eq!(refused.code(), 2, "{words:?}: {refused:?}");
        assert!(refused.stderr.contains(problem), "{words:?}: {refused:?}");
    }
    assert_eq!(shipper.broker.stored().await, 0);
}

#[tokio::test]
async fn a_pattern_does_not_stand_for_the_state_file() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "a 1\n");
    let run = shipper.follow(&["*.log", "*.state"]);
    shipper.has_stored(1).await;
    shipper.log("a.log", "a 2\n");
    shipper.has_stored(2).await;
    run.terminate().await;
    shipper.follow_to_end(&["*.log", "*.state"]).await;
    assert_eq!(shipper.stored().await, ["a 1", "a 2"]);
}

#[tokio::test]
async fn a_refused_shipper_shuts_nobody_out() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "a 1\n");
    let run = shipper.follow(&["a.log"]);
    shipper.has_stored(1).await;
    let words = ["--follow", "--exit-at-end", "--state", "other.state", "a.log"];
    let stderr = shipper.ship_in_vain(&words).await;
    assert!(stderr.contains("has published 1 message on topic app before"), "{stderr}");
    shipper.log("a.log", "a 2\n");
    shipper.has_stored(2).await;
    run.terminate().await;
}

#[tokio::test]
async fn a_topic_that_was_deleted_stops_the_shipping_to_no_other() {
    let shipper = Shipper::start().await;
    let broker = &shipper.broker;
    for name in ["a.log", "b.log", "c.log"] {
        shipper.log(name, "1\n");
    }
    let topics = ["--topic-from", "{stem}"];
    let delete = async |topic| {
        let deleted = broker.run(&["topic", "delete", topic, "--yes"]).await;
        assert_eq!(deleted.code(), 0, "{deleted:?}");
    };
    let b_has = async |lines| {
        until("b has them", async || shipper.messages("b").await.len() == lines).await;
    };
    let run = shipper.follow_to(&broker.endpoint, &topics);
    shipper.has_stored(3).await;
    run.terminate().await;
    delete("a").await;
    shipper.remove("a.log");
    shipper.log("b.log", "2\n");
    let mut run = shipper.follow_to(&broker.endpoint, &topics);
    b_has(2).await;
    // While it runs, and there is more for it: the topic is made again.
    delete("c").await;
    shipper.log("c.log", "2\n");
    run.log_line("was registered again on topic c").await;
    shipper.log("b.log", "3\n");
    b_has(3).await;
    until("c has all", async || shipper.messages("c").await.len() == 2).await;
    run.terminate().await;
    let deleted = broker.run(&["topic", "describe", "a"]).await;
    assert_eq!(deleted.code(), 1, "{deleted:?}");
    // Such a topic holds up no end.
    let words = [&topics[..], &["--exit-at-end"]].concat();
    let mut run = shipper.follow_to(&broker.endpoint, &words);
    assert_eq!(run.wait().await.code(), Some(0));
}

#[tokio::test]
async fn no_file_is_shipped_to_the_topic_for_bad_lines() {
    let shipper = Shipper::start().await;
    shipper.log("bad.log", "b 1\n");
    let state = shipper.path("state");
    let files = shipper.path("*.log");
    let words = [
        ["--producer", "h", "--register", "--follow", "--exit-at-end"].as_slice(),
        &["--topic-from", "{stem}", "--bad-lines-topic", "bad", "--on-bad-line", "skip"],
        &["--state", state.to_str().unwrap(), files.to_str().unwrap()],
    ];
    let refused = shipper.broker.run(&[&["produce"], &words.concat()[..]].concat()).await;
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.stderr.contains("its topic bad is that of --bad-lines-topic"), "{refused:?}");
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused() {
    let shipper = Shipper::start().await;
    for file in ["/dev/null", shipper.path(".").to_str().unwrap()] {
        let words = ["produce", "app", "--producer", "h", "--register", "--follow", file];
        let refused = shipper.broker.run(&words).await;
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.stderr.contains("is not a regular file"), "{refused:?}");
    }
}

#[tokio::test]
async fn more_topics_than_connections_are_refused() {
    let shipper = Shipper::start().await;
    for number in 0..100 {
        shipper.log(&format!("{number}.log"), "1\n");
    }
    let command = "ulimit -n 100; exec \"$0\" \"$@\"";
    let (state, files) = (shipper.path("state"), shipper.path("*.log"));
    let output = tokio::process::Command::new("sh")
        .args(["-c", command, env!("CARGO_BIN_EXE_trunkline"), "--endpoint"])
        .args([&shipper.broker.endpoint, "produce", "--topic-from", "t.{stem}", "--producer", "h"])
        .args(["--register", "--follow", "--exit-at-end", "--state"])
        .args([state.to_str().unwrap(), files.to_str().unwrap()])
        .output();
    let output = soon("the refusal", output).await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("each topic has a connection"), "{stderr}");
}
