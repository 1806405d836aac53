-- What SQL roles see. A role that may read the table `batch` could read every message there, so the
-- views show it everything. Any other role sees the topics that are granted to it: for the role
-- `ann`, by grants of the principal `sql:ann`, and by those of the roles whose privileges it has.

-- Views check the tables below them by the rights of their owner, but the functions that ask for
-- privileges mean the role that runs the query. A function that ran with its owner's rights could
-- not tell who calls it.
create view trunkline.granted_pattern as
with granted as materialized (
    select access_grant.topics
    from trunkline.access_grant
    -- A longer name would be cut off and fit another role.
    join pg_catalog.pg_roles on rolname = substr(access_grant.principal, 5)::name
                            and length(access_grant.principal) <= 67
    where access_grant.principal like 'sql:%'
      and access_grant.operation in ('read', 'consume', 'admin')
      and pg_catalog.pg_has_role(pg_roles.oid, 'usage')
)
select granted.topics,
       case when right(granted.topics, 1) = '*' then left(granted.topics, -1) end as prefix
from granted;
comment on view trunkline.granted_pattern is 'Where grants let the role that asks read: for the other views';
comment on column trunkline.granted_pattern.topics is 'A name, or a prefix that ends in an asterisk';
comment on column trunkline.granted_pattern.prefix is 'The prefix alone; null for a name';

-- `security_barrier` keeps a query's own functions from being called with rows that the view leaves
-- out. Comparisons of names, offsets and times still reach the indexes.
create view trunkline.readable_topic with (security_barrier = true) as
select topic.id,
       topic.name,
       head.first_offset,
       head.next_offset,
       head.deleted_until
from trunkline.topic
join trunkline.topic_head head on head.topic_id = topic.id
where (select pg_catalog.has_table_privilege('trunkline.batch'::regclass, 'select'))
   or exists (select from trunkline.granted_pattern granted
              where topic.name = granted.topics or starts_with(topic.name, granted.prefix));
comment on view trunkline.readable_topic is 'Both ends of the topics that the role that asks may read: for the functions that read';
comment on column trunkline.readable_topic.id is 'Number of the topic';
comment on column trunkline.readable_topic.name is 'Name of the topic';
comment on column trunkline.readable_topic.first_offset is 'Offset of the oldest message kept; the head if there is none';
comment on column trunkline.readable_topic.next_offset is 'The head';
comment on column trunkline.readable_topic.deleted_until is 'All batches before this offset have been deleted';

create view trunkline.readable_batch with (security_barrier = true) as
select batch.topic_id,
       batch.base_offset,
       batch.count,
       batch.payloads,
       batch.keys,
       batch.headers,
       batch.producers,
       batch.producer_counts,
       batch.published_at
from trunkline.batch
where (select pg_catalog.has_table_privilege('trunkline.batch'::regclass, 'select'))
   or exists (select from trunkline.topic
              join trunkline.topic_head head on head.topic_id = topic.id
              join trunkline.granted_pattern granted
                  on topic.name = granted.topics or starts_with(topic.name, granted.prefix)
              where topic.id = batch.topic_id
                -- Not what was removed and is not deleted yet.
                and batch.base_offset + batch.count > head.first_offset)
-- A query that asks for this order stops at its limit; it could not order what a barrier yields
-- without reading all of it.
order by batch.topic_id desc, batch.base_offset desc;
comment on view trunkline.readable_batch is 'The batches of the topics that the role that asks may read: for the functions that read';
comment on column trunkline.readable_batch.topic_id is 'The topic';
comment on column trunkline.readable_batch.base_offset is 'Offset of the first message';
comment on column trunkline.readable_batch.count is 'How many messages there are';
comment on column trunkline.readable_batch.payloads is 'A payload for each message';
comment on column trunkline.readable_batch.keys is 'A key, or null, for each message; null if no message has one';
comment on column trunkline.readable_batch.headers is 'An object, or null, for each message; null if no message has headers';
comment on column trunkline.readable_batch.producers is 'Ids of the producers, one for each run of messages, in order';
comment on column trunkline.readable_batch.producer_counts is 'How many messages each run has';
comment on column trunkline.readable_batch.published_at is 'When the batch was stored';

-- The views and functions of people: the same as before, of the topics that the role may read.

