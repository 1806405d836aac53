-- Moves messages of committed transactions from the outbox into the log, in the order of their ids.
--
-- A pass covers the transactions that are visible in its snapshot, in as many calls as it takes. The
-- pass before has moved everything that was visible in its own snapshot. What is new therefore either
-- has a greater id than all that were given out by then, or belongs to a transaction that was open then:
-- one of those that its snapshot lists, or one from the end of the snapshot up to the next number that
-- was to be given to a transaction. For an id is given out after its transaction has a number. So no call
-- walks over rows that were moved before and wait for a vacuum, however long another transaction stays
-- open.
--
-- Rows from another cluster, as after a restore, carry numbers of transactions that mean nothing here.
-- A pass without a pass before finds them too.
create or replace function trunkline.move_outbox(
    moved_snapshot text, moved_id bigint, moved_transaction bigint,
    pass_snapshot text, pass_id bigint, pass_transaction bigint, after_id bigint,
    max_messages integer, max_bytes bigint,
    only_topics integer[], skipped_topics integer[],
    out is_alone boolean, out snapshot text, out newest_id bigint, out next_transaction bigint, out last_id bigint,
    out is_complete boolean, out moved integer, out dropped integer,
    out topics integer[], out heads bigint[], out blocked integer[], out problems text[]
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
    choice   record;
    part     record;
    batch    record;
    runs     record;
    amount   integer;
    waited   boolean := false;
    base     bigint;
begin
    moved := 0;
    dropped := 0;
    topics := '{}';
    heads := '{}';
    blocked := '{}';
    problems := '{}';
    -- A broker that has lost its lease without knowing may still be at it.
    is_alone := pg_try_advisory_xact_lock(x'7472756e6b6d6f76'::bigint);
    if not is_alone then
        return;
    end if;
    newest_id := pass_id;
    next_transaction := pass_transaction;
    if pass_snapshot is null then
        -- In this order: what gets a number later gets a greater id.
        select case when is_called then last_value else 0 end into newest_id
        from trunkline.outbox_id_seq;
        -- The age of a number is its distance to the next one.
        select xmax::text::bigint + age(xmax::xid) into next_transaction
        from pg_snapshot_xmax(pg_current_snapshot()) as xmax;
    end if;
    -- One statement, and so one snapshot, finds the transactions that were open and their rows: one that
    -- ends in between would be missed for good.
    with recursive found (transaction) as (
        (select o.transaction from trunkline.outbox o
         where o.transaction >= pg_snapshot_xmax(moved_snapshot::pg_snapshot)
           and o.transaction < moved_transaction::text::xid8
         order by o.transaction limit 1)
        union all
        select (select o.transaction from trunkline.outbox o
                where o.transaction > found.transaction
                  and o.transaction < moved_transaction::text::xid8
                order by o.transaction limit 1)
        from found where found.transaction is not null
    ), was_open as (
        -- Those that are still open have nothing visible, however much they have published.
        select transaction
        from (select transaction from found
              union all
              select * from pg_snapshot_xip(moved_snapshot::pg_snapshot)) listed
        where pg_visible_in_snapshot(
            transaction, coalesce(pass_snapshot::pg_snapshot, pg_current_snapshot()))
    ), candidate as materialized (
        select next.* from (
            select o.ctid, o.id, o.topic_id, o.bytes, o.producer_id, o.register_for,
                   o.key is not null or o.headers is not null as has_more
            from trunkline.outbox o
            where o.id > greatest(coalesce(moved_id, 0), coalesce(after_id, 0))
              and (pass_snapshot is null
                   or pg_visible_in_snapshot(o.transaction, pass_snapshot::pg_snapshot)
                   or o.transaction >= pg_snapshot_xmax(pg_current_snapshot()))
              and (only_topics = '{}' or o.topic_id = any (only_topics))
              and o.topic_id <> all (skipped_topics)
            order by o.id limit max_messages
        ) next
        union all
        select late.* from was_open open
        cross join lateral (
            select o.ctid, o.id, o.topic_id, o.bytes, o.producer_id, o.register_for,
                   o.key is not null or o.headers is not null as has_more
            from trunkline.outbox o
            -- Compared as a row, and ordered so, which only the index by transactions serves. Of an
            -- outbox that was empty, statistics make the primary key look as good.
            where (o.transaction, o.id) > (open.transaction, coalesce(after_id, 0))
              and (o.transaction, o.id) <= (open.transaction, moved_id)
              and (pass_snapshot is null
                   or pg_visible_in_snapshot(o.transaction, pass_snapshot::pg_snapshot))
              and (only_topics = '{}' or o.topic_id = any (only_topics))
              and o.topic_id <> all (skipped_topics)
            order by o.transaction, o.id limit max_messages
        ) late
    ), sized as (
        select *, sum(bytes) over (order by id rows unbounded preceding) - bytes as bytes_before
        from (select * from candidate order by id limit max_messages) first
    )
    select array_agg(ctid) filter (where bytes_before < max_bytes) as tids,
           array_agg(topic_id) filter (where bytes_before < max_bytes) as topic_ids,
           max(id) filter (where bytes_before < max_bytes) as last_id,
           count(*) filter (where bytes_before < max_bytes) as chosen, count(*) as candidates,
           min(topic_id) as first_topic, max(topic_id) as last_topic,
           bool_or(has_more) or min(producer_id) <> max(producer_id)
               or count(register_for) not in (0, count(*)) as has_more,
           min(producer_id) as producer, min(register_for) as owner,
           coalesce(pass_snapshot, pg_current_snapshot()::text) as snapshot
    into choice
    from sized;
    last_id := choice.last_id;
    snapshot := choice.snapshot;
    is_complete := choice.candidates < max_messages and choice.candidates = choice.chosen;
    if choice.chosen = 0 and pass_snapshot is null then
        return;
    end if;
    for part in
        select t.id as topic_id, t.name as topic, choice.tids as tids
        from (select) one left join trunkline.topic t on t.id = choice.first_topic
        where choice.first_topic = choice.last_topic
        union all
        (select t.id, t.name, array_agg(c.tid)
         from unnest(choice.tids, choice.topic_ids) as c (tid, topic_id)
         left join trunkline.topic t on t.id = c.topic_id
         where choice.first_topic <> choice.last_topic
         group by t.id, t.name
         order by t.name)
    loop
        begin
            amount := 0;
            if part.topic_id is not null then
                perform from trunkline.topic_head h where h.topic_id = part.topic_id
                for no key update skip locked;
                if not found and not waited then
                    -- Once a call: the heads of other topics are locked meanwhile.
                    waited := true;
                    perform from trunkline.topic_head h where h.topic_id = part.topic_id
                    for no key update;
                elsif not found then
                    perform from trunkline.topic_head h where h.topic_id = part.topic_id;
                    if found then
                        blocked := blocked || part.topic_id;
                        problems := problems || ''::text;
                        continue;
                    end if;
                end if;
                if not found then
                    part.topic_id := null;
                end if;
            end if;
            if part.topic_id is null then
                -- The topic was deleted, and its messages with it.
                delete from trunkline.outbox o where o.ctid = any (part.tids);
                dropped := dropped + cardinality(part.tids);
                continue;
            end if;
            if choice.has_more then
                with gone as (
                    delete from trunkline.outbox o where o.ctid = any (part.tids)
                    returning o.id, o.producer_id, o.register_for, o.key, o.headers, o.payload, o.bytes
                )
                select array_agg(o.payload) as payloads,
                       case when count(o.key) > 0 then array_agg(o.key) end as keys,
                       case when count(o.headers) > 0 then array_agg(o.headers) end as headers,
                       array_agg(o.producer_id) as producers, array_agg(o.register_for) as owners,
                       sum(o.bytes)::integer as bytes
                into batch from (select * from gone order by id) o;
                -- An operator may have deleted some of them.
                amount := coalesce(cardinality(batch.payloads), 0);
                if amount > 0 then
                    runs := trunkline.producer_runs(batch.producers, batch.owners);
                    base := trunkline.append_messages(part.topic, part.topic_id, batch.payloads,
                        batch.keys, batch.headers, batch.bytes, runs.producers, runs.counts,
                        runs.registered_for, true);
                end if;
            else
                -- Of one producer, without keys and headers: half the work.
                with gone as (
                    delete from trunkline.outbox o where o.ctid = any (part.tids)
                    returning o.id, o.payload, o.bytes
                )
                select array_agg(o.payload) as payloads, sum(o.bytes)::integer as bytes
                into batch from (select * from gone order by id) o;
                amount := coalesce(cardinality(batch.payloads), 0);
                if amount > 0 then
                    base := trunkline.append_messages(part.topic, part.topic_id, batch.payloads,
                        null, null, batch.bytes, array[choice.producer], array[amount],
                        array[choice.owner], true);
                end if;
            end if;
            if amount > 0 then
                moved := moved + amount;
                topics := topics || part.topic_id;
                heads := heads || base + amount;
            end if;
        exception when others then
            -- A topic whose messages cannot be stored now holds up no other.
            if part.topic_id is null then
                raise;
            end if;
            blocked := blocked || part.topic_id;
            problems := problems || case when sqlstate = '55P03' then '' else format('%s (%s)', sqlerrm, sqlstate) end;
        end;
    end loop;
    -- The broker polls quickly for a second after it has moved something.
    update trunkline.outbox_watch set polled_until = clock_timestamp() + interval '1 s'
    where only_row and moved > 0
      and polled_until not between clock_timestamp() + interval '600 ms'
                               and clock_timestamp() + interval '2 s';
    -- As often, and after each pass of several calls, for a broker that takes over: unless messages
    -- were left, as it would not know of them.
    if (found or pass_snapshot is not null) and is_complete
       and cardinality(blocked || only_topics || skipped_topics) = 0
    then
        update trunkline.outbox_pass p
        set snapshot = move_outbox.snapshot, newest_id = move_outbox.newest_id,
            next_transaction = move_outbox.next_transaction, noted_in = pg_current_xact_id()
        where only_row;
    end if;
end
$$;
comment on function trunkline.move_outbox is 'Internal: moves messages from the outbox into the log, for brokers';
revoke execute on function trunkline.move_outbox from public;
