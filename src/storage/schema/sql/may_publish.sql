-- Whether the session's role may publish to a topic as a producer, at a glance: what this denies may be
-- permitted all the same, and `check_publisher` decides.
create or replace function trunkline.may_publish(topic text, owner text, epoch bigint) returns boolean
language sql stable
as $$
    select epoch = 0 and (trunkline.is_unlimited()
        or owner = 'sql:' || session_user and trunkline.may(array['publish'], topic))
$$;
comment on function trunkline.may_publish is 'Internal: whether the session''s role certainly may publish as a producer';
revoke execute on function trunkline.may_publish from public;
