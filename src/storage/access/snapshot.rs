//! What a broker reads to check its callers without a round trip.

use std::time::Duration;

use tokio_postgres::Row;

use crate::{
    model::{Operation, Principal, TopicPattern},
    storage::{Error, Storage, session::Statements as _},
};

/// Which state of tokens, grants and owners is the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessVersion {
    /// Grows with each change.
    pub all: i64,
    /// When the last change was made, in microseconds. It tells a version that a fail-over lost
    /// from the one that follows it.
    pub changed_at: i64,
    /// The last change of an owner.
    pub owners: OwnersVersion,
}

/// Which state of owners is the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnersVersion {
    /// The version that the last change of an owner began.
    pub began: i64,
    /// When that change was made, in microseconds, for the same reason as above.
    pub changed_at: i64,
}

/// A token, as far as it takes to recognise it.
#[derive(Clone, Debug)]
pub struct ValidToken {
    /// Its id.
    pub id: String,
    /// Who it stands for.
    pub principal: Principal,
    /// SHA-256 of the whole token.
    pub hash: Vec<u8>,
    /// How long it is still valid, by the database's clock; `None` if it does not expire.
    pub expires_in: Option<Duration>,
    /// Why it is no longer valid, if it is not.
    pub end: Option<TokenEnd>,
}

/// Why a token is no longer valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenEnd {
    /// Somebody revoked it.
    Revoked,
    /// Its time has passed.
    Expired,
}

impl Storage {
    /// The version of tokens, grants and owners.
    pub async fn find_access_version(&self) -> Result<AccessVersion, Error> {
        let client = self.access().await?;
        let statement = "-- find_access_version
            select version, (extract(epoch from changed_at) * 1000000)::bigint,
                   owner_version, (extract(epoch from owners_changed_at) * 1000000)::bigint
            from trunkline.access_version";
        let row = client.query_one(statement, &[]).await?;
        let owners = OwnersVersion { began: row.get(2), changed_at: row.get(3) };
        Ok(AccessVersion { all: row.get(0), changed_at: row.get(1), owners })
    }

    /// All valid tokens, and the `ended` ones that ended last.
    pub async fn load_tokens(&self, ended: usize) -> Result<Vec<ValidToken>, Error> {
        let client = self.access().await?;
        let statement = "-- load_tokens
            with token as (
                select *, revoked_at is null and (expires_at is null or expires_at > now()) as valid
                from trunkline.access_token
            ), ended as (
                select * from token where not valid
                order by least(revoked_at, expires_at) desc limit $1
            )
            select id, principal, hash, revoked_at is not null, not valid,
                   ceil(extract(epoch from expires_at - now()) * 1000)::bigint
            from (select * from token where valid union all select * from ended) loaded";
        let rows = client.query(statement, &[&(ended as i64)]).await?;
        Ok(rows.iter().map(token).collect())
    }

    /// All grants: who, what and where.
    pub async fn load_grants(&self) -> Result<Vec<(Principal, Operation, TopicPattern)>, Error> {
        let client = self.access().await?;
        let statement = "-- load_grants
            select principal, operation, topics from trunkline.access_grant order by principal";
        let rows = client.query(statement, &[]).await?;
        let grant = |row: &Row| {
            let operation = Operation::parse(row.get(1));
            let operation = operation.ok_or_else(|| Error::unexpected("an unknown operation"))?;
            Ok((Principal::stored(row.get(0)), operation, TopicPattern::stored(row.get(2))))
        };
        rows.iter().map(grant).collect()
    }

    /// Records that tokens were used just now.
    pub async fn record_use(&self, ids: &[&str]) -> Result<(), Error> {
        let client = self.access().await?;
        let statement = "-- record_use
            update trunkline.access_token set last_used_at = now()
            where id = any ($1)
              and (last_used_at is null or last_used_at < now() - interval '1 minute')";
        client.execute(statement, &[&ids.to_vec()]).await?;
        Ok(())
    }
}

fn token(row: &Row) -> ValidToken {
    let end = match (row.get(3), row.get(4)) {
        (true, _) => Some(TokenEnd::Revoked),
        (false, true) => Some(TokenEnd::Expired),
        (false, false) => None,
    };
    ValidToken {
        id: row.get(0),
        principal: Principal::stored(row.get(1)),
        hash: row.get(2),
        end,
        expires_in: row
            .get::<_, Option<i64>>(5)
            .map(|left| Duration::from_millis(u64::try_from(left).unwrap_or(0))),
    }
}
