//! `trunkline whoami`: prints who calls, and what they may do.

use std::io;

use serde_json::json;

use super::{
    failure::Failure,
    grant::{self, operation_name},
    output::{OutputArgs, describe},
    timestamp::{json_time, time},
};
use crate::{client::Client, proto::WhoAmIRequest};

pub(super) async fn run(client: &Client, output: OutputArgs) -> Result<(), Failure> {
    let me = client.access().who_am_i(WhoAmIRequest {}).await?.into_inner();
    let yes_or_no = |is_so: bool| if is_so { "yes" } else { "no" }.to_owned();
    let mut lines = vec![
        ("principal", me.principal.clone()),
        ("token", me.token_id.clone()),
        ("expires", time(me.expire_time)),
        ("administrator", yes_or_no(me.administrator)),
        ("authenticated", yes_or_no(me.authenticated)),
    ];
    lines.extend(
        me.grants.iter().map(|grant| {
            ("grant", format!("{} {}", operation_name(grant.operation), grant.topics))
        }),
    );
    let object = json!({
        "principal": me.principal,
        "token_id": me.token_id,
        "expire_time": json_time(me.expire_time),
        "administrator": me.administrator,
        "authenticated": me.authenticated,
        "grants": me.grants.iter().map(grant::object).collect::<Vec<_>>(),
    });
    describe(&mut io::stdout(), output, &lines, &object)?;
    Ok(())
}
