//! Creates the first administrator.

use super::{
    change::{AccessChange, exclude_other_changes},
    grants::insert_grant,
    tokens::{NewToken, find_whether_full, insert_token},
};
use crate::{
    model::{GrantKey, Operation, Principal, TopicPattern},
    storage::{
        Error, Storage,
        session::{Statements as _, Transaction},
    },
};

/// What a principal has.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Whether it has a grant of everything.
    pub is_administrator: bool,
    /// How many tokens it has that are valid.
    pub valid_tokens: i64,
    /// How many grants it has.
    pub grants: i64,
    /// How many producers and consumers belong to it.
    pub registrations: i64,
}

/// The outcome of an attempt to create the first administrator.
#[derive(Clone, Copy, Debug)]
pub enum FirstAdministrator {
    /// It was created.
    Created,
    /// There is an administrator with a valid token; nothing was changed.
    Exists,
    /// The principal has this, and is no administrator; nothing was changed.
    Taken(Standing),
    /// As many tokens or grants exist as may; nothing was changed.
    Full,
}

impl Storage {
    /// Gives a principal the right to administer everything, and a token: both or nothing, and only if
    /// there is no administrator with a valid token.
    pub async fn create_first_administrator(
        &self,
        principal: &Principal,
        description: &str,
        new: NewToken<'_>,
    ) -> Result<FirstAdministrator, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                exclude_other_changes(transaction).await?;
                if has_administrator_with_token(transaction).await? {
                    return Ok(FirstAdministrator::Exists);
                }
                let standing = find_standing(transaction, principal).await?;
                let Standing { is_administrator, valid_tokens, grants, registrations } = standing;
                if !is_administrator && valid_tokens + grants + registrations > 0 {
                    return Ok(FirstAdministrator::Taken(standing));
                }
                if find_whether_full::<()>(transaction, principal).await?.is_some() {
                    return Ok(FirstAdministrator::Full);
                }
                let key = GrantKey {
                    principal: principal.clone(),
                    operation: Operation::Admin,
                    topics: TopicPattern::stored("*"),
                };
                let AccessChange::Done(_) = insert_grant(transaction, &key, "").await? else {
                    return Ok(FirstAdministrator::Full);
                };
                insert_token(transaction, principal, description, new).await?;
                Ok(FirstAdministrator::Created)
            })
            .await
    }
}

/// Whether a principal with a grant of everything has a valid token.
async fn has_administrator_with_token(transaction: &Transaction<'_>) -> Result<bool, Error> {
    let statement = "-- find_administrator_with_token
        select exists (
            select from trunkline.access_grant join trunkline.access_token using (principal)
            where operation = 'admin' and topics = '*' and revoked_at is null
              and (expires_at is null or expires_at > now()))";
    Ok(transaction.query_one(statement, &[]).await?.get(0))
}

/// What a principal has.
async fn find_standing(
    transaction: &Transaction<'_>,
    principal: &Principal,
) -> Result<Standing, Error> {
    let statement = "-- find_standing
        select exists (select from trunkline.access_grant
                       where principal = $1 and operation = 'admin' and topics = '*'),
               (select count(*) from trunkline.access_token
                where principal = $1 and revoked_at is null
                  and (expires_at is null or expires_at > now())),
               (select count(*) from trunkline.access_grant where principal = $1),
               (select count(*) from trunkline.producer_topic where owner = $1)
               + (select count(*) from trunkline.consumer_topic where owner = $1)";
    let row = transaction.query_one(statement, &[&principal.as_str()]).await?;
    Ok(Standing {
        is_administrator: row.get(0),
        valid_tokens: row.get(1),
        grants: row.get(2),
        registrations: row.get(3),
    })
}
