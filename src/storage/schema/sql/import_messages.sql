-- Appends the rows of a table or view with the columns of an export, in the order of their offsets. Rows
-- with the same time become batches of up to 10,000 messages and 8 MiB, as at a commit. The head is locked
-- from the beginning, and moved once, at the end. A cursor reads the rows, so memory holds one batch.
--
-- It runs with the rights of its caller, and nobody is granted it: the source may be a view of anybody's,
-- whose functions would otherwise run with the rights of the schema's owner. And messages with chosen times
-- and producers are for those who could write them into the tables anyway.
create or replace function trunkline.import_messages(topic text, source regclass) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    started_at   timestamptz := clock_timestamp();
    durability   text := trunkline.must_be_durable();
    id           integer;
    old_head     bigint;
    head         bigint;
    last_time    timestamptz;
    expected     record;
    items        refcursor;
    item         record;
    is_over      boolean := false;
    seen_offset  bigint;
    at_offset    bigint;
    size         integer;
    count        integer := 0;
    bytes        integer := 0;
    total_bytes  bigint := 0;
    payloads     bytea[] := '{}';
    keys         bytea[] := '{}';
    headers      jsonb[] := '{}';
    has_keys     boolean := false;
    has_headers  boolean := false;
    producers    text[] := '{}';
    counts       integer[] := '{}';
    producer     record;
    problem      text;
    details      text;
begin
    if source is null then
        perform trunkline.refuse_field('source', 'must not be null');
    end if;
    for expected in
        select wanted.name, wanted.type, a.atttypid
        from (values (1, 'offset', 'bigint'::regtype), (2, 'published_at', 'timestamptz'),
                     (3, 'producer_id', 'text'), (4, 'key', 'bytea'), (5, 'headers', 'jsonb'),
                     (6, 'payload', 'bytea')) as wanted (number, name, type)
        left join pg_attribute a on a.attrelid = source and a.attname = wanted.name
                                and a.attnum > 0 and not a.attisdropped
        where a.atttypid is distinct from wanted.type
        order by wanted.number
    loop
        perform trunkline.refuse_field(expected.name, case
            when expected.atttypid is null then format('is missing in %s, and must be a column of type %s',
                source, expected.type)
            else format('is of type %s in %s, and must be of type %s',
                expected.atttypid::regtype, source, expected.type) end);
    end loop;
    select t.id, h.next_offset, h.last_published_at
    into id, old_head, last_time
    from trunkline.topic t join trunkline.topic_head h on h.topic_id = t.id
    where t.name = import_messages.topic
    for no key update of h;
    if not found then
        perform trunkline.refuse_topic(topic);
    end if;
    head := old_head;

    open items no scroll for execute format(
        'select "offset", published_at, producer_id, key, nullif(headers, ''{}'') as headers, payload,
                trunkline.plain_bytes(payload, key) as bytes
         from %s order by "offset"', source);
    begin
        loop
            fetch items into item;
            is_over := not found;
            if not is_over then
                at_offset := item."offset";
                size := item.bytes;
                if item.headers is not null or size is null or size > 1048576 then
                    size := trunkline.message_bytes(item.payload, item.key, item.headers);
                end if;
                if item."offset" is null or item.published_at is null or item.producer_id is null then
                    perform trunkline.refuse_field(case
                        when item."offset" is null then 'offset'
                        when item.published_at is null then 'published_at'
                        else 'producer_id' end, 'must not be null');
                elsif item."offset" = seen_offset then
                    perform trunkline.refuse_field('offset', 'occurs more than once');
                elsif item.published_at > started_at or not isfinite(item.published_at) then
                    perform trunkline.refuse_field('published_at',
                        format('is %s, and must be a time in the past', item.published_at));
                elsif item.published_at < last_time then
                    perform trunkline.refuse_field('published_at', format(
                        'is %s, and the message before it in topic %s is of %s: times must not go back',
                        item.published_at, topic, last_time));
                end if;
            end if;
            if count > 0 and (is_over or count = 10000 or bytes + size > 8388608
                              or item.published_at <> last_time) then
                insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, keys, headers,
                    producers, producer_counts, published_at)
                values (id, head, count, bytes, payloads, case when has_keys then keys end,
                    case when has_headers then headers end, producers, counts, last_time);
                head := head + count;
                total_bytes := total_bytes + bytes;
                count := 0;
                bytes := 0;
                payloads := '{}';
                keys := '{}';
                headers := '{}';
                has_keys := false;
                has_headers := false;
                producers := '{}';
                counts := '{}';
            end if;
            exit when is_over;
            if item.producer_id = producers[cardinality(producers)] then
                counts[cardinality(counts)] := counts[cardinality(counts)] + 1;
            else
                perform trunkline.check_name('producer_id', item.producer_id);
                producers := producers || item.producer_id;
                counts := counts || 1;
            end if;
            payloads := payloads || item.payload;
            keys := keys || item.key;
            headers := headers || item.headers;
            has_keys := has_keys or item.key is not null;
            has_headers := has_headers or item.headers is not null;
            count := count + 1;
            bytes := bytes + size;
            seen_offset := item."offset";
            last_time := item.published_at;
        end loop;
    exception when sqlstate 'TL101' then
        -- Says which of the many rows it is.
        get stacked diagnostics problem = message_text, details = pg_exception_detail;
        raise exception using errcode = 'TL101',
            message = format('%s; at "offset" %s of %s', problem, coalesce(at_offset::text, 'null'), source),
            detail = details::jsonb || jsonb_strip_nulls(jsonb_build_object('offset', at_offset::text));
    end;
    close items;

    if head > old_head then
        update trunkline.topic_head h
        set next_offset = head, bytes = h.bytes + total_bytes, last_published_at = last_time
        where h.topic_id = id;
        for producer in
            select run.producer, max(run.last_offset) as last_offset, max(run.published_at) as published_at
            from (
                select r.producer, b.published_at,
                       b.base_offset - 1 + sum(r.count) over (partition by b.base_offset order by r.number)
                           as last_offset
                from trunkline.batch b
                cross join lateral unnest(b.producers, b.producer_counts)
                    with ordinality as r (producer, count, number)
                where b.topic_id = id and b.base_offset >= old_head
            ) run
            group by run.producer
            order by run.producer
        loop
            perform trunkline.note_producers(topic, id, producer.last_offset, producer.published_at,
                array[producer.producer], array[1], array[''], true);
        end loop;
    end if;
    -- Even if nothing was imported: PostgreSQL then refuses to prepare the transaction, which holds the head.
    perform pg_notify('trunkline', 'sql s' || id);
    perform trunkline.record_act('import_messages', topic, null,
        jsonb_build_object('messages', (head - old_head)::text));
    return head - old_head;
end
$$;
comment on function trunkline.import_messages is 'Appends the messages of a table or view with the columns "offset", published_at, producer_id, key, headers and payload to a topic, with new offsets; returns how many. For the owner of the schema';
revoke execute on function trunkline.import_messages from public;
