-- ANALYZE and autovacuum run functions of others with the rights of a table's owner, in a session that
-- is a superuser's. PostgreSQL refuses UNLISTEN there, so each function that asks for the session's role
-- begins with it. It does nothing else, and costs a microsecond.
--
-- Plans are generic. For its values, PostgreSQL would find cheaper ones than for any, and then plan the
-- statements of append_messages anew in each call, which takes a third of a publish's time.
--
-- Publishes one message within the caller's transaction. One function for each type of payload: text
-- and JSON are stored as UTF-8.
create or replace function trunkline.publish(
    topic text, payload bytea, key bytea default null, headers jsonb default null,
    producer text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    unlisten trunkline_nobody;
    return trunkline.append_messages(topic, null, array[payload],
        case when key is not null then array[key] end,
        case when headers is not null then array[headers] end, null, array[producer], array[1],
        null, false);
end
$$;
comment on function trunkline.publish(text, bytea, bytea, jsonb, text) is 'Publishes a message and returns its offset. The topic''s head stays locked until the transaction ends';
revoke execute on function trunkline.publish(text, bytea, bytea, jsonb, text) from public;

create or replace function trunkline.publish(
    topic text, payload text, key text default null, headers jsonb default null,
    producer text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    unlisten trunkline_nobody;
    return trunkline.append_messages(topic, null, array[convert_to(payload, 'UTF8')],
        case when key is not null then array[convert_to(key, 'UTF8')] end,
        case when headers is not null then array[headers] end, null, array[producer], array[1],
        null, false);
end
$$;
comment on function trunkline.publish(text, text, text, jsonb, text) is 'Publishes a message and returns its offset. The topic''s head stays locked until the transaction ends';
revoke execute on function trunkline.publish(text, text, text, jsonb, text) from public;

create or replace function trunkline.publish(
    topic text, payload jsonb, key text default null, headers jsonb default null,
    producer text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    unlisten trunkline_nobody;
    return trunkline.append_messages(topic, null, array[convert_to(payload::text, 'UTF8')],
        case when key is not null then array[convert_to(key, 'UTF8')] end,
        case when headers is not null then array[headers] end, null, array[producer], array[1],
        null, false);
end
$$;
comment on function trunkline.publish(text, jsonb, text, jsonb, text) is 'Publishes a message and returns its offset. The topic''s head stays locked until the transaction ends';
revoke execute on function trunkline.publish(text, jsonb, text, jsonb, text) from public;

create or replace function trunkline.publish(
    topic text, payload json, key text default null, headers jsonb default null,
    producer text default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    unlisten trunkline_nobody;
    return trunkline.append_messages(topic, null, array[convert_to(payload::text, 'UTF8')],
        case when key is not null then array[convert_to(key, 'UTF8')] end,
        case when headers is not null then array[headers] end, null, array[producer], array[1],
        null, false);
end
$$;
comment on function trunkline.publish(text, json, text, jsonb, text) is 'Publishes a message and returns its offset. The topic''s head stays locked until the transaction ends';
revoke execute on function trunkline.publish(text, json, text, jsonb, text) from public;
