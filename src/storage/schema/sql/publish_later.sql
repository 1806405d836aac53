-- Publishes one message soon after the caller's transaction commits. One function for each type of
-- payload.
create or replace function trunkline.publish_later(
    topic text, payload bytea, key bytea default null, headers jsonb default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    done boolean;
begin
    unlisten trunkline_nobody;
    done := trunkline.enqueue_one(topic, payload, key, headers, producer);
end
$$;
comment on function trunkline.publish_later(text, bytea, bytea, jsonb, text) is 'Publishes a message soon after the transaction commits: a broker moves it into the log. Locks nothing that others need';
revoke execute on function trunkline.publish_later(text, bytea, bytea, jsonb, text) from public;

create or replace function trunkline.publish_later(
    topic text, payload text, key text default null, headers jsonb default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    done boolean;
begin
    unlisten trunkline_nobody;
    done := trunkline.enqueue_one(topic, convert_to(payload, 'UTF8'),
        convert_to(key, 'UTF8'), headers, producer);
end
$$;
comment on function trunkline.publish_later(text, text, text, jsonb, text) is 'Publishes a message soon after the transaction commits: a broker moves it into the log. Locks nothing that others need';
revoke execute on function trunkline.publish_later(text, text, text, jsonb, text) from public;

create or replace function trunkline.publish_later(
    topic text, payload jsonb, key text default null, headers jsonb default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    done boolean;
begin
    unlisten trunkline_nobody;
    done := trunkline.enqueue_one(topic, convert_to(payload::text, 'UTF8'),
        convert_to(key, 'UTF8'), headers, producer);
end
$$;
comment on function trunkline.publish_later(text, jsonb, text, jsonb, text) is 'Publishes a message soon after the transaction commits: a broker moves it into the log. Locks nothing that others need';
revoke execute on function trunkline.publish_later(text, jsonb, text, jsonb, text) from public;

create or replace function trunkline.publish_later(
    topic text, payload json, key text default null, headers jsonb default null,
    producer text default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    done boolean;
begin
    unlisten trunkline_nobody;
    done := trunkline.enqueue_one(topic, convert_to(payload::text, 'UTF8'),
        convert_to(key, 'UTF8'), headers, producer);
end
$$;
comment on function trunkline.publish_later(text, json, text, jsonb, text) is 'Publishes a message soon after the transaction commits: a broker moves it into the log. Locks nothing that others need';
revoke execute on function trunkline.publish_later(text, json, text, jsonb, text) from public;
