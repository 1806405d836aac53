//! `trunkline produce` with a broker and a folder of logs of its own.

use std::{fs, path::PathBuf, sync::Arc};

use super::{Finished, TestBroker, TestDatabase, Trunkline};

/// Ships logs to the topic `app` as producer `h`.
pub struct Shipper {
    pub broker: TestBroker,
    folder: tempfile::TempDir,
}

impl Shipper {
    pub async fn start() -> Self {
        Self { broker: TestBroker::start().await, folder: tempfile::tempdir().unwrap() }
    }

    /// On a database of another encoding.
    pub async fn start_encoded(encoding: &str) -> Self {
        let database = Arc::new(TestDatabase::create_encoded(encoding).await);
        let broker = TestBroker::start_on(database).await;
        Self { broker, folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file's content; the file stays the same one.
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

    /// What makes the command ship: words with a dot are files of the folder.
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

    /// Ships, and returns what was said of it.
    pub async fn ship_well(&self, words: &[&str]) -> String {
        let shipped = self.ship(words).await;
        assert_eq!(shipped.code(), 0, "{shipped:?}");
        shipped.stderr
    }

    /// Ships in vain, and returns what was said of it.
    pub async fn ship_badly(&self, words: &[&str]) -> String {
        let shipped = self.ship(words).await;
        assert_eq!(shipped.code(), 1, "{shipped:?}");
        shipped.stderr
    }

    /// Payloads of a topic's messages.
    pub async fn stored_in(&self, topic: &str) -> Vec<String> {
        self.read(topic, &["-f", r"%p\x1e"]).await
    }

    /// Payloads of the messages that were shipped.
    pub async fn stored(&self) -> Vec<String> {
        self.stored_in("app").await
    }

    /// Messages in a form that ends with the character `\x1e`.
    pub async fn read(&self, topic: &str, options: &[&str]) -> Vec<String> {
        let read = ["--endpoint", &self.broker.endpoint, "topic", "read", topic];
        let read = Trunkline::run(&[&read[..], options].concat()).await;
        assert_eq!(read.code(), 0, "{read:?}");
        let mut messages: Vec<_> = read.stdout.split('\x1e').map(str::to_owned).collect();
        messages.pop();
        messages
    }
}
