//! The report of a run, for people and for programs.

use std::{io, time::Duration};

use bytesize::ByteSize;
use serde_json::{Map, Value, json};

use super::{
    super::{failure::Failure, output::describe},
    arguments::{LoadArgs, ReportArgs},
    consume::ConsumeOutcome,
    idle::IdleOutcome,
    latencies::Latencies,
    meter::Usage,
    publish::PublishOutcome,
};

/// The measurements of a run.
pub(super) struct Report {
    lines: Vec<(&'static str, String)>,
    object: Map<String, Value>,
}

impl Report {
    pub(super) fn new(kind: &str, load: &LoadArgs) -> Self {
        let LoadArgs { topics, size, payload, .. } = load;
        let mut report = Self { lines: Vec::new(), object: Map::new() };
        let run = format!("{kind}: {topics} topics, payloads of {size} B ({payload:?})");
        report.line("run", run);
        report.value("kind", json!(kind));
        report.value("topics", json!(topics));
        report.value("payload_bytes", json!(size));
        report.value("payload", json!(format!("{payload:?}").to_lowercase()));
        report
    }

    /// Adds the number of messages that were stored before the measurement.
    pub(super) fn stored_before(&mut self, messages: u64) {
        self.line("stored before", format!("{messages} messages"));
        self.value("stored_before", json!(messages));
    }

    pub(super) fn published(&mut self, outcome: &PublishOutcome) {
        let PublishOutcome { messages, bytes, requests, unanswered, took, acknowledged, .. } =
            outcome;
        self.line("publishers", outcome.description.clone());
        self.line("published", rate(*messages, *bytes, *took));
        let requests_a_second = *requests as f64 / seconds(*took);
        self.line("requests", format!("{requests} ({requests_a_second:.0}/s)"));
        self.line("acknowledged", acknowledged.describe());
        if *unanswered > 0 {
            self.line("unanswered", format!("{unanswered} requests, abandoned at the end"));
        }
        self.value(
            "published",
            json!({
                "messages": messages, "requests": requests, "seconds": seconds(*took),
                "messages_per_second": *messages as f64 / seconds(*took),
                "bytes_per_second": *bytes as f64 / seconds(*took),
                "requests_per_second": requests_a_second,
                "unanswered_requests": unanswered,
                "acknowledged_ms": acknowledged.object(),
            }),
        );
    }

    /// Adds what was consumed, and the time to delivery where that is meaningful.
    pub(super) fn consumed(&mut self, outcome: &ConsumeOutcome, delivered: Option<&Latencies>) {
        let ConsumeOutcome { messages, bytes, consumers, took, .. } = outcome;
        self.line("consumers", consumers.to_string());
        self.line("consumed", rate(*messages, *bytes, *took));
        let mut object = json!({
            "messages": messages, "consumers": consumers, "seconds": seconds(*took),
            "messages_per_second": *messages as f64 / seconds(*took),
            "bytes_per_second": *bytes as f64 / seconds(*took),
        });
        if let Some(delivered) = delivered.filter(|delivered| !delivered.is_empty()) {
            self.line("delivered", delivered.describe());
            object["delivered_ms"] = delivered.object();
        }
        self.value("consumed", object);
    }

    /// Adds what was used between two moments, for a number of messages.
    pub(super) fn costs(&mut self, before: &Usage, after: &Usage, messages: u64) {
        let per_message = |bytes: i64| bytes as f64 / messages.max(1) as f64;
        if let (Some(before), Some(after)) = (before.broker_cpu, after.broker_cpu) {
            let used = seconds(after.saturating_sub(before));
            self.line("broker CPU", format!("{used:.2} s"));
            self.value("broker_cpu_seconds", json!(used));
        }
        if let (Some(before), Some(after)) = (before.postgres_cpu, after.postgres_cpu) {
            let used = seconds(after.saturating_sub(before));
            self.line("postgres CPU", format!("{used:.2} s"));
            self.value("postgres_cpu_seconds", json!(used));
        }
        let (Some(before), Some(after)) = (before.database, after.database) else { return };
        let wal = per_message(after.wal_bytes - before.wal_bytes);
        let disk = per_message(after.disk_bytes - before.disk_bytes);
        let stored = format!("{wal:.0} B of WAL and {disk:.0} B of tables a message");
        let mut object = json!({ "wal_bytes_per_message": wal, "disk_bytes_per_message": disk });
        let batches = after.batches - before.batches;
        if batches > 0 {
            let a_batch = messages as f64 / batches as f64;
            self.line("database", format!("{stored}, {a_batch:.1} messages a batch"));
            object["batches"] = json!(batches);
            object["messages_per_batch"] = json!(a_batch);
        } else {
            self.line("database", stored);
        }
        self.value("database", object);
    }

    pub(super) fn idle(&mut self, outcome: &IdleOutcome) {
        let IdleOutcome { streams, opening, woken, before, opened, rested } = outcome;
        self.line("streams", format!("{streams}, opened in {:.2} s", seconds(*opening)));
        self.line("message to all", woken.describe());
        let mut object = json!({
            "streams": streams, "opened_seconds": seconds(*opening), "woken_ms": woken.object(),
        });
        if let (Some(before), Some(after)) = (before.broker_memory, opened.broker_memory) {
            let (grown, after) = (ByteSize(after.saturating_sub(before)), ByteSize(after));
            self.line("broker memory", format!("{after}, {grown} of it for the streams"));
            object["broker_bytes"] = json!(after.0);
            object["broker_bytes_for_streams"] = json!(grown.0);
        }
        if let Some(counters) = rested.database {
            self.line("sessions", counters.sessions.to_string());
            object["sessions"] = json!(counters.sessions);
        }
        let share = |before: Option<Duration>, after: Option<Duration>| {
            let used = after?.saturating_sub(before?);
            Some(seconds(used) / seconds(rested.at - opened.at))
        };
        if let Some(share) = share(opened.broker_cpu, rested.broker_cpu) {
            self.line("broker at rest", format!("{:.1} % of a core", share * 100.0));
            object["broker_cpu_share"] = json!(share);
        }
        if let Some(share) = share(opened.postgres_cpu, rested.postgres_cpu) {
            self.line("postgres at rest", format!("{:.1} % of a core", share * 100.0));
            object["postgres_cpu_share"] = json!(share);
        }
        self.value("idle", object);
    }

    pub(super) fn print(mut self, args: &ReportArgs) -> Result<(), Failure> {
        let lines = std::mem::take(&mut self.lines);
        let object = Value::Object(self.object);
        Ok(describe(&mut io::stdout(), args.output, &lines, &object)?)
    }

    fn line(&mut self, name: &'static str, value: String) {
        self.lines.push((name, value));
    }

    fn value(&mut self, name: &str, value: Value) {
        self.object.insert(name.to_owned(), value);
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn rate(messages: u64, bytes: u64, took: Duration) -> String {
    let per_second = messages as f64 / seconds(took);
    let megabytes = bytes as f64 / seconds(took) / 1e6;
    format!("{messages} messages in {:.2} s: {per_second:.0}/s, {megabytes:.0} MB/s", seconds(took))
}
