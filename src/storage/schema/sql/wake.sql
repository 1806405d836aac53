-- A notification takes a lock of the whole cluster when its transaction commits, so only one transaction
-- in each second sends it. It may stay open for long; one of the next second then sends another.
-- A transaction that notifies cannot be prepared, so brokers poll more often where transactions can be.
create or replace function trunkline.wake() returns void
language plpgsql
as $$
begin
    if current_setting('max_prepared_transactions') = '0'
       and pg_try_advisory_xact_lock(
           x'7472756e6b6f7574'::bigint + extract(epoch from clock_timestamp())::bigint)
    then
        perform pg_notify('trunkline', 'sql o');
    end if;
end
$$;
comment on function trunkline.wake is 'Internal: has a broker look into the outbox when the transaction commits';
revoke execute on function trunkline.wake from public;
