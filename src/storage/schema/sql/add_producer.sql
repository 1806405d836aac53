-- Registers a producer, unless somebody else just has. An id that was forgotten gets an epoch that no
-- earlier registration used, as when a broker registers it.
create or replace function trunkline.add_producer(
    topic text, topic_id integer, producer text, owner text
) returns boolean
language plpgsql
as $$
begin
    insert into trunkline.producer_topic (topic_id, producer_id, owner)
    values (add_producer.topic_id, producer, add_producer.owner)
    on conflict on constraint producer_topic_pkey do nothing;
    if not found then
        return false;
    end if;
    -- A statement of its own, so that it sees the fence as it is now.
    update trunkline.producer_topic p
    set epoch = greatest(p.epoch, f.producer_epoch)
    from trunkline.fence f
    where p.topic_id = add_producer.topic_id and p.producer_id = producer
      and exists (select from trunkline.forgotten_producer o
                  where o.topic = add_producer.topic and o.producer_id = producer);
    return true;
end
$$;
comment on function trunkline.add_producer is 'Internal: registers a producer on a topic; false if it is registered';
revoke execute on function trunkline.add_producer from public;
