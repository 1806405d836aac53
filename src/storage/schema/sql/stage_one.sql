create or replace function trunkline.stage_one(
    topic text, payload bytea, key bytea, headers jsonb, producer text
) returns void
language plpgsql
as $$
declare
    bytes     integer := trunkline.message_bytes(payload, key, headers);
    publisher record := trunkline.check_publisher(topic, producer);
begin
    insert into trunkline.staged_message
        (transaction, topic_id, topic, producer_id, register_for, key, headers, payload, bytes)
    values (pg_current_xact_id(), publisher.topic_id, stage_one.topic, publisher.producer_id,
        publisher.register_for, stage_one.key, nullif(stage_one.headers, '{}'), stage_one.payload,
        bytes);
end
$$;
comment on function trunkline.stage_one is 'Internal: keeps one message until the transaction commits';
revoke execute on function trunkline.stage_one from public;
