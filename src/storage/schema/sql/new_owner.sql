create or replace function trunkline.new_owner() returns text
language sql stable
as $$
    select case when not trunkline.is_unlimited() then 'sql:' || session_user end
$$;
comment on function trunkline.new_owner is 'Internal: the owner of what the session''s role registers; null for nobody';
revoke execute on function trunkline.new_owner from public;
