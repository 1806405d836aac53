//! Names and values that describe something: a message's headers, a topic's labels.

use std::collections::BTreeMap;

use super::invalid::InvalidValue;

/// Up to 64 names with values, 16 KiB in total, that PostgreSQL's type `text` can hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The most names.
    pub const MAX_ENTRIES: usize = 64;

    /// The most bytes of all names and values together.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// The most bytes of a name.
    pub const MAX_NAME_BYTES: usize = 255;

    /// Checks names and values that a client gave.
    pub fn parse(entries: BTreeMap<String, String>) -> Result<Self, InvalidValue> {
        let over_limit = InvalidValue::over_limit;
        if entries.len() > Self::MAX_ENTRIES {
            return Err(over_limit(entries.len(), Self::MAX_ENTRIES, "entries"));
        }
        for (name, value) in &entries {
            if name.is_empty() {
                return Err(InvalidValue::new("holds an empty name"));
            }
            if name.len() > Self::MAX_NAME_BYTES {
                let too_long = over_limit(name.len(), Self::MAX_NAME_BYTES, "bytes");
                return Err(too_long.in_part(".name"));
            }
            // PostgreSQL's `text` cannot hold a NUL: one that came through would fail the whole flush.
            if name.contains('\0') || value.contains('\0') {
                return Err(InvalidValue::new("holds a NUL character"));
            }
        }
        let labels = Self(entries);
        if labels.bytes() > Self::MAX_BYTES {
            return Err(over_limit(labels.bytes(), Self::MAX_BYTES, "bytes"));
        }
        Ok(labels)
    }

    /// Accepts names and values that come from the database.
    pub(crate) fn stored(entries: BTreeMap<String, String>) -> Self {
        Self(entries)
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names and values, by name.
    pub fn entries(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: impl IntoIterator<Item = (String, String)>) -> Result<Labels, InvalidValue> {
        Labels::parse(entries.into_iter().collect())
    }

    #[test]
    fn up_to_64_entries_and_16_kib_are_accepted() {
        assert!(parse((0..64).map(|i| (format!("n{i}"), String::new()))).is_ok());
        let many = parse((0..65).map(|i| (format!("n{i}"), String::new()))).unwrap_err();
        assert_eq!(many.limit, Some(64));
        assert!(parse([("n".into(), "v".repeat(Labels::MAX_BYTES - 1))]).is_ok());
        let large = parse([("n".into(), "v".repeat(Labels::MAX_BYTES))]).unwrap_err();
        assert_eq!(large.limit, Some(16_384));
    }

    #[test]
    fn empty_names_long_names_and_nul_are_refused() {
        assert!(parse([(String::new(), "v".into())]).is_err());
        assert_eq!(parse([("n".repeat(256), "v".into())]).unwrap_err().part, ".name");
        assert!(parse([("n\0".into(), "v".into())]).is_err());
        assert!(parse([("n".into(), "\0".into())]).is_err());
    }
}
