create or replace function trunkline.topic_info(topic text) returns trunkline.topics
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    info trunkline.topics;
begin
    unlisten trunkline_nobody;
    perform trunkline.check_name('topic', topic);
    perform trunkline.check_right(array['read', 'consume', 'publish', 'admin'], topic);
    select * into info from trunkline.topics t where t.topic = topic_info.topic;
    if not found then
        perform trunkline.refuse_topic(topic);
    end if;
    return info;
end
$$;
comment on function trunkline.topic_info is 'The ends, the size and the retention of a topic, as the view topics has them';
revoke execute on function trunkline.topic_info from public;
