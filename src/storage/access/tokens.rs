//! Creates, lists, revokes and rotates tokens.

use tokio_postgres::Row;

use super::change::{AccessChange, MAX_TOKENS, MAX_TOKENS_OF_PRINCIPAL, exclude_other_changes};
use crate::{
    model::{Principal, Token},
    storage::{
        Error, Storage,
        session::{Parameter, Statements as _, Transaction},
    },
};

/// A token to be created.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// Its id.
    pub id: &'a str,
    /// SHA-256 of the whole token.
    pub hash: &'a [u8],
    /// How long it is valid, in milliseconds; `None` if it does not expire.
    pub valid_for_ms: Option<i64>,
    /// The principal that creates it; empty if nobody is known.
    pub created_by: &'a str,
}

/// How a token is replaced.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    /// The token to replace.
    pub old: &'a str,
    /// The new token. Without a time, it is valid for as long as the old one was meant to be.
    pub new: NewToken<'a>,
    /// How long the old one stays valid, in milliseconds.
    pub overlap_ms: i64,
    /// Whether the new one expires no later than the old one would have.
    pub capped: bool,
}

/// The columns that [`token`] reads.
const TOKEN: &str = "id, principal, description, created_at, expires_at, revoked_at, last_used_at,
    created_by";

/// How many of a principal's tokens that ended are kept. A principal may replace its own token as
/// often as it likes.
const MAX_ENDED_TOKENS: i64 = 1_000;

/// What makes a token valid.
const IS_VALID: &str = "revoked_at is null and (expires_at is null or expires_at > now())";

impl Storage {
    /// Creates a token.
    pub async fn create_token(
        &self,
        principal: &Principal,
        description: &str,
        new: NewToken<'_>,
    ) -> Result<AccessChange<Token>, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                exclude_other_changes(transaction).await?;
                if let Some(full) = find_whether_full(transaction, principal).await? {
                    return Ok(full);
                }
                let created = insert_token(transaction, principal, description, new).await?;
                Ok(AccessChange::Done(created))
            })
            .await
    }

    /// Creates a token that replaces another one; not found if that is not valid.
    pub async fn rotate_token(
        &self,
        rotation: Rotation<'_>,
    ) -> Result<AccessChange<(Token, Token)>, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                exclude_other_changes(transaction).await?;
                let Rotation { old, new, overlap_ms, capped } = rotation;
                let find = format!(
                    "-- find_valid_token
                    select principal from trunkline.access_token where id = $1 and {IS_VALID}"
                );
                let Some(found) = transaction.query_opt(&find, &[&old]).await? else {
                    return Ok(AccessChange::NotFound);
                };
                let principal = Principal::stored(found.get(0));
                if let Some(full) = find_whether_full(transaction, &principal).await? {
                    return Ok(full);
                }
                // `least` ignores nulls.
                let insert = format!(
                    "-- rotate_token
                    insert into trunkline.access_token
                        (id, principal, hash, description, valid_for_ms, created_by, expires_at)
                    select $1, principal, $2, description, asked, $4,
                           case when $5 then least(until, expires_at) else until end
                    from trunkline.access_token
                    cross join lateral (select coalesce($3::bigint, valid_for_ms) as asked) a
                    cross join lateral (select now() + asked * interval '1 millisecond' as until) u
                    where id = $6
                    returning {TOKEN}"
                );
                let NewToken { id, hash, valid_for_ms, created_by } = new;
                let values: [&dyn Parameter; 6] =
                    [&id, &hash, &valid_for_ms, &created_by, &capped, &old];
                let created = token(&transaction.query_one(&insert, &values).await?);
                let shorten = format!(
                    "-- shorten_token
                    update trunkline.access_token
                    set expires_at = least(expires_at, now() + $2::bigint * interval '1 millisecond')
                    where id = $1
                    returning {TOKEN}"
                );
                let replaced = transaction.query_one(&shorten, &[&old, &overlap_ms]).await?;
                forget_ended_tokens(transaction, &principal).await?;
                Ok(AccessChange::Done((created, token(&replaced))))
            })
            .await
    }

    /// Makes a token invalid; `None` if there is no such token. One that is revoked stays as it is.
    pub async fn revoke_token(&self, id: &str) -> Result<Option<Token>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- revoke_token
            update trunkline.access_token set revoked_at = coalesce(revoked_at, now())
            where id = $1
            returning {TOKEN}"
        );
        Ok(client.query_opt(statement, &[&id]).await?.as_ref().map(token))
    }

    /// A token, if it exists.
    pub async fn find_token(&self, id: &str) -> Result<Option<Token>, Error> {
        let client = self.query().await?;
        let statement =
            &format!("-- find_token\nselect {TOKEN} from trunkline.access_token where id = $1");
        Ok(client.query_opt(statement, &[&id]).await?.as_ref().map(token))
    }

    /// The first `limit` tokens, of one principal or of all, sorted by id, whose ids come after
    /// `after`.
    pub async fn list_tokens(
        &self,
        principal: Option<&Principal>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Token>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- list_tokens
            select {TOKEN} from trunkline.access_token
            where id > $1 and ($2::text is null or principal = $2) order by id limit $3"
        );
        let principal = principal.map(Principal::as_str);
        let rows = client.query(statement, &[&after, &principal, &(limit as i64)]).await?;
        Ok(rows.iter().map(token).collect())
    }
}

