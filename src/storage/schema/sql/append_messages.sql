-- Appends one batch, as a broker does: first the topic's head, whose lock orders all publishes, then
-- the batch, then the producers. The producers are runs of messages, in order; `register_for` has the
-- owner of each that is registered if it is missing. What a broker moves out of the outbox was checked
-- when it was published, and its brokers are notified by the broker.
--
-- A notification is sent at most twice a second for a topic: each takes a lock of the whole cluster
-- when its transaction commits. Brokers that were notified poll the topic quickly for a second.
create or replace function trunkline.append_messages(
    topic text, topic_id integer, payloads bytea[], keys bytea[], headers jsonb[], bytes integer,
    producers text[], producer_counts integer[], register_for text[], by_relay boolean,
    out base_offset bigint
)
language plpgsql
as $$
declare
    stored_at timestamptz;
    notifies  boolean;
begin
    update trunkline.topic_head h
    set next_offset = h.next_offset + cardinality(payloads),
        bytes = h.bytes + append_messages.bytes,
        last_published_at = greatest(h.last_published_at, clock_timestamp()),
        -- A time in the future is that of another server's clock.
        notified_at = case
            when by_relay or h.notified_at between called.at - interval '500 ms'
                                               and called.at + interval '2 s'
            then h.notified_at else called.at end
    from (select clock_timestamp() as at) called
    where h.topic_id = append_messages.topic_id
    returning h.next_offset - cardinality(payloads), h.last_published_at,
              not by_relay and h.notified_at = called.at
    into base_offset, stored_at, notifies;
    if notifies is distinct from false then
        if base_offset is null then
            perform trunkline.refuse_topic(topic);
        end if;
        -- The same text for each message of a transaction, so that one notification is sent.
        perform pg_notify('trunkline', 'sql s' || append_messages.topic_id);
    end if;
    insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, keys, headers,
        producers, producer_counts, published_at)
    values (append_messages.topic_id, append_messages.base_offset, cardinality(append_messages.payloads),
        append_messages.bytes, append_messages.payloads, append_messages.keys,
        append_messages.headers, append_messages.producers, append_messages.producer_counts, stored_at);
    update trunkline.producer_topic p
    set last_offset = base_offset + cardinality(payloads) - 1, updated_at = stored_at
    where cardinality(producers) = 1 and p.topic_id = append_messages.topic_id
      and p.producer_id = producers[1] and (by_relay or p.epoch = 0);
    if not found then
        perform trunkline.note_producers(topic, append_messages.topic_id, base_offset, stored_at,
            producers, producer_counts, register_for, by_relay);
    end if;
end
$$;
comment on function trunkline.append_messages is 'Internal: appends a batch to a topic';
revoke execute on function trunkline.append_messages from public;
