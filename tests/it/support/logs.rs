//! Log files: the programs that write them, and checks that consumers received every line.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

/// The lines of each log file.
pub const LINES: usize = 5_000;

/// The producers and the topics they ship to; two share a topic.
pub const SHIPMENTS: [(&str, &str); 4] =
    [("web", "access"), ("api", "access"), ("auth", "security"), ("batch", "jobs")];

/// The topics and the consumers that stream them: two for one topic, one for each other topic.
pub const STREAMING: [(&str, &str); 4] =
    [("access", "dashboard"), ("access", "archive"), ("security", "alerts"), ("jobs", "reports")];

/// A line as a consumer received it.
pub struct Line {
    pub producer: String,
    pub text: String,
}

/// The number of lines that are shipped to a topic.
pub fn lines_of(topic: &str) -> usize {
    SHIPMENTS.iter().filter(|(_, to)| *to == topic).count() * LINES
}

pub fn log_file(dir: &Path, program: &str) -> PathBuf {
    dir.join(format!("{program}.log"))
}

pub fn write_log_files(dir: &Path) {
    for (program, _) in SHIPMENTS {
        write_log_file(&log_file(dir, program), program, LINES);
    }
}

/// Checks that a topic's consumer received every line of each file, in the file's order.
pub fn assert_lines<'a>(dir: &Path, topic: &str, received: impl IntoIterator<Item = &'a Line>) {
    let mut by_producer: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in received {
        by_producer.entry(&line.producer).or_default().push(&line.text);
    }
    let of_topic: Vec<&str> =
        SHIPMENTS.iter().filter(|(_, to)| *to == topic).map(|(program, _)| *program).collect();
    assert_eq!(by_producer.len(), of_topic.len());
    for program in of_topic {
        let file = fs::read_to_string(log_file(dir, program)).unwrap();
        assert!(by_producer[program] == file.lines().collect::<Vec<_>>(), "{program} in {topic}");
    }
}

/// Writes a log with a number of lines of varying length, each with its program and line number.
fn write_log_file(path: &Path, program: &str, lines: usize) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    for number in 0..lines {
        let mixed = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let padding = "x".repeat((mixed % 90) as usize);
        writeln!(
            file,
            "Nov 24 12:{:02}:{:02} host {program}[{}]: line {number} id={mixed:016x} {padding}",
            number / 60 % 60,
            number % 60,
            1000 + number % 7,
        )
        .unwrap();
    }
    file.flush().unwrap();
}
