create or replace function trunkline.may(operations text[], topic text) returns boolean
language plpgsql stable
as $$
begin
    return exists (
        select from trunkline.access_grant g
        -- A longer name would be cut off and fit another role.
        join pg_roles on rolname = substr(g.principal, 5)::name and length(g.principal) <= 67
        where g.principal like 'sql:%' and g.operation = any (operations)
          and (g.topics = may.topic
               or right(g.topics, 1) = '*' and starts_with(may.topic, left(g.topics, -1)))
          and pg_has_role(session_user, pg_roles.oid, 'usage'));
end
$$;
comment on function trunkline.may is 'Internal: whether grants of the session''s role, or of one whose privileges it has, permit one of the operations on a topic';
revoke execute on function trunkline.may from public;
