//! `trunkline token`: creates, lists, rotates and revokes the tokens that prove who calls.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    failure::{Failure, print_notice},
    output::{OutputArgs, OutputFormat, Table, confirm, describe, print_line},
    pages::for_each_page,
    timestamp::{json_time, time},
};
use crate::{
    client::Client,
    proto::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, RotateTokenRequest, Token},
    server::options::BootstrapOptions,
};

/// Create, list, rotate and revoke the tokens that prove who calls.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create the first administrator in a database, and print its token. It cannot be printed
    /// again.
    ///
    /// It needs the database, and no broker. It fails if there is an administrator with a valid token,
    /// or if the principal exists and is no administrator.
    Bootstrap(Box<BootstrapOptions>),
    /// Create a token for a principal, and print it. It cannot be printed again.
    Create {
        /// Who the token stands for: a program, a team, a person.
        principal: String,
        /// Free text that says what the token is for.
        #[arg(long, default_value = "")]
        description: String,
        /// How long the token is valid, such as 90d; for ever if omitted.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        valid_for: Option<Duration>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List tokens by id, without their secrets.
    #[command(visible_alias = "ls")]
    List {
        /// Only the tokens of this principal.
        #[arg(long)]
        principal: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Create a token that replaces another, and print it. The other stays valid for a while.
    Rotate {
        /// The id of the token to replace.
        id: String,
        /// How long the new token is valid, such as 90d; as long as the other was meant to be if
        /// omitted.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        valid_for: Option<Duration>,
        /// How long the other token stays valid, at most 30d; 1h if omitted.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        overlap: Option<Duration>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make a token invalid, which ends the streams that use it.
    #[command(visible_alias = "rm")]
    Revoke {
        /// The token's id.
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(super) async fn run(client: &Client, command: TokenCommand) -> Result<(), Failure> {
    let mut access = client.access();
    let mut out = io::stdout();
    match command {
        // It needs no broker, and does not get here.
        TokenCommand::Bootstrap(_) => {}
        TokenCommand::Create { principal, description, valid_for, output } => {
            let valid_for = valid_for.map(proto_duration).transpose()?;
            let request = CreateTokenRequest { principal, description, valid_for };
            let created = access.create_token(request).await?.into_inner();
            let token = created.token.unwrap_or_default();
            print_secret(&created.secret, &object(&token), output)?;
            print_notice(&format!(
                "created token {} of {}; it is not shown again",
                token.token_id, token.principal
            ));
        }
        TokenCommand::List { principal, output } => {
            let principal = principal.unwrap_or_default();
            let mut table = Table::new(&[
                "TOKEN",
                "PRINCIPAL",
                "CREATED",
                "EXPIRES",
                "REVOKED",
                "LAST USED",
                "DESCRIPTION",
            ]);
            for_each_page(async |page_token| {
                let principal = principal.clone();
                let request = ListTokensRequest { principal, page_token, ..Default::default() };
                let page = access.list_tokens(request).await?.into_inner();
                for token in page.tokens {
                    let object = object(&token);
                    table.row(
                        [
                            token.token_id,
                            token.principal,
                            time(token.create_time),
                            time(token.expire_time),
                            time(token.revoke_time),
                            time(token.last_use_time),
                            token.description,
                        ],
                        object,
                    );
                }
                Ok(page.next_page_token)
            })
            .await?;
            table.print(&mut out, output)?;
        }
        TokenCommand::Rotate { id, valid_for, overlap, output } => {
            let request = RotateTokenRequest {
                token_id: id,
                valid_for: valid_for.map(proto_duration).transpose()?,
                overlap: overlap.map(proto_duration).transpose()?,
            };
            let rotated = access.rotate_token(request).await?.into_inner();
            let (token, replaced) =
                (rotated.token.unwrap_or_default(), rotated.replaced.unwrap_or_default());
            let mut token_object = object(&token);
            token_object["replaced"] = object(&replaced);
            print_secret(&rotated.secret, &token_object, output)?;
            print_notice(&format!(
                "created token {} of {}; it is not shown again; token {} is valid until {}",
                token.token_id,
                token.principal,
                replaced.token_id,
                time(replaced.expire_time)
            ));
        }
        TokenCommand::Revoke { id, output } => {
            let request = RevokeTokenRequest { token_id: id };
            let token = access.revoke_token(request).await?.into_inner().token.unwrap_or_default();
            let line = format!("revoked token {} of {}", token.token_id, token.principal);
            confirm(&mut out, output, &line, &object(&token))?;
        }
    }
    Ok(())
}

/// Prints a secret alone, so that it can be redirected into a file; or an object that holds it.
pub(super) fn print_secret(secret: &str, token: &Value, output: OutputArgs) -> io::Result<()> {
    let mut out = io::stdout();
    if output.format == OutputFormat::Json {
        let mut object = token.clone();
        object["secret"] = secret.into();
        return describe(&mut out, output, &[], &object);
    }
    print_line(&mut out, secret)?;
    out.flush()
}

fn proto_duration(duration: Duration) -> Result<prost_types::Duration, Failure> {
    duration.try_into().map_err(|_| Failure::usage(format!("{duration:?} is too long")))
}

fn object(token: &Token) -> Value {
    json!({
        "token_id": token.token_id,
        "principal": token.principal,
        "description": token.description,
        "create_time": json_time(token.create_time),
        "expire_time": json_time(token.expire_time),
        "revoke_time": json_time(token.revoke_time),
        "last_use_time": json_time(token.last_use_time),
        "created_by": token.created_by,
    })
}
