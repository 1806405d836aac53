create or replace function trunkline.create_topic(
    topic text, description text default '', labels jsonb default '{}',
    retention_age interval default null, retention_bytes bigint default null,
    retention_messages bigint default null, keep_unread boolean default false,
    if_missing boolean default false
) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    age_ms    bigint := case when isfinite(retention_age)
                        then ceil(extract(epoch from retention_age) * 1000) end;
    found_one trunkline.topic;
    differ    text[] := '{}';
    new_id    integer;
begin
    unlisten trunkline_nobody;
    perform trunkline.check_name('topic', topic);
    if not (trunkline.is_unlimited() or trunkline.may(array['admin'], topic))
       -- Whoever may use a topic gets it if there is one.
       and not (coalesce(if_missing, false)
                and trunkline.may(array['publish', 'consume', 'read'], topic)
                and exists (select from trunkline.topic t where t.name = create_topic.topic))
    then
        perform trunkline.refuse_right('admin', topic);
    end if;
    description := coalesce(description, '');
    if octet_length(convert_to(description, 'UTF8')) > 1024 then
        perform trunkline.refuse_field('description', format('is %s bytes, and the limit is 1024',
            octet_length(convert_to(description, 'UTF8'))), 1024);
    end if;
    labels := coalesce(labels, '{}');
    perform trunkline.check_headers('labels', labels);
    if age_ms < 1000 or age_ms > 3153600000000 or not isfinite(retention_age) then
        perform trunkline.refuse_field('retention_age', 'must be from 1 second to 36500 days');
    elsif retention_bytes < 0 then
        perform trunkline.refuse_field('retention_bytes', 'must not be negative');
    elsif retention_messages < 0 then
        perform trunkline.refuse_field('retention_messages', 'must not be negative');
    end if;
    retention_bytes := nullif(retention_bytes, 0);
    retention_messages := nullif(retention_messages, 0);
    keep_unread := coalesce(keep_unread, false);
    -- A name that is taken must not use up a number.
    if not exists (select from trunkline.topic t where t.name = create_topic.topic) then
        insert into trunkline.topic (name, description, labels, retention_age_ms, retention_bytes,
            retention_messages, keep_unread, created_by)
        values (create_topic.topic, create_topic.description, create_topic.labels, age_ms,
            create_topic.retention_bytes, create_topic.retention_messages,
            create_topic.keep_unread,
            trunkline.new_owner())
        on conflict (name) do nothing
        returning id into new_id;
    end if;
    if new_id is not null then
        insert into trunkline.topic_head (topic_id) values (new_id);
        perform trunkline.record_act('create_topic', topic);
        return true;
    end if;
    if not coalesce(if_missing, false) then
        perform trunkline.refuse('TOPIC_EXISTS', format('topic %s exists already', topic),
            jsonb_build_object('topic', topic));
    end if;
    -- What is left out is the same.
    select * into found_one from trunkline.topic t where t.name = create_topic.topic;
    if description <> '' and description <> found_one.description then
        differ := differ || 'description'::text;
    end if;
    if labels <> '{}' and labels <> found_one.labels then
        differ := differ || 'labels'::text;
    end if;
    if (age_ms is not null or retention_bytes is not null or retention_messages is not null
        or keep_unread)
       and (age_ms, retention_bytes, retention_messages, keep_unread)
           is distinct from (found_one.retention_age_ms, found_one.retention_bytes,
                             found_one.retention_messages, found_one.keep_unread)
    then
        differ := differ || 'retention'::text;
    end if;
    if cardinality(differ) > 0 then
        perform trunkline.refuse('TOPIC_DIFFERS', format('topic %s exists already, with another %s',
            topic, array_to_string(differ, ' and another ')),
            jsonb_build_object('topic', topic, 'fields', array_to_string(differ, ',')));
    end if;
    return false;
end
$$;
comment on function trunkline.create_topic is 'Creates a topic; returns true, or false if there is one already and if_missing permits that';
revoke execute on function trunkline.create_topic from public;
