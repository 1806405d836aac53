-- A transaction that keeps its snapshot fails if the topic was published to since it began. Catching
-- that takes a subtransaction, so it is only caught where it can happen.
create or replace function trunkline.append_directly(
    topic text, topic_id integer, payloads bytea[], keys bytea[], headers jsonb[], bytes integer,
    producers text[], producer_counts integer[], register_for text[]
) returns bigint
language plpgsql
as $$
declare
    durability text := trunkline.must_be_durable();
    -- A session that is forgotten in a transaction must not stop a topic for long.
    idle_limit text := case
        when current_setting('idle_in_transaction_session_timeout')::interval
             not between interval '1 ms' and interval '5 s'
        then set_config('idle_in_transaction_session_timeout', '5s', true) end;
begin
    if current_setting('transaction_isolation') in ('read committed', 'read uncommitted') then
        return trunkline.append_messages(topic, topic_id, payloads, keys, headers, bytes,
            producers, producer_counts, register_for, false);
    end if;
    begin
        return trunkline.append_messages(topic, topic_id, payloads, keys, headers, bytes,
            producers, producer_counts, register_for, false);
    exception when serialization_failure then
        perform trunkline.refuse('TOPIC_BUSY', format(
            'topic %s was published to since this %s transaction began; nothing was stored',
            topic, current_setting('transaction_isolation')), jsonb_build_object('topic', topic));
    end;
end
$$;
comment on function trunkline.append_directly is 'Internal: appends a batch within the transaction of a caller, and says why that fails where it keeps its snapshot';
revoke execute on function trunkline.append_directly from public;
