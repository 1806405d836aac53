create or replace function trunkline.publish_all(
    topic text, payloads bytea[], keys bytea[], headers jsonb[], producer text
) returns bigint
language plpgsql
as $$
declare
    checked record := trunkline.check_messages(payloads, keys, headers);
begin
    -- An array without a value is stored as none at all.
    if cardinality(array_remove(keys, null)) = 0 then
        keys := null;
    end if;
    if headers is not null then
        headers := array(select nullif(header, '{}')
                         from unnest(headers) with ordinality as item (header, number)
                         order by number);
        if cardinality(array_remove(headers, null)) = 0 then
            headers := null;
        end if;
    end if;
    return trunkline.append_messages(topic, null, payloads, keys, headers, checked.bytes::integer,
        array[producer], array[cardinality(payloads)], null, false);
end
$$;
comment on function trunkline.publish_all is 'Internal: publishes many messages';
revoke execute on function trunkline.publish_all from public;
