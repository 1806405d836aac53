//! `trunkline produce` with its own broker and a folder of log files.

use std::{fs, path::PathBuf, sync::Arc};

use super::{Finished, TestBroker, TestDatabase, Trunkline, until};

/// Ships log files to the topic `app` as producer `h`.
pub struct Shipper {
    pub broker: TestBroker,
    folder: tempfile::TempDir,
}

impl Shipper {
    pub async fn start() -> Self {
        Self { broker: TestBroker::start().await, folder: tempfile::tempdir().unwrap() }
    }

    /// Starts a broker on a database with another encoding.
    pub async fn start_encoded(encoding: &str) -> Self {
        let database = Arc::new(TestDatabase::create_encoded(encoding).await);
        let broker = TestBroker::start_on(database).await;
        Self { broker, folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file's content; the file keeps its identity.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn append(&self, name: &str, content: &str) {
        use std::io::Write as _;
        let mut file = fs::OpenOptions::new().append(true).open(self.path(name)).unwrap();
        file.write_all(content.as_bytes()).unwrap();
    }

    pub fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Copies and truncates `app.log` as logrotate's `copytruncate` does, and writes new lines.
    pub fn copytruncate(&self, new: &str) {
        fs::copy(self.path("app.log"), self.path("app.log.1")).unwrap();
        self.write("app.log", new);
    }

    /// The arguments of the command; words with a dot are files in the folder.
    pub fn arguments(&self, words: &[&str]) -> Vec<String> {
        let produce = ["--endpoint", &self.broker.endpoint, "produce", "app", "--producer", "h"];
        let words = words.iter().map(|word| match word.contains('.') {
            true => self.path(word).to_str().unwrap().to_owned(),
            false => (*word).to_owned(),
        });
        produce.into_iter().chain(["--register"]).map(str::to_owned).chain(words).collect()
    }

    pub async fn ship(&self, words: &[&str]) -> Finished {
        self.ship_input(words, "").await
    }

    pub async fn ship_input(&self, words: &[&str], input: impl AsRef<[u8]>) -> Finished {
        let arguments = self.arguments(words);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        Trunkline::run_with_input(&arguments, input.as_ref()).await
    }

    /// Ships with success; returns standard error.
    pub async fn ship_well(&self, words: &[&str]) -> String {
        let shipped = self.ship(words).await;
        assert_eq!(shipped.code(), 0, "{shipped:?}");
        shipped.stderr
    }

    /// Expects shipping to fail; returns standard error.
    pub async fn ship_in_vain(&self, words: &[&str]) -> String {
        let shipped = self.ship(words).await;
        assert_eq!(shipped.code(), 1, "{shipped:?}");
        shipped.stderr
    }

    /// Ships, and kills the command once something is stored; returns how many messages are.
    pub async fn ship_and_kill(&self, words: &[&str]) -> usize {
        let mut run = self.spawn(words);
        until("something is stored", async || self.broker.stored().await > 0).await;
        run.kill().await;
        self.stored().await.len()
    }

    /// Ships nine times, and kills the command each time when another tenth is stored.
    pub async fn ship_and_kill_at_each_tenth(&self, words: &[&str], messages: usize) {
        for part in 1..10 {
            let mut run = self.spawn(words);
            let enough = messages * part / 10;
            until("enough is stored", async || {
                usize::try_from(self.broker.stored().await).unwrap() > enough
            })
            .await;
            run.kill().await;
        }
    }

    pub(super) fn spawn(&self, words: &[&str]) -> Trunkline {
        let arguments = self.arguments(words);
        Trunkline::spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Rewrites a state file as a kill may leave it: it knows of none of the stored messages.
    pub fn rewind_state(&self, name: &str) {
        let state = fs::read_to_string(self.path(name)).unwrap();
        let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
        let file = &mut state["files"][0];
        file["head"] = serde_json::Value::Null;
        file["position"] = serde_json::json!({ "offset": 0, "lines": 0, "last_line": null });
        state["next_sequence"] = 0.into();
        state["shipping"] = true.into();
        self.write(name, state.to_string());
    }

    /// The payloads of a topic's messages.
    pub async fn stored_in(&self, topic: &str) -> Vec<String> {
        self.read(topic, &["-f", r"%p\x1e"]).await
    }

    /// The payloads of the messages that were shipped.
    pub async fn stored(&self) -> Vec<String> {
        self.stored_in("app").await
    }

    /// A topic's messages in a format that ends with the character `\x1e`.
    pub async fn read(&self, topic: &str, options: &[&str]) -> Vec<String> {
        let read = self.broker.run(&[&["topic", "read", topic], options].concat()).await;
        assert_eq!(read.code(), 0, "{read:?}");
        let mut messages: Vec<_> = read.stdout.split('\x1e').map(str::to_owned).collect();
        messages.pop();
        messages
    }
}
