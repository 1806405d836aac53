-- Checks the arguments of a publish of many messages, and returns their bytes.
create or replace function trunkline.check_messages(
    payloads bytea[], keys bytea[], headers jsonb[],
    out bytes bigint, out sizes integer[]
)
language plpgsql stable
as $$
declare
    count integer := cardinality(payloads);
begin
    if payloads is null then
        perform trunkline.refuse_field('payloads', 'must not be null');
    elsif count = 0 then
        perform trunkline.refuse_field('payloads', 'must not be empty');
    elsif count > 10000 then
        perform trunkline.refuse_field('payloads',
            format('is %s messages, and the limit is 10000', count), 10000);
    end if;
    perform trunkline.check_shape('payloads', payloads, count);
    perform trunkline.check_shape('keys', keys, count);
    perform trunkline.check_shape('headers', headers, count);
    -- At once, as a call for each message would cost more than storing it.
    select sum(size), array_agg(size order by number) into bytes, sizes
    from (
        select trunkline.plain_bytes(payload, key) as size, number
        from unnest(payloads, keys) with ordinality as message (payload, key, number)
    ) plain;
    if headers is not null or 1048576 < any (sizes) or array_position(sizes, null) is not null then
        select sum(size), array_agg(size order by number) into bytes, sizes
        from (
            select trunkline.message_bytes(payload, key, header, format('[%s]', number)) as size,
                   number
            from unnest(payloads, keys, headers) with ordinality as message (payload, key, header, number)
        ) checked;
    end if;
    if bytes > 16777216 then
        perform trunkline.refuse_field('payloads',
            format('is %s bytes, and the limit is 16777216', bytes), 16777216);
    end if;
end
$$;
comment on function trunkline.check_messages is 'Internal: refuses arrays of messages that are malformed or exceed a limit; returns their sizes';
revoke execute on function trunkline.check_messages from public;
