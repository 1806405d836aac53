//! Which text the database can store: an encoding other than UTF-8 lacks characters.

use super::{
    Error, Storage,
    session::{SessionPool, Statements as _},
};

impl Storage {
    /// The encoding of the database's text, as PostgreSQL calls it.
    pub fn encoding(&self) -> &str {
        &self.encoding
    }

    /// Whether every text can be stored. A SQL_ASCII database converts nothing: it stores UTF-8 as
    /// it comes, and refuses to return what others have stored there in another encoding.
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
pub(super) async fn find_encoding(sessions: &SessionPool) -> Result<String, Error> {
    let statement = "-- find_encoding\nselect current_setting('server_encoding')";
    Ok(sessions.get().await?.query_one(statement, &[]).await?.get(0))
}
