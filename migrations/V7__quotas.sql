-- How much each principal may do and have.

create table trunkline.access_quota (
    principal   text collate "C" not null,
    limit_name  text collate "C" not null
                check (limit_name in ('messages-per-second', 'bytes-per-second', 'streams', 'topics',
                                      'producers', 'consumers')),
    value       bigint not null check (value > 0),
    changed_at  timestamptz not null default now(),
    changed_by  text collate "C" not null default '',
    primary key (principal, limit_name)
);
comment on table trunkline.access_quota is 'Quotas, which say how much a principal may do and have';
comment on column trunkline.access_quota.principal is 'Whose quota it is; an asterisk for everyone without an own one';
comment on column trunkline.access_quota.limit_name is 'What it limits: messages-per-second, bytes-per-second, streams, topics, producers or consumers';
comment on column trunkline.access_quota.value is 'The most that is permitted';
comment on column trunkline.access_quota.changed_at is 'When it was last set';
comment on column trunkline.access_quota.changed_by is 'The principal that last set it; empty if the broker did not authenticate';

create constraint trigger quota_changed
after insert or delete or update on trunkline.access_quota deferrable initially deferred
for each row execute function trunkline.raise_access_version('quotas');

comment on table trunkline.access_version is 'One row: which state of tokens, grants, quotas and owners is the current one';
comment on column trunkline.access_version.version is 'Grows with each change of a token, a grant, a quota or an owner';
comment on function trunkline.raise_access_version is 'Tells brokers that tokens, grants, quotas or owners have changed';

-- All locks at once, in the order of a publish and of the deletion of a topic. Registrations lock the
-- topic last, so brokers must not run meanwhile.
lock table trunkline.topic, trunkline.consumer_topic, trunkline.producer_topic
    in access exclusive mode;

alter table trunkline.topic add column created_by text collate "C";
comment on column trunkline.topic.created_by is 'The principal that created the topic; null if the broker did not authenticate';

-- Counts what belongs to a principal. The columns do not change with a publish or a commit, so these
-- rows still stay on their page.
create index topic_created_by on trunkline.topic (created_by) where created_by is not null;
create index producer_topic_owner on trunkline.producer_topic (owner) where owner is not null;
create index consumer_topic_owner on trunkline.consumer_topic (owner) where owner is not null;
