-- Whoever may write the table could store anything there anyway. Functions run with the rights of
-- their owner, so `session_user` says who calls.
create or replace function trunkline.is_unlimited() returns boolean
language sql stable
as $$
    select has_table_privilege(session_user, 'trunkline.batch'::regclass, 'insert')
$$;
comment on function trunkline.is_unlimited is 'Internal: whether the session''s role may do everything, whatever is granted';
revoke execute on function trunkline.is_unlimited from public;
