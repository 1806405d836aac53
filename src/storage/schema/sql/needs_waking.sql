-- A broker promises to poll quickly for a second at a time, so what is farther away is a time of another
-- server's clock.
create or replace function trunkline.needs_waking(polled_until timestamptz) returns boolean
language sql volatile
as $$
    select polled_until not between clock_timestamp() + interval '200 ms'
                                and clock_timestamp() + interval '2 s'
$$;
comment on function trunkline.needs_waking is 'Internal: whether no broker polls the outbox quickly';
revoke execute on function trunkline.needs_waking from public;
