//! `produce --follow`: what a line is.

use std::os::unix::fs::FileExt as _;

use crate::support::Shipper;

#[tokio::test]
async fn bytes_are_passed_through_unchanged() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", b"crlf\r\n\0nul\0\n\xff\xfe\n\n  \n");
    shipper.follow_to_end(&["a.log"]).await;
    let payloads: Vec<_> =
        shipper.messages("app").await.into_iter().map(|message| message.payload).collect();
    assert_eq!(payloads, [&b"crlf\r"[..], b"\0nul\0", b"\xff\xfe", b"", b"  "]);
}

#[tokio::test]
async fn a_line_waits_for_its_end() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "whole\nbegun");
    let run = shipper.follow(&["a.log"]);
    shipper.has_stored(1).await;
    shipper.log("a.log", " here");
    shipper.log("b.log", "x");
    shipper.log("a.log", " and ended\nnext\n");
    shipper.has_stored(3).await;
    assert_eq!(shipper.stored().await, ["whole", "begun here and ended", "next"]);
    run.terminate().await;
}

#[tokio::test]
async fn a_line_without_an_end_is_shipped_after_a_while_if_asked_to() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "> prompt");
    let run = shipper.follow(&["--flush-unfinished-after", "100ms", "a.log"]);
    shipper.has_stored(1).await;
    // Only its end comes, which is no line.
    shipper.log("a.log", "\n> more");
    shipper.has_stored(2).await;
    // A rest comes, which is a line of its own.
    shipper.log("a.log", " of it\nend\n");
    shipper.has_stored(4).await;
    assert_eq!(shipper.stored().await, ["> prompt", "> more", " of it", "end"]);
    run.terminate().await;
    // --final does the same at the end.
    shipper.log("a.log", "last");
    shipper.follow_to_end(&["--final", "a.log"]).await;
    assert_eq!(shipper.stored().await[4..], ["last"]);
}

#[tokio::test]
async fn lines_that_do_not_match_continue_a_message() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "2026 one\n at x\n at y\n2026 two\n");
    let words = ["--multiline-start", "^2026", "--multiline-timeout", "300ms", "a.log"];
    let run = shipper.follow(&words);
    shipper.has_stored(2).await;
    shipper.log("a.log", "2026 three\n at z\n2026 four\n");
    shipper.has_stored(4).await;
    let stored = shipper.stored().await;
    assert_eq!(stored, ["2026 one\n at x\n at y", "2026 two", "2026 three\n at z", "2026 four"]);
    run.terminate().await;
    // A message is bounded: what does not fit is a message of its own.
    let long = " at x".repeat(1000) + "\n";
    shipper.log("b.log", format!("2026 long\n{}2026 end\n", long.repeat(300)));
    let words = ["--multiline-start", "^2026", "*.log"];
    shipper.follow_to_end(&words).await;
    let messages = shipper.messages("app").await;
    let payloads: Vec<_> = messages[4..].iter().map(|message| &message.payload[..]).collect();
    assert_eq!(payloads.len(), 3);
    assert!(payloads[0].len() > 1_000_000 && payloads[0].len() <= 1024 * 1024);
    let whole = [payloads[0], payloads[1]].join(&b'\n');
    assert!(whole == format!("2026 long\n{}", long.repeat(300)).trim_end().as_bytes());
}

#[tokio::test]
async fn lines_over_the_limit_are_cut_or_skipped_and_kept() {
    const LIMIT: usize = 1024 * 1024;
    let shipper = Shipper::start().await;
    let long = "x".repeat(3 * LIMIT);
    shipper.log("a.log", format!("before\n{long}\nafter\n"));
    let mut run = shipper.follow(&["a.log"]);
    run.log_line("line 2 of ").await;
    shipper.has_stored(3).await;
    let stderr = run.terminate().await;
    assert!(stderr.contains("1 line cut to the limit: 2 of "), "{stderr}");
    let messages = shipper.messages("app").await;
    assert_eq!(messages[1].headers["line-bytes"], long.len().to_string());
    assert_eq!(messages[2].payload, "after");
    // A skipped line is kept whole.
    shipper.log("a.log", format!("{long}\nlast\n"));
    let words = ["--on-bad-line", "skip", "--bad-lines-file", "bad.txt", "a.log"];
    let stderr = shipper.follow_to_end(&words).await;
    assert!(stderr.contains("1 line skipped: 4 of "), "{stderr}");
    assert_eq!(shipper.broker.stored().await, 4);
    let kept = std::fs::read_to_string(shipper.path("bad.txt")).unwrap();
    assert!(kept == format!("{long}\n"), "{} bytes are kept", kept.len());
}

#[tokio::test]
async fn a_bad_line_stops_the_run_after_the_lines_before_it() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "k:1\nk:2\nbad\nk:3\n");
    let words = ["--follow", "--exit-at-end", "--state", "follow.state", "--key-separator", ":"];
    let stderr = shipper.ship_in_vain(&[&words[..], &["a.log"]].concat()).await;
    assert!(stderr.contains("line 3 of ") && stderr.contains("--on-bad-line skip|cut"), "{stderr}");
    assert_eq!(shipper.stored().await, ["1", "2"]);
    let skip = ["--on-bad-line", "skip", "a.log"];
    let stderr = shipper.ship_well(&[&words[..], &skip].concat()).await;
    assert!(stderr.contains("1 line skipped: 3 of "), "{stderr}");
    assert_eq!(shipper.stored().await, ["1", "2", "3"]);
}

