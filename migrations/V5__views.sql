-- What people, reports and dashboards read: views of topics, consumers and producers, and functions
-- that find messages by the key.

-- Plain SQL as far as it goes, and no exception is caught in a database of UTF-8: a subtransaction
-- for each value would cost more than the rest, and would keep whole queries from running in
-- parallel. A zero byte is UTF-8, but no text of PostgreSQL holds one.
create function trunkline.to_text(value bytea) returns text
language plpgsql stable strict parallel safe
as $$
begin
    if pg_catalog.encode(value, 'hex') operator(pg_catalog.!~) ('^('
        '0[1-9a-f]|[1-7][0-9a-f]'
        '|c[2-9a-f][89ab][0-9a-f]|d[0-9a-f][89ab][0-9a-f]'
        '|e0[ab][0-9a-f][89ab][0-9a-f]|e[1-9a-cef]([89ab][0-9a-f]){2}|ed[89][0-9a-f][89ab][0-9a-f]'
        '|f0[9ab][0-9a-f]([89ab][0-9a-f]){2}|f[123]([89ab][0-9a-f]){3}|f48[0-9a-f]([89ab][0-9a-f]){2}'
        ')*$')
    then
        return null;
    end if;
    if pg_catalog.getdatabaseencoding() in ('UTF8', 'SQL_ASCII') then
        return pg_catalog.convert_from(value, 'UTF8');
    end if;
    begin
        return pg_catalog.convert_from(value, 'UTF8');
    exception when untranslatable_character or character_not_in_repertoire or undefined_function then
        return null;
    end;
end
$$;
comment on function trunkline.to_text is 'The text that bytes are in UTF-8; null where they are not UTF-8, hold a zero byte, or hold a character that the encoding of this database lacks';

-- A subtransaction cannot begin in a parallel query, and other encodings need one.
do $$
begin
    if getdatabaseencoding() not in ('UTF8', 'SQL_ASCII') then
        alter function trunkline.to_text parallel unsafe;
    end if;
end
$$;

-- Batches without a message to show are left out before they are unpacked, and those that were
-- deleted and not vacuumed yet are not walked over.
create or replace view trunkline.message as
select topic.name as topic,
       batch.base_offset + item.number - 1 as "offset",
       item.key,
       item.headers,
       item.payload,
       item.producer_id,
       batch.published_at,
       trunkline.to_text(item.key) as key_text,
       trunkline.to_text(item.payload) as payload_text
from trunkline.topic
join trunkline.topic_head head on head.topic_id = topic.id
join trunkline.batch on batch.topic_id = head.topic_id
    and batch.base_offset >= head.deleted_until
    and batch.base_offset + batch.count > head.first_offset
cross join lateral rows from (
    unnest(batch.payloads),
    unnest(batch.keys),
    unnest(batch.headers),
    trunkline.expand_runs(batch.producers, batch.producer_counts)
) with ordinality as item (payload, key, headers, producer_id, number)
where batch.base_offset + item.number > head.first_offset;
comment on view trunkline.message is 'The messages, one row each, for reports on whole topics. A query unpacks every batch of the topics and of the range of published_at that it names: a condition on "offset", an order and a limit are applied only to what was unpacked. trunkline.read, newest, read_since and message_at unpack only what they return; trunkline.topics has the numbers of messages and the heads';
comment on column trunkline.message.key_text is 'The key as text; null if it is not UTF-8 (trunkline.to_text)';
comment on column trunkline.message.payload_text is 'The payload as text; null if it is not UTF-8 (trunkline.to_text)';

-- Published times never decrease with the offset, so halving the log finds a time by the primary
-- key: all batches before `low` are older, and the one at `high`, if there is one, is not.
create function trunkline.offset_at(topic text, "time" timestamptz) returns bigint
language plpgsql stable parallel safe cost 1000
set search_path = pg_catalog
set enable_seqscan = off
as $$
declare
    id       integer;
    low      bigint;
    high     bigint;