/// Creates a token, where other changes are excluded and there are not too many.
pub(super) async fn insert_token(
    transaction: &Transaction<'_>,
    principal: &Principal,
    description: &str,
    new: NewToken<'_>,
) -> Result<Token, Error> {
    let insert = format!(
        "-- create_token
        insert into trunkline.access_token
            (id, principal, hash, description, valid_for_ms, created_by, expires_at)
        values ($1, $2, $3, $4, $5::bigint, $6,
                now() + $5::bigint * interval '1 millisecond')
        returning {TOKEN}"
    );
    let NewToken { id, hash, valid_for_ms, created_by } = new;
    let values: [&dyn Parameter; 6] =
        [&id, &principal.as_str(), &hash, &description, &valid_for_ms, &created_by];
    let created = token(&transaction.query_one(&insert, &values).await?);
    forget_ended_tokens(transaction, principal).await?;
    Ok(created)
}

/// Whether there are as many valid tokens as there may be.
pub(super) async fn find_whether_full<T>(
    transaction: &Transaction<'_>,
    principal: &Principal,
) -> Result<Option<AccessChange<T>>, Error> {
    let count = format!(
        "-- count_valid_tokens
        select count(*) filter (where principal = $1), count(*)
        from trunkline.access_token where {IS_VALID}"
    );
    let row = transaction.query_one(&count, &[&principal.as_str()]).await?;
    let limits = [MAX_TOKENS_OF_PRINCIPAL, MAX_TOKENS];
    Ok(AccessChange::when_full(row.get(0), row.get(1), limits))
}

async fn forget_ended_tokens(
    transaction: &Transaction<'_>,
    principal: &Principal,
) -> Result<(), Error> {
    let delete = format!(
        "-- forget_ended_tokens
        delete from trunkline.access_token where id in (
            select id from trunkline.access_token where principal = $1 and not ({IS_VALID})
            order by least(revoked_at, expires_at) desc offset $2)"
    );
    transaction.execute(&delete, &[&principal.as_str(), &MAX_ENDED_TOKENS]).await?;
    Ok(())
}

fn token(row: &Row) -> Token {
    Token {
        id: row.get(0),
        principal: Principal::stored(row.get(1)),
        description: row.get(2),
        created_at: row.get(3),
        expires_at: row.get(4),
        revoked_at: row.get(5),
        last_used_at: row.get(6),
        created_by: row.get(7),
    }
}
