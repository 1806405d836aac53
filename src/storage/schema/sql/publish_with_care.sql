create or replace function trunkline.publish_with_care(
    topic text, payloads bytea[], keys bytea[], headers jsonb[], bytes integer, producer text
) returns bigint
language plpgsql
as $$
declare
    publisher record;
begin
    if bytes is null then
        bytes := trunkline.message_bytes(payloads[1], keys[1], headers[1]);
        headers := case when headers[1] <> '{}' then headers end;
    end if;
    publisher := trunkline.check_publisher(topic, producer);
    if current_setting('max_prepared_transactions') <> '0' then
        insert into trunkline.direct_publish (transaction) values (pg_current_xact_id())
        on conflict (transaction) do nothing;
    end if;
    return trunkline.append_directly(topic, publisher.topic_id, payloads, keys, headers, bytes,
        array[publisher.producer_id], array[cardinality(payloads)], array[publisher.register_for]);
end
$$;
comment on function trunkline.publish_with_care is 'Internal: as append_messages, with every check, and says what is wrong';
revoke execute on function trunkline.publish_with_care from public;
