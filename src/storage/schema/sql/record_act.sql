create or replace function trunkline.record_act(
    act text, topic text, subject text default null, details jsonb default '{}'
) returns void
language plpgsql
as $$
begin
    insert into trunkline.audit (act, outcome, principal, address, method, topic, subject, details)
    values (record_act.act, 'done', 'sql:' || session_user,
            case when family(inet_client_addr()) = 6 then '[' || host(inet_client_addr()) || ']'
                 else host(inet_client_addr()) end || ':' || inet_client_port(), 'sql/' || record_act.act,
            record_act.topic, record_act.subject, record_act.details);
end
$$;
comment on function trunkline.record_act is 'Internal: adds what was done from SQL to the audit';
revoke execute on function trunkline.record_act from public;