create or replace view trunkline.message with (security_barrier = true) as
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
where batch.base_offset + item.number > head.first_offset
  and ((select pg_catalog.has_table_privilege('trunkline.batch'::regclass, 'select'))
    or exists (select from trunkline.granted_pattern granted
              where topic.name = granted.topics or starts_with(topic.name, granted.prefix)));

create or replace view trunkline.topics with (security_barrier = true) as
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
join trunkline.topic_head head on head.topic_id = topic.id
where (select pg_catalog.has_table_privilege('trunkline.batch'::regclass, 'select'))
   or exists (select from trunkline.granted_pattern granted
              where topic.name = granted.topics or starts_with(topic.name, granted.prefix));

create or replace view trunkline.consumers with (security_barrier = true) as
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
join trunkline.consumer_topic consumer on consumer.topic_id = topic.id
where (select pg_catalog.has_table_privilege('trunkline.batch'::regclass, 'select'))
   or exists (select from trunkline.granted_pattern granted
              where topic.name = granted.topics or starts_with(topic.name, granted.prefix));

create or replace view trunkline.producers with (security_barrier = true) as
select topic.name as topic,
       producer.producer_id as producer,
       producer.last_offset,
       producer.last_sequence,
       producer.epoch,
       producer.created_at,
       producer.updated_at as last_published_at
from trunkline.topic
join trunkline.producer_topic producer on producer.topic_id = topic.id
where (select pg_catalog.has_table_privilege('trunkline.batch'::regclass, 'select'))
   or exists (select from trunkline.granted_pattern granted
              where topic.name = granted.topics or starts_with(topic.name, granted.prefix));

create or replace function trunkline.offset_at(topic text, "time" timestamptz) returns bigint
language plpgsql stable parallel safe cost 1000
set search_path = pg_catalog
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
declare
    id       integer;
    low      bigint;
    high     bigint;
begin
    if offset_at.topic is null or offset_at."time" is null then
        return null;
    end if;
    select t.id, t.first_offset, t.next_offset into id, low, high
    from trunkline.readable_topic t
    where t.name = offset_at.topic;
    if not found then
        raise exception 'topic "%" does not exist', offset_at.topic using errcode = 'no_data_found';
    end if;
    while low < high loop
        select case when b.published_at < offset_at."time" then b.base_offset + b.count else low end,
               case when b.published_at < offset_at."time" then high
                    else greatest(b.base_offset, low) end
        into low, high
        from trunkline.readable_batch b
        where b.topic_id = id and b.base_offset <= (low + high) / 2
        order by b.base_offset desc limit 1;
    end loop;
    return high;
end
$$;

create or replace function trunkline.offset_range(
    topic text, from_offset bigint, until_offset bigint, "limit" integer, newest boolean,
    out topic_id integer, out base_offset bigint, out first_offset bigint, out end_offset bigint
) returns setof record
language plpgsql stable parallel safe cost 100 rows 1
set search_path = pg_catalog
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
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
    select t.id, t.first_offset, t.next_offset, t.deleted_until
    into topic_id, first_offset, end_offset, deleted_until
    from trunkline.readable_topic t
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
    from trunkline.readable_batch b
    where b.topic_id = offset_range.topic_id and b.base_offset <= offset_range.first_offset
      and b.base_offset >= deleted_until
    order by b.base_offset desc limit 1;
    return next;
end
$$;

create or replace function trunkline.read_range(
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
        select * from trunkline.readable_batch stored
        where stored.topic_id = range.topic_id
          and stored.base_offset >= range.base_offset and stored.base_offset < range.end_offset
        order by stored.base_offset desc limit range.end_offset - range.base_offset
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

-- Whoever could call the functions until now, by a right to read the table, still can.
do $$
declare
    reader text;
begin
    for reader in
        select case when grantee = 0 then 'public' else pg_get_userbyid(grantee)::text end
        from pg_class, aclexplode(relacl)
        where pg_class.oid = 'trunkline.batch'::regclass and privilege_type = 'SELECT'
          and grantee <> relowner
    loop
        execute format('grant select on trunkline.readable_topic, trunkline.readable_batch to %s',
            case reader when 'public' then 'public' else quote_ident(reader) end);
    end loop;
end
$$;
