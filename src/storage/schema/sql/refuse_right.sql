create or replace function trunkline.refuse_right(operation text, topic text) returns void
language plpgsql
as $$
begin
    perform trunkline.refuse('NOT_GRANTED',
        format('sql:%s lacks a grant of %s on %s', session_user, operation, topic),
        jsonb_build_object('operation', operation, 'topic', topic));
end
$$;
comment on function trunkline.refuse_right is 'Internal: refuses a role that lacks a grant';
revoke execute on function trunkline.refuse_right from public;
