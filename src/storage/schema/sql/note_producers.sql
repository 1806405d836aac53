-- Several producers, or one that is missing or fenced.
create or replace function trunkline.note_producers(
    topic text, topic_id integer, base_offset bigint, stored_at timestamptz,
    producers text[], producer_counts integer[], register_for text[], by_relay boolean
) returns void
language plpgsql
as $$
declare
    last bigint := base_offset - 1;
begin
    for run in 1 .. cardinality(producers) loop
        last := last + producer_counts[run];
        loop
            update trunkline.producer_topic p
            set last_offset = last, updated_at = stored_at
            where p.topic_id = note_producers.topic_id and p.producer_id = producers[run]
              and (by_relay or p.epoch = 0);
            exit when found or by_relay and register_for[run] is null;
            if register_for[run] is null or exists (
                select from trunkline.producer_topic p
                where p.topic_id = note_producers.topic_id and p.producer_id = producers[run]
                  and p.epoch <> 0)
            then
                perform trunkline.refuse_producer(topic, note_producers.topic_id, producers[run]);
            end if;
            perform trunkline.add_producer(
                topic, note_producers.topic_id, producers[run], nullif(register_for[run], ''));
        end loop;
    end loop;
end
$$;
comment on function trunkline.note_producers is 'Internal: what producers published last, and registers those that may be';
revoke execute on function trunkline.note_producers from public;
