-- What was done and what was refused, by whom, from where and when. Rows are only ever added; the
-- owner of the table may remove old ones.

create table trunkline.audit (
    id        bigint generated always as identity primary key,
    at        timestamptz not null default clock_timestamp(),
    act       text collate "C" not null,
    outcome   text collate "C" not null,
    principal text collate "C",
    token_id  text collate "C",
    address   text collate "C",
    method    text collate "C" not null,
    topic     text collate "C",
    subject   text collate "C",
    reason    text collate "C",
    details   jsonb not null default '{}',
    count     bigint not null default 1
);
comment on table trunkline.audit is 'What was done and what was refused; append-only';
comment on column trunkline.audit.id is 'Tells rows of one moment apart';
comment on column trunkline.audit.at is 'When the row was added, right after the act; of denied calls, when they were counted';
comment on column trunkline.audit.act is 'What was done, such as create_topic; denied_call for a call that was refused';
comment on column trunkline.audit.outcome is 'done; unknown if the database did not confirm the act; denied; not_recorded for denied calls that were too many to list';
comment on column trunkline.audit.principal is 'Who did it; null if that is unknown, or if the broker does not authenticate';
comment on column trunkline.audit.token_id is 'The id of the token that was presented; null without one';
comment on column trunkline.audit.address is 'The client''s address, with its port if the row is of one call; null without a client';
comment on column trunkline.audit.method is 'The call, as package.Service/Method; empty without one, or if there is none of that name';
comment on column trunkline.audit.topic is 'The topic; null if it is about none';
comment on column trunkline.audit.subject is 'What it was done to, such as "producer till", "token ID" or "principal shop"; null if that is the topic';
comment on column trunkline.audit.reason is 'Why calls were denied; null for acts';
comment on column trunkline.audit.details is 'What else is worth knowing, as an object of texts; never a secret or a payload';
comment on column trunkline.audit.count is 'How many calls the row stands for';

create index audit_by_time on trunkline.audit (at, id);
create index audit_by_principal on trunkline.audit (principal, at, id) where principal is not null;
create index audit_by_topic on trunkline.audit (topic, at, id) where topic is not null;

-- Privileges alone keep other roles out. This also stops a broker whose role owns the tables, and an
-- owner's slip: rows are never changed, and only the owner removes them.
create function trunkline.keep_audit() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op <> 'UPDATE' and pg_has_role(
        (select relowner from pg_class where oid = tg_relid), 'usage')
    then
        return null;
    end if;
    raise exception 'trunkline.audit is append-only: % is not allowed', lower(tg_op)
        using errcode = 'insufficient_privilege';
end
$$;
comment on function trunkline.keep_audit is 'Refuses to change the audit, and to remove rows as anybody but its owner';

create trigger keep_audit
before update or delete or truncate on trunkline.audit
for each statement execute function trunkline.keep_audit();

create function trunkline.prune_audit(older_than interval) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    removed bigint;
begin
    delete from trunkline.audit where at < now() - older_than;
    get diagnostics removed = row_count;
    return removed;
end
$$;
comment on function trunkline.prune_audit is 'Removes the rows of the audit that are older than this, as its owner; returns how many';
revoke execute on function trunkline.prune_audit(interval) from public;
