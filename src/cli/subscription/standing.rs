//! How a subscription stands: what is left to do, and who works on it.

use serde_json::{Value, json};

use super::super::{
    output::argument_name,
    timestamp::{json_time, time},
};
use crate::proto::{Subscription, stalled::Limit};

/// For people. What is not known is empty: another broker hands the messages out.
pub(super) fn describe(subscription: &Subscription) -> [(&'static str, String); 7] {
    let number = |number: Option<i64>| number.map(|it| it.to_string()).unwrap_or_default();
    let oldest = subscription.oldest_unacknowledged_time;
    [
        ("unacknowledged", number(subscription.unacknowledged_messages)),
        ("oldest unacked", oldest.map(|oldest| time(Some(oldest))).unwrap_or_default()),
        ("lost", number(subscription.lost_messages)),
        ("workers", number(subscription.workers.map(Into::into))),
        ("outstanding", number(subscription.outstanding_messages)),
        ("bytes of these", number(subscription.outstanding_bytes)),
        ("stalled by", stalled_by(subscription).unwrap_or_default()),
    ]
}

/// For programs, beside what is known of each subscription; what is not known is null.
pub(super) fn added_to(mut object: Value, subscription: &Subscription) -> Value {
    let standing = json!({
        "unacknowledged_messages": subscription.unacknowledged_messages,
        "oldest_unacknowledged_time": json_time(subscription.oldest_unacknowledged_time),
        "lost_messages": subscription.lost_messages,
        "workers": subscription.workers,
        "outstanding_messages": subscription.outstanding_messages,
        "outstanding_bytes": subscription.outstanding_bytes,
        "stalled_by": stalled_by(subscription),
    });
    if let (Value::Object(object), Value::Object(standing)) = (&mut object, standing) {
        object.extend(standing);
    }
    object
}

/// The limit that keeps messages from being delivered.
fn stalled_by(subscription: &Subscription) -> Option<String> {
    let limit = Limit::try_from(subscription.stalled_by).ok();
    let is_stalled = limit != Some(Limit::Unspecified);
    let name = limit.as_ref().map(Limit::as_str_name);
    is_stalled.then(|| argument_name(name, "LIMIT_", subscription.stalled_by))
}
