-- Publishes one message when the caller's transaction commits. One function for each type of payload.
create or replace function trunkline.publish_at_commit(
    topic text, payload bytea, key bytea default null, headers jsonb default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    unlisten trunkline_nobody;
    perform trunkline.stage_one(topic, payload, key, headers, producer);
end
$$;
comment on function trunkline.publish_at_commit(text, bytea, bytea, jsonb, text) is 'Publishes a message when the transaction commits: the topic''s head is locked for the commit alone';
revoke execute on function trunkline.publish_at_commit(text, bytea, bytea, jsonb, text) from public;

create or replace function trunkline.publish_at_commit(
    topic text, payload text, key text default null, headers jsonb default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    unlisten trunkline_nobody;
    perform trunkline.stage_one(topic, convert_to(payload, 'UTF8'),
        convert_to(key, 'UTF8'), headers, producer);
end
$$;
comment on function trunkline.publish_at_commit(text, text, text, jsonb, text) is 'Publishes a message when the transaction commits: the topic''s head is locked for the commit alone';
revoke execute on function trunkline.publish_at_commit(text, text, text, jsonb, text) from public;

create or replace function trunkline.publish_at_commit(
    topic text, payload jsonb, key text default null, headers jsonb default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    unlisten trunkline_nobody;
    perform trunkline.stage_one(topic, convert_to(payload::text, 'UTF8'),
        convert_to(key, 'UTF8'), headers, producer);
end
$$;
comment on function trunkline.publish_at_commit(text, jsonb, text, jsonb, text) is 'Publishes a message when the transaction commits: the topic''s head is locked for the commit alone';
revoke execute on function trunkline.publish_at_commit(text, jsonb, text, jsonb, text) from public;

create or replace function trunkline.publish_at_commit(
    topic text, payload json, key text default null, headers jsonb default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    unlisten trunkline_nobody;
    perform trunkline.stage_one(topic, convert_to(payload::text, 'UTF8'),
        convert_to(key, 'UTF8'), headers, producer);
end
$$;
comment on function trunkline.publish_at_commit(text, json, text, jsonb, text) is 'Publishes a message when the transaction commits: the topic''s head is locked for the commit alone';
revoke execute on function trunkline.publish_at_commit(text, json, text, jsonb, text) from public;
