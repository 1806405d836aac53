-- A pull. The consumer's row stays locked until the transaction ends, so that others that receive as the
-- same consumer wait for it. Its lease is tried and not waited for: a stream may hold it for days.
create or replace function trunkline.receive(
    topic text, consumer text, "limit" integer default 100
) returns setof trunkline.message
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    registered trunkline.consumer_topic;
    message    trunkline.message;
    next       bigint;
    slice      integer;
    slice_end  bigint;
    left_over  integer := "limit";
    bytes      bigint := 0;
    is_free    boolean;
begin
    unlisten trunkline_nobody;
    registered := trunkline.find_consumer(array['consume'], topic, consumer);
    perform trunkline.must_not_be_shared(topic, registered);
    if "limit" is null then
        perform trunkline.refuse_field('limit', 'must not be null');
    elsif "limit" < 1 then
        perform trunkline.refuse_field('limit', 'must be at least 1');
    elsif "limit" > 10000 then
        perform trunkline.refuse_field('limit', format('is %s, and the limit is 10000', "limit"), 10000);
    end if;
    loop
        select * into registered from trunkline.consumer_topic c
        where c.topic_id = registered.topic_id and c.id = registered.id
        for no key update;
        exit when found;
        -- It was unregistered meanwhile, and perhaps registered again.
        registered := trunkline.find_consumer(array['consume'], topic, consumer);
        perform trunkline.must_not_be_shared(topic, registered);
    end loop;
    is_free := pg_try_advisory_xact_lock(registered.topic_id, registered.id);
    for attempt in 1 .. 20 loop
        exit when is_free;
        -- A transaction that had the row frees the lease a moment later.
        perform pg_sleep(0.005);
        is_free := pg_try_advisory_xact_lock(registered.topic_id, registered.id);
    end loop;
    if not is_free then
        perform trunkline.refuse('LEASE_HELD', format(
            'the lease of consumer %s on topic %s is held by %s',
            consumer, topic, coalesce(nullif(registered.holder, ''), 'another transaction')),
            jsonb_build_object('topic', topic, 'consumer_id', consumer,
                               'holder', registered.holder));
    end if;
    next := registered.position;
    -- In slices of some 8 MiB, so that large messages are not all unpacked only to be left.
    select greatest(16, least(10000, 8388608 / greatest(1, h.bytes / greatest(1, h.next_offset - h.first_offset))))
    into slice
    from trunkline.topic_head h where h.topic_id = registered.topic_id;
    while left_over > 0 and bytes < 16777216 loop
        slice_end := null;
        for message in
            select * from trunkline.read(receive.topic, next, least(left_over, slice))
        loop
            return next message;
            slice_end := message."offset" + 1;
            left_over := left_over - 1;
            bytes := bytes + trunkline.plain_bytes(message.payload, message.key);
            exit when bytes >= 16777216;
        end loop;
        exit when slice_end is null;
        next := slice_end;
    end loop;
    if next > registered.position then
        update trunkline.consumer_topic c
        set position = next, epoch = c.epoch + 1, holder = '', updated_at = clock_timestamp()
        where c.topic_id = registered.topic_id and c.id = registered.id;
    end if;
end
$$;
comment on function trunkline.receive is 'Takes messages as a consumer and moves its position, within the caller''s transaction';
revoke execute on function trunkline.receive from public;
