create or replace function trunkline.message_bytes(
    payload bytea, key bytea, headers jsonb, "index" text default ''
) returns integer
language plpgsql stable
as $$
declare
    -- The name of an argument of many messages is a plural.
    s     text := case when "index" = '' then '' else 's' end;
    total bigint;
begin
    if payload is null then
        perform trunkline.refuse_field(format('payload%s%s', s, "index"), 'must not be null');
    end if;
    total := trunkline.plain_bytes(payload, key);
    if headers is not null then
        total := total + trunkline.check_headers('headers' || "index", headers);
    end if;
    if total > 1048576 then
        perform trunkline.refuse_field(format('payload%s%s', s, "index"),
            format('is %s bytes, and the limit is 1048576', total), 1048576);
    end if;
    return total;
end
$$;
comment on function trunkline.message_bytes is 'Internal: refuses a message that exceeds a limit; returns the size of payload, key and headers';
revoke execute on function trunkline.message_bytes from public;
