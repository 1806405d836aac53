-- Appends one batch, as a broker does: first the topic's head, whose lock orders all publishes, then
-- the batch, then the producers. The producers are runs of messages, in order; `register_for` has the
-- owner of each that is registered if it is missing. What a broker moves out of the outbox was checked
-- when it was published, and its brokers are notified by the broker.
--
-- Without a `topic_id`, nothing is checked yet: a session publishes as one producer, or as its own if
-- that is null. `bytes` is null for a single message. In a new transaction, PL/pgSQL prepares each
-- expression anew, which costs as much as a small statement. So the first statement asks everything that
-- nearly every publish answers alike, and what is left is published with care.
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
    called_at timestamptz := clock_timestamp();
    number    integer;
    stored_at timestamptz;
    notifies  boolean;
    owns_all  boolean;
    settings  text[];
    publisher record;
begin
    update trunkline.topic_head h
    set next_offset = h.next_offset + cardinality(payloads),
        bytes = h.bytes + coalesce(append_messages.bytes, trunkline.plain_bytes(payloads[1], keys[1])),
        last_published_at = greatest(h.last_published_at, clock_timestamp()),
        -- A time in the future is that of another server's clock.
        notified_at = case
            when by_relay or h.notified_at between called_at - interval '500 ms'
                                               and called_at + interval '2 s'
            then h.notified_at else called_at end
    where h.topic_id = coalesce(append_messages.topic_id, (
        select t.id from trunkline.topic t
        where t.name = append_messages.topic
          and (append_messages.bytes is not null or append_messages.headers is null
               and trunkline.plain_bytes(payloads[1], keys[1]) <= 1048576)
          and (trunkline.is_unlimited() or trunkline.may(array['publish'], t.name))
          -- Whoever is refused must not lock the head. A producer of the session's own may be missing;
          -- those of some roles have other names than theirs.
          and case when producers[1] is null then session_user ~ '^[A-Za-z0-9._-]*$'
              else exists (
                  select from trunkline.producer_topic p
                  where p.topic_id = t.id and p.producer_id = producers[1] and p.epoch = 0
                    and (trunkline.is_unlimited() or p.owner = 'sql:' || session_user)) end
          and current_setting('transaction_isolation') = 'read committed'
          and current_setting('max_prepared_transactions') = '0'
          and current_setting('idle_in_transaction_session_timeout') in ('0', '5s')))
    returning h.topic_id, h.next_offset - cardinality(payloads), h.last_published_at,
              not by_relay and h.notified_at = called_at,
              append_messages.topic_id is not null or trunkline.is_unlimited(),
              case when append_messages.topic_id is null then array[
                  -- A session that is forgotten in a transaction must not stop a topic for long.
                  case when current_setting('idle_in_transaction_session_timeout') <> '5s'
                       then set_config('idle_in_transaction_session_timeout', '5s', true) end,
                  trunkline.must_be_durable()] end
    into number, base_offset, stored_at, notifies, owns_all, settings;
    if notifies is distinct from false then
        if number is null and topic_id is null then
            base_offset := trunkline.publish_with_care(
                topic, payloads, keys, headers, bytes, producers[1]);
            return;
        elsif number is null then
            perform trunkline.refuse_topic(topic);
        end if;
        -- The same text for each message of a transaction, so that one notification is sent.
        perform pg_notify('trunkline', 'sql s' || number);
    end if;
    insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, keys, headers,
        producers, producer_counts, published_at)
    values (number, append_messages.base_offset, cardinality(append_messages.payloads),
        coalesce(append_messages.bytes, trunkline.plain_bytes(payloads[1], keys[1])),
        append_messages.payloads, append_messages.keys, append_messages.headers,
        case when append_messages.producers[1] is null then array['sql.' || session_user]
             else append_messages.producers end,
        append_messages.producer_counts, stored_at);
    update trunkline.producer_topic p
    set last_offset = base_offset + cardinality(payloads) - 1, updated_at = stored_at
    where cardinality(producers) = 1 and p.topic_id = number
      and p.producer_id = coalesce(producers[1], 'sql.' || session_user)
      and (by_relay or p.epoch = 0)
      and (owns_all or p.owner = 'sql:' || session_user);
    if not found then
        if topic_id is null then
            publisher := trunkline.check_publisher(topic, producers[1]);
            producers := array[publisher.producer_id];
            register_for := array[publisher.register_for];
        end if;
        perform trunkline.note_producers(topic, number, base_offset, stored_at,
            producers, producer_counts, register_for, by_relay);
    end if;
end
$$;
comment on function trunkline.append_messages is 'Internal: appends a batch to a topic';
revoke execute on function trunkline.append_messages from public;
