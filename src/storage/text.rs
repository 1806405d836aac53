//! Which text the database can store: one whose encoding is not UTF-8 missing characters.

use super::{Error, Storage, session::Statements as _};

impl Storage {
    /// The encoding of the database's text, as PostgreSQL calls it.
    pub fn encoding(&self) -> &str {
        &self.encoding
    }

    /// Whether every text can be stored. A database that is SQL_ASCII converts nothing: it stores
    /// UTF-8 as it comes, and refuses to hand out what somebody else stored there in another
    /// encoding.
    pub fn can_store_any_text(&self) -> bool {
        matches!(self.encoding.as_str(), "UTF8" | "SQL_ASCII")
    }

    /// Whether a text can be stored.
    pub async fn can_store(&self, text: &str) -> Result<bool, Error> {
        let client = self.query().await?;
        match client.query_one("-- can_store\nselect $1::text is not null", &[&text]).await {
            Ok(_) => Ok(true),
            Err(Error::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Asks for the encoding of the database's text.
pub(super) async fn find_encoding(storage: &Storage) -> Result<String, Error> {
    let statement = "-- find_encoding\nselect current_setting('server_encoding')";
    Ok(storage.query().await?.query_one(statement, &[]).await?.get(0))
}
