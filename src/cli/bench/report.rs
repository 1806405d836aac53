//! What a run found, for people and for programs.

use std::{io, time::Duration};

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    super::{
        failure::Failure,
        output::{Output, describe},
    },
    LoadArgs,
    consume::Consumed,
    histogram::Times,
    meter::Taken,
    publish::Published,
};

/// How to tell what was found.
#[derive(Args, Clone, Debug)]
pub(super) struct ReportArgs {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Output,
    /// The broker's database, to tell what PostgreSQL takes: its log, its disk, its transactions
    /// and, on this machine, its CPU.
    #[arg(long, env = "TRUNKLINE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(super) database_url: Option<String>,
    /// Keep the run's topics; else they are deleted.
    #[arg(long)]
    pub(super) keep: bool,
}

/// What was found.
pub(super) struct Report {
    lines: Vec<(&'static str, String)>,
    object: Map<String, Value>,
}

impl Report {
    pub(super) fn new(kind: &str, load: &LoadArgs) -> Self {
        let LoadArgs { topics, size, payload, .. } = load;
        let mut report = Self { lines: Vec::new(), object: Map::new() };
        let what = format!("{kind}: {topics} topics, payloads of {size} B ({payload:?})");
        report.line("run", what);
        report.value("kind", json!(kind));
        report.value("topics", json!(topics));
        report.value("payload_bytes", json!(size));
        report.value("payload", json!(format!("{payload:?}").to_lowercase()));
        report
    }

    /// Messages that were there before anything was measured.
    pub(super) fn filled(&mut self, messages: u64) {
        self.line("stored before", format!("{messages} messages"));
        self.value("stored_before", json!(messages));
    }

    pub(super) fn published(&mut self, published: &Published) {
        let Published { messages, bytes, requests, unanswered, took, acknowledged, how } =
            published;
        self.line("publishers", how.clone());
        self.line("published", rate(*messages, *bytes, *took));
        let requests_a_second = *requests as f64 / seconds(*took);
        self.line("requests", format!("{requests} ({requests_a_second:.0}/s)"));
        self.line("acknowledged", acknowledged.told());
        if *unanswered > 0 {
            let told = format!("{unanswered} requests, which were given up at the end");
            self.line("unanswered", told);
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

    /// `aged` if the messages' ages say something.
    pub(super) fn consumed(&mut self, consumed: &Consumed, aged: bool) {
        let Consumed { messages, bytes, consumers, took, delivered } = consumed;
        self.line("consumers", consumers.to_string());
        self.line("consumed", rate(*messages, *bytes, *took));
        let mut object = json!({
            "messages": messages, "consumers": consumers, "seconds": seconds(*took),
            "messages_per_second": *messages as f64 / seconds(*took),
            "bytes_per_second": *bytes as f64 / seconds(*took),
        });
        if aged && !delivered.is_empty() {
            self.line("delivered", delivered.told());
            object["delivered_ms"] = delivered.object();
        }
        self.value("consumed", object);
    }

    /// What was taken between two looks, for so many messages.
    pub(super) fn costs(&mut self, before: &Taken, after: &Taken, messages: u64) {
        let per_message = |bytes: i64| bytes as f64 / messages.max(1) as f64;
        if let (Some(before), Some(after)) = (before.broker_cpu, after.broker_cpu) {
            self.cpu("broker", after.saturating_sub(before));
        }
        if let (Some(before), Some(after)) = (before.postgres_cpu, after.postgres_cpu) {
            self.cpu("postgres", after.saturating_sub(before));
        }
        let (Some(before), Some(after)) = (before.database, after.database) else { return };
        let wal = per_message(after.wal_bytes - before.wal_bytes);
        let disk = per_message(after.disk_bytes - before.disk_bytes);
        let stored = format!("{wal:.0} B of log and {disk:.0} B of tables a message");
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

    /// Streams that waited: looks before they were opened, before they waited, and after that.
    pub(super) fn idle(
        &mut self,
        streams: u32,
        opened: Duration,
        woken: &Times,
        [before, resting, rested]: [&Taken; 3],
    ) {
        self.line("streams", format!("{streams}, opened in {:.2} s", seconds(opened)));
        self.line("a message to all", woken.told());
        let mut object = json!({
            "streams": streams, "opened_seconds": seconds(opened), "woken_ms": woken.object(),
        });
        if let (Some(before), Some(after)) = (before.broker_memory, resting.broker_memory) {
            let (grown, after) = (ByteSize(after.saturating_sub(before)), ByteSize(after));
            self.line("broker memory", format!("{after}, {grown} of it for the streams"));
            object["broker_bytes"] = json!(after.0);
            object["broker_bytes_for_streams"] = json!(grown.0);
        }
        if let Some(counters) = rested.database {
            self.line("sessions", counters.sessions.to_string());
            object["sessions"] = json!(counters.sessions);
        }
        let waited = rested.at - resting.at;
        let looks = [
            ("broker at rest", "broker_cpu_share", resting.broker_cpu.zip(rested.broker_cpu)),
            (
                "postgres at rest",
                "postgres_cpu_share",
                resting.postgres_cpu.zip(rested.postgres_cpu),
            ),
        ];
        for (line, field, look) in looks {
            if let Some((before, after)) = look {
                let share = seconds(after.saturating_sub(before)) / seconds(waited);
                self.line(line, format!("{:.1} % of a core", share * 100.0));
                object[field] = json!(share);
            }
        }
        self.value("idle", object);
    }

    pub(super) fn print(mut self, args: &ReportArgs) -> Result<(), Failure> {
        let lines = std::mem::take(&mut self.lines);
        let object = Value::Object(self.object);
        Ok(describe(&mut io::stdout(), args.output, &lines, &object)?)
    }

    fn cpu(&mut self, whose: &'static str, took: Duration) {
        let line = if whose == "broker" { "broker CPU" } else { "postgres CPU" };
        self.line(line, format!("{:.2} s", seconds(took)));
        self.value(&format!("{whose}_cpu_seconds"), json!(seconds(took)));
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
