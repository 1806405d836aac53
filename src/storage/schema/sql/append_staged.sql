-- Runs when a transaction commits, once for each of its staged messages. The first run appends all of
-- them: it locks the heads of the topics in the order of their names, as brokers do, so that no two
-- transactions wait for each other.
create or replace function trunkline.append_staged() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    own_transaction xid8 := pg_current_xact_id();
    staged record;
    batch  record;
    runs   record;
begin
    if not exists (select from trunkline.staged_message
                   where transaction = own_transaction and number = new.number) then
        return null;
    end if;
    perform trunkline.refuse_prepare();
    for staged in
        select distinct s.topic_id, s.topic from trunkline.staged_message s
        where s.transaction = own_transaction order by s.topic
    loop
        for batch in
            -- At most as much as a request of gRPC may hold.
            with gone as (
                delete from trunkline.staged_message s
                where s.transaction = own_transaction and s.topic_id = staged.topic_id
                returning s.*
            ), sized as (
                select *, row_number() over (order by number) as place,
                       sum(gone.bytes) over (order by number) as bytes_up_to
                from gone
            )
            select array_agg(payload order by number) as payloads,
                   array_agg(key order by number) as keys,
                   count(key) as keyed,
                   array_agg(sized.headers order by number) as headers,
                   count(sized.headers) as headed,
                   array_agg(producer_id order by number) as producers,
                   array_agg(register_for order by number) as register_for,
                   sum(sized.bytes)::integer as bytes
            from sized
            group by (place - 1) / 10000, bytes_up_to / 8388608
            order by min(number)
        loop
            runs := trunkline.producer_runs(batch.producers, batch.register_for);
            perform trunkline.append_directly(staged.topic, staged.topic_id, batch.payloads,
                case when batch.keyed > 0 then batch.keys end,
                case when batch.headed > 0 then batch.headers end,
                batch.bytes, runs.producers, runs.counts, runs.registered_for);
        end loop;
    end loop;
    return null;
end
$$;
comment on function trunkline.append_staged is 'Internal: appends the messages of publish_at_commit';
revoke execute on function trunkline.append_staged from public;

do $$
begin
    if not exists (select from pg_trigger where tgname = 'append_staged'
                   and tgrelid = 'trunkline.staged_message'::regclass) then
        create constraint trigger append_staged
        after insert on trunkline.staged_message deferrable initially deferred
        for each row execute function trunkline.append_staged();
        -- Also for a session that applies the changes of another server.
        alter table trunkline.staged_message enable always trigger append_staged;
    end if;
end
$$;
