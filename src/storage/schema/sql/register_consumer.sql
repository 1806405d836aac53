create or replace function trunkline.register_consumer(
    topic text, consumer text, from_offset bigint default null, from_time timestamptz default null,
    latest boolean default false, if_missing boolean default false
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    number     integer;
    start      bigint;
    registered trunkline.consumer_topic;
begin
    unlisten trunkline_nobody;
    perform trunkline.check_name('topic', topic);
    perform trunkline.check_name('consumer', consumer);
    perform trunkline.check_right(array['consume', 'admin'], topic);
    select t.id into number from trunkline.topic t where t.name = register_consumer.topic;
    if number is null then
        perform trunkline.refuse_topic(topic);
    end if;
    -- An id that is taken must not use up a number.
    if not exists (select from trunkline.consumer_topic c
                   where c.topic_id = number and c.consumer_id = consumer)
    then
        start := trunkline.resolve_start(topic, number, from_offset, from_time, latest);
        insert into trunkline.consumer_topic (topic_id, consumer_id, position, owner)
        values (number, consumer, start,
            trunkline.new_owner())
        on conflict on constraint consumer_topic_pkey do nothing;
        if found then
            -- A statement of its own, so that it sees the fence as it is now.
            update trunkline.consumer_topic c
            set epoch = consumer_epoch, seek_epoch = consumer_epoch
            from trunkline.fence
            where c.topic_id = number and c.consumer_id = consumer
              and consumer_epoch > 0;
            perform trunkline.record_act('register_consumer', topic, 'consumer ' || consumer);
            return start;
        end if;
    end if;
    select * into registered from trunkline.consumer_topic c
    where c.topic_id = number and c.consumer_id = consumer;
    perform trunkline.check_owner('consumer', topic, consumer, registered.owner);
    if not coalesce(if_missing, false) then
        perform trunkline.refuse('CONSUMER_EXISTS',
            format('consumer %s is registered on topic %s already', consumer, topic),
            jsonb_build_object('topic', topic, 'consumer_id', consumer));
    end if;
    perform trunkline.must_not_be_shared(topic, registered);
    return registered.position;
end
$$;
comment on function trunkline.register_consumer is 'Gives a consumer a position in a topic, at the oldest message unless told otherwise; returns the position';
revoke execute on function trunkline.register_consumer from public;
