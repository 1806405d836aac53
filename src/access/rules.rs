//! Which call needs which right. A call without a rule is refused, and the start of a broker fails.

use std::{collections::HashMap, sync::LazyLock};

use crate::model::Operation::{self, Admin, Consume, Publish, Read};

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing, not even a token.
    Open,
    /// Any caller that has proved who it is. The call itself may show or permit less to some.
    Authenticated,
    /// An administrator.
    Administrator,
    /// One of these operations on the topic. Without any right on it, the topic does not exist for
    /// the caller.
    Topic(&'static [Operation]),
    /// One of these operations on the name, whether the topic exists or not.
    TopicName(&'static [Operation]),
    /// One of the operations `own`, and that the registration is the caller's; or one of the
    /// operations `any`.
    Registration {
        /// What suffices for the caller's own.
        own: &'static [Operation],
        /// What suffices for everyone's.
        any: &'static [Operation],
    },
    /// As `Registration`, but what belongs to others does not exist for the caller.
    Description {
        /// What suffices for the caller's own.
        own: &'static [Operation],
        /// What suffices for everyone's.
        any: &'static [Operation],
    },
}

/// Any right on a topic.
const ANY: &[Operation] = &[Read, Admin, Publish, Consume];

const DESCRIBE: Rule = Rule::Description { own: &[Publish], any: &[Read, Admin] };
const CONSUME_OWN: Rule = Rule::Registration { own: &[Consume], any: &[] };
const CONSUME_OR_ADMIN: Rule = Rule::Registration { own: &[Consume], any: &[Admin] };
const PUBLISH_OWN: Rule = Rule::Registration { own: &[Publish], any: &[] };

const RULES: &[(&str, Rule)] = &[
    ("/grpc.health.v1.Health/Check", Rule::Open),
    ("/grpc.health.v1.Health/Watch", Rule::Open),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Rule::Authenticated),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Rule::Authenticated),
    ("/trunkline.v1.AccessService/WhoAmI", Rule::Authenticated),
    ("/trunkline.v1.AccessService/CreateToken", Rule::Administrator),
    ("/trunkline.v1.AccessService/ListTokens", Rule::Authenticated),
    ("/trunkline.v1.AccessService/RevokeToken", Rule::Authenticated),
    ("/trunkline.v1.AccessService/RotateToken", Rule::Authenticated),
    ("/trunkline.v1.AccessService/AddGrant", Rule::Administrator),
    ("/trunkline.v1.AccessService/RemoveGrant", Rule::Administrator),
    ("/trunkline.v1.AccessService/ListGrants", Rule::Authenticated),
    ("/trunkline.v1.AccessService/SetQuota", Rule::Administrator),
    ("/trunkline.v1.AccessService/RemoveQuota", Rule::Administrator),
    ("/trunkline.v1.AccessService/ListQuotas", Rule::Authenticated),
    ("/trunkline.v1.AccessService/ListAudit", Rule::Administrator),
    ("/trunkline.v1.AccessService/AssignOwner", Rule::Topic(&[Admin])),
    ("/trunkline.v1.TopicService/CreateTopic", Rule::TopicName(&[Admin])),
    ("/trunkline.v1.TopicService/GetTopic", Rule::Topic(ANY)),
    ("/trunkline.v1.TopicService/ListTopics", Rule::Authenticated),
    ("/trunkline.v1.TopicService/UpdateTopic", Rule::Topic(&[Admin])),
    ("/trunkline.v1.TopicService/DeleteTopic", Rule::Topic(&[Admin])),
    ("/trunkline.v1.TopicService/TrimTopic", Rule::Topic(&[Admin])),
    ("/trunkline.v1.TopicService/ReadMessages", Rule::Topic(&[Read, Admin])),
    ("/trunkline.v1.ProducerService/RegisterProducer", Rule::Topic(&[Publish, Admin])),
    (
        "/trunkline.v1.ProducerService/UnregisterProducer",
        Rule::Registration { own: &[Publish], any: &[Admin] },
    ),
    ("/trunkline.v1.ProducerService/GetProducer", DESCRIBE),
    ("/trunkline.v1.ProducerService/ListProducers", DESCRIBE),
    ("/trunkline.v1.ProducerService/Publish", PUBLISH_OWN),
    ("/trunkline.v1.ProducerService/PublishStream", PUBLISH_OWN),
    ("/trunkline.v1.ConsumerService/RegisterConsumer", Rule::Topic(&[Consume, Admin])),
    ("/trunkline.v1.ConsumerService/UnregisterConsumer", CONSUME_OR_ADMIN),
    ("/trunkline.v1.ConsumerService/GetConsumer", DESCRIBE),
    ("/trunkline.v1.ConsumerService/ListConsumers", DESCRIBE),
    ("/trunkline.v1.ConsumerService/Consume", CONSUME_OWN),
    ("/trunkline.v1.ConsumerService/Pull", CONSUME_OWN),
    ("/trunkline.v1.ConsumerService/Commit", CONSUME_OWN),
    ("/trunkline.v1.ConsumerService/Seek", CONSUME_OR_ADMIN),
    ("/trunkline.v1.SubscriptionService/CreateSubscription", Rule::Topic(&[Consume, Admin])),
    ("/trunkline.v1.SubscriptionService/DeleteSubscription", CONSUME_OR_ADMIN),
    ("/trunkline.v1.SubscriptionService/GetSubscription", DESCRIBE),
    ("/trunkline.v1.SubscriptionService/ListSubscriptions", DESCRIBE),
    ("/trunkline.v1.SubscriptionService/UpdateSubscription", CONSUME_OR_ADMIN),
    ("/trunkline.v1.SubscriptionService/SeekSubscription", CONSUME_OR_ADMIN),
    ("/trunkline.v1.SubscriptionService/Subscribe", CONSUME_OWN),
    ("/trunkline.v1.SubscriptionService/Receive", CONSUME_OWN),
    ("/trunkline.v1.SubscriptionService/Settle", CONSUME_OWN),
    ("/trunkline.v1.SubscriptionService/ListParked", DESCRIBE),
    ("/trunkline.v1.SubscriptionService/ReplayParked", CONSUME_OR_ADMIN),
    ("/trunkline.v1.SubscriptionService/DiscardParked", CONSUME_OR_ADMIN),
    ("/trunkline.v1.OverviewService/GetOverview", Rule::Authenticated),
];

static BY_PATH: LazyLock<HashMap<&'static str, Rule>> =
    LazyLock::new(|| RULES.iter().copied().collect());

/// All rules, by the paths of their calls.
pub fn rules() -> &'static [(&'static str, Rule)] {
    RULES
}

/// The rule of a call, by its path: `/package.Service/Method`.
pub fn find_rule(path: &str) -> Option<Rule> {
    BY_PATH.get(path).copied()
}

/// The call with a path, as `package.Service/Method`, and its rule. The call is empty if there is none:
/// it is no text of the client's. Nor does any service answer it; it gets a rule that no call uses, so
/// that it says nothing about the broker to strangers.
pub fn find_call(path: &str) -> (&'static str, Rule) {
    match BY_PATH.get_key_value(path) {
        Some((path, rule)) => (path.trim_start_matches('/'), *rule),
        None => ("", Rule::Administrator),
    }
}
