//! The functions of the schema, one a file, which are installed again whenever they have changed.
//!
//! Migrations are frozen once they are released; a function is not. A file may create what belongs to
//! its function, such as a trigger, and may run any number of times.

use sha2::{Digest as _, Sha256};
use tokio_postgres::Client;
use tracing::info;

use crate::storage::{error::Error, schema::privileges};

/// The number of these functions: raise it with each release that changes one. A broker leaves
/// functions with a higher number alone, as they belong to a newer broker.
const VERSION: i32 = 1;

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("sql/", $name, ".sql")))),+]
    };
}

/// All functions. The last one grants them to roles.
const FILES: [(&str, &str); 57] = files![
    "add_producer",
    "append_directly",
    "append_messages",
    "append_staged",
    "check_headers",
    "check_messages",
    "check_name",
    "check_owner",
    "check_publisher",
    "check_right",
    "check_shape",
    "commit_position",
    "consumer_info",
    "create_topic",
    "enqueue_all",
    "enqueue_messages",
    "enqueue_one",
    "find_consumer",
    "import_messages",
    "is_unlimited",
    "may",
    "may_publish",
    "message_bytes",
    "move_outbox",
    "must_be_durable",
    "must_not_be_shared",
    "needs_waking",
    "new_owner",
    "note_producers",
    "own_producer",
    "plain_bytes",
    "producer_runs",
    "publish",
    "publish_all",
    "publish_at_commit",
    "publish_later",
    "publish_later_many",
    "publish_many",
    "publish_with_care",
    "receive",
    "record_act",
    "refuse",
    "refuse_field",
    "refuse_prepare",
    "refuse_prepared_publish",
    "refuse_producer",
    "refuse_right",
    "refuse_topic",
    "register_consumer",
    "register_producer",
    "resolve_start",
    "seek",
    "stage_one",
    "topic_info",
    "utf8",
    "wake",
    "grant_roles",
];

/// Installs the functions, unless they are there or newer ones are. The caller holds the lock of
/// migrations.
pub(crate) async fn install(client: &Client) -> Result<(), Error> {
    let checksum = checksum();
    let statement = "-- find_installed_functions
        select version, checksum from trunkline.installed_functions";
    if let Some(row) = client.query_opt(statement, &[]).await? {
        let installed = row.get::<_, i32>(0);
        if installed > VERSION || (installed == VERSION && row.get::<_, &str>(1) == checksum) {
            return Ok(());
        }
    }
    if let Some(missing) = privileges::find_owners_without_rights(client).await? {
        let privileges::MissingOwner { role, owner } = missing;
        return Err(Error::OtherFunctions { role, owner });
    }
    privileges::act_as_owner(client).await?;
    privileges::require_creation_in_schema(client).await?;
    let files: Vec<&str> = FILES.iter().map(|(_, text)| *text).collect();
    let record = format!(
        "insert into trunkline.installed_functions (version, checksum)
        values ({VERSION}, '{checksum}')
        on conflict (only_row) do update set version = excluded.version, checksum = excluded.checksum"
    );
    client
        .batch_execute(&format!(
            "-- install_functions\nbegin;\n{};\n{record};\ncommit",
            files.join("\n;\n")
        ))
        .await?;
    info!(version = VERSION, "installed the functions of the schema");
    privileges::act_as_oneself(client).await
}

/// Tells these functions apart from all others.
fn checksum() -> String {
    let mut hash = Sha256::new();
    FILES.iter().for_each(|(_, text)| hash.update(text));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_file_is_installed_and_creates_the_function_it_is_named_after() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/storage/schema/sql");
        let there: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let listed = FILES.iter().map(|(name, _)| format!("{name}.sql")).collect();
        assert_eq!(there, listed);
        for (name, text) in FILES {
            let create = format!("create or replace function trunkline.{name}(");
            let all = text.matches("create or replace function").count();
            assert!(all > 0 && text.matches(&create).count() == all, "{name}");
            // Whoever is meant to call it is granted that apart.
            assert_eq!(text.matches("revoke execute on function").count(), all, "{name}");
            assert_eq!(text.matches("comment on function").count(), all, "{name}");
        }
    }
}
