-- The epoch fences: a take-over or a seek begins a new one. The row stays locked until the transaction
-- ends, so that a take-over waits for it and finds the position that was committed.
create or replace function trunkline.commit_position(
    topic text, consumer text, "position" bigint, epoch bigint
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    registered trunkline.consumer_topic;
    head       bigint;
begin
    unlisten trunkline_nobody;
    registered := trunkline.find_consumer(array['consume'], topic, consumer);
    perform trunkline.must_not_be_shared(topic, registered);
    if epoch is null or epoch < 1 then
        perform trunkline.refuse_field('epoch',
            'must be the one from the stream''s attached frame, at least 1');
    elsif "position" is null then
        perform trunkline.refuse_field('position', 'must not be null');
    elsif "position" < 0 then
        perform trunkline.refuse_field('position', 'must not be negative');
    end if;
    update trunkline.consumer_topic c
    set position = commit_position."position", updated_at = clock_timestamp()
    from trunkline.topic_head h
    where c.topic_id = registered.topic_id and c.id = registered.id and h.topic_id = c.topic_id
      and c.epoch = commit_position.epoch and c.position <= commit_position."position"
      and commit_position."position" <= h.next_offset;
    if found then
        return;
    end if;
    registered := trunkline.find_consumer(array['consume'], topic, consumer);
    select h.next_offset into head from trunkline.topic_head h
    where h.topic_id = registered.topic_id;
    if registered.epoch <> epoch then
        perform trunkline.refuse('LEASE_LOST', format(
            'the lease of consumer %s on topic %s with epoch %s has ended; consume again to get a new one',
            consumer, topic, epoch),
            jsonb_build_object('topic', topic, 'consumer_id', consumer, 'epoch', epoch::text));
    elsif "position" < registered.position then
        perform trunkline.refuse('COMMIT_BEHIND', format(
            'position %s lies behind the stored position %s, which never goes back',
            "position", registered.position),
            jsonb_build_object('asked', "position"::text, 'position', registered.position::text));
    end if;
    perform trunkline.refuse('COMMIT_BEYOND', format(
        'position %s lies beyond what was delivered, which ends at %s', "position", head),
        jsonb_build_object('asked', "position"::text, 'delivered', head::text));
end
$$;
comment on function trunkline.commit_position is 'Moves the position of a consumer within the caller''s transaction, as the stream that has this epoch';
revoke execute on function trunkline.commit_position from public;
