//! `trunkline quota`: says how much a principal may do and have.

use std::io;

use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    output::{OutputArgs, Table, argument_name, confirm},
    pages::for_each_page,
    timestamp::{json_time, time},
};
use crate::{
    client::Client,
    proto::{self, ListQuotasRequest, Quota, RemoveQuotaRequest, SetQuotaRequest},
};

/// Say how much a principal may do and have.
#[derive(Debug, Subcommand)]
pub(super) enum QuotaCommand {
    /// Set a limit of a principal, in place of the one before.
    Set {
        #[command(flatten)]
        quota: QuotaArgs,
        /// The most that is permitted: a whole number; for bytes-per-second also such as 1MiB.
        value: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Remove a limit of a principal, so that the default holds.
    #[command(visible_alias = "rm")]
    Unset {
        #[command(flatten)]
        quota: QuotaArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List limits by principal.
    #[command(visible_alias = "ls")]
    List {
        /// Only the limits of this principal, or of "*".
        #[arg(long)]
        principal: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Args, Debug)]
pub(super) struct QuotaArgs {
    /// Who is limited; "*" for every principal without a limit of its own.
    principal: String,
    /// What is limited.
    limit: Limit,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Limit {
    /// Messages that are published, in each broker.
    MessagesPerSecond,
    /// Bytes of payloads, keys and headers that are published, in each broker.
    BytesPerSecond,
    /// Streams that consume and are open at once, in each broker.
    Streams,
    /// Topics that the principal created.
    Topics,
    /// Producers that belong to the principal.
    Producers,
    /// Consumers that belong to the principal.
    Consumers,
}

impl Limit {
    fn parse_value(self, text: &str) -> Result<i64, Failure> {
        let invalid = |problem: String| Failure::usage(format!("the value {text:?}: {problem}"));
        match self {
            Self::BytesPerSecond => {
                let ByteSize(bytes) = text.parse().map_err(invalid)?;
                i64::try_from(bytes).map_err(|error| invalid(error.to_string()))
            }
            _ => text.parse().map_err(|_| invalid("give a whole number".to_owned())),
        }
    }
}

impl From<Limit> for proto::Limit {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::MessagesPerSecond => Self::MessagesPerSecond,
            Limit::BytesPerSecond => Self::BytesPerSecond,
            Limit::Streams => Self::Streams,
            Limit::Topics => Self::Topics,
            Limit::Producers => Self::Producers,
            Limit::Consumers => Self::Consumers,
        }
    }
}

pub(super) async fn run(client: &Client, command: QuotaCommand) -> Result<(), Failure> {
    let mut access = client.access();
    let mut out = io::stdout();
    match command {
        QuotaCommand::Set { quota: QuotaArgs { principal, limit }, value: given, output } => {
            let value = limit.parse_value(&given)?;
            let limit = proto::Limit::from(limit).into();
            let name = limit_name(limit);
            let line = format!("set {name} of {principal} to {given}");
            let object = json!({ "principal": principal, "limit": name, "value": value });
            access.set_quota(SetQuotaRequest { principal, limit, value }).await?;
            confirm(&mut out, output, &line, &object)?;
        }
        QuotaCommand::Unset { quota: QuotaArgs { principal, limit }, output } => {
            let limit = proto::Limit::from(limit).into();
            let name = limit_name(limit);
            let line = format!("removed the limit of {name} of {principal}");
            let object = json!({ "principal": principal, "limit": name });
            access.remove_quota(RemoveQuotaRequest { principal, limit }).await?;
            confirm(&mut out, output, &line, &object)?;
        }
        QuotaCommand::List { principal, output } => {
            let principal = principal.unwrap_or_default();
            let mut table = Table::new(&["PRINCIPAL", "LIMIT", "VALUE", "CHANGED", "BY"]);
            for_each_page(async |page_token| {
                let principal = principal.clone();
                let request = ListQuotasRequest { principal, page_token, ..Default::default() };
                let page = access.list_quotas(request).await?.into_inner();
                for quota in page.quotas {
                    let object = object(&quota);
                    table.row(
                        [
                            quota.principal,
                            limit_name(quota.limit),
                            quota.value.to_string(),
                            time(quota.change_time),
                            quota.changed_by,
                        ],
                        object,
                    );
                }
                Ok(page.next_page_token)
            })
            .await?;
            table.print(&mut out, output)?;
        }
    }
    Ok(())
}

/// A limit as it is given on the command line; a number if this version does not know it.
fn limit_name(limit: i32) -> String {
    let known = proto::Limit::try_from(limit).ok();
    argument_name(known.map(|known| known.as_str_name()), "LIMIT_", limit)
}

fn object(quota: &Quota) -> Value {
    json!({
        "principal": quota.principal,
        "limit": limit_name(quota.limit),
        "value": quota.value,
        "change_time": json_time(quota.change_time),
        "changed_by": quota.changed_by,
    })
}