begin
    if offset_at.topic is null or offset_at."time" is null then
        return null;
    end if;
    select t.id, h.first_offset, h.next_offset into id, low, high
    from trunkline.topic t join trunkline.topic_head h on h.topic_id = t.id
    where t.name = offset_at.topic;
    if not found then
        raise exception 'topic "%" does not exist', offset_at.topic using errcode = 'no_data_found';
    end if;
    while low < high loop
        select case when b.published_at < offset_at."time" then b.base_offset + b.count else low end,
               case when b.published_at < offset_at."time" then high
                    else greatest(b.base_offset, low) end
        into low, high
        from trunkline.batch b
        where b.topic_id = id and b.base_offset <= (low + high) / 2
        order by b.base_offset desc limit 1;
    end loop;
    return high;
end
$$;
comment on function trunkline.offset_at is 'The offset of a topic''s first message stored at a time or later; the head if there is none. Reads a few batches, however many there are. SQLSTATE P0002 if the topic does not exist';

-- Offsets are dense, so a number of messages is a range of offsets, and a range of the primary key.
create function trunkline.offset_range(
    topic text, from_offset bigint, until_offset bigint, "limit" integer, newest boolean,
    out topic_id integer, out base_offset bigint, out first_offset bigint, out end_offset bigint
) returns setof record
language plpgsql stable parallel safe cost 100 rows 1
set search_path = pg_catalog
set enable_seqscan = off
as $$
declare
    deleted_until bigint;
begin
    if "limit" < 0 then
        raise exception 'limit must not be negative' using errcode = 'invalid_row_count_in_limit_clause';
    end if;
    if topic is null then
        return;
    end if;
    select t.id, h.first_offset, h.next_offset, h.deleted_until
    into topic_id, first_offset, end_offset, deleted_until
    from trunkline.topic t join trunkline.topic_head h on h.topic_id = t.id
    where t.name = offset_range.topic;
    if not found then
        raise exception 'topic "%" does not exist', topic using errcode = 'no_data_found';
    end if;
    first_offset := greatest(first_offset, from_offset);
    end_offset := least(end_offset, until_offset);
    if first_offset >= end_offset then
        return;
    end if;
    if newest then
        first_offset := greatest(first_offset, end_offset - "limit");
    elsif "limit" < end_offset - first_offset then
        end_offset := first_offset + "limit";
    end if;
    select b.base_offset into base_offset
    from trunkline.batch b
    where b.topic_id = offset_range.topic_id and b.base_offset <= offset_range.first_offset
      and b.base_offset >= deleted_until
    order by b.base_offset desc limit 1;
    return next;
end
$$;
comment on function trunkline.offset_range is 'Which batches of a topic hold a range of its messages: for the functions that read';

-- SQL alone, so that a query takes it apart: a column that it does not ask for is not computed.
create function trunkline.read_range(
    topic text, from_offset bigint, until_offset bigint, "limit" integer, newest boolean
) returns setof trunkline.message
language sql stable parallel safe rows 1000
begin atomic
    select read_range.topic,
           batch.base_offset + item.number - 1,
           item.key,
           item.headers,
           item.payload,
           item.producer_id,
           batch.published_at,
           trunkline.to_text(item.key),
           trunkline.to_text(item.payload)
    from trunkline.offset_range(
        read_range.topic, read_range.from_offset, read_range.until_offset, read_range."limit",
        read_range.newest) as range
    -- No limit in effect, as a batch holds a message at least: it has the key used at any size.
    cross join lateral (
        select * from trunkline.batch
        where batch.topic_id = range.topic_id
          and batch.base_offset >= range.base_offset and batch.base_offset < range.end_offset
        order by batch.base_offset limit range.end_offset - range.base_offset
    ) batch
    cross join lateral rows from (
        unnest(batch.payloads),
        unnest(batch.keys),
        unnest(batch.headers),
        trunkline.expand_runs(batch.producers, batch.producer_counts)
    ) with ordinality as item (payload, key, headers, producer_id, number)
    where batch.base_offset + item.number > range.first_offset
      and batch.base_offset + item.number <= range.end_offset;
end;
comment on function trunkline.read_range is 'The messages of a range, in no order: for the functions that read';

create function trunkline.read(
    topic text, from_offset bigint default null, "limit" integer default 1000
) returns setof trunkline.message
language sql stable parallel safe rows 1000
begin atomic
    select * from trunkline.read_range(read.topic, read.from_offset, null, read."limit", false)
    order by "offset";