#[tokio::test]
async fn bad_lines_are_kept_in_a_topic() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "k:1\nbad\nk:2\n");
    let words = ["--key-separator", ":", "--on-bad-line", "skip", "--bad-lines-topic", "bad"];
    shipper.follow_to_end(&[&words[..], &["a.log"]].concat()).await;
    assert_eq!(shipper.stored().await, ["1", "2"]);
    let kept = shipper.messages("bad").await;
    assert_eq!((kept.len(), kept[0].payload.as_ref()), (1, &b"bad"[..]));
    assert_eq!(kept[0].headers["line"], "2");
    assert!(kept[0].headers["file"].ends_with("a.log"));
}

/// Only the broker finds out that the database cannot store a character of a header.
#[tokio::test]
async fn a_line_that_the_broker_refuses_is_a_bad_line() {
    let shipper = Shipper::start_encoded("LATIN1").await;
    let line = |payload: &str, value: &str| {
        format!("{{\"payload\":\"{payload}\",\"headers\":{{\"h\":\"{value}\"}}}}\n")
    };
    let lines = [line("1", "a"), line("2", "€"), line("3", "b"), line("4", "€"), line("5", "c")];
    shipper.log("a.log", lines.concat());
    let words = ["--json", "--on-bad-line", "skip", "--bad-lines-file", "bad.txt", "a.log"];
    let stderr = shipper.follow_to_end(&words).await;
    assert!(stderr.contains("2 lines skipped: 2, 4 of "), "{stderr}");
    assert_eq!(shipper.stored().await, ["1", "3", "5"]);
    let kept = std::fs::read_to_string(shipper.path("bad.txt")).unwrap();
    assert_eq!(kept, [&lines[1][..], &lines[3]].concat());
}

#[tokio::test]
async fn what_was_read_when_bad_lines_cannot_be_kept_is_shipped_by_the_next_run() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "k:1\nbad\nk:2\n");
    let bad_lines = ["--key-separator", ":", "--on-bad-line", "skip", "--bad-lines-file"];
    let full = ["/dev/full", "--follow", "--exit-at-end", "--state"];
    let words = [&bad_lines[..], &full, &["follow.state", "a.log"]].concat();
    let stderr = shipper.ship_in_vain(&words).await;
    assert!(stderr.contains("write /dev/full: No space left"), "{stderr}");
    shipper.follow_to_end(&[&bad_lines[..], &["bad.txt", "a.log"]].concat()).await;
    assert_eq!(shipper.stored().await, ["1", "2"]);
    assert_eq!(std::fs::read_to_string(shipper.path("bad.txt")).unwrap(), "bad\n");
}

#[tokio::test]
async fn files_of_bad_lines_alone_take_little_memory() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", format!("{:8000}\n", "bad").repeat(5_000));
    shipper.log("a.log", "k:1\n");
    let words = ["--key-separator", ":", "--on-bad-line", "skip", "a.log"];
    let run = shipper.follow(&words);
    shipper.has_stored(1).await;
    // The file has 40 MB. A program that is not optimised has some 45 MB without it.
    let peak = run.peak_memory();
    assert!(peak < 70_000, "{peak} KiB");
    let stderr = run.terminate().await;
    assert!(stderr.contains("5000 lines skipped"), "{stderr}");
}

/// However seldom files are looked for.
#[tokio::test]
async fn a_message_of_several_lines_waits_no_longer_than_it_should() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "first\n more\n");
    let words = ["--multiline-start", "^[a-z]", "--multiline-timeout", "200ms"];
    let run = shipper.follow_with(("1h", "300ms"), &[&words[..], &["a.log"]].concat());
    shipper.has_stored(1).await;
    run.terminate().await;
    assert_eq!(shipper.stored().await, ["first\n more"]);
}

/// Some programs allot the room for a log before they write to it.
#[tokio::test]
async fn lines_are_shipped_that_are_written_into_allotted_room() {
    let shipper = Shipper::start().await;
    shipper.log("a.log", "a 1\n");
    shipper.appender("a.log").set_len(3 * 1024 * 1024).unwrap();
    let run = shipper.follow(&["a.log"]);
    shipper.has_stored(1).await;
    let log = std::fs::OpenOptions::new().write(true).open(shipper.path("a.log")).unwrap();
    log.write_all_at(b"a 2\n", 4).unwrap();
    shipper.has_stored(2).await;
    log.set_len(2 * 1024 * 1024).unwrap();
    log.write_all_at(b"a 3\n", 8).unwrap();
    shipper.has_stored(3).await;
    run.terminate().await;
    assert_eq!(shipper.lines_of("a").await, ["1", "2", "3"]);
}
