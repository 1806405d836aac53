//! The first administrator of a database.

use super::error::Error;
use crate::{
    access,
    storage::{Limits, Storage},
};

/// Creates the principal `admin` in a database, with a grant of everything and a token, which it
/// returns. Brings the schema up to date if that is needed. Refuses if there is an administrator with
/// a valid token.
pub async fn bootstrap(database_url: &str) -> Result<String, Error> {
    let storage = Storage::open(database_url, None, Limits { writers: 1, queries: 1 }).await?;
    let created = access::bootstrap(&storage).await;
    storage.close();
    Ok(created?)
}
