-- The producer of a role that names none.
create or replace function trunkline.own_producer() returns text
language sql stable
as $$
    select 'sql.' || regexp_replace(session_user, '[^A-Za-z0-9._-]', '_', 'g')
$$;
comment on function trunkline.own_producer is 'Internal: the producer of the session''s role';
revoke execute on function trunkline.own_producer from public;
