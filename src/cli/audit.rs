//! `trunkline audit`: shows what was done, and which calls were denied.

use std::{
    io,
    time::{Duration, SystemTime},
};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    failure::Failure,
    output::{OutputArgs, Table},
    timestamp::{json_time, time},
};
use crate::{
    client::Client,
    proto::{AuditRecord, ListAuditRequest},
};

/// The most records of one page.
const PAGE: usize = 1_000;

/// Show what was done, and which calls were denied.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List the audit, newest first.
    #[command(visible_alias = "ls")]
    List {
        /// Only what this principal did.
        #[arg(long)]
        principal: Option<String>,
        /// Only what is about this topic.
        #[arg(long)]
        topic: Option<String>,
        /// Only what was recorded within this time, such as 1h or 7d.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        since: Option<Duration>,
        /// How many records to list.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(super) async fn run(client: &Client, command: AuditCommand) -> Result<(), Failure> {
    let AuditCommand::List { principal, topic, since, limit, output } = command;
    // One time for all pages, which are pages of one list.
    let since =
        since.map(|ago| SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH));
    let mut table = Table::new(&[
        "TIME",
        "ACT",
        "OUTCOME",
        "PRINCIPAL",
        "ADDRESS",
        "TOPIC",
        "SUBJECT",
        "DETAILS",
    ]);
    let mut access = client.access();
    let mut left = limit as usize;
    let mut page_token = String::new();
    loop {
        let request = ListAuditRequest {
            principal: principal.clone().unwrap_or_default(),
            topic: topic.clone().unwrap_or_default(),
            since: since.map(Into::into),
            page_size: left.min(PAGE) as i32,
            page_token,
        };
        let page = access.list_audit(request).await?.into_inner();
        for record in page.records.into_iter().take(left) {
            left -= 1;
            add(&mut table, record);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() || left == 0 {
            break;
        }
    }
    table.print(&mut io::stdout(), output)?;
    Ok(())
}

fn add(table: &mut Table, record: AuditRecord) {
    let object = object(&record);
    let details = details(&record);
    let AuditRecord { act, outcome, principal, address, topic, subject, .. } = record;
    let cells = [time(record.time), act, outcome, principal, address, topic, subject, details];
    table.row(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }), object);
}

/// What has no column of its own.
fn details(record: &AuditRecord) -> String {
    let mut details: Vec<_> =
        record.details.iter().map(|(name, value)| format!("{name}={value}")).collect();
    details.sort();
    if record.count > 1 {
        details.insert(0, format!("count={}", record.count));
    }
    if !record.reason.is_empty() {
        let call = record.method.rsplit('/').next().unwrap_or_default();
        details.insert(0, format!("{} {call}", record.reason).trim_end().to_owned());
    }
    details.join(" ")
}

fn object(record: &AuditRecord) -> Value {
    json!({
        "time": json_time(record.time),
        "act": record.act,
        "outcome": record.outcome,
        "principal": record.principal,
        "token_id": record.token_id,
        "address": record.address,
        "method": record.method,
        "topic": record.topic,
        "subject": record.subject,
        "reason": record.reason,
        "details": record.details,
        "count": record.count,
    })
}
