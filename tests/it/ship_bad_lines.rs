//! `produce --on-bad-line`: lines that cannot be messages are skipped or cut on request.

use std::fs;

use crate::support::{Shipper, soon};

const LIMIT: usize = 1024 * 1024;

fn with_a_long_line() -> String {
    format!("before\n{}\nafter\n", "x".repeat(LIMIT + 50_000))
}

#[tokio::test]
async fn a_line_over_the_limit_is_skipped() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", with_a_long_line());
    let stderr = shipper.ship_in_vain(&["--resume", "--on-bad-line", "stop", "app.log"]).await;
    assert!(
        stderr.contains("line 2 of ") && stderr.contains("is longer than the limit of"),
        "{stderr}"
    );
    assert_eq!(shipper.stored().await, ["before"]);
    let skip = ["--resume", "--on-bad-line", "skip", "app.log"];
    let stderr = shipper.ship_well(&skip).await;
    assert!(stderr.contains("1 line skipped: 2 of "), "{stderr}");
    assert_eq!(shipper.stored().await, ["before", "after"]);
    // A skipped line is not reported again, even if it is the last one.
    assert!(!shipper.ship_well(&skip).await.contains("skipped"));
    shipper.append("app.log", &format!("{}\n", "y".repeat(LIMIT + 1)));
    assert!(shipper.ship_well(&skip).await.contains("1 line skipped: 4 of "));
    assert!(!shipper.ship_well(&skip).await.contains("skipped"));
}

#[tokio::test]
async fn a_line_over_the_limit_is_cut() {
    let shipper = Shipper::start().await;
    let cut = ["--on-bad-line", "cut", "--header", "a=b", "--bad-lines-file", "bad.txt"];
    let input = with_a_long_line();
    let shipped = shipper.ship_input(&cut, &input).await;
    assert_eq!(shipped.code(), 0, "{shipped:?}");
    assert!(shipped.stderr.contains("1 line cut to the limit: 2 of -"), "{shipped:?}");
    let sizes = shipper.read("app", &["-f", r"%s|%h\x1e"]).await;
    let headers = "a=b,line-bytes=1098576";
    let room = LIMIT - headers.len() + 3;
    assert_eq!(sizes, ["6|a=b".to_owned(), format!("{room}|{headers}"), "5|a=b".to_owned()]);
    // The whole line is kept in the file.
    let bad = fs::read_to_string(shipper.path("bad.txt")).unwrap();
    assert!(bad == format!("{}\n", input.lines().nth(1).unwrap()));
}

#[tokio::test]
async fn bad_lines_are_reported_and_kept_in_a_file_or_topic() {
    let shipper = Shipper::start().await;
    let mut input = String::new();
    let mut bad = String::new();
    for number in 1..=60 {
        let line = match number % 2 {
            0 => "not JSON\n".to_owned(),
            _ => format!("{{\"payload\":\"{number}\"}}\n"),
        };
        input.push_str(&line);
        bad.push_str(if number % 2 == 0 { &line } else { "" });
    }
    shipper.write("app.log", &input);
    let words = ["--json", "--on-bad-line", "cut", "--bad-lines-file", "bad.txt", "app.log"];
    let stderr = shipper.ship_well(&words).await;
    // The topic, the producer and the summary.
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
    assert!(stderr.contains("30 lines skipped: 2, 4, 6, 8"), "{stderr}");
    assert!(stderr.contains("40 of ") && stderr.contains(" and 10 more; the first one: read JSON"));
    assert_eq!(shipper.broker.stored().await, 30);
    assert_eq!(fs::read_to_string(shipper.path("bad.txt")).unwrap(), bad);

    let topic = ["--json", "--on-bad-line", "skip", "--bad-lines-topic", "bad", "app.log"];
    shipper.ship_well(&topic).await;
    let kept = shipper.read("bad", &["-f", r"%h|%p\x1e"]).await;
    assert_eq!(kept.len(), 30);
    assert!(kept[0].ends_with("|not JSON") && kept[0].contains("line=2,"), "{}", kept[0]);
    assert!(kept[0].contains("problem=read JSON: expected ident"), "{}", kept[0]);

    for words in [
        &["--bad-lines-file", "bad.txt"][..],
        &["--bad-lines-topic", "bad"],
        &["--on-bad-line", "skip", "--bad-lines-topic", "app"],
    ] {
        let refused = shipper.ship(words).await;
        assert_eq!(refused.code(), 2, "{refused:?}");
    }
}

/// The line is larger than the memory limit of the command.
#[tokio::test]
async fn a_huge_line_is_not_held_in_memory() {
    let shipper = Shipper::start().await;
    let arguments = shipper.arguments(&["--on-bad-line", "skip"]);
    let script = format!(
        "export MALLOC_ARENA_MAX=1; (echo before; head -c 600000000 /dev/zero; printf '\\nafter\\n') | (ulimit -v 500000; {} {})",
        env!("CARGO_BIN_EXE_trunkline"),
        arguments.join(" ")
    );
    let shell = tokio::process::Command::new("bash").args(["-c", &script]).output();
    let output = soon("the end", shell).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(shipper.stored().await, ["before", "after"]);
}

#[tokio::test]
async fn bytes_that_are_not_text_are_shipped_unchanged() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", b"a\0b\n\xff\xfe\nwindows\r\n\n");
    shipper.ship_well(&["app.log"]).await;
    let sizes = shipper.read("app", &["-f", r"%s\x1e"]).await;
    assert_eq!(sizes, ["3", "2", "8", "0"]);
}
