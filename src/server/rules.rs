//! Checks at the start that each call that the broker serves has a rule that says who may make it.

use super::error::Error;
use crate::{access, grpc};

/// Refuses to start if a call has no rule.
pub(super) fn check() -> Result<(), Error> {
    require_rules(paths()?)
}

fn require_rules(paths: Vec<String>) -> Result<(), Error> {
    match paths.into_iter().find(|path| access::find_rule(path).is_none()) {
        Some(call) => Err(Error::NoRule { call }),
        None => Ok(()),
    }
}

/// The paths of all calls that are served.
fn paths() -> Result<Vec<String>, Error> {
    let calls = grpc::served_calls().map_err(Error::Descriptors)?;
    Ok(calls.into_iter().map(|call| call.path).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_call_without_a_rule_is_named() {
        let mut paths = paths().unwrap();
        paths.push("/trunkline.v1.TopicService/Invented".to_owned());
        let error = require_rules(paths).unwrap_err().to_string();
        assert!(
            error.ends_with("there is no rule for /trunkline.v1.TopicService/Invented"),
            "{error}"
        );
    }

    #[test]
    fn every_call_has_a_rule_and_every_rule_a_call() {
        check().unwrap();
        let paths: BTreeSet<String> = paths().unwrap().into_iter().collect();
        let ruled: BTreeSet<String> =
            access::rules().iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(ruled, paths);
        assert_eq!(access::rules().len(), ruled.len(), "a call has two rules");
    }
}
