-- The delivery contract in full: exactly-once publish, take-over.

-- What makes a repeated publish harmless: each producer's count of its messages, and a fence.

alter table trunkline.producer_topic
    add column epoch            bigint not null default 0,
    add column last_sequence    bigint,
    add column recent_sequences bigint[],
    add column recent_offsets   bigint[];
comment on column trunkline.producer_topic.epoch is 'How often the producer was fenced; a publish of an older epoch is refused';
comment on column trunkline.producer_topic.last_sequence is 'Sequence of the last message published with one; null if none was';
comment on column trunkline.producer_topic.recent_sequences is 'First sequences of the last runs of messages that were stored together, the newest first: what answers a repeated publish';
comment on column trunkline.producer_topic.recent_offsets is 'Offsets of the first message of each of those runs';

-- A statement that has begun to write finds that what it read has changed: it must leave nothing.
create function trunkline.changed_meanwhile() returns bigint
language plpgsql volatile
as $$
begin
    raise exception 'changed meanwhile' using errcode = 'TL001';
end
$$;
comment on function trunkline.changed_meanwhile is 'Ends a publish whose producer changed between its check and its lock; it is tried again';

-- A stream that takes a lease over claims it first: until the claim is used, or grows old, nobody
-- else begins a new epoch.
alter table trunkline.consumer_topic
    add column claimed_by  text,
    add column claimed_at  timestamptz,
    add column claimant    text,
    add column claim_epoch bigint not null default 0;
comment on column trunkline.consumer_topic.claimed_by is 'Token of a stream that is taking the lease over; null if none is';
comment on column trunkline.consumer_topic.claimed_at is 'When that stream last said so; an old claim is void';
comment on column trunkline.consumer_topic.claimant is 'What the last stream that took the lease over, or tried to, is called; null if none did';
comment on column trunkline.consumer_topic.claim_epoch is 'The epoch that its claim began; whoever held the lease before then has lost it';

-- Retention. What is removed is only hidden at first, by moving first_offset; the rows go in small
-- steps behind it.
alter table trunkline.topic
    add column retention_age_ms   bigint,
    add column retention_bytes    bigint,
    add column retention_messages bigint,
    add column keep_unread        boolean not null default false;
comment on column trunkline.topic.retention_age_ms is 'How old a message may get, in milliseconds; null for any age';
comment on column trunkline.topic.retention_bytes is 'How many bytes of payloads, keys and headers are kept; null for any number';
comment on column trunkline.topic.retention_messages is 'How many messages are kept; null for any number';
comment on column trunkline.topic.keep_unread is 'Whether what the slowest consumer has not read is kept, whatever the limits say';

alter table trunkline.topic_head
    add column bytes         bigint not null default 0,
    add column deleted_until bigint not null default 0;
comment on column trunkline.topic_head.bytes is 'Bytes of payloads, keys and headers of all batches that end behind first_offset';
comment on column trunkline.topic_head.deleted_until is 'The first_offset up to which batches have been deleted';
update trunkline.topic_head h
set bytes = coalesce((select sum(b.bytes) from trunkline.batch b where b.topic_id = h.topic_id), 0);

create table trunkline.deleted_topic (
    topic_id   integer primary key,
    deleted_at timestamptz not null default now()
);
comment on table trunkline.deleted_topic is 'Topics that are gone, but whose batches are still being deleted';
comment on column trunkline.deleted_topic.topic_id is 'The topic';
comment on column trunkline.deleted_topic.deleted_at is 'When it was deleted';

create or replace view trunkline.message as
select topic.name as topic,
       batch.base_offset + item.number - 1 as "offset",
       item.key,
       item.headers,
       item.payload,
       item.producer_id,
       batch.published_at
from trunkline.batch
join trunkline.topic on topic.id = batch.topic_id
join trunkline.topic_head head on head.topic_id = batch.topic_id
cross join lateral rows from (
    unnest(batch.payloads),
    unnest(batch.keys),
    unnest(batch.headers),
    trunkline.expand_runs(batch.producers, batch.producer_counts)
) with ordinality as item (payload, key, headers, producer_id, number)
where batch.base_offset + item.number > head.first_offset;
