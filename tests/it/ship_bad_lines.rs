//! `produce --on-bad-line`: a line that cannot be a message ends nothing, if so asked for.

use std::fs;

use crate::support::Shipper;

const LIMIT: usize = 1024 * 1024;

fn with_a_long_line() -> String {
    format!("before\n{}\nafter\n", "x".repeat(LIMIT + 50_000))
}

#[tokio::test]
async fn a_line_over_the_limit_is_skipped() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", with_a_long_line());
    let told = shipper.ship_badly(&["--resume", "--on-bad-line", "stop", "app.log"]).await;
    assert!(told.contains("line 2 of ") && told.contains("is longer than the limit of"), "{told}");
    assert_eq!(shipper.stored().await, ["before"]);
    let skip = ["--resume", "--on-bad-line", "skip", "app.log"];
    let told = shipper.ship_well(&skip).await;
    assert!(told.contains("1 line skipped: 2 of "), "{told}");
    assert_eq!(shipper.stored().await, ["before", "after"]);
    // It is not met again, also not when it comes last.
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
    // All of it is kept.
    let bad = fs::read_to_string(shipper.path("bad.txt")).unwrap();
    assert!(bad == format!("{}\n", input.lines().nth(1).unwrap()));
}

#[tokio::test]
async fn bad_lines_are_named_and_kept() {
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
    let told = shipper.ship_well(&words).await;
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("30 lines skipped: 2, 4, 6, 8"), "{told}");
    assert!(told.contains("40 of ") && told.contains(" and 10 more; the first one: read JSON"));
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

/// The line is longer than the memory that the command may have.
#[tokio::test]
async fn a_line_without_an_end_takes_no_memory() {
    let shipper = Shipper::start().await;
    let arguments = shipper.arguments(&["--on-bad-line", "skip"]);
    let script = format!(
        "export MALLOC_ARENA_MAX=1; (echo before; head -c 600000000 /dev/zero; printf '\\nafter\\n') | (ulimit -v 500000; {} {})",
        env!("CARGO_BIN_EXE_trunkline"),
        arguments.join(" ")
    );
    let shell = tokio::process::Command::new("bash").args(["-c", &script]).output();
    let output = crate::support::soon("the end", shell).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(shipper.stored().await, ["before", "after"]);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_shipped_as_they_are() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", b"a\0b\n\xff\xfe\nwindows\r\n\n");
    shipper.ship_well(&["app.log"]).await;
    let sizes = shipper.read("app", &["-f", r"%s\x1e"]).await;
    assert_eq!(sizes, ["3", "2", "8", "0"]);
}
