create or replace function trunkline.seek(
    topic text, consumer text, to_offset bigint default null, to_time timestamptz default null,
    earliest boolean default false, latest boolean default false
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    registered trunkline.consumer_topic;
    -- An administrator of the topic seeks everyone's.
    is_own     boolean := not trunkline.may(array['admin'], topic);
    target     bigint;
begin
    unlisten trunkline_nobody;
    loop
        registered := trunkline.find_consumer(array['consume', 'admin'], topic, consumer, is_own);
        -- A variable that is null must not send a consumer back to the oldest message.
        if to_offset is null and to_time is null and earliest is not true and latest is not true then
            perform trunkline.refuse_field('to_offset',
                'is null, and no other argument names a place: to_time, earliest or latest');
        elsif earliest and num_nonnulls(to_offset, to_time, nullif(latest, false)) > 0 then
            perform trunkline.refuse_field('earliest', 'names a place, and so does another argument');
        end if;
        target := trunkline.resolve_start(topic, registered.topic_id, to_offset, to_time, latest);
        update trunkline.consumer_topic c
        set position = target, epoch = c.epoch + 1, seek_epoch = c.epoch + 1,
            updated_at = clock_timestamp()
        where c.topic_id = registered.topic_id and c.id = registered.id;
        -- Otherwise it was unregistered meanwhile, and perhaps registered again.
        exit when found;
    end loop;
    -- What a subscription has settled does not count any more. What it has parked stays so.
    delete from trunkline.subscription_delta d
    where d.topic_id = registered.topic_id and d.id = registered.id;
    delete from trunkline.subscription_message m
    where m.topic_id = registered.topic_id and m.id = registered.id and m.due is not null;
    update trunkline.subscription s set lost_messages = 0
    where s.topic_id = registered.topic_id and s.id = registered.id and s.lost_messages > 0;
    perform trunkline.record_act('seek', topic, 'consumer ' || consumer,
        jsonb_build_object('position', target::text));
    -- A stream that holds the lease goes on from there.
    perform pg_notify('trunkline', format('sql c%s/%s', registered.topic_id, registered.id));
    return target;
end
$$;
comment on function trunkline.seek is 'Moves a consumer''s position to an offset, a time, or an end of the log, and returns the position';
revoke execute on function trunkline.seek from public;
