//! Checks of refusals: their code, their one reason, and the values they report.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Checks a refusal's code and reason; returns its metadata.
#[track_caller]
pub fn assert_refused<T: Debug>(
    outcome: Result<T, Status>,
    code: Code,
    reason: &str,
) -> HashMap<String, String> {
    info(&outcome.unwrap_err(), code, reason)
}

/// Checks a status's code and reason; returns its metadata.
#[track_caller]
pub fn info(status: &Status, code: Code, reason: &str) -> HashMap<String, String> {
    assert_eq!(status.code(), code, "{status:?}");
    let info = status.get_details_error_info().expect("every error has an ErrorInfo");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("trunkline", reason));
    assert!(!status.message().to_lowercase().contains("select "), "SQL leaks: {status:?}");
    info.metadata
}

/// Checks that a refusal names an invalid field and its limit.
#[track_caller]
pub fn assert_field<T: Debug>(outcome: Result<T, Status>, field: &str, limit: Option<u64>) {
    let status = outcome.unwrap_err();
    let metadata = info(&status, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(metadata["field"], field, "{status:?}");
    assert_eq!(metadata.get("limit").cloned(), limit.map(|limit| limit.to_string()));
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations.len(), 1);
    assert_eq!(violations[0].field, field);
    assert!(status.message().contains(field), "{status:?}");
}

pub fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}
