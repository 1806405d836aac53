-- As publish_later, for many messages at once.
create or replace function trunkline.publish_later_many(
    topic text, payloads bytea[], keys bytea[] default null, headers jsonb[] default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    unlisten trunkline_nobody;
    perform trunkline.enqueue_all(topic, payloads, keys, headers, producer);
end
$$;
comment on function trunkline.publish_later_many(text, bytea[], bytea[], jsonb[], text) is 'Publishes up to 10,000 messages soon after the transaction commits, in order';
revoke execute on function trunkline.publish_later_many(text, bytea[], bytea[], jsonb[], text) from public;

create or replace function trunkline.publish_later_many(
    topic text, payloads text[], keys text[] default null, headers jsonb[] default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    unlisten trunkline_nobody;
    perform trunkline.enqueue_all(
        topic, trunkline.utf8('payloads', payloads), trunkline.utf8('keys', keys),
        headers, producer);
end
$$;
comment on function trunkline.publish_later_many(text, text[], text[], jsonb[], text) is 'Publishes up to 10,000 messages soon after the transaction commits, in order';
revoke execute on function trunkline.publish_later_many(text, text[], text[], jsonb[], text) from public;

create or replace function trunkline.publish_later_many(
    topic text, payloads jsonb[], keys text[] default null, headers jsonb[] default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    unlisten trunkline_nobody;
    perform trunkline.enqueue_all(
        topic, trunkline.utf8('payloads', payloads::text[]), trunkline.utf8('keys', keys),
        headers, producer);
end
$$;
comment on function trunkline.publish_later_many(text, jsonb[], text[], jsonb[], text) is 'Publishes up to 10,000 messages soon after the transaction commits, in order';
revoke execute on function trunkline.publish_later_many(text, jsonb[], text[], jsonb[], text) from public;

create or replace function trunkline.publish_later_many(
    topic text, payloads json[], keys text[] default null, headers jsonb[] default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    unlisten trunkline_nobody;
    perform trunkline.enqueue_all(
        topic, trunkline.utf8('payloads', payloads::text[]), trunkline.utf8('keys', keys),
        headers, producer);
end
$$;
comment on function trunkline.publish_later_many(text, json[], text[], jsonb[], text) is 'Publishes up to 10,000 messages soon after the transaction commits, in order';
revoke execute on function trunkline.publish_later_many(text, json[], text[], jsonb[], text) from public;
