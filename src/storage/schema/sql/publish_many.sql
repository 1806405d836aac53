-- Publishes messages as one batch within the caller's transaction.
create or replace function trunkline.publish_many(
    topic text, payloads bytea[], keys bytea[] default null, headers jsonb[] default null,
    producer text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    unlisten trunkline_nobody;
    return trunkline.publish_all(topic, payloads, keys, headers, producer);
end
$$;
comment on function trunkline.publish_many(text, bytea[], bytea[], jsonb[], text) is 'Publishes up to 10,000 messages, which get consecutive offsets, and returns the first offset';
revoke execute on function trunkline.publish_many(text, bytea[], bytea[], jsonb[], text) from public;

create or replace function trunkline.publish_many(
    topic text, payloads text[], keys text[] default null, headers jsonb[] default null,
    producer text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    unlisten trunkline_nobody;
    return trunkline.publish_all(
        topic, trunkline.utf8('payloads', payloads), trunkline.utf8('keys', keys),
        headers, producer);
end
$$;
comment on function trunkline.publish_many(text, text[], text[], jsonb[], text) is 'Publishes up to 10,000 messages, which get consecutive offsets, and returns the first offset';
revoke execute on function trunkline.publish_many(text, text[], text[], jsonb[], text) from public;

create or replace function trunkline.publish_many(
    topic text, payloads jsonb[], keys text[] default null, headers jsonb[] default null,
    producer text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    unlisten trunkline_nobody;
    return trunkline.publish_all(
        topic, trunkline.utf8('payloads', payloads::text[]), trunkline.utf8('keys', keys),
        headers, producer);
end
$$;
comment on function trunkline.publish_many(text, jsonb[], text[], jsonb[], text) is 'Publishes up to 10,000 messages, which get consecutive offsets, and returns the first offset';
revoke execute on function trunkline.publish_many(text, jsonb[], text[], jsonb[], text) from public;

create or replace function trunkline.publish_many(
    topic text, payloads json[], keys text[] default null, headers jsonb[] default null,
    producer text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    unlisten trunkline_nobody;
    return trunkline.publish_all(
        topic, trunkline.utf8('payloads', payloads::text[]), trunkline.utf8('keys', keys),
        headers, producer);
end
$$;
comment on function trunkline.publish_many(text, json[], text[], jsonb[], text) is 'Publishes up to 10,000 messages, which get consecutive offsets, and returns the first offset';
revoke execute on function trunkline.publish_many(text, json[], text[], jsonb[], text) from public;
