//! What the broker's role must be allowed to do. Checked before anything is tried, so that one
//! error lists all statements that grant what is missing.
//!
//! Needs no privilege itself, as it reads only the catalogues.

use tokio_postgres::{Client, Config, Row};

use crate::storage::{
    Storage,
    error::Error,
    session::{SessionPool, Statements as _},
};

/// What the statements of this layer do with each table. Identity columns take their numbers
/// without a privilege, and foreign keys are checked as the tables' owner.
const TABLES: [(&str, &str); 19] = [
    ("topic", "select, insert, update, delete"),
    ("topic_head", "select, insert, update, delete"),
    ("producer_topic", "select, insert, update, delete"),
    ("consumer_topic", "select, insert, update, delete"),
    ("batch", "select, insert, delete"),
    ("deleted_topic", "select, insert, delete"),
    ("fence", "select, update"),
    ("forgotten_producer", "select, insert, update, delete"),
    ("access_token", "select, insert, update, delete"),
    ("access_grant", "select, insert, delete"),
    ("access_quota", "select, insert, update, delete"),
    ("access_version", "select"),
    ("audit", "select, insert"),
    ("subscription", "select, insert, update, delete"),
    ("broker", "select, insert, update, delete"),
    ("subscription_delta", "select, insert, delete"),
    ("subscription_message", "select, insert, update, delete"),
    ("outbox", "select"),
    ("outbox_pass", "select"),
];

/// What a start reads besides, in direct sessions only.
const OF_A_START: [(&str, &str); 2] =
    [("schema_history", "select"), ("installed_functions", "select")];

/// Functions that the statements of this layer call.
const FUNCTIONS: [&str; 2] = ["changed_meanwhile", "move_outbox"];

/// What exists of the schema, and what the session's role may do with it.
pub(crate) struct Schema {
    /// Whether the schema exists.
    pub exists: bool,
    /// Whether the table exists that records which migrations were applied.
    pub has_history: bool,
    /// Whether the role may read that table.
    pub reads_history: bool,
}

/// Finds out what exists of the schema.
pub(crate) async fn find_schema(client: &Client) -> Result<Schema, Error> {
    let statement = "-- find_schema
        select n.oid is not null, c.oid is not null,
               coalesce(has_schema_privilege(n.oid, 'usage')
                        and has_table_privilege(c.oid, 'select'), false)
        from (select) one
        left join pg_namespace n on nspname = 'trunkline'
        left join pg_class c on relnamespace = n.oid and relname = 'schema_history'";
    let row = client.query_one(statement, &[]).await?;
    Ok(Schema { exists: row.get(0), has_history: row.get(1), reads_history: row.get(2) })
}

/// Refuses a role that may not create the schema.
pub(crate) async fn require_schema_creation(client: &Client) -> Result<(), Error> {
    let statement = "-- find_schema_creation
        select current_user::text,
               format('grant create on database %I to %I', current_database(), current_user)
        where not has_database_privilege(current_database(), 'create')
        union all
        select current_user::text,
               format('/* or */ create schema trunkline authorization %I', current_user)
        where not has_database_privilege(current_database(), 'create')";
    refuse(&client.query(statement, &[]).await?)
}

/// A role that owns something of the schema, and one that does not have its rights.
pub(crate) struct MissingOwner {
    pub role: String,
    pub owner: String,
}

/// Finds an owner of the schema, or of anything in it, whose rights the session's role does not have.
/// Only a role with all of them may change the schema.
pub(crate) async fn find_owners_without_rights(
    client: &Client,
) -> Result<Option<MissingOwner>, Error> {
    let statement = format!(
        "-- find_owners_without_rights
        with owner (oid) as ({OWNERS})
        select current_user::text, rolname::text
        from owner join pg_roles using (oid)
        where not (pg_has_role(oid, 'usage') and {MAY_BECOME})
        order by rolname limit 1"
    );
    let row = client.query_opt(&statement, &[]).await?;
    Ok(row.map(|row| MissingOwner { role: row.get(0), owner: row.get(1) }))
}

/// The owners of the schema and of everything in it.
const OWNERS: &str = "
    select nspowner from pg_namespace where nspname = 'trunkline'
    union
    select relowner from pg_class
    where relnamespace = (select oid from pg_namespace where nspname = 'trunkline')
      and relkind in ('r', 'v', 'S')
    union
    select proowner from pg_proc
    where pronamespace = (select oid from pg_namespace where nspname = 'trunkline')";

/// Whether the session's role may become a role. Since PostgreSQL 16, not each of its members may.
const MAY_BECOME: &str = "
    case when current_setting('server_version_num')::integer >= 160000
         then pg_has_role(oid, 'set') else pg_has_role(oid, 'member') end";

