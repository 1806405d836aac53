-- PostgreSQL puts its text in the place of a call, so it costs nothing.
create or replace function trunkline.plain_bytes(payload bytea, key bytea) returns integer
language sql immutable
as $$
    select octet_length(payload) + coalesce(octet_length(key), 0)
$$;
comment on function trunkline.plain_bytes is 'Internal: bytes of a message without headers';
revoke execute on function trunkline.plain_bytes from public;
