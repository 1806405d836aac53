-- The direct way: the messages have their offsets at once, and the topic's head stays locked until
-- the transaction ends. `bytes` is null for a single message that is not checked yet.
--
-- In a new transaction, PL/pgSQL prepares each expression anew, which costs as much as a small
-- statement. So one statement asks everything that nearly every publish answers alike, and what is left
-- is published with care.
create or replace function trunkline.publish_messages(
    topic text, payloads bytea[], keys bytea[], headers jsonb[], bytes integer, producer text
) returns bigint
language plpgsql
as $$
declare
    number     integer;
    id         text;
    size       integer;
    idle_limit text;
    durability text;
begin
    select t.id, p.producer_id, plain.size,
           -- A session that is forgotten in the middle of a transaction must not stop a topic for long.
           case when current_setting('idle_in_transaction_session_timeout') <> '5s'
                then set_config('idle_in_transaction_session_timeout', '5s', true) end,
           trunkline.must_be_durable()
    into number, id, size, idle_limit, durability
    from trunkline.topic t
    join trunkline.producer_topic p on p.topic_id = t.id
    cross join lateral (select coalesce(publish_messages.bytes,
        octet_length(payloads[1]) + coalesce(octet_length(keys[1]), 0)) as size) plain
    where t.name = publish_messages.topic
      and p.producer_id = coalesce(producer, trunkline.own_producer())
      and trunkline.may_publish(t.name, p.owner, p.epoch)
      and (bytes is not null or headers is null and plain.size <= 1048576)
      and current_setting('transaction_isolation') = 'read committed'
      and current_setting('max_prepared_transactions') = '0'
      and current_setting('idle_in_transaction_session_timeout') in ('0', '5s');
    if found then
        return trunkline.append_messages(topic, number, payloads, keys, headers, size, array[id],
            array[cardinality(payloads)], array[null], false);
    end if;
    return trunkline.publish_with_care(topic, payloads, keys, headers, bytes, producer);
end
$$;
comment on function trunkline.publish_messages is 'Internal: appends messages of one producer within the caller''s transaction';
revoke execute on function trunkline.publish_messages from public;
