//! Names with values, as headers and labels are given on the command line.

use std::{collections::BTreeMap, str::FromStr};

use super::failure::Failure;

/// `NAME=VALUE`.
#[derive(Clone, Debug)]
pub(super) struct NameValue {
    name: String,
    value: String,
}

impl FromStr for NameValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err("expected NAME=VALUE".to_owned()),
        }
    }
}

/// The values by name of a flag that may be repeated; refuses a name that is given twice.
pub(super) fn unique(flag: &str, pairs: &[NameValue]) -> Result<BTreeMap<String, String>, Failure> {
    let mut unique = BTreeMap::new();
    for NameValue { name, value } in pairs {
        if unique.insert(name.clone(), value.clone()).is_some() {
            return Err(Failure::usage(format!(
                "{flag} gives {name:?} twice: a name has one value"
            )));
        }
    }
    Ok(unique)
}
