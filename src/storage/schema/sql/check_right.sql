-- A topic on which the role has no right does not exist for it.
create or replace function trunkline.check_right(operations text[], topic text) returns void
language plpgsql stable
as $$
begin
    if trunkline.is_unlimited() or trunkline.may(operations, topic)
       -- Who may read the table sees every topic.
       or 'read' = any (operations) and has_table_privilege(session_user, 'trunkline.batch', 'select')
    then
        return;
    end if;
    if not trunkline.may(array['admin', 'publish', 'consume', 'read'], topic) then
        perform trunkline.refuse_topic(topic);
    end if;
    perform trunkline.refuse_right(operations[1], topic);
end
$$;
comment on function trunkline.check_right is 'Internal: refuses a role without one of the operations on a topic';
revoke execute on function trunkline.check_right from public;
