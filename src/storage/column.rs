//! Columns that hold many values: arrays of bytes, and labels as JSON.

use std::error::Error as StdError;

use bytes::Bytes;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::types::array_from_sql;
use tokio_postgres::types::{FromSql, Kind, Type};

use super::Error;
use crate::model::{Claimant, Labels, Principal};

/// A `bytea[]` as slices of one buffer: one allocation for the array, none for its values.
pub(super) struct ByteaArray(pub Vec<Option<Bytes>>);

impl<'a> FromSql<'a> for ByteaArray {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        let buffer = Bytes::copy_from_slice(raw);
        let array = array_from_sql(&buffer)?;
        let values = array.values().map(|value| Ok(value.map(|value| buffer.slice_ref(value))));
        Ok(Self(values.collect()?))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Array(item) if *item == Type::BYTEA)
    }
}

/// Who registers or creates something, and how many of the kind they may have. The number counts
/// only with a principal.
pub(super) fn claimant(claimant: Option<&Claimant>) -> (Option<&str>, i64) {
    let limit = claimant.map_or(0, |claimant| i64::try_from(claimant.limit).unwrap_or(i64::MAX));
    (claimant.map(|Claimant { principal, .. }| Principal::as_str(principal)), limit)
}

/// Labels as the text of a JSON object.
pub(super) fn labels_to_json(labels: &Labels) -> Result<String, Error> {
    serde_json::to_string(labels.entries()).map_err(Error::unexpected)
}

/// Labels from the text of a JSON object.
pub(super) fn labels_from_json(text: &str) -> Result<Labels, Error> {
    serde_json::from_str(text).map(Labels::stored).map_err(Error::unexpected)
}