end;
comment on function trunkline.read is 'A topic''s messages from an offset on, or from the oldest one if that is later or the offset is null; as many as the limit, or all if it is null. Reads only the batches that hold them. SQLSTATE P0002 if the topic does not exist';

create function trunkline.newest(topic text, "limit" integer default 10)
returns setof trunkline.message
language sql stable parallel safe rows 10
begin atomic
    select * from trunkline.read_range(newest.topic, null, null, newest."limit", true)
    order by "offset" desc;
end;
comment on function trunkline.newest is 'A topic''s newest messages, the newest first; as many as the limit, or all if it is null. Reads only the batches that hold them. SQLSTATE P0002 if the topic does not exist';

create function trunkline.read_since(
    topic text, from_time timestamptz, until_time timestamptz default null,
    "limit" integer default 1000
) returns setof trunkline.message
language sql stable parallel safe rows 1000
begin atomic
    select * from trunkline.read_range(
        read_since.topic,
        trunkline.offset_at(read_since.topic, read_since.from_time),
        trunkline.offset_at(read_since.topic, read_since.until_time),
        read_since."limit", false)
    order by "offset";
end;
comment on function trunkline.read_since is 'A topic''s messages stored at a time or later (at any, if it is null), and before another one (or until now, if it is null), the oldest first; as many as the limit, or all if it is null. Reads only the batches that hold them, and a few to find the times. SQLSTATE P0002 if the topic does not exist';

create function trunkline.message_at(topic text, "offset" bigint)
returns setof trunkline.message
language sql stable parallel safe rows 1
begin atomic
    select * from trunkline.read_range(
        message_at.topic, message_at."offset",
        case when message_at."offset" < 9223372036854775807 then message_at."offset" + 1
             when message_at."offset" is null then 0
             else message_at."offset" end,
        1, false);
end;
comment on function trunkline.message_at is 'A topic''s message at an offset; no row if it was removed or is not there yet. Reads its batch alone. SQLSTATE P0002 if the topic does not exist';

create view trunkline.topics as
select topic.name as topic,
       topic.description,
       topic.labels,
       head.first_offset,
       head.next_offset as head,
       head.next_offset - head.first_offset as messages,
       head.bytes,
       topic.created_at,
       topic.updated_at,
       head.last_published_at,
       topic.retention_age_ms * interval '1 ms' as retention_age,
       topic.retention_bytes,
       topic.retention_messages,
       topic.keep_unread
from trunkline.topic
join trunkline.topic_head head on head.topic_id = topic.id;
comment on view trunkline.topics is 'The topics: how much each holds, and how long it keeps it';
comment on column trunkline.topics.topic is 'Name of the topic';
comment on column trunkline.topics.description is 'Free text for people';
comment on column trunkline.topics.labels is 'Names and values for tools';
comment on column trunkline.topics.first_offset is 'Offset of the oldest message kept; the head if there is none';
comment on column trunkline.topics.head is 'The offset that the next message gets: one more than that of the newest message';
comment on column trunkline.topics.messages is 'How many messages are kept';
comment on column trunkline.topics.bytes is 'Bytes of payloads, keys and headers that are kept, before compression';
comment on column trunkline.topics.created_at is 'When the topic was created';
comment on column trunkline.topics.updated_at is 'When description, labels or retention last changed';
comment on column trunkline.topics.last_published_at is 'When the newest message was stored; null if there was none';
comment on column trunkline.topics.retention_age is 'How old a message may get; null for any age';
comment on column trunkline.topics.retention_bytes is 'How many bytes are kept; null for any number';
comment on column trunkline.topics.retention_messages is 'How many messages are kept; null for any number';
comment on column trunkline.topics.keep_unread is 'Whether what the slowest consumer has not read is kept, whatever the limits say';

