create or replace function trunkline.refuse_topic(topic text) returns void
language plpgsql
as $$
begin
    perform trunkline.check_name('topic', topic);
    perform trunkline.refuse('TOPIC_NOT_FOUND', format('topic %s does not exist', topic),
        jsonb_build_object('topic', topic));
end
$$;
comment on function trunkline.refuse_topic is 'Internal: refuses the name of a topic that does not exist, or does not for the session''s role';
revoke execute on function trunkline.refuse_topic from public;
