-- Shared subscriptions: consumers whose messages many workers share, each acknowledged by itself.
--
-- A subscription is a consumer with a row here. The consumer's position is the subscription's floor: all
-- messages before it are acknowledged or have a row of their own.

create table trunkline.subscription (
    topic_id             integer not null,
    id                   integer not null,
    ack_deadline_ms      bigint not null,
    shortest_backoff_ms  bigint not null,
    longest_backoff_ms   bigint not null,
    max_deliveries       integer,
    filter               text,
    dead_letter_topic    text,
    exactly_once         boolean not null,
    outstanding_messages integer,
    outstanding_bytes    bigint,
    broker               bigint,
    reserved_end         bigint,
    reserved_until       timestamptz,
    lost_messages        bigint not null default 0,
    updated_at           timestamptz not null default now(),
    primary key (topic_id, id),
    foreign key (topic_id, id) references trunkline.consumer_topic (topic_id, id) on delete cascade
);
comment on table trunkline.subscription is 'Consumers whose messages many workers share, and how each message is delivered';
comment on column trunkline.subscription.topic_id is 'The topic';
comment on column trunkline.subscription.id is 'Number of the consumer''s registration';
comment on column trunkline.subscription.ack_deadline_ms is 'How long a worker has for a message before it is delivered again, in milliseconds';
comment on column trunkline.subscription.shortest_backoff_ms is 'How long to wait before a message is delivered for the second time; doubles with each further delivery';
comment on column trunkline.subscription.longest_backoff_ms is 'The longest such wait';
comment on column trunkline.subscription.max_deliveries is 'After how many deliveries a message is parked; null if it never is';
comment on column trunkline.subscription.filter is 'Which messages are delivered, by their headers; null for all';
comment on column trunkline.subscription.dead_letter_topic is 'The topic to which messages are moved that would be parked; null if they are parked';
comment on column trunkline.subscription.exactly_once is 'Whether no message is delivered while another delivery of it may still be settled';
comment on column trunkline.subscription.outstanding_messages is 'How many messages all workers can have together; null for the most';
comment on column trunkline.subscription.outstanding_bytes is 'How many bytes of messages all workers can have together; null if there is no limit';
comment on column trunkline.subscription.broker is 'The broker that was the last one to hand out its messages; null if it takes no calls from others';
comment on column trunkline.subscription.reserved_end is 'The offset before which messages may have been handed out for the first time, if each is delivered exactly once; null if nothing was reserved';
comment on column trunkline.subscription.reserved_until is 'When the deadlines of what was handed out have passed at the latest; the next owner waits for that';
comment on column trunkline.subscription.lost_messages is 'How many messages were removed from the log before they were acknowledged, since the last seek';
comment on column trunkline.subscription.updated_at is 'When the policy was last changed';

-- No foreign keys below: each would lock the subscription's row for every commit of acknowledgements.
create table trunkline.subscription_delta (
    topic_id integer not null,
    id       integer not null,
    number   bigint not null,
    settled  bytea not null,
    primary key (topic_id, id, number)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table trunkline.subscription_delta is 'Which messages beyond its floor a subscription has settled: all rows together';
comment on column trunkline.subscription_delta.topic_id is 'The topic';
comment on column trunkline.subscription_delta.id is 'Number of the consumer''s registration';
comment on column trunkline.subscription_delta.number is 'Orders the rows of a subscription';
comment on column trunkline.subscription_delta.settled is 'Ranges of offsets, encoded';

create table trunkline.subscription_message (
    topic_id  integer not null,
    id        integer not null,
    "offset"  bigint not null,
    attempts  integer not null,
    due       timestamptz,
    parked_at timestamptz,
    reason    text,
    primary key (topic_id, id, "offset")
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create index subscription_message_due on trunkline.subscription_message (topic_id, "offset") where due is not null;
comment on table trunkline.subscription_message is 'Messages that a subscription delivers again, or has parked';
comment on column trunkline.subscription_message.topic_id is 'The topic';
comment on column trunkline.subscription_message.id is 'Number of the consumer''s registration';
comment on column trunkline.subscription_message."offset" is 'The message';
comment on column trunkline.subscription_message.attempts is 'How often it was delivered';
comment on column trunkline.subscription_message.due is 'When it is delivered again; null if it is parked';
comment on column trunkline.subscription_message.parked_at is 'When it was parked; null if it is not';
comment on column trunkline.subscription_message.reason is 'Why it was parked';

create table trunkline.broker (
    id          bigint not null primary key,
    host        text not null,
    port        integer not null check (port between 1 and 65535),
    certificate text not null,
    secret      text not null,
    claimed_at  timestamptz not null default now()
);
comment on table trunkline.broker is 'Where brokers take calls that others forward to them';
comment on column trunkline.broker.id is 'Drawn when the broker starts';
comment on column trunkline.broker.host is 'The address or name of the broker''s host';
comment on column trunkline.broker.port is 'The port';
comment on column trunkline.broker.certificate is 'The certificate that the broker presents there, in PEM';
comment on column trunkline.broker.secret is 'What other brokers show it. Whoever knows it can do everything that workers can: only the brokers'' role may read it';
comment on column trunkline.broker.claimed_at is 'When the broker last began to hand out a subscription''s messages';

create function trunkline.forget_subscription() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    delete from trunkline.subscription_delta where topic_id = old.topic_id and id = old.id;
    delete from trunkline.subscription_message where topic_id = old.topic_id and id = old.id;
    return null;
end
$$;
revoke execute on function trunkline.forget_subscription() from public;
comment on function trunkline.forget_subscription is 'Forgets what a subscription has settled when its row is deleted';

create trigger forget_subscription after delete on trunkline.subscription
for each row execute function trunkline.forget_subscription();