-- The locks are listed once a query, however many consumers there are.
create view trunkline.consumers as
select topic.name as topic,
       consumer.consumer_id as consumer,
       consumer.position,
       head.next_offset - greatest(consumer.position, head.first_offset) as lag_messages,
       case when consumer.position >= head.next_offset then 0
            else (
                select greatest(extract(epoch from statement_timestamp() - batch.published_at), 0)
                from trunkline.batch
                where batch.topic_id = consumer.topic_id
                  and batch.base_offset <= greatest(consumer.position, head.first_offset)
                order by batch.base_offset desc limit 1
            )
       end::double precision as lag_seconds,
       case when (consumer.topic_id::oid, consumer.id::oid) in (
                select classid, objid from pg_locks
                where locktype = 'advisory' and granted and objsubid = 2
                  and database = (select oid from pg_database where datname = current_database())
            ) then nullif(consumer.holder, '')
       end as holder,
       consumer.epoch,
       consumer.created_at,
       consumer.updated_at
from trunkline.topic
join trunkline.topic_head head on head.topic_id = topic.id
join trunkline.consumer_topic consumer on consumer.topic_id = topic.id;
comment on view trunkline.consumers is 'The consumers of each topic: how far behind each is, and who reads';
comment on column trunkline.consumers.topic is 'Name of the topic';
comment on column trunkline.consumers.consumer is 'Id of the consumer';
comment on column trunkline.consumers.position is 'The offset that the consumer gets next';
comment on column trunkline.consumers.lag_messages is 'How many messages the consumer has not had yet; without those that were removed';
comment on column trunkline.consumers.lag_seconds is 'How many seconds ago the message was stored that the consumer gets next; 0 if there is none';
comment on column trunkline.consumers.holder is 'Whose stream has the lease; null if nobody has it';
comment on column trunkline.consumers.epoch is 'The epoch of the lease: more at each acquisition and at each seek';
comment on column trunkline.consumers.created_at is 'When the consumer was registered';
comment on column trunkline.consumers.updated_at is 'When the position last moved or an epoch last began';

create view trunkline.producers as
select topic.name as topic,
       producer.producer_id as producer,
       producer.last_offset,
       producer.last_sequence,
       producer.epoch,
       producer.created_at,
       producer.updated_at as last_published_at
from trunkline.topic
join trunkline.producer_topic producer on producer.topic_id = topic.id;
comment on view trunkline.producers is 'Which producers may publish to which topics, and what each published last';
comment on column trunkline.producers.topic is 'Name of the topic';
comment on column trunkline.producers.producer is 'Id of the producer';
comment on column trunkline.producers.last_offset is 'Offset of the last message that it published; null if it never did';
comment on column trunkline.producers.last_sequence is 'Sequence of the last message that it published with one; null if none was';
comment on column trunkline.producers.epoch is 'The epoch that its publishes must have: more each time that an instance is opened';
comment on column trunkline.producers.created_at is 'When it was registered';
comment on column trunkline.producers.last_published_at is 'When it last published; null if it never did';

-- What was said of columns, and holds no longer.
comment on table trunkline.topic_head is 'Both ends of each topic''s log, and its size; the row''s lock orders the publishes of a topic';
comment on column trunkline.topic_head.last_published_at is 'When the newest batch was stored, also if it was removed since; null if there was none';
comment on column trunkline.topic_head.deleted_until is 'All batches before this offset have been deleted; a few more may lie hidden before first_offset';
comment on column trunkline.topic.updated_at is 'When description, labels or retention last changed';
comment on column trunkline.producer_topic.epoch is 'Goes up each time an instance of the producer shuts the older ones out; a publish with another epoch is refused';
comment on column trunkline.producer_topic.recent_sequences is 'First sequences of the last runs of messages that were stored together, eight at most, the newest first: what answers a repeated publish';
comment on column trunkline.consumer_topic.position is 'The offset that the consumer gets next; goes back only by a seek';
comment on column trunkline.consumer_topic.epoch is 'Goes up at each acquisition of the lease, take-over, seek and pull, and begins above those of earlier registrations; a position is written only with the current epoch';
comment on column trunkline.consumer_topic.holder is 'Who acquired the lease last, empty after a pull; it is held now only if pg_locks shows the advisory lock';
comment on column trunkline.consumer_topic.updated_at is 'When the position last moved, or a stream or a seek last began an epoch';
comment on column trunkline.consumer_topic.seek_epoch is 'The epoch that the last seek began; the epoch at registration if there was none';
comment on column trunkline.batch.producers is 'Ids of the producers, one for each run of messages, in order';
