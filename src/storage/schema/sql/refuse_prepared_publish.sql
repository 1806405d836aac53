create or replace function trunkline.refuse_prepared_publish() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    perform trunkline.refuse_prepare();
    delete from trunkline.direct_publish p where p.transaction = new.transaction;
    return null;
end
$$;
comment on function trunkline.refuse_prepared_publish is 'Internal: refuses to prepare a transaction that published with publish';
revoke execute on function trunkline.refuse_prepared_publish from public;

do $$
begin
    if not exists (select from pg_trigger where tgname = 'refuse_prepared_publish'
                   and tgrelid = 'trunkline.direct_publish'::regclass) then
        create constraint trigger refuse_prepared_publish
        after insert on trunkline.direct_publish deferrable initially deferred
        for each row execute function trunkline.refuse_prepared_publish();
        -- Also for a session that applies the changes of another server.
        alter table trunkline.direct_publish enable always trigger refuse_prepared_publish;
    end if;
end
$$;
