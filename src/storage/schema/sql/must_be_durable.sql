-- A broker delivers what is committed, and an offset never goes to another message, so the commit must be
-- on disk. Weaker settings are raised, and stricter ones are kept.
create or replace function trunkline.must_be_durable() returns text
language sql volatile
as $$
    select case when current_setting('synchronous_commit') in ('off', 'local', 'remote_write')
                then set_config('synchronous_commit', 'on', true) end
$$;
comment on function trunkline.must_be_durable is 'Internal: has the transaction''s commit wait for the disk';
revoke execute on function trunkline.must_be_durable from public;
