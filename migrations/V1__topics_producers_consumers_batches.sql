-- Everything that Trunkline keeps. The schema itself is made before the migrations run, as their
-- history is kept in it.

comment on schema trunkline is 'Trunkline, a streaming message broker: topics, their messages, and who reads them';

-- Names compare byte by byte, so that pages of a list follow one order on every server.
create table trunkline.topic (
    id          integer generated always as identity primary key,
    name        text collate "C" not null unique,
    description text not null default '',
    labels      jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
comment on table trunkline.topic is 'The topics: small and rarely written';
comment on column trunkline.topic.id is 'Number of the topic; a topic made anew under an old name gets another';
comment on column trunkline.topic.name is 'Name that clients use: 1 to 255 of A-Za-z0-9._-';
comment on column trunkline.topic.description is 'Free text for people, at most 1,024 bytes';
comment on column trunkline.topic.labels is 'Names and values for tools: at most 64 entries and 16 KiB';
comment on column trunkline.topic.created_at is 'When the topic was created';
comment on column trunkline.topic.updated_at is 'When description or labels last changed';

-- Every publish updates its topic's row here. Half of each page stays free, so that the new
-- version of a row finds room beside the old one and no index is touched.
create table trunkline.topic_head (
    topic_id          integer primary key references trunkline.topic (id),
    next_offset       bigint not null default 0,
    first_offset      bigint not null default 0,
    last_published_at timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table trunkline.topic_head is 'Where each topic''s log ends; its row lock orders the publishes of a topic';
comment on column trunkline.topic_head.topic_id is 'The topic';
comment on column trunkline.topic_head.next_offset is 'The head: the offset that the next message gets';
comment on column trunkline.topic_head.first_offset is 'Offset of the oldest message kept; the head if there is none';
comment on column trunkline.topic_head.last_published_at is 'When the newest batch was stored; null if there was none';

create table trunkline.producer_topic (
    topic_id    integer not null references trunkline.topic (id),
    producer_id text collate "C" not null,
    last_offset bigint,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz,
    primary key (topic_id, producer_id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table trunkline.producer_topic is 'Which producers may publish to which topics';
comment on column trunkline.producer_topic.topic_id is 'The topic';
comment on column trunkline.producer_topic.producer_id is 'Id that the producer chose: 1 to 255 of A-Za-z0-9._-';
comment on column trunkline.producer_topic.last_offset is 'Offset of the last message the producer published; null if it never did';
comment on column trunkline.producer_topic.created_at is 'When the producer was registered';
comment on column trunkline.producer_topic.updated_at is 'When the producer last published; null if it never did';

create table trunkline.consumer_topic (
    topic_id    integer not null references trunkline.topic (id),
    consumer_id text collate "C" not null,
    id          integer generated always as identity,
    position    bigint not null,
    epoch       bigint not null default 0,
    holder      text not null default '',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    primary key (topic_id, consumer_id),
    unique (topic_id, id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table trunkline.consumer_topic is 'The consumers of each topic, and how far each has read';
comment on column trunkline.consumer_topic.topic_id is 'The topic';
comment on column trunkline.consumer_topic.consumer_id is 'Id that the consumer chose: 1 to 255 of A-Za-z0-9._-';
comment on column trunkline.consumer_topic.id is 'Number of the registration; with topic_id the two keys of the advisory lock that is the consumer''s lease';
comment on column trunkline.consumer_topic.position is 'The offset that the consumer gets next; never goes back';
comment on column trunkline.consumer_topic.epoch is 'One more at each acquisition of the lease; a position is only written with the current epoch';
comment on column trunkline.consumer_topic.holder is 'Who acquired the lease last; it is held now only if pg_locks shows the advisory lock';
comment on column trunkline.consumer_topic.created_at is 'When the consumer was registered';
comment on column trunkline.consumer_topic.updated_at is 'When the position last moved or the lease last changed hands';

-- One row per batch, not per message. No foreign key: it would take a lock on the topic's row for
-- every batch, and the topic's head row already guards that the topic exists.
create table trunkline.batch (
    topic_id        integer not null,
    base_offset     bigint not null,
    count           integer not null,
    bytes           integer not null,
    payloads        bytea[] not null,
    keys            bytea[],
    headers         jsonb[],
    producers       text[] not null,
    producer_counts integer[] not null,
    published_at    timestamptz not null,
    primary key (topic_id, base_offset)
);
comment on table trunkline.batch is 'The messages: those of one topic that were committed together are one row';
comment on column trunkline.batch.topic_id is 'The topic';
comment on column trunkline.batch.base_offset is 'Offset of the first message; the others follow without a gap';
comment on column trunkline.batch.count is 'How many messages there are';
comment on column trunkline.batch.bytes is 'Bytes of all payloads, keys and headers';
comment on column trunkline.batch.payloads is 'A payload for each message';
comment on column trunkline.batch.keys is 'A key, or null, for each message; null if no message has one';
comment on column trunkline.batch.headers is 'An object, or null, for each message; null if no message has headers';
comment on column trunkline.batch.producers is 'Who published: ids of runs of messages, in order';
comment on column trunkline.batch.producer_counts is 'How many messages each run has';
comment on column trunkline.batch.published_at is 'When the batch was stored; never decreases with the offset';

-- lz4 where this server was built with it; elsewhere the server's default stays.
do $$
begin
    alter table trunkline.batch
        alter column payloads set compression lz4,
        alter column keys set compression lz4,
        alter column headers set compression lz4;
exception when feature_not_supported or invalid_parameter_value then
    null;
end
$$;

create function trunkline.expand_runs(ids text[], counts integer[]) returns setof text
language sql immutable parallel safe
begin atomic
    select run.id
    from unnest(ids, counts) with ordinality as run (id, count, number),
         generate_series(1, run.count)
    order by run.number;
end;
comment on function trunkline.expand_runs is 'Each id as often as its count says, in order';

create view trunkline.message as
select topic.name as topic,
       batch.base_offset + item.number - 1 as "offset",
       item.key,
       item.headers,
       item.payload,
       item.producer_id,
       batch.published_at
from trunkline.batch
join trunkline.topic on topic.id = batch.topic_id
cross join lateral rows from (
    unnest(batch.payloads),
    unnest(batch.keys),
    unnest(batch.headers),
    trunkline.expand_runs(batch.producers, batch.producer_counts)
) with ordinality as item (payload, key, headers, producer_id, number);
comment on view trunkline.message is 'The messages, one row each, for people and reports';
comment on column trunkline.message.topic is 'Name of the topic';
comment on column trunkline.message."offset" is 'The message''s number in its topic';
comment on column trunkline.message.key is 'What the message is about; null if its producer did not say';
comment on column trunkline.message.headers is 'Names and values beside the payload; null if there are none';
comment on column trunkline.message.payload is 'What the message says';
comment on column trunkline.message.producer_id is 'Who published it';
comment on column trunkline.message.published_at is 'When it was stored';
