-- Puts messages into the outbox. Takes no lock that others wait for: not on the topic, as a foreign
-- key would, nor on a producer.
create or replace function trunkline.enqueue_messages(
    topic text, payloads bytea[], keys bytea[], headers jsonb[], sizes integer[], producer text
) returns boolean
language plpgsql
as $$
declare
    publisher record;
    -- Taken before the ids, as in enqueue_one.
    own_transaction xid8 := pg_current_xact_id();
begin
    publisher := trunkline.check_publisher(topic, producer);
    insert into trunkline.outbox
        (transaction, topic_id, producer_id, register_for, key, headers, payload, bytes)
    select own_transaction, publisher.topic_id, publisher.producer_id, publisher.register_for,
           message.key, nullif(message.header, '{}'), message.payload, message.size
    from unnest(payloads, keys, headers, sizes) with ordinality
        as message (payload, key, header, size, number)
    order by number;
    if (select trunkline.needs_waking(w.polled_until)
        from trunkline.outbox_watch w where w.only_row)
    then
        perform trunkline.wake();
    end if;
    return true;
end
$$;
comment on function trunkline.enqueue_messages is 'Internal: puts messages of one producer into the outbox';
revoke execute on function trunkline.enqueue_messages from public;