/// Becomes the owner of the schema, if it has one owner alone and the session's role may. What a
/// superuser adds would otherwise belong to the superuser, and functions would run with its rights.
pub(crate) async fn act_as_owner(client: &Client) -> Result<(), Error> {
    let statement = format!(
        "-- find_owner_to_act_as
        with owner (oid) as ({OWNERS})
        select format('set role %I', rolname)
        from owner join pg_roles using (oid)
        where (select count(*) from owner) = 1 and rolname <> current_user and {MAY_BECOME}"
    );
    if let Some(row) = client.query_opt(&statement, &[]).await? {
        client.batch_execute(row.get(0)).await?;
    }
    Ok(())
}

/// Becomes the session's own role again.
pub(crate) async fn act_as_oneself(client: &Client) -> Result<(), Error> {
    Ok(client.batch_execute("-- reset_role\nreset role").await?)
}

/// Refuses a role that owns the schema but may not create anything in it.
pub(crate) async fn require_creation_in_schema(client: &Client) -> Result<(), Error> {
    let statement = "-- find_creation_in_schema
        select current_user::text,
               format('grant usage, create on schema trunkline to %I', current_user)
        from pg_namespace
        where nspname = 'trunkline'
          and not (has_schema_privilege(oid, 'usage') and has_schema_privilege(oid, 'create'))";
    refuse(&client.query(statement, &[]).await?)
}

/// Refuses a role that may not do everything that a broker does with a migrated schema.
pub(crate) async fn require_use(client: &Client) -> Result<(), Error> {
    let tables = OF_A_START.into_iter().chain(TABLES);
    refuse(&client.query(&missing_for_use(tables), &[]).await?)
}

/// As [`require_use`], for pooled sessions, which may belong to another role.
pub(crate) async fn require_use_of_pooled_sessions(sessions: &SessionPool) -> Result<(), Error> {
    refuse(&sessions.get().await?.query(&missing_for_use(TABLES), &[]).await?)
}

fn missing_for_use(tables: impl IntoIterator<Item = (&'static str, &'static str)>) -> String {
    let tables: Vec<String> = tables
        .into_iter()
        .map(|(table, privileges)| format!("('{table}', '{privileges}')"))
        .collect();
    let functions = FUNCTIONS.map(|function| format!("'{function}'"));
    format!(
        "-- find_missing_privileges
        with schema as (
            select oid from pg_namespace where nspname = 'trunkline'
        ), needed (relation, privileges) as (
            values {}
        ), missing (number, statement) as (
            select 0, format('grant usage on schema trunkline to %I', current_user)
            from schema where not has_schema_privilege(oid, 'usage')
            union all
            select 1, format('grant %s on trunkline.%I to %I',
                             string_agg(privilege, ', ' order by place), relation, current_user)
            from needed
            join pg_class c on relname = relation and relnamespace = (select oid from schema)
            cross join unnest(string_to_array(privileges, ', '))
                with ordinality as one (privilege, place)
            where not has_table_privilege(c.oid, privilege)
            group by relation
            union all
            select 2, format('grant execute on function %s to %I',
                             p.oid::regprocedure, current_user)
            from pg_proc p
            where pronamespace = (select oid from schema) and proname in ({})
              and not has_function_privilege(p.oid, 'execute')
        )
        select current_user::text, statement from missing order by number, statement",
        tables.join(", "),
        functions.join(", ")
    )
}

/// Adds to the server's refusal of a connection the statement that grants the privilege.
pub(crate) fn explain_refusal(error: Error, config: &Config) -> Error {
    match (&error, config.get_user(), config.get_dbname()) {
        (Error::Forbidden(_), Some(user), Some(database)) => Error::MissingPrivileges {
            role: user.to_owned(),
            statements: vec![format!(
                "grant connect on database {} to {}",
                quoted(database),
                quoted(user)
            )],
        },
        _ => error,
    }
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

impl Storage {
    /// Whether the role may vacuum: as the owner of the table or of the database, or by the
    /// privilege `maintain`, which came with PostgreSQL 17.
    pub async fn may_vacuum(&self, table: &str) -> Result<bool, Error> {
        let statement = "-- find_vacuum_privilege
            select pg_has_role(relowner, 'usage') or pg_has_role(datdba, 'usage')
                   or case when current_setting('server_version_num')::integer >= 170000
                           then has_table_privilege(c.oid, 'maintain') else false end
            from pg_class c, pg_database
            where c.oid = ('trunkline.' || $1::text)::regclass and datname = current_database()";
        Ok(self.query().await?.query_one(statement, &[&table]).await?.get(0))
    }
}

fn refuse(missing: &[Row]) -> Result<(), Error> {
    let Some(first) = missing.first() else { return Ok(()) };
    let statements = missing.iter().map(|row| row.get(1)).collect();
    Err(Error::MissingPrivileges { role: first.get(0), statements })
}
