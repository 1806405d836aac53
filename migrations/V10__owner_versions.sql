-- Tells versions of owners apart that a fail-over lost from those that follow it.

alter table trunkline.access_version
    add column owners_changed_at timestamptz not null default now();
comment on column trunkline.access_version.owners_changed_at is 'When an owner last changed: tells versions of owners apart that a fail-over lost from those that follow it';
comment on column trunkline.access_version.owners_changed_in is 'The transaction that last changed an owner, if it also wrote this row last';

create or replace function trunkline.raise_access_version() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    -- A row that this transaction has not written may come from a backup of another server, where
    -- the number of this transaction was another's.
    if tg_argv[0] = 'owners' then
        -- Once for all registrations of a topic that is deleted.
        update trunkline.access_version
        set version = version + 1, owner_version = version + 1, changed_at = clock_timestamp(),
            owners_changed_at = clock_timestamp(), owners_changed_in = txid_current()
        where owners_changed_in is distinct from txid_current()
           or xmin <> pg_current_xact_id()::xid;
    else
        update trunkline.access_version
        set version = version + 1, changed_at = clock_timestamp(),
            owners_changed_in = case when xmin = pg_current_xact_id()::xid
                                     then owners_changed_in end;
    end if;
    return null;
end
$$;
