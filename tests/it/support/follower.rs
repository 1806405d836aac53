//! `trunkline produce --follow` with its own broker and a folder of log files.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
};

use nix::sys::signal::Signal;
use trunkline::proto::{Message, ReadMessagesRequest, read_messages_request::Start};

use super::{Shipper, Trunkline, until};

/// How often to look for files, and how long to wait for rotated ones: short, so that tests are.
const QUICK: (&str, &str) = ("50ms", "300ms");

/// The options of a shipper that looks for files, and waits for rotated ones, at these times.
fn following<'a>((interval, wait): (&'a str, &'a str), words: &[&'a str]) -> Vec<&'a str> {
    let times = ["--follow", "--poll-interval", interval, "--rotate-wait", wait];
    [&times[..], &["--state", "follow.state"], words].concat()
}

impl Shipper {
    /// Starts to follow; words with a dot are files or patterns in the folder.
    pub fn follow(&self, words: &[&str]) -> Trunkline {
        self.follow_with(QUICK, words)
    }

    /// As [`Self::follow`], with other times to look for files and to wait for rotated ones.
    pub fn follow_with(&self, times: (&str, &str), words: &[&str]) -> Trunkline {
        self.spawn(&following(times, words))
    }

    /// Starts to follow `*.log` by way of a broker at an endpoint; `destination` is a topic, or how
    /// topics are named.
    pub fn follow_to(&self, endpoint: &str, destination: &[&str]) -> Trunkline {
        let (state, files) = (self.path("state"), self.path("*.log"));
        let before = ["--endpoint", endpoint, "produce"];
        let after = ["--producer", "h", "--register", "--follow", "--poll-interval", "50ms"];
        let paths = ["--state", state.to_str().unwrap(), files.to_str().unwrap()];
        Trunkline::spawn(&[&before, destination, &after, &paths].concat())
    }

    /// Ships all that is there, and ends.
    pub async fn follow_to_end(&self, words: &[&str]) -> String {
        self.ship_well(&following(QUICK, &[&["--exit-at-end"], words].concat())).await
    }

    /// Waits until a number of messages is stored.
    pub async fn has_stored(&self, messages: usize) {
        self.has_stored_at_least(messages).await;
        assert_eq!(self.broker.stored().await as usize, messages);
    }

    /// Waits until at least as many messages are stored.
    pub async fn has_stored_at_least(&self, messages: usize) {
        let what = format!("at least {messages} messages are stored");
        until(&what, async || self.broker.stored().await as usize >= messages).await;
    }

    /// Opens a file of the folder to append to it.
    pub fn appender(&self, name: &str) -> File {
        OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap()
    }

    /// Appends bytes, and creates the file if it does not exist.
    pub fn log(&self, name: &str, content: impl AsRef<[u8]>) {
        self.appender(name).write_all(content.as_ref()).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// All messages of a topic.
    pub async fn messages(&self, topic: &str) -> Vec<Message> {
        let mut messages: Vec<Message> = Vec::new();
        loop {
            let start = Some(Start::Offset(messages.len() as i64));
            let request =
                ReadMessagesRequest { topic: topic.to_owned(), start, max_messages: 10_000 };
            let page = self.broker.topics().read_messages(request).await.unwrap().into_inner();
            if page.messages.is_empty() {
                return messages;
            }
            messages.extend(page.messages);
        }
    }

    /// The payloads of the topic `app` that begin with a log's name and a space, without those.
    pub async fn lines_of(&self, log: &str) -> Vec<String> {
        let prefix = format!("{log} ");
        let messages = self.messages("app").await;
        let lines = messages.iter().filter_map(|message| {
            let text = std::str::from_utf8(&message.payload).unwrap();
            text.strip_prefix(&prefix).map(str::to_owned)
        });
        lines.collect()
    }
}

impl Trunkline {
    /// Stops a command with SIGTERM; it must end with success. Returns standard error.
    pub async fn terminate(mut self) -> String {
        self.signal(Signal::SIGTERM);
        let status = self.wait().await;
        let mut stderr = String::new();
        while let Some(line) = self.stderr.next_line().await.unwrap() {
            stderr.push_str(&line);
            stderr.push('\n');
        }
        assert_eq!(status.code(), Some(0), "{:?} {stderr}", status.signal());
        stderr
    }

    /// The most memory that the process has had, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The number of files that the process has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }
}
