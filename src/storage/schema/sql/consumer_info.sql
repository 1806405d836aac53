create or replace function trunkline.consumer_info(
    topic text, consumer text,
    out "position" bigint, out lag_messages bigint, out lag_seconds double precision,
    out holder text, out epoch bigint, out idle_seconds double precision
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    unlisten trunkline_nobody;
    perform trunkline.find_consumer(array['read', 'consume', 'admin'], topic, consumer, false);
    select c.position, c.lag_messages, c.lag_seconds, c.holder, c.epoch,
           extract(epoch from clock_timestamp() - c.updated_at)
    into "position", lag_messages, lag_seconds, holder, epoch, idle_seconds
    from trunkline.consumers c
    where c.topic = consumer_info.topic and c.consumer = consumer_info.consumer;
end
$$;
comment on function trunkline.consumer_info is 'How far behind a consumer is, who reads, and how long ago its position moved or its lease changed hands';
revoke execute on function trunkline.consumer_info from public;
