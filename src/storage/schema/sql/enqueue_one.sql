-- As enqueue_all, for one message. One statement asks everything that nearly every publish answers
-- alike, as in append_messages.
--
-- Columns are computed in order, and so the transaction gets its number before the message gets its id:
-- whoever gets a later number gets a greater id. A role whose producer has another name than this is left
-- to enqueue_messages.
create or replace function trunkline.enqueue_one(
    topic text, payload bytea, key bytea, headers jsonb, producer text
) returns boolean
language plpgsql
as $$
declare
    wakes boolean;
begin
    insert into trunkline.outbox (transaction, topic_id, producer_id, key, payload, bytes)
    select pg_current_xact_id(), t.id, p.producer_id, enqueue_one.key, enqueue_one.payload,
           trunkline.plain_bytes(payload, key)
    from trunkline.topic t
    join trunkline.producer_topic p on p.topic_id = t.id
    where t.name = enqueue_one.topic
      and p.producer_id = coalesce(producer, 'sql.' || session_user)
      and trunkline.may_publish(t.name, p.owner, p.epoch)
      and enqueue_one.headers is null
      and trunkline.plain_bytes(payload, key) <= 1048576
    returning (select trunkline.needs_waking(w.polled_until)
               from trunkline.outbox_watch w where w.only_row)
    into wakes;
    if not found then
        return trunkline.enqueue_messages(topic, array[payload], array[key], array[headers],
            array[trunkline.message_bytes(payload, key, headers)], producer);
    elsif wakes then
        perform trunkline.wake();
    end if;
    return true;
end
$$;
comment on function trunkline.enqueue_one is 'Internal: puts one message into the outbox';
revoke execute on function trunkline.enqueue_one from public;
