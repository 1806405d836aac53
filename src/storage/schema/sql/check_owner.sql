-- `owner` is that of a registration that exists. Members of a role use what belongs to the role.
create or replace function trunkline.check_owner(
    kind text, topic text, id text, owner text
) returns void
language plpgsql stable
as $$
declare
    metadata jsonb := jsonb_build_object('topic', topic, kind || '_id', id);
begin
    if trunkline.is_unlimited() then
        return;
    end if;
    if owner is null then
        perform trunkline.refuse('NO_OWNER', format(
            '%s %s on topic %s belongs to nobody; assign it with `trunkline %s assign`',
            kind, id, topic, kind), metadata);
    end if;
    if owner = 'sql:' || session_user or exists (
        select from pg_roles
        where rolname = substr(owner, 5)::name and owner like 'sql:%' and length(owner) <= 67
          and pg_has_role(session_user, pg_roles.oid, 'usage'))
    then
        return;
    end if;
    perform trunkline.refuse('NOT_OWNER',
        format('%s %s on topic %s belongs to another principal', kind, id, topic), metadata);
end
$$;
comment on function trunkline.check_owner is 'Internal: refuses a role whose producer or consumer it is not';
revoke execute on function trunkline.check_owner from public;
