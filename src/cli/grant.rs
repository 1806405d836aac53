//! `trunkline grant`: says what a principal may do.

use std::io;

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
    proto::{self, AddGrantRequest, Grant, ListGrantsRequest, RemoveGrantRequest},
};

/// Say what a principal may do.
#[derive(Debug, Subcommand)]
pub(super) enum GrantCommand {
    /// Permit a principal an operation on topics.
    Add(GrantArgs),
    /// Withdraw a grant, which ends the streams that need it.
    #[command(visible_alias = "rm")]
    Remove(GrantArgs),
    /// List grants by principal.
    #[command(visible_alias = "ls")]
    List {
        /// Only the grants of this principal.
        #[arg(long)]
        principal: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Args, Debug)]
pub(super) struct GrantArgs {
    /// Who may do it.
    principal: String,
    /// What they may do.
    operation: Operation,
    /// A topic's name; a prefix that ends in *, such as "orders.*"; or "*" for all topics.
    topics: String,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Operation {
    /// Create, change, trim and delete topics, and manage everyone's registrations; on "*" also
    /// tokens and grants.
    Admin,
    /// Register producers of one's own, and publish as them.
    Publish,
    /// Register consumers of one's own, and receive, commit and seek as them; includes read.
    Consume,
    /// Read messages without a consumer, and describe everyone's registrations.
    Read,
}

impl From<Operation> for proto::Operation {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Admin => Self::Admin,
            Operation::Publish => Self::Publish,
            Operation::Consume => Self::Consume,
            Operation::Read => Self::Read,
        }
    }
}

pub(super) async fn run(client: &Client, command: GrantCommand) -> Result<(), Failure> {
    let mut access = client.access();
    let mut out = io::stdout();
    match command {
        GrantCommand::Add(GrantArgs { principal, operation, topics, output }) => {
            let operation = proto::Operation::from(operation);
            let name = operation_name(operation.into());
            let line = format!("granted {name} on {topics} to {principal}");
            let object = json!({ "principal": principal, "operation": name, "topics": topics });
            let request = AddGrantRequest { principal, operation: operation.into(), topics };
            access.add_grant(request).await?;
            confirm(&mut out, output, &line, &object)?;
        }
        GrantCommand::Remove(GrantArgs { principal, operation, topics, output }) => {
            let operation = proto::Operation::from(operation);
            let name = operation_name(operation.into());
            let line = format!("removed the grant of {name} on {topics} to {principal}");
            let object = json!({ "principal": principal, "operation": name, "topics": topics });
            let request = RemoveGrantRequest { principal, operation: operation.into(), topics };
            access.remove_grant(request).await?;
            confirm(&mut out, output, &line, &object)?;
        }
        GrantCommand::List { principal, output } => {
            let principal = principal.unwrap_or_default();
            let mut table = Table::new(&["PRINCIPAL", "OPERATION", "TOPICS", "CREATED", "BY"]);
            for_each_page(async |page_token| {
                let principal = principal.clone();
                let request = ListGrantsRequest { principal, page_token, ..Default::default() };
                let page = access.list_grants(request).await?.into_inner();
                for grant in page.grants {
                    let object = object(&grant);
                    table.row(
                        [
                            grant.principal,
                            operation_name(grant.operation),
                            grant.topics,
                            time(grant.create_time),
                            grant.created_by,
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

/// An operation as it is given on the command line; a number if this version does not know it.
pub(super) fn operation_name(operation: i32) -> String {
    let known = proto::Operation::try_from(operation).ok();
    argument_name(known.map(|known| known.as_str_name()), "OPERATION_", operation)
}

pub(super) fn object(grant: &Grant) -> Value {
    json!({
        "principal": grant.principal,
        "operation": operation_name(grant.operation),
        "topics": grant.topics,
        "create_time": json_time(grant.create_time),
        "created_by": grant.created_by,
    })
}
