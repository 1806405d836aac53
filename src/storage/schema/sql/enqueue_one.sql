-- As enqueue_all, for one message. One statement asks everything that nearly every publish answers
-- alike, as in publish_messages.
create or replace function trunkline.enqueue_one(
    topic text, payload bytea, key bytea, headers jsonb, producer text
) returns boolean
language plpgsql
as $$
declare
    own_transaction xid8;
    number          integer;
    id              text;
    size            integer;
    wakes           boolean;
begin
    -- The transaction gets its number before the message gets its id, so that whoever gets a later
    -- number gets a greater id.
    select pg_current_xact_id(), t.id, p.producer_id, plain.size
    into own_transaction, number, id, size
    from trunkline.topic t
    join trunkline.producer_topic p on p.topic_id = t.id
    cross join lateral (
        select octet_length(payload) + coalesce(octet_length(key), 0) as size) plain
    where t.name = enqueue_one.topic
      and p.producer_id = coalesce(producer, trunkline.own_producer())
      and trunkline.may_publish(t.name, p.owner, p.epoch)
      and headers is null and plain.size <= 1048576;
    if not found then
        size := trunkline.message_bytes(payload, key, headers);
        return trunkline.enqueue_messages(
            topic, array[payload], array[key], array[headers], array[size], producer);
    end if;
    insert into trunkline.outbox (transaction, topic_id, producer_id, key, payload, bytes)
    values (own_transaction, number, id, enqueue_one.key, enqueue_one.payload, size)
    returning (select trunkline.needs_waking(w.polled_until)
               from trunkline.outbox_watch w where w.only_row)
    into wakes;
    if wakes then
        perform trunkline.wake();
    end if;
    return true;
end
$$;
comment on function trunkline.enqueue_one is 'Internal: puts one message into the outbox';
revoke execute on function trunkline.enqueue_one from public;
